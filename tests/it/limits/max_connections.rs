//! Beyond `max_connections`, clients wait in the accept queue and are served in turn, whichever worker's queue they
//! are in.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{Client, served_client};
use crate::support::counts::{active_sessions, log_lines, wait_for_active_sessions};
use crate::support::proxy::Proxy;
use crate::support::queue::{close_when_served, take_answered, waiting_clients};
use crate::support::server::Server;
use crate::support::usage::cpu_time_over;
use crate::support::{configs, eventually};
use rustix::process::Signal;

/// The configuration of two listeners, with these keys for `[runtime]` and for the listener `narrow`.
fn config(server: &Server, runtime: &str, narrow: &str) -> String {
    [
        format!("[runtime]\nworkers = 2\n{runtime}\n"),
        configs::listener("narrow", "echo", narrow),
        configs::listener("other", "echo", ""),
        configs::pool("echo", &[server.address], ""),
    ]
    .concat()
}

fn pauses(proxy: &Proxy, listener: &str) -> f64 {
    let labels = [("listener", listener), ("reason", "limit")];
    proxy.metrics().sum("acequia_accept_pauses_total", &labels)
}

#[test]
fn with_max_connections_1_all_clients_are_served_one_at_a_time() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "max_connections = 1", ""));
    let most_at_once = close_when_served(waiting_clients(proxy.at("narrow"), 60));
    assert_eq!(most_at_once, 1);
    wait_for_active_sessions(&proxy, 0);
    assert_eq!(proxy.access_lines(60).len(), 60);
    assert!(pauses(&proxy, "narrow") > 0.0);
}

#[test]
fn the_process_limit_spans_listeners() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "max_connections = 1", ""));
    let mut all = waiting_clients(proxy.at("narrow"), 20);
    all.extend(waiting_clients(proxy.at("other"), 20));
    let most_at_once = close_when_served(all);
    assert_eq!(most_at_once, 1);
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn a_listeners_limit_does_not_affect_other_listeners() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "", "max_connections = 3"));
    let mut waiting = waiting_clients(proxy.at("narrow"), 40);
    let mut served = Vec::new();
    eventually("three are served", || {
        served.extend(take_answered(&mut waiting));
        served.len() == 3
    });
    for _ in 0..20 {
        served_client(proxy.at("other"));
    }
    assert!(take_answered(&mut waiting).is_empty(), "expected no fourth session");
    assert_eq!(pauses(&proxy, "other"), 0.0);
    drop(served);
    let most_at_once = close_when_served(waiting);
    assert!(most_at_once <= 3);
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn waiting_clients_cost_almost_no_cpu_and_only_one_log_line() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "max_connections = 2", ""));
    let mut waiting = waiting_clients(proxy.at("narrow"), 100);
    let mut served = Vec::new();
    eventually("two are served", || {
        served.extend(take_answered(&mut waiting));
        served.len() == 2
    });
    let used = cpu_time_over(&proxy, Duration::from_secs(1));
    assert!(
        used < Duration::from_millis(100),
        "expected less than 100 ms of CPU time while clients wait, used {used:?}"
    );
    assert_eq!(
        active_sessions(&proxy),
        2.0,
        "expected waiting clients not to count as sessions"
    );
    drop(served);
    close_when_served(waiting);
    assert_eq!(log_lines(&proxy, "accepting pauses", 1)[0]["reason"], "limit");
}

/// A draining proxy, the client of its only session (`max_connections` is 1), and this many clients in the accept
/// queue.
fn draining_with_a_queue(server: &Server, runtime: &str, count: usize) -> (Proxy, Client, Vec<Client>) {
    let proxy = Proxy::start(&config(server, &format!("max_connections = 1\n{runtime}"), ""));
    let served = served_client(proxy.at("narrow"));
    let waiting = waiting_clients(proxy.at("narrow"), count);
    proxy.signal(Signal::TERM);
    eventually("draining begins", || proxy.get("/ready").0 == 503);
    (proxy, served, waiting)
}

#[test]
fn clients_queued_when_draining_begins_are_served() {
    let server = Server::echo();
    let (proxy, served, waiting) = draining_with_a_queue(&server, "drain_timeout = \"1h\"", 40);
    drop(served);
    let most_at_once = close_when_served(waiting);
    assert_eq!(most_at_once, 1);
    let stopped = proxy.wait();
    assert_eq!((stopped.code, stopped.access.len()), (Some(0), 41));
}

#[test]
fn clients_still_queued_at_the_drain_timeout_are_reset_and_counted() {
    let server = Server::echo();
    let (proxy, mut served, waiting) = draining_with_a_queue(&server, "drain_timeout = \"500ms\"", 7);
    for mut client in waiting {
        client.0.set_nonblocking(false).expect("a socket");
        client.must_be_reset();
    }
    served.must_be_reset();
    let stopped = proxy.wait();
    assert_eq!((stopped.code, stopped.access.len()), (Some(0), 1));
    let turned_away = stopped.log.iter().filter_map(|line| line["clients"].as_u64());
    assert_eq!(turned_away.sum::<u64>(), 7, "{:#?}", stopped.log);
}

#[test]
fn no_client_joins_the_queue_while_draining() {
    let server = Server::echo();
    let (proxy, served, waiting) = draining_with_a_queue(&server, "drain_timeout = \"1h\"", 1);
    let connect = || TcpStream::connect_timeout(&proxy.at("narrow"), Duration::from_millis(100));
    eventually("the kernel drops new connections", || {
        connect().is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    });
    drop(served);
    let most_at_once = close_when_served(waiting);
    assert_eq!(most_at_once, 1);
    assert_eq!(proxy.wait().code, Some(0));
}
