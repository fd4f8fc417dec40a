//! A server that neither accepts nor refuses costs its client `connect_timeout` and does not delay other clients.

use crate::support::client::{Client, ask, server_reached};
use crate::support::process::must;
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::{Server, hanging};
use crate::support::wait_for;

/// Listener and pool `both` with a hanging and a good server, and `other` with the good server alone.
fn config(hanging: std::net::SocketAddr, good: std::net::SocketAddr, connect_timeout: &str) -> String {
    format!(
        "[listeners.both]\nbind = \"127.0.0.1:0\"\npool = \"both\"\n\
         [listeners.other]\nbind = \"127.0.0.1:0\"\npool = \"other\"\n\
         [pools.both]\nbalance = \"source-hash\"\nconnect_timeout = \"{connect_timeout}\"\nretries = 1\n\
         servers = [{{ address = \"{hanging}\", weight = 256 }}, \"{good}\"]\n\
         health = {{ check = \"off\", eject_after = 1000 }}\n\
         [pools.other]\nservers = [\"{good}\"]\n"
    )
}

/// A loopback address whose clients try this server first.
fn client_address_hashed_to(proxy: &Proxy, first: std::net::SocketAddr) -> String {
    let order = |client: &str| {
        let file = proxy.directory().join("acequia.toml");
        let words = ["route", "--listener", "both", "--from", client, "-c"];
        must(acequia(&words).arg(file))
    };
    let mut clients = (1..=50).map(|last| format!("127.0.0.{last}"));
    let tries_it_first = |client: &String| order(client).contains(&format!("1. {first}"));
    clients.find(tries_it_first).unwrap()
}

#[test]
fn the_next_server_is_used_after_connect_timeout() {
    let (hanging, good) = (hanging(), Server::named("good"));
    let proxy = Proxy::start(&config(hanging.address, good.address, "300ms"));
    let source = client_address_hashed_to(&proxy, hanging.address);
    let mut client = Client::connect_from(&source, proxy.at("both"));
    assert_eq!(client.read_some(), "good");
    assert_eq!(client.finish().read_all(), b"");
    let line = proxy.access_line();
    assert_eq!(line["attempts"], 2, "{line}");
    assert!(line["duration_ms"].as_f64().unwrap() >= 300.0, "{line}");
    let failures = |labels: &[_]| proxy.metrics().sum("acequia_connect_failures_total", labels);
    let of_hanging = [("reason", "timeout"), ("server", &*hanging.address.to_string())];
    assert_eq!((failures(&of_hanging), failures(&[])), (1.0, 1.0));
}

#[test]
fn clients_that_wait_for_a_hanging_server_do_not_delay_others() {
    let (hanging, good) = (hanging(), Server::named("good"));
    let proxy = Proxy::start(&config(hanging.address, good.address, "1h"));
    let source = client_address_hashed_to(&proxy, hanging.address);
    let waiting: Vec<_> = (0..50)
        .map(|_| Client::connect_from(&source, proxy.at("both")))
        .collect();
    let connecting = || {
        let label = hanging.address.to_string();
        proxy
            .metrics()
            .sum("acequia_server_sessions_active", &[("server", &label)])
    };
    wait_for("50 connects are under way", || (connecting() == 50.0).then_some(()));
    for _ in 0..50 {
        assert_eq!(server_reached(proxy.at("other")), "good");
        assert_eq!(ask(proxy.at("other"), b"some bytes"), b"good");
    }
    assert_eq!(connecting(), 50.0, "expected all 50 connects to be still under way");
    drop(waiting);
}
