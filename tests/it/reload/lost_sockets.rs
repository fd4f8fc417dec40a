//! Listening sockets that another program shuts down, as `ss -K` does: their addresses are bound again.

use std::fs::read_dir;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use socket2::Socket;

use crate::support::client::{Client, served_client};
use crate::support::counts::log_count;
use crate::support::proxy::Proxy;
use crate::support::queue::waiting_clients;
use crate::support::server::Server;
use crate::support::{configs, eventually};

/// Shuts down acequia's sockets that listen on this address: one for each worker. Returns their number.
fn shut_down(proxy: &Proxy, address: SocketAddr) -> usize {
    let pid = Pid::from_raw(proxy.pid().try_into().unwrap());
    let process = pidfd_open(pid.unwrap(), PidfdFlags::empty()).unwrap();
    let directory = Path::new("/proc").join(proxy.pid().to_string()).join("fd");
    let numbers = read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let copy = |number: &str| {
        let number = number.parse::<ForeignRawFd>().unwrap();
        pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()
    };
    let sockets = numbers
        .filter_map(|number| copy(number.to_str().unwrap()))
        .map(Socket::from);
    let is_wanted = |socket: &Socket| {
        let own = socket.local_addr().ok().and_then(|own| own.as_socket());
        own == Some(address) && socket.is_listener().unwrap()
    };
    let wanted: Vec<_> = sockets.filter(is_wanted).collect();
    for socket in &wanted {
        socket.shutdown(std::net::Shutdown::Both).unwrap();
    }
    wanted.len()
}

fn is_served(address: SocketAddr) -> bool {
    let exchange = || {
        let mut client = Client::try_connect(address)?.0;
        client.write_all(b"ping")?;
        client.read_exact(&mut [0; 4])
    };
    exchange().is_ok()
}

/// Starts acequia. `runtime` are keys of `[runtime]`, `listener` those of a listener, whose address is returned, too.
fn started(server: &Server, runtime: &str, listener: &str) -> (Proxy, SocketAddr) {
    let proxy = Proxy::start(
        &[
            "[runtime]\nworkers = 2\n",
            runtime,
            &configs::listener("l", "echo", listener),
            &configs::pool("echo", &[server.address], ""),
        ]
        .concat(),
    );
    let address = proxy.at("l");
    (proxy, address)
}

#[test]
fn an_address_whose_sockets_were_shut_down_is_bound_again_and_its_sessions_continue() {
    let server = Server::echo();
    let config = [
        "[runtime]\nworkers = 2\n",
        &configs::listener("lost", "echo", ""),
        &configs::listener("other", "echo", ""),
        &configs::pool("echo", &[server.address], ""),
    ]
    .concat();
    let proxy = Proxy::start(&config);
    let address = proxy.at("lost");
    let mut open = served_client(address);
    for losses in 1..=2 {
        assert_eq!(shut_down(&proxy, address), 2);
        eventually("the address is served again", || is_served(address));
        eventually("each loss is logged once", || {
            log_count(&proxy, "an address was lost") == losses
        });
    }
    assert!(proxy.reload(&config));
    (0..20).for_each(|_| assert!(is_served(address)));
    served_client(proxy.at("other"));
    open.send(b"open").read(4);
    drop(open);
    let stopped = proxy.stop();
    assert_eq!(stopped.code, Some(0));
    let lines = stopped
        .log
        .iter()
        .filter(|line| line["message"] == "an address was lost");
    let levels: Vec<_> = lines.map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["ERROR", "ERROR"]);
}

#[test]
fn an_address_is_bound_again_though_its_listener_is_at_its_limit() {
    let server = Server::echo();
    let (proxy, address) = started(&server, "", "max_connections = 1");
    let (served, _waiting) = (served_client(address), waiting_clients(address, 8));
    assert_eq!(shut_down(&proxy, address), 2);
    eventually("new clients are not refused", || Client::try_connect(address).is_ok());
    drop(served);
    eventually("the address is served again", || is_served(address));
}

#[test]
fn an_address_is_bound_again_during_the_drain_delay() {
    let server = Server::echo();
    let (proxy, address) = started(&server, "drain_delay = \"1h\"\n", "");
    proxy.signal(Signal::TERM);
    eventually("the delay has begun", || log_count(&proxy, "draining") == 1);
    assert_eq!(shut_down(&proxy, address), 2);
    eventually("the address is served again", || is_served(address));
}

#[test]
fn a_drain_ends_though_the_sockets_of_a_listener_at_its_limit_were_shut_down() {
    let server = Server::echo();
    let (proxy, address) = started(&server, "drain_timeout = \"200ms\"\n", "max_connections = 1");
    let (_served, _waiting) = (served_client(address), waiting_clients(address, 8));
    assert_eq!(shut_down(&proxy, address), 2);
    assert_eq!(proxy.stop().code, Some(0));
}
