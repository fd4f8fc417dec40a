//! A reload removes an address where clients wait for permits. They go to the listener that takes over the address. If
//! there is none, they are reset after a few seconds, and further clients are refused from then on.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::client::{Client, served_client};
use crate::support::proxy::Proxy;
use crate::support::queue::{close_when_served, waiting_clients};
use crate::support::server::Server;
use crate::support::{configs, eventually};

/// A configuration with the listener `other`, which every reload keeps, and with `listener`: the text of another
/// listener, or nothing.
fn config(server: &Server, listener: &str) -> String {
    [
        "[runtime]\nworkers = 2\ndrain_timeout = \"0s\"\n",
        &configs::listener("other", "echo", ""),
        &configs::pool("echo", &[server.address], ""),
        listener,
    ]
    .concat()
}

/// A listener on this address, without `max_connections`.
fn successor(address: &impl ToString) -> String {
    configs::listener("successor", "echo", "").replace("127.0.0.1:0", &address.to_string())
}

/// A proxy whose listener `full` has one session, the most it may have, and this many clients in its accept queues.
fn with_a_full_listener(server: &Server, waiting: usize) -> (Proxy, SocketAddr, Client, Vec<Client>) {
    let proxy = Proxy::start(&config(
        server,
        &configs::listener("full", "echo", "max_connections = 1"),
    ));
    let address = proxy.at("full");
    let served = served_client(address);
    (proxy, address, served, waiting_clients(address, waiting))
}

/// Asserts that clients are served, whichever socket the kernel chooses for them.
fn assert_serves(address: SocketAddr) {
    let clients: Vec<_> = (0..40).map(|_| served_client(address)).collect();
    drop(clients);
}

#[test]
fn waiting_clients_go_to_a_listener_whose_address_covers_the_removed_one() {
    let server = Server::echo();
    let (proxy, address, mut served, waiting) = with_a_full_listener(&server, 8);
    let wide = successor(&format!("0.0.0.0:{}", address.port()));
    assert!(proxy.reload(&config(&server, &wide)));
    close_when_served(waiting);
    assert_serves(address);
    served.send(b"open").read(4);
    let stopped = proxy.stop();
    let of_successor = stopped.access.iter().filter(|line| line["listener"] == "successor");
    assert_eq!(of_successor.count(), 8 + 40); // the waiting clients, and those of `assert_serves`
}

#[test]
fn waiting_clients_go_to_a_listener_that_gets_the_address_by_a_later_reload() {
    let server = Server::echo();
    let (proxy, address, mut served, waiting) = with_a_full_listener(&server, 8);
    assert!(proxy.reload(&config(&server, "")));
    assert!(proxy.reload(&config(&server, &successor(&address))));
    close_when_served(waiting);
    assert_serves(address);
    served.send(b"open").read(4);
}

#[test]
fn a_removed_address_soon_refuses_clients_and_resets_those_that_wait() {
    let server = Server::echo();
    let (proxy, address, mut served, waiting) = with_a_full_listener(&server, 7);
    assert!(proxy.reload(&config(&server, "")));
    eventually("a client is refused", || {
        let connected = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    for mut client in waiting {
        client.0.set_nonblocking(false).unwrap();
        client.must_be_reset();
    }
    served.send(b"open").read(4);
    eventually("all are counted in the log", || {
        let reset = proxy.log().into_iter().filter(|line| line["listener"] == "full");
        reset.filter_map(|line| line["clients"].as_u64()).sum::<u64>() == 7
    });
}
