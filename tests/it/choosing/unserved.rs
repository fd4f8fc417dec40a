//! A server that accepts sessions and ends them at once is ejected, unless the clients cause the ends.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::support::client::Client;
use crate::support::configs;
use crate::support::counts::{log_count, log_lines};
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// Frequent checks, because passed checks must not end these ejections. An ejection lasts longer than a test.
const HEALTH: &str = "interval = \"20ms\", eject_for = \"5m\", eject_max_for = \"5m\"";

/// `more_health`: further entries of `health`, each after a comma.
fn config(servers: &[&Server], balance: &str, more_health: &str) -> String {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let keys = format!("balance = \"{balance}\"\nhealth = {{ {HEALTH}{more_health} }}");
    configs::one_pool(&addresses, &keys)
}

/// Makes the connection end with a reset when it is dropped.
fn reset_on_drop(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A server that resets each connection at once.
fn resetting() -> Server {
    Server::run(|stream| reset_on_drop(&stream))
}

/// Connects from an address that belongs to the client of this number alone. Returns whether the server's name comes.
fn is_served(proxy: &Proxy, client: usize) -> bool {
    let source = format!("127.0.{}.{}", 1 + client / 200, 1 + client % 200);
    let mut client = Client::connect_from(&source, proxy.at("l"));
    client.0.read(&mut [0; 16]).is_ok_and(|read| read > 0)
}

/// The fewest unserved clients, each with its own address, after which a server is ejected: `CLIENTS_MIN` of
/// `pool::session_outcome`.
const CLIENTS_MIN: usize = 3;

/// The most clients that may be unserved. If the server closes without a reset, a session is recorded only after the
/// client has closed, too, and until then the server may get further clients. [`CLIENTS_MIN`] more are allowed for
/// that.
const UNSERVED_MAX: usize = 2 * CLIENTS_MIN;

#[test]
fn a_server_that_resets_at_once_affects_few_clients() {
    for balance in ["random-two", "source-hash", "least-conn", "round-robin"] {
        let (bad, good) = (resetting(), Server::named("good"));
        // If the server's reset comes before acequia knows that it is connected, it counts as a failed connect, and
        // acequia connects the client to the other server. Passed checks end an ejection for failed connects, so here
        // the checks are off.
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
    assert_eq!(bad.sessions(), 50, "expected every second session at this server");
    assert_eq!(log_count(&proxy, "server is ejected"), 0);
}

/// A server that sends nothing, and resets a connection as soon as the client sends something or closes.
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

/// Connects from an address that belongs to this client alone, sends something, and expects a reset.
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
fn clients_cannot_eject_servers_by_closing_at_once() {
    // Not even if resets count: the client has closed first.
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
fn with_eject_on_reset_a_server_is_ejected_for_resets_that_clients_have_provoked() {
    let servers = [resetting_when_provoked(), resetting_when_provoked()];
    let proxy = Proxy::start(&counting_resets(&servers));
    (1..=60).for_each(|client| provoke(&proxy, client));
    log_lines(&proxy, "server is ejected", 1); // and not 2: the last usable server is never ejected
}

#[test]
fn with_eject_on_reset_a_server_is_ejected_for_resets_during_a_postgresql_login() {
    let ssl_request = &[0, 0, 0, 8, 4, 210, 22, 47][..];
    let startup = &b"\0\0\0\x11\0\x03\0\0user\0me\0\0"[..];
    for first in [ssl_request, startup] {
        let servers = [resetting_when_provoked(), resetting_when_provoked()];
        let config = counting_resets(&servers).replace("pool = \"p\"", "pool = \"p\"\nprotocol = \"postgres\"");
        let proxy = Proxy::start(&config);
        // If no server answers an SSLRequest, acequia answers it itself, and waits up to a second for the ClientHello,
        // so that it can send an alert. These clients send no ClientHello, so each connection lasts for this second.
        // All clients connect at once: otherwise the seconds would add up.
        let mut clients: Vec<_> = (1..=60)
            .map(|client| Client::connect_from(&format!("127.0.9.{client}"), proxy.at("l")))
            .collect();
        for client in &mut clients {
            client.send(first);
        }
        for client in &mut clients {
            let _ = client.try_read_all();
        }
        log_lines(&proxy, "server is ejected", 1); // and not 2: the last usable server is never ejected
    }
}
