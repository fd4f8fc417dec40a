//! When the access log cannot be written, lines are dropped and traffic is not slowed: every line is written or counted
//! as dropped, the failure is logged once, and writing resumes by itself.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Command;
use std::thread::scope;

use crate::support::client::{Client, ask, run_sessions};
use crate::support::counts::{log_count, log_lines};
use crate::support::eventually;
use crate::support::process::{finished, must};
use crate::support::proxy::{Proxy, Setup, acequia, config_directory};
use crate::support::server::Server;
use rustix::process::Signal;
use serde_json::Value;

const FAILS: &str =
    "cannot write the access log, lines that its buffer cannot hold are lost until it can be written again";
const GOES_ON: &str = "the access log can be written again";

fn config(server: &Server, target: &str) -> String {
    format!(
        "[log]\naccess = \"{target}\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [listeners.tls]\nbind = \"127.0.0.1:0\"\nroutes = [{{ sni = \"a.example\", pool = \"p\" }}]\n\
         [pools.p]\nservers = [\"{}\"]",
        server.address
    )
}

/// A proxy that starts after these shell commands. They run in the configuration's directory, in a new mount namespace
/// that the proxy shares.
fn after(commands: &str, config: &str) -> Setup {
    let script = format!("{commands} && exec \"$@\"");
    Proxy::setup(config).under(&["unshare", "--map-root-user", "--mount", "sh", "-ec", &script, "sh"])
}

/// The number of complete JSON lines in a log.
fn lines(log: &Path) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.filter(|line| serde_json::from_str::<Value>(line).is_ok()).count()
}

fn dropped(proxy: &Proxy) -> usize {
    proxy.metrics().sum("acequia_log_lines_dropped_total", &[]) as usize
}

#[test]
fn lines_are_dropped_while_the_disk_is_full_and_written_again_afterwards() {
    let server = Server::echo();
    let mount_disk = "mkdir disk && mount -t tmpfs -o size=64k none disk";
    let proxy = after(mount_disk, &config(&server, "disk/access.log")).start();
    let disk = format!("/proc/{}/root{}/disk", proxy.pid(), proxy.directory().display());
    let [log, ballast] = ["access.log", "ballast"].map(|name| Path::new(&disk).join(name));
    run_sessions(&proxy, 1);
    eventually("the line is written", || lines(&log) == 1);
    let full = fs::write(&ballast, vec![0; 1 << 17]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    run_sessions(&proxy, 60);
    eventually("lines are dropped", || dropped(&proxy) > 0);
    fs::remove_file(&ballast).unwrap();
    run_sessions(&proxy, 1);
    eventually("every line is written or counted", || {
        lines(&log) + dropped(&proxy) == 62
    });
    log_lines(&proxy, FAILS, 1);
    log_lines(&proxy, GOES_ON, 1);
}

#[test]
fn lines_pending_on_a_full_disk_are_counted_as_dropped_when_the_log_is_reopened() {
    let server = Server::echo();
    let proxy = after("ln -s /dev/full access.log", &config(&server, "access.log")).start();
    let log = proxy.directory().join("access.log");
    run_sessions(&proxy, 5);
    log_lines(&proxy, FAILS, 1);
    fs::remove_file(&log).unwrap();
    proxy.signal(Signal::USR1);
    eventually("the pending lines are counted as dropped", || dropped(&proxy) > 0);
    run_sessions(&proxy, 1);
    eventually("every line is written or counted", || {
        lines(&log) + dropped(&proxy) == 6
    });
    log_lines(&proxy, GOES_ON, 1);
}

#[test]
fn when_reopening_fails_the_error_is_logged_and_the_old_file_stays_in_use() {
    let server = Server::echo();
    let proxy = after("mkdir logs", &config(&server, "logs/access.log")).start();
    let directory = proxy.directory().join("logs");
    let failures = || log_count(&proxy, "cannot reopen the access log, continuing with the old file");
    let mut old = fs::File::open(directory.join("access.log")).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    proxy.signal(Signal::USR1);
    eventually("the failure is logged", || failures() == 1);
    run_sessions(&proxy, 1);
    eventually("the old file gets the line", || {
        old.read_to_end(&mut Vec::new()).unwrap() > 0
    });
    fs::create_dir(&directory).unwrap();
    proxy.signal(Signal::USR1);
    eventually("the new file exists", || directory.join("access.log").exists());
    run_sessions(&proxy, 1);
    eventually("the line is in the new file", || {
        lines(&directory.join("access.log")) == 1
    });
    assert_eq!((failures(), dropped(&proxy)), (1, 0));
}

#[test]
fn a_fifo_without_a_reader_is_an_error_and_does_not_block() {
    let server = Server::echo();
    let directory = config_directory("acequia.toml", &config(&server, "./fifo"));
    must(Command::new("mkfifo").arg(directory.path().join("fifo")));
    let failed = finished(acequia(&["run"]).current_dir(directory.path()));
    assert_eq!(failed.code, Some(3), "{failed:#?}");
    assert!(failed.stderr.contains("cannot write the access log"), "{failed:#?}");
    assert!(failed.stderr.contains("fifo: "), "{failed:#?}");
    assert!(failed.stderr.contains("a FIFO needs a reader"), "{failed:#?}");
    let proxy = Proxy::start(&config(&server, "access.log"));
    must(Command::new("mkfifo").arg(proxy.directory().join("fifo")));
    assert!(!proxy.reload(&config(&server, "./fifo")));
    run_sessions(&proxy, 1);
    eventually("the line is in the old file", || {
        lines(&proxy.directory().join("access.log")) == 1
    });
}

#[test]
fn traffic_goes_on_and_lines_are_dropped_when_the_reader_of_stdout_is_gone() {
    let server = Server::echo();
    let mut proxy = Proxy::setup(&config(&server, "stdout")).unread().start();
    proxy.close_stdout();
    run_sessions(&proxy, 60);
    eventually("lines are dropped", || dropped(&proxy) > 0);
    log_lines(&proxy, FAILS, 1);
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn without_standard_output_the_process_serves_and_stops_cleanly() {
    let server = Server::echo();
    let under = ["sh", "-c", "exec \"$@\" >&-", "sh"];
    let proxy = Proxy::setup(&config(&server, "stdout")).under(&under).start();
    run_sessions(&proxy, 20);
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn the_process_ends_even_if_the_access_log_is_not_read() {
    let server = Server::echo();
    let proxy = Proxy::setup(&config(&server, "stdout")).unread().start();
    run_sessions(&proxy, 250); // more than a pipe holds
    let stopped = proxy.stop();
    assert_eq!(stopped.code, Some(0));
    let lost = "nobody reads the access log: its last lines are lost";
    assert!(stopped.log.iter().any(|line| line["message"] == lost), "{stopped:#?}");
}

/// Sessions that match no route, by four clients at once. Clients close with a reset, so that no port stays in
/// TIME_WAIT.
fn burst(proxy: &Proxy, sessions: usize) {
    scope(|all| {
        for client in 1..=4 {
            let source = format!("127.0.0.{client}");
            all.spawn(move || {
                for _ in 0..sessions / 4 {
                    let mut client = Client::connect_from(&source, proxy.at("tls"));
                    client.send(b"plain");
                    assert_eq!(client.read_all(), b"");
                    client.reset();
                }
            });
        }
    });
}

#[test]
fn every_line_of_an_unread_burst_is_written_or_counted_as_dropped() {
    // More than the pipe and the queue of 16 Ki lines hold.
    const SESSIONS: usize = 20_000;
    let server = Server::echo();
    let mut proxy = Proxy::setup(&config(&server, "stdout")).unread().start();
    burst(&proxy, SESSIONS);
    eventually("all sessions are over", || {
        proxy.metrics().sum("acequia_sessions_total", &[("ending", "no_route")]) == SESSIONS as f64
    });
    let lost = dropped(&proxy);
    assert!(lost > 0);
    assert_eq!(ask(proxy.at("l"), b"still here"), b"still here");
    eventually("the dropped line is counted", || dropped(&proxy) == lost + 1);
    proxy.read_stdout();
    eventually("all other lines are written", || {
        proxy.access().len() == SESSIONS - lost
    });
    run_sessions(&proxy, 1);
    eventually("the next line is written", || {
        proxy.access().len() == SESSIONS - lost + 1
    });
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_connections_total", &[]), (SESSIONS + 2) as f64);
    assert_eq!(metrics.sum("acequia_sessions_total", &[]), (SESSIONS + 2) as f64);
    assert_eq!(metrics.sum("acequia_sessions_active", &[]), 0.0);
    assert_eq!(dropped(&proxy), lost + 1);
}

#[test]
fn a_file_size_limit_drops_lines_and_does_not_end_the_process() {
    let server = Server::echo();
    let under = ["prlimit", "--fsize=2000"];
    let proxy = Proxy::setup(&config(&server, "access.log")).under(&under).start();
    run_sessions(&proxy, 60);
    eventually("lines are dropped", || dropped(&proxy) > 0);
    log_lines(&proxy, FAILS, 1);
    run_sessions(&proxy, 1);
    assert_eq!(proxy.stop().code, Some(0));
}
