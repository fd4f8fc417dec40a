//! A server that neither accepts nor refuses costs its client `connect_timeout`, and nobody else anything.

use crate::support::client::{Client, ask, server_reached};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, hanging};
use crate::support::wait_for;

/// Listener and pool `both`, of a server that hangs and one that does not, and `other`, of the latter alone.
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

/// An address of this machine whose clients are to try the first server first.
fn client_of_the_first(proxy: &Proxy, first: std::net::SocketAddr) -> String {
    let told = |client: &str| {
        let file = proxy.folder().join("acequia.toml");
        let words = ["route", "--listener", "both", "--from", client, "-c"];
        crate::support::process::must(crate::support::proxy::acequia(&words).arg(file))
    };
    let mut clients = (1..=50).map(|last| format!("127.0.0.{last}"));
    let is_of_it = |client: &String| told(client).contains(&format!("1. {first}"));
    clients.find(is_of_it).unwrap()
}

#[test]
fn the_next_server_is_used_after_connect_timeout() {
    let (hanging, good) = (hanging(), Server::named("good"));
    let proxy = Proxy::start(&config(hanging.address, good.address, "300ms"));
    let source = client_of_the_first(&proxy, hanging.address);
    let mut client = Client::connect_from(&source, proxy.at("both"));
    assert_eq!(client.read_some(), "good");
    assert_eq!(client.finish().read_all(), b"");
    let line = proxy.access_line();
    assert_eq!(line["attempts"], 2, "{line}");
    assert!(line["duration_ms"].as_f64().unwrap() >= 300.0, "{line}");
    let failures = |labels: &[_]| proxy.metrics().sum("acequia_connect_failures_total", labels);
    let of_it = [("reason", "timeout"), ("server", &*hanging.address.to_string())];
    assert_eq!((failures(&of_it), failures(&[])), (1.0, 1.0));
}

#[test]
fn while_some_wait_for_it_everybody_else_is_served() {
    let (hanging, good) = (hanging(), Server::named("good"));
    let proxy = Proxy::start(&config(hanging.address, good.address, "1h"));
    let source = client_of_the_first(&proxy, hanging.address);
    let waiting: Vec<_> = (0..50)
        .map(|_| Client::connect_from(&source, proxy.at("both")))
        .collect();
    let dialled = || {
        let label = hanging.address.to_string();
        proxy
            .metrics()
            .sum("acequia_server_sessions_active", &[("server", &label)])
    };
    wait_for("all of them wait", || (dialled() == 50.0).then_some(()));
    for _ in 0..50 {
        assert_eq!(server_reached(proxy.at("other")), "good");
        assert_eq!(ask(proxy.at("other"), b"some bytes"), b"good");
    }
    assert_eq!(dialled(), 50.0, "they wait still");
    drop(waiting);
}
