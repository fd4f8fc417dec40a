//! Beyond `max_connections` clients wait in the backlog, and are served in turn, whichever worker's queue they are in.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{Client, served_client};
use crate::support::counts::{active_sessions, wait_for_active_sessions};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::queue::{serve_in_turn, take_answered, waiting_clients};
use crate::support::server::Server;
use crate::support::usage::cpu_time_over;
use rustix::process::Signal;

fn config(server: &Server, process: &str, listener: &str) -> String {
    format!(
        r#"
        [runtime]
        workers = 2
        {process}

        [listeners.narrow]
        bind = "127.0.0.1:0"
        pool = "echo"
        {listener}

        [listeners.other]
        bind = "127.0.0.1:0"
        pool = "echo"

        [pools.echo]
        servers = ["{}"]
        "#,
        server.address
    )
}

fn pauses(proxy: &Proxy, listener: &str) -> f64 {
    let labels = [("listener", listener), ("reason", "limit")];
    proxy.metrics().sum("acequia_accept_pauses_total", &labels)
}

#[test]
fn one_at_a_time_everybody_is_served() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "max_connections = 1", ""));
    assert_eq!(serve_in_turn(waiting_clients(proxy.at("narrow"), 60)), 1);
    wait_for_active_sessions(&proxy, 0);
    assert_eq!(proxy.access_lines(60).len(), 60);
    assert!(pauses(&proxy, "narrow") > 0.0);
}

#[test]
fn also_over_two_listeners() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "max_connections = 1", ""));
    let mut all = waiting_clients(proxy.at("narrow"), 20);
    all.extend(waiting_clients(proxy.at("other"), 20));
    assert_eq!(serve_in_turn(all), 1);
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn a_listeners_limit_is_its_own() {
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
    assert!(take_answered(&mut waiting).is_empty(), "a fourth is served");
    assert_eq!(pauses(&proxy, "other"), 0.0);
    drop(served);
    assert!(serve_in_turn(waiting) <= 3);
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn waiting_costs_nothing_and_is_said_once() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "max_connections = 2", ""));
    let mut waiting = waiting_clients(proxy.at("narrow"), 100);
    let mut served = Vec::new();
    eventually("two are served", || {
        served.extend(take_answered(&mut waiting));
        served.len() == 2
    });
    let used = cpu_time_over(&proxy, Duration::from_secs(1));
    assert!(used < Duration::from_millis(100), "{used:?} of CPU");
    assert_eq!(active_sessions(&proxy), 2.0, "those who wait are no sessions");
    drop(served);
    serve_in_turn(waiting);
    let said: Vec<_> = proxy.log().into_iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(said.len(), 1, "one crowd, one line: {said:#?}");
    assert_eq!(said[0]["reason"], "limit");
}

/// One client has the only place, so many wait for it, and the end has begun.
fn draining_with_a_queue(server: &Server, runtime: &str, waiting: usize) -> (Proxy, Client, Vec<Client>) {
    let proxy = Proxy::start(&config(server, &format!("max_connections = 1\n{runtime}"), ""));
    let served = served_client(proxy.at("narrow"));
    let waiting = waiting_clients(proxy.at("narrow"), waiting);
    proxy.signal(Signal::TERM);
    eventually("it drains", || proxy.get("/ready").0 == 503);
    (proxy, served, waiting)
}

#[test]
fn those_who_wait_when_the_end_begins_are_still_served() {
    let server = Server::echo();
    let (proxy, served, waiting) = draining_with_a_queue(&server, "drain_timeout = \"1h\"", 40);
    drop(served);
    assert_eq!(serve_in_turn(waiting), 1);
    let stopped = proxy.wait();
    assert_eq!((stopped.code, stopped.access.len()), (Some(0), 41));
}

#[test]
fn those_who_get_no_place_until_the_cut_are_turned_away_and_counted() {
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
fn nobody_joins_them() {
    let server = Server::echo();
    let (proxy, served, waiting) = draining_with_a_queue(&server, "drain_timeout = \"1h\"", 1);
    let come = || TcpStream::connect_timeout(&proxy.at("narrow"), Duration::from_millis(100));
    eventually("the kernel lets nobody in", || {
        come().is_err_and(|error| error.kind() == ErrorKind::TimedOut)
    });
    drop(served);
    assert_eq!(serve_in_turn(waiting), 1);
    assert_eq!(proxy.wait().code, Some(0));
}
