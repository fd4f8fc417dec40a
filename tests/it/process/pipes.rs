//! A configuration that is read from a pipe.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::commands::FINE;
use crate::support::process::{Process, finished, must};
use crate::support::proxy::{BINARY, Proxy, acequia};
use crate::support::{eventually, wait_for};
use rustix::fs::OFlags;
use rustix::process::Signal;

/// Opens a FIFO for writing, once somebody reads from it.
fn writer_once_read(fifo: &Path) -> File {
    wait_for("the FIFO is opened for reading", || {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        OpenOptions::new().write(true).custom_flags(flags).open(fifo).ok()
    })
}

#[test]
fn commands_that_wait_for_the_writer_of_a_pipe_are_ended_by_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    must(Command::new("mkfifo").arg(&fifo));
    for command in [&["run", "-c"][..], &["check", "-c"], &["import", "haproxy"]] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut program = Command::new("env");
            program.args(["--default-signal=TERM,INT", BINARY]); // a shell's background job ignores SIGINT
            let mut waiting = Process::start(program.args(command).arg(&fifo));
            let _writer = writer_once_read(&fifo);
            waiting.signal(signal);
            assert_eq!(waiting.wait().signal(), Some(signal.as_raw()), "{command:?}");
        }
    }
}

#[test]
fn a_configuration_from_a_pipe_is_checked_and_cannot_be_reloaded() {
    let script = "printf %s \"$1\" | \"$0\" check -c /dev/stdin";
    let checked = must(Command::new("sh").args(["-c", script, BINARY, FINE]));
    assert!(checked.contains("/dev/stdin: 1 listener"), "{checked}");
    // `$3` is the path of the configuration.
    let script = "exec \"$0\" run -c /dev/stdin < <(cat \"$3\")";
    let watched = format!("[runtime]\nwatch = true\n{FINE}");
    let mut proxy = Proxy::setup(&watched).under(&["bash", "-c", script]).launch();
    let socket = proxy.directory().join("acequia/admin.sock");
    proxy.signal(Signal::HUP);
    eventually("the reload has failed", || proxy.reloads() == (0.0, 1.0));
    let reloaded = finished(acequia(&["reload", "--socket"]).arg(&socket));
    assert_eq!(reloaded.code, Some(1), "{reloaded:#?}");
    for expected in [
        "was read from a pipe, and cannot be read again",
        "/dev/stdin",
        "restart with `-c`",
    ] {
        assert!(reloaded.stderr.contains(expected), "{expected}: {reloaded:#?}");
    }
    let has_warned = |line: &serde_json::Value| line["message"].to_string().contains("`watch` has no effect");
    assert!(proxy.log().iter().any(has_warned));
    assert_eq!(proxy.reloads(), (0.0, 2.0), "a pipe is not watched");
    assert!(proxy.is_running());
}
