//! Connections to servers from the addresses that `bind_source` names. The tests that use namespaces need root.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use acequia::dial::ConnectFailure;

use crate::support::client::Client;
use crate::support::counts::log_lines;
use crate::support::namespaces::Namespaces;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const FAILED: &str = "cannot connect as `bind_source` says";
/// Starts a program without CAP_NET_ADMIN and CAP_NET_RAW, one of which `bind_source = "client"` needs.
const WITHOUT_CAPABILITIES: [&str; 2] = ["setpriv", "--bounding-set=-net_admin,-net_raw"];

fn config(server: &str, source: &str) -> String {
    format!(
        "[listeners.plain]\nbind = [\"0.0.0.0:0\", \"[::]:0\"]\npool = \"p\"\n[pools.p]\nservers = [\"{server}\"]\n\
         bind_source = {source}\nhealth = {{ check = \"off\" }}\n"
    )
}

/// A server in namespace 2 that sends its peer's address, and keeps the session as long as the client does.
fn showing_peers(network: &Namespaces) -> Server {
    showing_peers_on(network.listener(2))
}

fn showing_peers_on(listener: TcpListener) -> Server {
    Server::run_on(listener, |mut stream: TcpStream, _| {
        let peer = stream.peer_addr().unwrap().ip().to_string();
        let _ = stream.write_all(peer.as_bytes());
        let _ = stream.read(&mut [0]);
    })
}

#[test]
fn each_address_has_ports_of_its_own() {
    const PORTS: usize = 10;
    let Some(network) = Namespaces::enter(2) else { return };
    let server = showing_peers(&network);
    assert_eq!(network.run(0, "ip address add 10.98.2.3/24 dev v2").code, Some(0));
    // The second round uses other ports, because those of the first are still in TIME_WAIT.
    for (source, addresses, ports) in [
        ("\"10.98.2.3\"", &["10.98.2.3"][..], "20000 20009"),
        (
            "[\"10.98.2.1\", \"10.98.2.3\"]",
            &["10.98.2.1", "10.98.2.3"],
            "20010 20019",
        ),
    ] {
        let proxy = Proxy::start(&config(&server.address.to_string(), source));
        // This sets the range of the namespace that this thread and acequia are in. It is set only once acequia
        // listens, so that the ports on which it listens are not in the range.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", ports).unwrap();
        let mut open = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..addresses.len() * PORTS {
            let mut client = network.client(1, proxy.at("plain"));
            seen.push(client.read_some());
            open.push(client);
        }
        for address in addresses {
            let count = seen.iter().filter(|peer| *peer == address).count();
            assert_eq!(count, PORTS, "{address} of {seen:?}");
        }
        let mut one_more = network.client(1, proxy.at("plain"));
        assert_eq!(one_more.read_some(), "", "all ports of all addresses are in use");
        drop(open);
        assert_eq!(failures(&proxy), [("no_ports".to_owned(), 1.0)]);
        let message = "all ports of `bind_source` are in use for connections to a server";
        let warnings = log_lines(&proxy, message, 1);
        assert_eq!(warnings[0]["remedy"], "add an address of this machine to `bind_source`");
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "32768 60999").unwrap();
    }
}

/// The reasons of failed connects, each with the number of these connects.
fn failures(proxy: &Proxy) -> Vec<(String, f64)> {
    let metrics = proxy.metrics();
    let reasons = ConnectFailure::ALL.map(ConnectFailure::as_str).into_iter();
    let counts = reasons.map(|reason| {
        let count = metrics.sum("acequia_connect_failures_total", &[("reason", reason)]);
        (reason.to_owned(), count)
    });
    counts.filter(|(_, count)| *count > 0.0).collect()
}

#[test]
fn bind_source_client_works_if_answers_are_routed_back_and_fails_without_capabilities() {
    let Some(network) = Namespaces::enter(2) else { return };
    let server = showing_peers(&network);
    assert_eq!(network.run(2, "ip route add 10.98.1.0/24 via 10.98.2.1").code, Some(0));
    for words in [
        "ip rule add iif v2 lookup 100",
        "ip route add local default dev lo table 100",
    ] {
        let done = network.run(0, words);
        assert_eq!(done.code, Some(0), "{words}: {}", done.stderr);
    }
    let proxy = Proxy::start(&config(&server.address.to_string(), "\"client\""));
    let mut client = network.client(1, proxy.at("plain"));
    assert_eq!(client.read_some(), "10.98.1.2");
    drop(client);
    let line = proxy.access_line();
    assert_eq!(
        (&line["ending"], &line["bytes_down"]),
        (&"client_closed".into(), &9.into())
    );
    drop(proxy);

    let config = config(&server.address.to_string(), "\"client\"");
    let proxy = Proxy::setup(&config).under(&WITHOUT_CAPABILITIES).start();
    assert_eq!(network.client(1, proxy.at("plain")).read_some(), "");
    assert_eq!(failures(&proxy), [("no_source".to_owned(), 1.0)]);
    let error = log_lines(&proxy, FAILED, 1)[0]["error"].to_string();
    for part in ["CAP_NET_RAW or CAP_NET_ADMIN", "routes that bring"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_client_of_another_address_family_is_not_connected() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server.address.to_string(), "\"client\""));
    let ipv6 = proxy
        .addresses("plain")
        .into_iter()
        .find(|address| address.is_ipv6())
        .unwrap();
    let address = ([0, 0, 0, 0, 0, 0, 0, 1], ipv6.port()).into();
    assert_eq!(Client::connect(address).read_some(), "");
    assert_eq!(failures(&proxy), [("no_source".to_owned(), 1.0)]);
    assert_eq!(proxy.access_line()["ending"], "connect_failed");
    let error = log_lines(&proxy, FAILED, 1)[0]["error"].to_string();
    assert!(error.contains("different address families"), "{error}");
}

#[test]
fn an_address_of_another_machine_is_passed_over() {
    let server = showing_peers_on(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = server.address.to_string();
    let proxy = Proxy::start(&config(&address, "[\"198.51.100.7\", \"127.0.0.2\", \"203.0.113.7\"]"));
    for _ in 0..6 {
        assert_eq!(Client::connect(proxy.at("plain")).read_some(), "127.0.0.2");
    }
    assert_eq!(failures(&proxy), []);
    let error = log_lines(&proxy, FAILED, 1)[0]["error"].to_string();
    assert!(error.contains("cannot bind 198.51.100.7 of `bind_source`"), "{error}");
    // Both addresses are of other machines.
    assert!(proxy.reload(&config(&address, "[\"198.51.100.7\", \"203.0.113.7\"]")));
    assert_eq!(Client::connect(proxy.at("plain")).read_some(), "");
    assert_eq!(failures(&proxy), [("no_source".to_owned(), 1.0)]);
}

#[test]
fn a_server_is_connected_to_from_an_address_of_its_family() {
    let server = showing_peers_on(TcpListener::bind("[::1]:0").unwrap());
    let proxy = Proxy::start(&config(&server.address.to_string(), "[\"127.0.0.2\", \"::1\"]"));
    for _ in 0..2 {
        assert_eq!(Client::connect(proxy.at("plain")).read_some(), "::1");
    }
    let other_family = config(&server.address.to_string(), "\"127.0.0.2\"");
    assert!(!proxy.reload(&other_family), "no address of the family");
}
