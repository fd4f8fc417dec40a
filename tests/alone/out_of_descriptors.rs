//! Without free descriptors acequia pauses accepting, logs it once, and recovers by itself. An accepted client has the
//! descriptors that its session needs, unless the limit is lowered while acequia runs.

use std::time::Duration;

use crate::support::client::{Client, assert_echoes, served_client};
use crate::support::counts::{log_count, wait_for_active_sessions};
use crate::support::eventually;
use crate::support::limits::{descriptor_limits, leave_free_descriptors, limit_descriptors, raise_descriptor_limit};
use crate::support::proxy::Proxy;
use crate::support::queue::{close_when_served, take_answered, waiting_clients};
use crate::support::server::{Server, list};
use crate::support::usage::{cpu_time_over, descriptors, pipes};
use rustix::process::Signal;

fn config(server: &Server) -> String {
    config_of(&[server])
}

fn config_of(servers: &[&Server]) -> String {
    format!(
        r#"
        [runtime]
        workers = 2

        [listeners.plain]
        bind = "127.0.0.1:0"
        pool = "echo"

        [pools.echo]
        servers = [{}]
        health = {{ interval = "100ms" }}
        "#,
        list(servers)
    )
}

fn checks(proxy: &Proxy, result: &str) -> f64 {
    proxy
        .metrics()
        .sum("acequia_health_checks_total", &[("result", result)])
}

fn connect_failures(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_connect_failures_total", &[])
}

#[test]
fn with_64_descriptors_500_clients_are_served_in_turn() {
    const CLIENTS: usize = 500;
    raise_descriptor_limit();
    let server = Server::echo();
    let proxy = Proxy::setup(&config(&server))
        .under(&["bash", "-c", r#"ulimit -n 64; exec "$0" "$@""#])
        .start();
    assert_eq!(descriptor_limits(proxy.pid()), (64, 64));
    let mut waiting = waiting_clients(proxy.at("plain"), CLIENTS);
    let mut served = Vec::new();
    eventually("some are served", || {
        served.extend(take_answered(&mut waiting));
        log_count(&proxy, "accepting pauses") > 0 && served.len() > 2
    });
    // The others wait. That costs little CPU time, and servers are still checked.
    let checked = checks(&proxy, "pass");
    let used = cpu_time_over(&proxy, Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(300),
        "expected less than 300 ms of CPU time while clients wait, used {used:?}"
    );
    eventually("checks go on", || checks(&proxy, "pass") > checked + 3.0);
    assert!(descriptors(&proxy) <= 64);
    drop(served);
    let most_at_once = close_when_served(waiting);
    assert!(
        (1..32).contains(&most_at_once),
        "expected 1 to 31 clients at once, got {most_at_once}"
    );
    wait_for_active_sessions(&proxy, 0);
    let lines = proxy.access_lines(CLIENTS);
    assert!(lines.iter().all(|line| line["ending"] == "client_closed"));
    assert_eq!(connect_failures(&proxy), 0.0);
    assert_eq!(checks(&proxy, "fail") + checks(&proxy, "timeout"), 0.0);
    let pauses = log_count(&proxy, "accepting pauses");
    assert_eq!(pauses, 1, "expected one log line for one shortage");
}

#[test]
fn accepted_clients_have_descriptors_with_many_addresses_and_after_reloads() {
    const CLIENTS: usize = 100;
    raise_descriptor_limit();
    let server = Server::echo();
    let few = config(&server).replace("workers = 2", "workers = 8");
    let many = few.replace(
        r#""127.0.0.1:0""#,
        &format!("[{}]", [r#""127.0.0.1:0""#; 12].join(", ")),
    );
    for reloads in [0, 2] {
        let proxy = Proxy::setup(if reloads == 0 { &many } else { &few })
            .under(&["bash", "-c", r#"ulimit -n 220; exec "$0" "$@""#])
            .start();
        for _ in 0..reloads {
            assert!(proxy.reload(&many));
        }
        close_when_served(waiting_clients(proxy.at("plain"), CLIENTS));
        assert_eq!(proxy.access_lines(CLIENTS).len(), CLIENTS);
        assert!(
            log_count(&proxy, "accepting pauses") > 0,
            "all clients fit: the test shows nothing"
        );
        // The pauses in the log have the reason `limit`: sessions are bounded so that descriptors do not run out.
        let by_descriptors = [("reason", "descriptors")];
        let pauses = proxy.metrics().sum("acequia_accept_pauses_total", &by_descriptors);
        assert_eq!(
            (pauses, connect_failures(&proxy)),
            (0.0, 0.0),
            "after {reloads} reloads"
        );
    }
}

#[test]
fn accepting_pauses_while_the_limit_is_below_the_open_descriptors() {
    let server = Server::echo();
    let mut proxy = Proxy::start(&config(&server));
    let mut old: Vec<Client> = (0..3).map(|_| served_client(proxy.at("plain"))).collect();
    let (before, _) = descriptor_limits(proxy.pid());
    limit_descriptors(&proxy, 8);
    let mut waiting = waiting_clients(proxy.at("plain"), 20);
    eventually("the pause is logged", || log_count(&proxy, "accepting pauses") > 0);
    let used = cpu_time_over(&proxy, Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(300),
        "expected less than 300 ms of CPU time without descriptors, used {used:?}"
    );
    for client in &mut old {
        assert_eq!(client.send(b"ping").read(4), b"ping", "expected open sessions to go on");
    }
    assert!(take_answered(&mut waiting).is_empty());
    let log = proxy.log();
    let pauses: Vec<_> = log
        .iter()
        .filter(|line| line["message"] == "accepting pauses")
        .collect();
    assert_eq!(pauses.len(), 1, "{pauses:#?}");
    assert_eq!(pauses[0]["reason"], "descriptors");
    let warnings = log.iter().filter(|line| line["level"] == "WARN").count();
    assert!(
        warnings <= 3,
        "expected at most 3 warnings in two seconds, got {warnings}: {log:#?}"
    );
    limit_descriptors(&proxy, before);
    close_when_served(waiting);
    let metrics = proxy.metrics();
    assert!(metrics.sum("acequia_accept_pauses_total", &[("reason", "descriptors")]) > 0.0);
    assert_eq!(
        metrics.sum("acequia_server_up", &[]),
        1.0,
        "expected no server to be marked down"
    );
    assert_eq!(connect_failures(&proxy), 0.0);
    eventually("the end of the pause is logged", || {
        served_client(proxy.at("plain"));
        log_count(&proxy, "accepting again") > 0
    });
    assert!(proxy.is_running());
}

/// A proxy without health checks: it opens no descriptors by itself.
fn unchecked(servers: &[&Server]) -> Proxy {
    Proxy::setup(&config_of(servers).replace("interval = \"100ms\"", "check = \"off\"")).launch()
}

/// Raises the soft limit to the hard limit again.
fn lift_limit(proxy: &Proxy) {
    limit_descriptors(proxy, descriptor_limits(proxy.pid()).1);
}

#[test]
fn bulk_data_is_copied_while_no_pipe_can_be_opened() {
    const BYTES: usize = 8 << 20;
    let server = Server::echo();
    let proxy = unchecked(&[&server]);
    let client = served_client(proxy.at("plain"));
    let before = pipes(&proxy);
    leave_free_descriptors(&proxy, 0);
    assert_echoes(&client, BYTES);
    assert_eq!(pipes(&proxy), before);
    leave_free_descriptors(&proxy, 1); // a pipe needs two
    assert_echoes(&client, BYTES);
    assert_eq!(pipes(&proxy), before);
    lift_limit(&proxy);
    assert_echoes(&client, BYTES);
    assert!(pipes(&proxy) > before, "expected splice to be used again");
}

#[test]
fn a_session_without_a_descriptor_for_its_connect_fails_and_no_server_is_ejected() {
    let servers = [Server::echo(), Server::echo()];
    let proxy = unchecked(&[&servers[0], &servers[1]]);
    leave_free_descriptors(&proxy, 1); // for the client
    for _ in 0..5 {
        assert_eq!(Client::connect(proxy.at("plain")).read_all(), b"");
    }
    let lines = proxy.access_lines(5);
    assert!(
        lines.iter().all(|line| line["ending"] == "connect_failed"),
        "{lines:#?}"
    );
    lift_limit(&proxy);
    drop(served_client(proxy.at("plain")));
    let metrics = proxy.metrics();
    let shortages = metrics.sum("acequia_connect_failures_total", &[("reason", "no_descriptors")]);
    assert_eq!(
        (shortages, connect_failures(&proxy)),
        (10.0, 10.0),
        "expected two attempts in each of five sessions"
    );
    assert_eq!(metrics.sum("acequia_server_up", &[]), 2.0);
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
}

#[test]
fn a_shortage_that_stops_some_checks_is_logged_once_and_marks_no_server_down() {
    let servers: Vec<_> = (0..12).map(|_| Server::silent()).collect();
    let proxy = Proxy::start(&config_of(&servers.iter().collect::<Vec<_>>()));
    leave_free_descriptors(&proxy, 1);
    let shortages = || {
        log_count(
            &proxy,
            "cannot check servers: out of local ports, file descriptors, processes or memory",
        )
    };
    eventually("the shortage is logged", || shortages() > 0);
    let before = checks(&proxy, "pass");
    eventually("50 checks are made", || checks(&proxy, "pass") > before + 50.0);
    assert_eq!(shortages(), 1, "expected one log line for one shortage");
    lift_limit(&proxy);
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_server_up", &[]), 12.0);
    assert_eq!(metrics.sum("acequia_health_transitions_total", &[("to", "down")]), 0.0);
    assert_eq!(checks(&proxy, "fail") + checks(&proxy, "timeout"), 0.0);
}

#[test]
fn the_admin_port_answers_accepted_clients_at_once_and_later_clients_when_descriptors_are_free() {
    const METRICS: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let server = Server::echo();
    let proxy = unchecked(&[&server]);
    let open = descriptors(&proxy);
    let mut early = Client::connect(proxy.admin());
    eventually("the connection is accepted", || descriptors(&proxy) > open);
    leave_free_descriptors(&proxy, 0);
    let answer = String::from_utf8(early.send(METRICS).read_all()).unwrap();
    assert!(answer.contains("acequia_server_up{"), "{answer}");
    leave_free_descriptors(&proxy, 0); // the closed connection has freed one
    let mut late = Client::connect(proxy.admin());
    late.send(METRICS);
    let used = cpu_time_over(&proxy, Duration::from_millis(500));
    assert!(
        used < Duration::from_millis(100),
        "expected less than 100 ms of CPU time while acequia cannot accept, used {used:?}"
    );
    let failures = log_count(&proxy, "cannot accept clients on the admin port, trying again");
    assert_eq!(failures, 1, "expected one log line for one shortage");
    lift_limit(&proxy);
    assert!(late.read_all().starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn a_reload_without_descriptors_changes_nothing_and_a_later_reload_works() {
    let server = Server::echo();
    let proxy = unchecked(&[&server]);
    let other = config(&server).replace("[listeners.plain]", "[listeners.other]");
    leave_free_descriptors(&proxy, 0);
    proxy.rewrite(&other);
    proxy.signal(Signal::HUP);
    eventually("the rejected reload is logged", || {
        log_count(&proxy, "not reloaded: the current configuration stays in force") == 1
    });
    lift_limit(&proxy);
    drop(served_client(proxy.at("plain")));
    assert!(proxy.reload(&other));
}
