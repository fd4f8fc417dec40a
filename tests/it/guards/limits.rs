//! Guards that limit sessions and their rate.

use std::io::{Read, Write};

use crate::support::client::{Client, served_client};
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{configs, eventually};

/// Two listeners with the guard `g`.
fn config(server: &Server, guard: &str) -> String {
    [
        format!("[guards.g]\n{guard}\n"),
        configs::listener("l", "p", "guards = \"g\""),
        configs::listener("m", "p", "guards = \"g\""),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ]
    .concat()
}

fn refusals(proxy: &Proxy, reason: &str) -> f64 {
    proxy
        .metrics()
        .sum("acequia_guard_refusals_total", &[("reason", reason)])
}

/// A client from this address to which an echo has come back; `None`: it was refused.
fn served_from(source: &str, proxy: &Proxy, listener: &str) -> Option<Client> {
    let mut client = Client::try_connect_from(source, proxy.at(listener)).ok()?;
    let mut bytes = [0; 4];
    let sent = client.0.write_all(b"ping");
    let echoed = sent.and_then(|()| client.0.read_exact(&mut bytes));
    echoed.is_ok().then_some(client)
}

#[test]
fn a_guard_of_two_listeners_limits_both_together() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 3\nsessions_per_source = 2"));
    let first = served_from("127.0.0.1", &proxy, "l").unwrap();
    let second = served_from("127.0.0.1", &proxy, "m").unwrap();
    assert!(served_from("127.0.0.1", &proxy, "l").is_none());
    assert_eq!(refusals(&proxy, "sessions_per_source"), 1.0);
    let third = served_from("127.0.0.2", &proxy, "l").unwrap();
    assert!(served_from("127.0.0.3", &proxy, "m").is_none());
    assert_eq!(refusals(&proxy, "sessions"), 1.0);
    let metrics = proxy.metrics();
    let sum = |name| metrics.sum(name, &[("guard", "g")]);
    assert_eq!(
        (sum("acequia_guard_sessions"), sum("acequia_guard_sources")),
        (3.0, 2.0)
    );
    wait_for_ended_sessions(&proxy, "limited", 2);
    drop((first, second, third));
    wait_for_active_sessions(&proxy, 0);
    assert_eq!(proxy.metrics().sum("acequia_guard_sessions", &[]), 0.0);
    served_client(proxy.at("l"));
}

#[test]
fn a_flood_of_one_source_is_refused_with_few_log_lines_and_other_sources_are_served() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "rate_per_source = \"1/h\"\nburst = 5"));
    let served = (0..300)
        .filter(|_| served_from("127.0.0.66", &proxy, "l").is_some())
        .count();
    assert_eq!(served, 5);
    for last in 1..20 {
        assert!(served_from(&format!("127.0.0.{last}"), &proxy, "m").is_some());
    }
    wait_for_ended_sessions(&proxy, "limited", 295);
    assert_eq!(refusals(&proxy, "rate_per_source"), 295.0);
    wait_for_active_sessions(&proxy, 0);
    let lines = proxy.stop().access;
    let limited: Vec<_> = lines.iter().filter(|line| line["ending"] == "limited").collect();
    // At most 10 refusals a second are logged, and 10 in one burst: 100 lines would take 9 s, longer than the flood.
    assert!((10..100).contains(&limited.len()), "{} lines", limited.len());
    assert!(limited.iter().all(|line| line["guard_reason"] == "rate_per_source"));
    let suppressed: u64 = limited.iter().map(|line| line["suppressed"].as_u64().unwrap()).sum();
    // A line has the number of refusals before it that were not logged. The sum is less than 295 if the last refusals
    // were not logged.
    assert!(suppressed + limited.len() as u64 <= 295);
    assert_eq!(
        lines.len() - limited.len(),
        5 + 19,
        "expected a line for each served client"
    );
}

#[test]
fn the_rate_of_a_guard_is_shared_by_its_listeners() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "rate = \"7/h\""));
    let served: Vec<_> = (0..4)
        .flat_map(|_| {
            [
                served_from("127.0.0.1", &proxy, "l"),
                served_from("127.0.0.2", &proxy, "m"),
            ]
        })
        .map(|client| client.is_some())
        .collect();
    // The default burst is what the rate allows in one second, but at least 1. So of the 8 clients, the first is served
    // and the other 7 are refused: the next one would be served after an hour / 7.
    assert_eq!(served.iter().filter(|served| **served).count(), 1, "{served:?}");
    assert_eq!(refusals(&proxy, "rate"), 7.0);
}

#[test]
fn after_a_reload_with_a_higher_rate_no_client_waits_for_the_old_rate() {
    let server = Server::echo();
    for key in ["rate", "rate_per_source"] {
        let proxy = Proxy::start(&config(&server, &format!("{key} = \"1/h\"")));
        assert!(served_from("127.0.0.1", &proxy, "l").is_some());
        assert!(served_from("127.0.0.1", &proxy, "l").is_none());
        // At the old rate, the next client would be served an hour after the first one.
        assert!(proxy.reload(&config(&server, &format!("{key} = \"100/s\""))));
        eventually("a client is served", || served_from("127.0.0.1", &proxy, "m").is_some());
    }
}

#[test]
fn report_only_admits_all_clients_and_reports_those_over_a_limit() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 1\nreport_only = true"));
    let first = served_client(proxy.at("l"));
    let mut clients = vec![served_client(proxy.at("m"))];
    let reports = || {
        proxy
            .metrics()
            .sum("acequia_guard_reports_total", &[("reason", "sessions")])
    };
    assert_eq!(reports(), 1.0);
    assert_eq!(proxy.metrics().sum("acequia_guard_refusals_total", &[]), 0.0);
    // The second client, which is over the limit, does not count towards it. So after the first client has left, the
    // third one is within the limit.
    drop(first);
    wait_for_active_sessions(&proxy, 1);
    clients.push(served_client(proxy.at("m")));
    assert_eq!(reports(), 1.0);
    drop(clients);
    let lines = proxy.access_lines(3);
    // The session of the second client ends like any other.
    let reported: Vec<_> = lines.iter().filter(|line| line["guard_reason"] == "sessions").collect();
    assert_eq!(reported.len(), 1);
    assert_eq!(
        (&reported[0]["guard"], &reported[0]["ending"]),
        (&"g".into(), &"client_closed".into())
    );
}

#[test]
fn a_reload_keeps_the_counts_of_a_guard_and_a_reload_without_the_guard_admits_all() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 2\nrate_per_source = \"1/h\"\nburst = 2"));
    let held = served_from("127.0.0.1", &proxy, "l").unwrap();
    assert!(proxy.reload(&config(
        &server,
        "sessions = 2\nrate_per_source = \"1/h\"\nburst = 3\nsources_max = 50"
    )));
    assert_eq!(proxy.metrics().sum("acequia_guard_sessions", &[]), 1.0);
    let second = served_from("127.0.0.1", &proxy, "m").unwrap();
    assert!(served_from("127.0.0.2", &proxy, "m").is_none());
    assert_eq!(refusals(&proxy, "sessions"), 1.0);
    drop(held);
    eventually("only `second` is open", || {
        proxy.metrics().sum("acequia_guard_sessions", &[]) == 1.0
    });
    // The burst is 3 now, and its first two sessions were `held` and `second`.
    assert!(
        served_from("127.0.0.1", &proxy, "m").is_some(),
        "expected the third session of the burst to be served"
    );
    eventually("only `second` is open again", || {
        proxy.metrics().sum("acequia_guard_sessions", &[]) == 1.0
    });
    assert!(served_from("127.0.0.1", &proxy, "m").is_none());
    assert_eq!(refusals(&proxy, "rate_per_source"), 1.0);
    drop(second);
    let without_guard = [
        configs::listener("l", "p", ""),
        configs::listener("m", "p", ""),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ];
    assert!(proxy.reload(&without_guard.concat()));
    assert!(served_from("127.0.0.1", &proxy, "m").is_some());
}

/// PROXY headers name the clients, because the host of the test has no addresses in two IPv6 networks.
#[test]
fn a_source_is_an_ipv4_address_or_an_ipv6_network_of_64_bits_unless_by_says_otherwise() {
    let server = Server::echo();
    // With this rate, only the first client of each source is served.
    let config = |by: &str| {
        config(&server, &format!("rate_per_source = \"1/h\"\n{by}")).replace(
            "guards = \"g\"",
            "guards = \"g\"\naccept_proxy = { from = \"127.0.0.1\" }",
        )
    };
    let is_served = |proxy: &Proxy, client: &str| {
        let family = if client.contains(':') { "TCP6" } else { "TCP4" };
        let mut peer = Client::connect(proxy.at("l"));
        peer.send(format!("PROXY {family} {client} {client} 1 2\r\nping").as_bytes());
        peer.0.read_exact(&mut [0; 4]).is_ok()
    };
    let clients = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.1",
        "2001:db8:0:1::1",
        "2001:db8:0:1::2",
        "2001:db8:0:2::1",
    ];
    for (by, are_served) in [
        ("", [true, true, false, true, false, true]),
        ("by = { ipv4 = 24, ipv6 = 128 }", [true, false, false, true, true, true]),
    ] {
        let proxy = Proxy::start(&config(by));
        assert_eq!(clients.map(|client| is_served(&proxy, client)), are_served, "{by}");
    }
}

#[test]
fn sources_beyond_the_size_of_the_table_evict_others_and_the_evictions_are_counted() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "rate_per_source = \"1/h\"\nsources_max = 1"));
    // `sources_max = 1` gives the table its minimum size, which is one set of eight sources. So 12 of 20 are evicted.
    for last in 1..=20 {
        assert!(served_from(&format!("127.0.0.{last}"), &proxy, "l").is_some());
    }
    let evictions = proxy.metrics().sum("acequia_guard_evictions_total", &[("guard", "g")]);
    assert_eq!(evictions, 12.0);
    assert_eq!(proxy.answer(&["guard", "g"])["evictions"], 12);
}

#[test]
fn a_guard_on_listener_and_route_counts_a_session_once() {
    let server = Server::echo();
    let route = "guards = \"g\"\n[[listeners.l.routes]]\nfrom = \"127.0.0.0/8\"\nguards = \"g\"\npool = \"p\"";
    let config = [
        String::from("[guards.g]\nsessions = 1\n"),
        configs::listener("l", "p", route),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ];
    let proxy = Proxy::start(&config.concat());
    let _held = served_client(proxy.at("l"));
    assert_eq!(proxy.metrics().sum("acequia_guard_sessions", &[]), 1.0);
    assert!(served_from("127.0.0.1", &proxy, "l").is_none());
    assert_eq!(refusals(&proxy, "sessions"), 1.0);
}
