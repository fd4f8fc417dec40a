//! Draining: open sessions may finish within a bound, new connections are refused, and every session is logged.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::mpsc::channel;

use crate::support::client::{Client, ask};
use crate::support::configs::one_pool;
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::proxy::{Proxy, acequia, config_directory};
use crate::support::server::Server;
use rustix::process::Signal;

fn start(server: &Server, runtime: &str) -> Proxy {
    Proxy::start(&format!("[runtime]\n{runtime}\n{}", one_pool(&[server.address], "")))
}

/// An open session, after one exchange.
fn session(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"ping").read(4);
    client
}

fn is_listener_closed(proxy: &Proxy) -> bool {
    Client::try_connect(proxy.at("l")).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn sessions_finish_after(signal: Signal) {
    let server = Server::echo();
    let proxy = start(&server, "drain_delay = \"2s\"\ndrain_timeout = \"1h\"");
    let mut running = session(&proxy);
    proxy.signal(signal);
    eventually("draining begins", || proxy.get("/ready").0 == 503);
    assert_eq!(ask(proxy.at("l"), b"in the delay"), b"in the delay");
    eventually("the listener is closed", || is_listener_closed(&proxy));
    assert_eq!(proxy.get("/ready").0, 503);
    assert_eq!(running.send(b"goes on").read(7), b"goes on");
    assert_eq!(running.finish().read_all(), b"");
    let stopped = proxy.wait();
    assert_eq!(stopped.code, Some(0));
    let endings: Vec<_> = stopped.access.iter().map(|line| line["ending"].clone()).collect();
    assert_eq!(endings, ["client_closed", "client_closed"]);
    assert_eq!(stopped.access[1]["bytes_up"], b"ping".len() + b"goes on".len());
}

#[test]
fn sigterm_lets_sessions_finish() {
    sessions_finish_after(Signal::TERM);
}

#[test]
fn sigint_lets_sessions_finish() {
    sessions_finish_after(Signal::INT);
}

#[test]
fn without_sessions_the_process_ends_at_once() {
    let server = Server::echo();
    let stopped = start(&server, "drain_timeout = \"1h\"").stop();
    assert_eq!((stopped.code, stopped.access.len()), (Some(0), 0));
}

/// A server that echoes, and reports how each session ended: with an error, or `None` for the end of the stream.
fn reporting_server() -> (Server, std::sync::mpsc::Receiver<Option<ErrorKind>>) {
    let (sender, results) = channel();
    let server = Server::run(move |mut stream| {
        let mut from = stream.try_clone().expect("a descriptor");
        let ended = std::io::copy(&mut from, &mut stream);
        let _ = sender.send(ended.err().map(|error| error.kind()));
    });
    (server, results)
}

#[test]
fn sessions_left_at_the_drain_timeout_are_reset_on_both_sides() {
    let (server, results) = reporting_server();
    let proxy = start(&server, "drain_timeout = \"300ms\"");
    let mut clients = [session(&proxy), session(&proxy)];
    proxy.signal(Signal::TERM);
    clients.iter_mut().for_each(Client::must_be_reset);
    for _ in 0..2 {
        assert_eq!(
            results.recv_timeout(crate::support::PATIENCE),
            Ok(Some(ErrorKind::ConnectionReset)),
            "expected a reset on the server's side"
        );
    }
    let stopped = proxy.wait();
    assert_eq!(stopped.code, Some(0));
    let endings: Vec<_> = stopped.access.iter().map(|line| line["ending"].clone()).collect();
    assert_eq!(endings, ["drained", "drained"]);
}

/// The signals are sent one after the other, to a process with an open session. Only the last signal cuts the
/// session.
fn the_last_signal_cuts(runtime: &str, signals: &[Signal]) {
    let server = Server::echo();
    let proxy = start(&server, runtime);
    let mut client = session(&proxy);
    let (last, before) = signals.split_last().expect("there is one");
    for signal in before {
        proxy.signal(*signal);
        eventually("it is draining", || proxy.get("/ready").0 == 503);
        assert_eq!(
            client.send(b"ping").read(4),
            b"ping",
            "expected {signal:?} to leave the session open"
        );
    }
    proxy.signal(*last);
    client.must_be_reset();
    let stopped = proxy.wait();
    assert_eq!(
        (stopped.code, &stopped.access[0]["ending"]),
        (Some(0), &"drained".into())
    );
}

const LONG: &str = "drain_timeout = \"1h\"";
const LONG_DELAY: &str = "drain_delay = \"1h\"\ndrain_timeout = \"1h\"";

#[test]
fn a_second_sigint_cuts_at_once() {
    the_last_signal_cuts(LONG, &[Signal::INT, Signal::INT]);
}

#[test]
fn a_second_sigint_also_ends_the_delay() {
    the_last_signal_cuts(LONG_DELAY, &[Signal::INT, Signal::INT]);
}

#[test]
fn sigquit_cuts_at_once() {
    the_last_signal_cuts(LONG_DELAY, &[Signal::QUIT]);
    the_last_signal_cuts(LONG, &[Signal::TERM, Signal::QUIT]);
    the_last_signal_cuts(LONG_DELAY, &[Signal::INT, Signal::QUIT]);
}

#[test]
fn sigterms_before_and_between_do_not_change_that_the_second_sigint_cuts() {
    for runtime in [LONG, LONG_DELAY] {
        the_last_signal_cuts(
            runtime,
            &[Signal::TERM, Signal::TERM, Signal::INT, Signal::TERM, Signal::INT],
        );
    }
}

#[test]
fn a_repeated_sigterm_changes_nothing() {
    let server = Server::echo();
    let proxy = start(&server, LONG);
    let mut client = session(&proxy);
    for _ in 0..3 {
        proxy.signal(Signal::TERM);
        eventually("it is draining", || proxy.get("/ready").0 == 503);
        assert_eq!(client.send(b"ping").read(4), b"ping");
    }
    assert_eq!(client.finish().read_all(), b"");
    let stopped = proxy.wait();
    assert_eq!(
        (stopped.code, &stopped.access[0]["ending"]),
        (Some(0), &"client_closed".into())
    );
}

#[test]
fn a_client_still_sending_its_hello_is_cut_at_the_drain_timeout() {
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[runtime]\ndrain_timeout = \"200ms\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\nhello_timeout = \"1h\"\n\
         [[listeners.l.routes]]\nsni = \"a.example\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]",
        server.address
    ));
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"\x16\x03\x01");
    eventually("the session is open", || {
        proxy.metrics().sum("acequia_sessions_active", &[]) == 1.0
    });
    let stopped = proxy.stop();
    client.must_be_reset();
    assert_eq!(
        (stopped.code, &stopped.access[0]["ending"]),
        (Some(0), &"drained".into())
    );
}

#[test]
fn all_access_log_lines_are_written_before_the_process_ends() {
    let server = Server::echo();
    let proxy = start(&server, "drain_timeout = \"1h\"");
    for _ in 0..200 {
        ask(proxy.at("l"), b"x");
    }
    assert_eq!(proxy.stop().access.len(), 200);
}

#[test]
fn sigusr1_reopens_the_access_log_while_draining() {
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[log]\naccess = \"access.log\"\n[runtime]\ndrain_delay = \"1h\"\ndrain_timeout = \"1h\"\n{}",
        one_pool(&[server.address], "")
    ));
    let log = proxy.directory().join("access.log");
    proxy.signal(Signal::TERM);
    eventually("draining begins", || proxy.get("/ready").0 == 503);
    std::fs::rename(&log, log.with_extension("old")).expect("the log exists");
    proxy.signal(Signal::USR1);
    eventually("there is a new file", || log.exists());
    proxy.signal(Signal::QUIT);
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_signal_during_the_start_ends_the_process_cleanly_or_has_no_effect() {
    for last in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let store = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = format!(
            "[providers.etcd]\nendpoints = [\"http://{}\"]\n[remote]\nfrom = \"etcd:/acequia/edge\"\n",
            store.local_addr().unwrap()
        );
        let directory = config_directory("acequia.toml", &config);
        let mut starting = Process::start(acequia(&["run", "-c", "acequia.toml"]).current_dir(directory.path()));
        let _silent = store.accept().unwrap(); // the start waits for the answer
        // HUP and USR1 must have no effect: without a handler, they would end the process.
        for signal in [Signal::HUP, Signal::USR1, last] {
            starting.signal(signal);
        }
        assert_eq!(
            starting.wait().code(),
            Some(0),
            "{last:?}: {:?}",
            starting.stderr.lines()
        );
    }
}
