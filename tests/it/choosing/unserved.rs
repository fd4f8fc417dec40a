//! A server that accepts sessions and ends them at once is ejected, unless clients cause these ends.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::support::client::Client;
use crate::support::configs;
use crate::support::counts::{log_count, log_lines};
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// Frequent checks, and ejections that are longer than a test.
const HEALTH: &str = "interval = \"20ms\", eject_for = \"5m\", eject_max_for = \"5m\"";

fn config(servers: &[&Server], balance: &str, health: &str) -> String {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let keys = format!("balance = \"{balance}\"\nhealth = {{ {HEALTH}{health} }}");
    configs::one_pool(&addresses, &keys)
}

/// Makes the connection end with a reset when it is dropped.
fn reset_on_drop(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Accepts, and resets at once.
fn resetting() -> Server {
    Server::run(|stream| reset_on_drop(&stream))
}

/// Connects as a client with an address of its own, chosen by its number. Returns whether the server's name comes.
fn is_served(proxy: &Proxy, client: usize) -> bool {
    let source = format!("127.0.{}.{}", 1 + client / 200, 1 + client % 200);
    let mut client = Client::connect_from(&source, proxy.at("l"));
    client.0.read(&mut [0; 16]).is_ok_and(|read| read > 0)
}

/// At least so many clients, each with its own address, are unserved before the server is ejected: `CLIENTS_MIN` of
/// `pool::session_outcome`.
const CLIENTS_MIN: usize = 3;

/// At most so many clients are unserved before the server is ejected: more than `CLIENTS_MIN`, because a session is
/// recorded only once both the server and the client have closed, and the server may get more clients until then.
const UNSERVED_MAX: usize = 6;

#[test]
fn a_server_that_resets_at_once_affects_few_clients() {
    for balance in ["random-two", "source-hash", "least-conn", "round-robin"] {
        let (bad, good) = (resetting(), Server::named("good"));
        // A reset that comes before the connect is complete counts as a failed connect, and another server is tried.
        // Passed checks would end an ejection for failed connects, so checks are off.
        let proxy = Proxy::start(&config(&[&bad, &good], balance, ", check = \"off\""));
        let unserved = (0..200).filter(|client| !is_served(&proxy, *client)).count();
        assert!(unserved <= UNSERVED_MAX, "{balance}: {unserved}");
        log_lines(&proxy, "server is ejected", 1);
        assert_eq!(proxy.server("p", &bad.address.to_string())["ejected"], true);
    }
}

#[test]
fn a_server_that_closes_at_once_affects_few_clients() {
    let (bad, good) = (Server::run(drop), Server::named("good"));
    let proxy = Proxy::start(&config(&[&bad, &good], "random-two", ""));
    let unserved = (0..200).filter(|client| !is_served(&proxy, *client)).count();
    assert!((CLIENTS_MIN..=UNSERVED_MAX).contains(&unserved), "{unserved}");
}

#[test]
fn one_client_address_cannot_eject_a_server() {
    let (bad, good) = (Server::run(drop), Server::named("good"));
    let proxy = Proxy::start(&config(&[&bad, &good], "round-robin", ""));
    for _ in 0..100 {
        is_served(&proxy, 0);
    }
    assert_eq!(bad.sessions(), 50);
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
}

/// Sends no greeting, and resets a client that sends something or leaves.
fn resetting_when_provoked() -> Server {
    Server::run(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
        reset_on_drop(&stream);
    })
}

/// A pool of these servers in which a reset counts towards an ejection even if the client has sent bytes.
fn counting_resets([first, second]: &[Server; 2]) -> String {
    config(&[first, second], "round-robin", ", eject_on_reset = true")
}

/// Connects as a client with an address of its own, sends something, and asserts that it is reset.
fn provoke(proxy: &Proxy, client: u8) {
    let mut client = Client::connect_from(&format!("127.0.9.{client}"), proxy.at("l"));
    client.send(b"\0nonsense").must_be_reset();
}

#[test]
fn clients_cannot_eject_servers_by_provoking_resets() {
    let servers = [resetting_when_provoked(), resetting_when_provoked()];
    let proxy = Proxy::start(&config(&[&servers[0], &servers[1]], "round-robin", ""));
    (1..=60).for_each(|client| provoke(&proxy, client));
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
    assert!(servers.iter().all(|server| server.sessions() == 30));
}

#[test]
fn clients_cannot_eject_servers_by_leaving_at_once() {
    let servers = [resetting_when_provoked(), resetting_when_provoked()];
    let proxy = Proxy::start(&counting_resets(&servers));
    for client in 1..=60 {
        let mut client = Client::connect_from(&format!("127.0.9.{client}"), proxy.at("l"));
        let _ = client.finish().try_read_all();
    }
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
    assert!(servers.iter().all(|server| server.sessions() == 30));
}

#[test]
fn provoked_resets_count_if_the_pool_counts_resets() {
    let servers = [resetting_when_provoked(), resetting_when_provoked()];
    let proxy = Proxy::start(&counting_resets(&servers));
    (1..=60).for_each(|client| provoke(&proxy, client));
    log_lines(&proxy, "server is ejected", 1); // the last usable server is never ejected
}

#[test]
fn resets_during_a_postgresql_login_count_if_the_pool_counts_resets() {
    let ssl_request = &[0, 0, 0, 8, 4, 210, 22, 47][..];
    let startup = &b"\0\0\0\x11\0\x03\0\0user\0me\0\0"[..];
    for first in [ssl_request, startup] {
        let servers = [resetting_when_provoked(), resetting_when_provoked()];
        let config = counting_resets(&servers).replace("pool = \"p\"", "pool = \"p\"\nprotocol = \"postgres\"");
        let proxy = Proxy::start(&config);
        // After an SSLRequest, a connection stays open for a second after the server's reset: before acequia sends an
        // alert, it waits for a ClientHello. So that these seconds do not add up, all clients connect at once.
        let mut clients: Vec<_> = (1..=60)
            .map(|client| Client::connect_from(&format!("127.0.9.{client}"), proxy.at("l")))
            .collect();
        for client in &mut clients {
            client.send(first);
        }
        for client in &mut clients {
            let _ = client.try_read_all();
        }
        log_lines(&proxy, "server is ejected", 1); // the last usable server is never ejected
    }
}
