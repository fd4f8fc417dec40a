//! Lists of very many servers.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::support::client::served_client;
use crate::support::configs::listener;
use crate::support::counts::log_lines;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::cpu_time;

const LISTED: &str = "servers listed";

/// `count` addresses of this machine: the last one leads to the server `last`, all others to `server`.
fn list(server: &Server, count: usize, last: &Server) -> String {
    let ports = (1..count).map(|_| server.address.port()).chain([last.address.port()]);
    let addresses = ports
        .enumerate()
        .map(|(n, port)| format!("127.1.{}.{}:{port}", n / 250, 1 + n % 250));
    serde_json::to_string(&addresses.collect::<Vec<_>>()).unwrap()
}

/// The CPU time for a new list of this many servers and then a list in which one of them has changed. A session goes on
/// meanwhile.
fn cost_of(count: usize) -> Duration {
    let everywhere = || TcpListener::bind("0.0.0.0:0").unwrap();
    let (first, second) = (Server::echo_on(everywhere()), Server::echo_on(everywhere()));
    let directory = tempfile::tempdir().unwrap();
    let (file, next) = (directory.path().join("servers.json"), directory.path().join("next"));
    let put = |text: String| {
        fs::write(&next, text).unwrap();
        fs::rename(&next, &file).unwrap();
    };
    put(list(&first, count, &first));
    let pool = format!("[pools.p]\nhealth.check = \"off\"\ndiscover = {{ file = {file:?}, settle = \"0s\" }}");
    let proxy = Proxy::start(&(listener("l", "p", "") + &pool));
    log_lines(&proxy, LISTED, 1);
    let mut session = served_client(proxy.at("l"));
    let before = cpu_time(&proxy);
    for (number, text, changed) in [
        (2, list(&second, count, &second), count),
        (3, list(&second, count, &first), 1),
    ] {
        put(text);
        let line = &log_lines(&proxy, LISTED, number)[number - 1];
        assert_eq!(
            [&line["servers"], &line["added"], &line["removed"]].map(|value| value.as_u64().unwrap() as usize),
            [count, changed, changed]
        );
        session.send(b"still there");
        assert_eq!(session.read(11), b"still there");
    }
    let cost = cpu_time(&proxy) - before;
    let usable = format!("acequia_pool_servers{{pool=\"p\",state=\"usable\"}} {count}\n");
    assert!(proxy.get("/metrics").1.contains(&usable));
    cost
}

#[test]
fn cpu_time_grows_about_linearly_with_the_list() {
    let few = cost_of(1_000).max(Duration::from_millis(50));
    let many = cost_of(10_000); // quadratic growth would be a hundredfold
    assert!(
        many < 30 * few,
        "{many:?} of CPU time, and a tenth of the servers takes at most {few:?}"
    );
}
