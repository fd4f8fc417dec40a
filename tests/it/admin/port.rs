//! The admin port answers although many connections are silent or come at once. A port on all IPv6 addresses takes no
//! IPv4 address.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use tokio::time::Instant;

fn start(server: &Server) -> Proxy {
    Proxy::start(&one_pool(&[server.address], ""))
}

#[test]
fn silent_connections_do_not_block_others() {
    let server = Server::echo();
    let proxy = start(&server);
    let _silent: Vec<_> = (0..64).map(|_| Client::connect(proxy.admin())).collect();
    assert_eq!(proxy.get("/live"), (200, "live\n".to_owned()));
}

#[test]
fn a_silent_connection_is_cut_within_seconds() {
    let server = Server::echo();
    let proxy = start(&server);
    let began = Instant::now();
    assert_eq!(Client::connect(proxy.admin()).read_all(), b"");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_hundred_requests_at_once_are_all_answered() {
    let server = Server::echo();
    let proxy = start(&server);
    // Each sends its request before the next one connects: a silent connection may be closed in favour of a new one.
    let mut clients: Vec<_> = (0..100)
        .map(|_| {
            let mut client = Client::connect(proxy.admin());
            client.send(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    for client in &mut clients {
        assert!(client.read_all().ends_with(b"live\n"));
    }
}

#[test]
fn an_admin_port_on_all_ipv6_addresses_takes_no_ipv4_address() {
    let server = Server::echo();
    let reserved_ipv4 = Port::keep(); // so that no other process listens on 127.0.0.1 with this port
    let port = reserved_ipv4.number();
    let _proxy = Proxy::start(&format!(
        "[admin]\nbind = \"[::]:{port}\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [\"{}\"]",
        server.address
    ));
    assert!(Client::try_connect((Ipv6Addr::LOCALHOST, port).into()).is_ok());
    let refused = Client::try_connect((Ipv4Addr::LOCALHOST, port).into());
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
}
