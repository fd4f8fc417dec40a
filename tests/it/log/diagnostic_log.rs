//! A diagnostic log that nobody reads, or can read any more, slows nobody and keeps nobody from ending the process.

use std::env;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::sessions;
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::cpu_over;
use acequia::account::access_log::{AccessTarget, LogFormat};
use acequia::cli::run::start_log;
use acequia::plan::LogPlan;
use rustix::io::ioctl_fionread;

/// One that tells all it can, its sessions too. Its log is read until it has said where it listens; then the pipe is left
/// to a shell.
fn start(server: &Server, leave: &str) -> Proxy {
    let config = format!(
        "[log]\nlevel = \"trace\"\naccess = \"stderr\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [\"{}\"]",
        server.address
    );
    let script = format!("exec \"$@\" 2> >(sed -u '/admin port/q' >&2; {leave})");
    Proxy::setup(&config).under(&["bash", "-c", &script, "bash"]).start()
}

#[test]
fn a_reader_that_does_not_read_stops_nobody() {
    let server = Server::echo();
    // As long as it lives.
    let proxy = start(&server, "exec tail --pid=$$ -f /dev/null 2>&-");
    let unread = File::open(format!("/proc/{}/fd/2", proxy.pid())).unwrap();
    sessions(&proxy, 100);
    // A line is in one page of it: what is left of a page for which the next is too long stays free, up to a half.
    eventually("the pipe is as good as full", || {
        ioctl_fionread(&unread).unwrap() > 32 << 10
    });
    sessions(&proxy, 100);
    assert_eq!(proxy.get("/live").0, 200);
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn a_reader_that_is_gone_stops_nobody_and_costs_nothing() {
    let server = Server::echo();
    let proxy = start(&server, "");
    sessions(&proxy, 100);
    let used = cpu_over(&proxy, Duration::from_millis(500));
    assert!(
        used < Duration::from_millis(100),
        "{used:?} of CPU with nothing to say to anybody"
    );
    assert_eq!(proxy.get("/live").0, 200);
    assert_eq!(proxy.stop().code, Some(0));
}

/// Tells a process of this very test to say more than a pipe and the queue before it hold.
const TALK: &str = "ACEQUIA_TEST_TALKS";

#[test]
fn whoever_has_something_to_say_never_waits_for_a_reader() {
    if env::var_os(TALK).is_some() {
        let plan = LogPlan {
            format: LogFormat::Json,
            level: tracing::Level::INFO,
            access: AccessTarget::Off,
        };
        let (_written, _) = start_log(&plan);
        (0..20_000).for_each(|number| tracing::info!(number, "news"));
        return;
    }
    let mut itself = Command::new(env::current_exe().unwrap());
    itself.args(["--exact", "whoever_has_something_to_say_never_waits_for_a_reader"]);
    let mut talking = itself
        .env(TALK, "")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _unread = talking.stderr.take();
    assert!(Process::of(talking).wait().success());
}
