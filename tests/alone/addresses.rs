//! Addresses of this machine, and addresses that are valid only on one of its links. The tests use network namespaces,
//! which need root.

use std::fs;
use std::net::{SocketAddr, SocketAddrV6, TcpListener};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};

use crate::support::client::{Client, server_reached};
use crate::support::counts::{log_lines, wait_for_active_sessions};
use crate::support::eventually;
use crate::support::namespaces::Namespaces;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

#[test]
fn a_socket_never_connects_to_itself() {
    const CLIENTS: usize = 100;
    let Some(network) = Namespaces::enter(1) else { return };
    let server = SocketAddr::from(([127, 0, 0, 1], 20_002));
    let proxy = Proxy::setup(&format!(
        "[listeners.unchecked]\nbind = \"0.0.0.0:0\"\npool = \"unchecked\"\n\
         [pools.unchecked]\nservers = [\"{server}\"]\nretries = 0\nhealth = {{ check = \"off\" }}\n\
         [listeners.checked]\nbind = \"0.0.0.0:0\"\npool = \"checked\"\n\
         [pools.checked]\nservers = [\"{server}\"]\nhealth = {{ interval = \"10ms\" }}"
    ))
    .start();
    // This changes only the namespace of this thread. Of these ten ports, connect(2) takes the five even ones first.
    // The server's port is even, so that one connect in five has it as its source port.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20009").unwrap();
    for _ in 0..CLIENTS {
        network.client(1, proxy.at("unchecked")).finish().must_be_closed();
    }
    let lines = proxy.access_lines(CLIENTS);
    assert!(
        lines.iter().all(|line| line["ending"] == "connect_failed"),
        "{lines:#?}"
    );
    let metrics = proxy.metrics();
    let refused = [("reason", "refused"), ("pool", "unchecked")];
    assert_eq!(metrics.sum("acequia_connect_failures_total", &refused), CLIENTS as f64);
    let checks = |result| {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", result)])
    };
    eventually("there were some checks", || checks("fail") >= 50.0);
    assert_eq!(checks("pass"), 0.0);
    // The server comes back and can bind its port: acequia has left no socket on that port, not even in TIME_WAIT. Only
    // a running check may hold the port for a moment.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    eventually("the server can bind its port", || socket.bind(&server.into()).is_ok());
    socket.listen(16).unwrap();
    let _server = Server::named_on(socket.into(), "back");
    eventually("the server is up", || {
        proxy.server("checked", &server.to_string())["health"] == "up"
    });
    assert_eq!(network.client(1, proxy.at("checked")).read_some(), "back");
}

/// Gives both ends of the link a link-local address: fe80::1 in the namespace in which acequia runs, fe80::2 in the
/// outer one.
fn add_link_local_addresses(network: &Namespaces) {
    for (number, address) in [(0, "fe80::1/64 dev v1"), (1, "fe80::2/64 dev v0")] {
        let done = network.run(number, &format!("ip -6 address add {address} nodad"));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
    }
}

fn index(interface: &str) -> u32 {
    let any = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    name_to_index(&any, interface).unwrap()
}

#[test]
fn a_link_local_server_is_checked_and_reached_on_its_interface() {
    let Some(network) = Namespaces::enter(1) else { return };
    add_link_local_addresses(&network);
    let server = Server::named_on(network.at(1, || TcpListener::bind("[::]:0").unwrap()), "there");
    let port = server.address.port();
    for written in [
        format!("[fe80::2%v1]:{port}"),
        format!("[fe80::2%{}]:{port}", index("v1")),
    ] {
        for health in ["", &format!("port = {port}"), "address = \"fe80::2%v1\""] {
            let proxy = Proxy::start(&format!(
                "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{written}\"]\n\
                 health = {{ {health} }}"
            ));
            let shown = proxy.server("p", &written);
            assert_eq!(
                (&shown["health"], &shown["reason"]),
                (&"up".into(), &serde_json::Value::Null)
            );
            assert_eq!(shown["address"], written);
            assert_eq!(server_reached(proxy.at("l")), "there");
        }
    }
}

#[test]
fn a_listener_may_be_bound_to_a_link_local_address() {
    let Some(network) = Namespaces::enter(1) else { return };
    add_link_local_addresses(&network);
    let server = Server::named("here");
    let proxy = Proxy::start(&format!(
        "[listeners.l]\nbind = \"[fe80::1%v1]:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]",
        server.address
    ));
    let line = &log_lines(&proxy, "listening", 1)[0];
    let port = proxy.at("l").port();
    assert_eq!(line["address"], format!("[fe80::1%v1]:{port}"), "as it was written");
    let heard = network.at(1, || {
        let address = SocketAddrV6::new("fe80::1".parse().unwrap(), port, 0, index("v0"));
        Client::connect(address.into()).read_some()
    });
    assert_eq!(heard, "here");
}

#[test]
fn a_server_is_left_out_while_its_address_is_also_an_address_of_this_machine() {
    let Some(network) = Namespaces::enter(1) else { return };
    let ip = |number, words: &str| {
        let done = network.run(number, &format!("ip {words}"));
        assert_eq!(done.code, Some(0), "{words}: {}", done.stderr);
    };
    ip(1, "address add 10.98.1.77/24 dev v0");
    let listener = network.at(1, || TcpListener::bind("10.98.1.77:0").unwrap());
    let server = Server::named_on(listener, "there");
    let (address, port) = (server.address, server.address.port());
    let proxy = Proxy::start(&format!(
        "[listeners.l]\nbind = \"0.0.0.0:{port}\"\npool = \"p\"\n[pools.p]\nservers = [\"{address}\"]"
    ));
    assert_eq!(server_reached(proxy.at("l")), "there");
    // First, the address is a secondary one of an interface: connections to it have the primary address as source. The
    // second time, no interface has the address: a local route makes it an address of this machine.
    let moves = [
        ("address add 10.98.1.77/24 dev v1", "address del 10.98.1.77/24 dev v1"),
        (
            "route add local 10.98.1.76/30 dev lo",
            "route del local 10.98.1.76/30 dev lo",
        ),
    ];
    for (times, (comes, goes)) in (1..).zip(moves) {
        ip(0, comes);
        let mut client = Client::connect(proxy.at("l"));
        let left_out = log_lines(
            &proxy,
            "a server is left out: it is a listener that leads back to the pool, so every session would open another one",
            times,
        );
        assert_eq!(left_out[times - 1]["server"], address.to_string());
        assert_eq!(client.read_all(), b"", "the pool has no server");
        // Until acequia sees the new address, the client's session may have connected to the listener, and so opened
        // another session, and so on. Each of these sessions ends when the session that opened it ends.
        drop(client);
        wait_for_active_sessions(&proxy, 0);
        let status = proxy.command(&["status"]).stdout;
        let note = format!("p/{address}: left out, because it is listener `l`, which leads back to the pool");
        assert!(status.contains(&note), "{status}");
        ip(0, goes);
        eventually("it is a server again", || server_reached(proxy.at("l")) == "there");
    }
}
