//! Servers given by name are resolved, and a name that does not resolve stops nobody.

mod support;

use support::client::{Client, ask};
use support::eventually;
use support::proxy::Proxy;
use support::server::Server;

fn config(servers: &[String]) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = {servers:?}\nresolve_interval = \"200ms\""
    )
}

#[test]
fn each_address_of_a_name_is_a_server_labelled_with_both() {
    let server = Server::echo();
    let name = format!("localhost:{}", server.address.port());
    let proxy = Proxy::start(&config(&[name.clone()]));
    let label = format!("{name}@127.0.0.1");
    let up = || {
        proxy
            .metrics()
            .sum("acequia_server_up", &[("pool", "p"), ("server", &label)])
    };
    // Another address of the name, such as ::1, is a server of its own, and down.
    eventually("it is resolved and checked", || up() == 1.0);
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert_eq!(proxy.access_line()["server"], label);
}

#[test]
fn resolving_again_forgets_nothing() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&[format!("localhost:{}", server.address.port())]));
    eventually("it is resolved and checked", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    let mut client = Client::connect(proxy.at("l"));
    let began = proxy.metrics().sum("process_cpu_seconds_total", &[]);
    assert!(began >= 0.0);
    client.send(b"ping").read(4);
    let checks = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "pass")])
    };
    eventually("it was resolved several times", || checks() >= 2.0);
    assert_eq!(client.send(b"pong").read(4), b"pong");
    assert_eq!(proxy.metrics().sum("acequia_server_sessions_active", &[]), 1.0);
    assert_eq!(
        proxy.metrics().sum("acequia_health_transitions_total", &[("to", "up")]),
        1.0
    );
}

#[test]
fn a_name_that_does_not_resolve_is_said_and_the_others_serve() {
    let server = Server::echo();
    let mut proxy = Proxy::start(&config(&[
        "nowhere.invalid:5432".to_owned(),
        server.address.to_string(),
    ]));
    let says = |line: &serde_json::Value| {
        line["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("cannot resolve"))
            && line["name"] == "nowhere.invalid:5432"
    };
    eventually("it is said", || proxy.log().iter().any(says));
    eventually("the other is up", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert!(proxy.is_running());
}

#[test]
fn a_pool_of_unknown_names_has_no_server_yet() {
    let proxy = Proxy::setup(&config(&["nowhere.invalid:5432".to_owned()])).launch();
    assert_eq!(ask(proxy.at("l"), b""), b"");
    assert_eq!(proxy.access_line()["ending"], "no_server");
    assert_eq!(proxy.get("/live").0, 200);
}
