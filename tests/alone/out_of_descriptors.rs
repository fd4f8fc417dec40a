//! Out of descriptors it pauses accepting, says so once, and recovers by itself; whoever was let in is also dialled for.

use std::time::Duration;

use crate::support::client::{Client, assert_echoes, served_client};
use crate::support::counts::{log_count, wait_for_active_sessions};
use crate::support::eventually;
use crate::support::limits::{descriptor_limits, leave_descriptors, limit_descriptors, raise_descriptor_limit};
use crate::support::proxy::Proxy;
use crate::support::queue::{serve_in_turn, take_answered, waiting_clients};
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
    // The others wait. That costs nothing, and the servers are still looked after.
    let checked = checks(&proxy, "pass");
    let used = cpu_time_over(&proxy, Duration::from_secs(2));
    assert!(used < Duration::from_millis(300), "{used:?} of CPU while clients wait");
    eventually("checks go on", || checks(&proxy, "pass") > checked + 3.0);
    assert!(descriptors(&proxy) <= 64);
    drop(served);
    let most = serve_in_turn(waiting);
    assert!((1..32).contains(&most), "{most} at once");
    wait_for_active_sessions(&proxy, 0);
    let lines = proxy.access_lines(CLIENTS);
    assert!(lines.iter().all(|line| line["ending"] == "client_closed"));
    assert_eq!(connect_failures(&proxy), 0.0);
    assert_eq!(checks(&proxy, "fail") + checks(&proxy, "timeout"), 0.0);
    let pauses = log_count(&proxy, "accepting pauses");
    assert_eq!(pauses, 1, "one crowd, one line");
}

#[test]
fn also_with_many_addresses_and_after_reloads_whoever_is_let_in_has_his_descriptors() {
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
        serve_in_turn(waiting_clients(proxy.at("plain"), CLIENTS));
        assert_eq!(proxy.access_lines(CLIENTS).len(), CLIENTS);
        assert!(
            log_count(&proxy, "accepting pauses") > 0,
            "all fit in: this shows nothing"
        );
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
fn when_the_limit_falls_under_what_is_open_it_pauses_and_recovers() {
    let server = Server::echo();
    let mut proxy = Proxy::start(&config(&server));
    let mut old: Vec<Client> = (0..3).map(|_| served_client(proxy.at("plain"))).collect();
    let (before, _) = descriptor_limits(proxy.pid());
    limit_descriptors(&proxy, 8);
    let mut waiting = waiting_clients(proxy.at("plain"), 20);
    eventually("it says that it pauses", || log_count(&proxy, "accepting pauses") > 0);
    let used = cpu_time_over(&proxy, Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(300),
        "{used:?} of CPU while it has no descriptor"
    );
    for client in &mut old {
        assert_eq!(client.send(b"ping").read(4), b"ping", "sessions go on");
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
    assert!(warnings <= 3, "{warnings} warnings in two seconds: {log:#?}");
    limit_descriptors(&proxy, before);
    serve_in_turn(waiting);
    let metrics = proxy.metrics();
    assert!(metrics.sum("acequia_accept_pauses_total", &[("reason", "descriptors")]) > 0.0);
    assert_eq!(metrics.sum("acequia_server_up", &[]), 1.0, "no server is blamed");
    assert_eq!(connect_failures(&proxy), 0.0);
    eventually("it says that it goes on", || {
        served_client(proxy.at("plain"));
        log_count(&proxy, "accepting again") > 0
    });
    assert!(proxy.is_running());
}

/// One whose servers are not checked, so that it opens nothing of its own accord.
fn quiet(servers: &[&Server]) -> Proxy {
    Proxy::setup(&config_of(servers).replace("interval = \"100ms\"", "check = \"off\"")).launch()
}

/// Gives back what was taken.
fn unlimited(proxy: &Proxy) {
    limit_descriptors(proxy, descriptor_limits(proxy.pid()).1);
}

#[test]
fn bulk_for_which_there_is_no_pipe_is_copied() {
    const BYTES: usize = 8 << 20;
    let server = Server::echo();
    let proxy = quiet(&[&server]);
    let client = served_client(proxy.at("plain"));
    let before = pipes(&proxy);
    leave_descriptors(&proxy, 0);
    assert_echoes(&client, BYTES);
    assert_eq!(pipes(&proxy), before);
    leave_descriptors(&proxy, 1); // of the two that a pipe needs
    assert_echoes(&client, BYTES);
    assert_eq!(pipes(&proxy), before);
    unlimited(&proxy);
    assert_echoes(&client, BYTES);
    assert!(pipes(&proxy) > before, "it is not spliced as soon as it can be");
}

#[test]
fn who_cannot_be_dialled_for_is_told_at_once_and_no_server_is_blamed() {
    let servers = [Server::echo(), Server::echo()];
    let proxy = quiet(&[&servers[0], &servers[1]]);
    leave_descriptors(&proxy, 1);
    for _ in 0..5 {
        assert_eq!(Client::connect(proxy.at("plain")).read_all(), b"");
    }
    let lines = proxy.access_lines(5);
    assert!(
        lines.iter().all(|line| line["ending"] == "connect_failed"),
        "{lines:#?}"
    );
    unlimited(&proxy);
    drop(served_client(proxy.at("plain")));
    let metrics = proxy.metrics();
    let shortages = metrics.sum("acequia_connect_failures_total", &[("reason", "no_descriptors")]);
    assert_eq!((shortages, connect_failures(&proxy)), (10.0, 10.0), "each was tried");
    assert_eq!(metrics.sum("acequia_server_up", &[]), 2.0);
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
}

#[test]
fn while_only_some_checks_can_be_made_that_is_said_once_and_nobody_is_down() {
    let servers: Vec<_> = (0..12).map(|_| Server::silent()).collect();
    let proxy = Proxy::start(&config_of(&servers.iter().collect::<Vec<_>>()));
    leave_descriptors(&proxy, 1);
    let short = || log_count(&proxy, "cannot check servers, for a shortage of our own");
    eventually("it is said", || short() > 0);
    let before = checks(&proxy, "pass");
    eventually("some are made", || checks(&proxy, "pass") > before + 50.0);
    assert_eq!(short(), 1, "one shortage, one line");
    unlimited(&proxy);
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_server_up", &[]), 12.0);
    assert_eq!(metrics.sum("acequia_health_transitions_total", &[("to", "down")]), 0.0);
    assert_eq!(checks(&proxy, "fail") + checks(&proxy, "timeout"), 0.0);
}

#[test]
fn the_admin_port_answers_who_is_there_and_the_others_as_soon_as_it_can() {
    const METRICS: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let server = Server::echo();
    let proxy = quiet(&[&server]);
    let open = descriptors(&proxy);
    let mut early = Client::connect(proxy.admin());
    eventually("it is let in", || descriptors(&proxy) > open);
    leave_descriptors(&proxy, 0);
    let answer = String::from_utf8(early.send(METRICS).read_all()).unwrap();
    assert!(answer.contains("acequia_server_up{"), "{answer}");
    leave_descriptors(&proxy, 0); // what that visit had is free
    let mut late = Client::connect(proxy.admin());
    late.send(METRICS);
    let used = cpu_time_over(&proxy, Duration::from_millis(500));
    assert!(
        used < Duration::from_millis(100),
        "{used:?} of CPU while it cannot let anybody in"
    );
    unlimited(&proxy);
    assert!(late.read_all().starts_with(b"HTTP/1.1 200 OK"));
}

#[test]
fn a_reload_that_gets_no_descriptor_changes_nothing_and_the_next_one_works() {
    let server = Server::echo();
    let proxy = quiet(&[&server]);
    let other = config(&server).replace("[listeners.plain]", "[listeners.other]");
    leave_descriptors(&proxy, 0);
    proxy.rewrite(&other);
    proxy.signal(Signal::HUP);
    eventually("it is said", || {
        log_count(&proxy, "not reloaded: the configuration before it stays in force") == 1
    });
    unlimited(&proxy);
    drop(served_client(proxy.at("plain")));
    assert!(proxy.reload(&other));
}
