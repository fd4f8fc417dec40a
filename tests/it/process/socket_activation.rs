//! Listening sockets that a service manager passes: sd_listen_fds(3).

use std::fs::read_link;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

use crate::support::client::{Client, ask, served_client};
use crate::support::configs::pool;
use crate::support::process::Port;
use crate::support::proxy::{Proxy, Setup};
use crate::support::server::Server;
use crate::support::usage::descriptors_of;
use crate::support::{eventually, wait_for};

/// A service manager with one listening socket, and the configuration of an acequia that gets it.
struct ServiceManager {
    socket: TcpListener,
    address: SocketAddr,
    config: String,
    _server: Server,
}

impl ServiceManager {
    fn new() -> Self {
        let server = Server::echo();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        fcntl_setfd(&socket, FdFlags::empty()).unwrap(); // no CLOEXEC: the proxy inherits it
        let address = socket.local_addr().unwrap();
        Self {
            config: listener_at(address) + &pool("p", &[server.address], ""),
            socket,
            address,
            _server: server,
        }
    }

    fn start(&self, config: &str) -> Proxy {
        let number = self.socket.as_raw_fd();
        let shell = format!("exec 3<&{number}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$@\"");
        Proxy::setup(config).under(&["bash", "-c", &shell, "bash"]).start()
    }
}

/// A listener `l` at this address, and two workers. `backlog` must not change the queue of a passed socket.
fn listener_at(address: SocketAddr) -> String {
    format!("[runtime]\nworkers = 2\n[listeners.l]\nbind = \"{address}\"\npool = \"p\"\nbacklog = 1\n")
}

fn setup_under_systemd(address: SocketAddr, server: &Server) -> Setup {
    let config = listener_at(address) + &pool("p", &[server.address], "");
    let listen = format!("--listen={address}");
    let words = [
        "systemd-socket-activate",
        &listen,
        "--fdname=web",
        "--setenv=XDG_RUNTIME_DIR", // where acequia and its commands find the admin socket; not passed on otherwise
    ];
    Proxy::setup(&config).under(&words)
}

fn has_logged(proxy: &Proxy, message: &str) -> bool {
    proxy.log().iter().any(|line| line.to_string().contains(message))
}

#[test]
fn systemd_starts_acequia_for_the_first_client() {
    let (server, port) = (Server::echo(), Port::keep());
    let address = port.address;
    let first = thread::spawn(move || {
        let mut client = wait_for("systemd listens", || Client::try_connect(address).ok());
        client.send(b"first").finish().read_all()
    });
    let proxy = setup_under_systemd(address, &server).launch();
    assert_eq!(first.join().unwrap(), b"first");
    assert_eq!(proxy.addresses("l"), [address]);
    for _ in 0..20 {
        assert_eq!(ask(address, b"next"), b"next");
    }
    assert!(!has_logged(&proxy, "service manager"), "{:?}", proxy.log());
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn a_drain_leaves_new_clients_to_the_next_process() {
    let manager = ServiceManager::new();
    let proxy = manager.start(&manager.config);
    let old = served_client(manager.address);
    let socket = read_link(format!("/proc/self/fd/{}", manager.socket.as_raw_fd())).unwrap();
    let descriptors = || descriptors_of(&proxy, socket.to_str().unwrap());
    let before_the_drain = descriptors();
    proxy.signal(Signal::TERM);
    // Each worker has its own descriptor of the socket, and closes it when it stops accepting. The log line about the
    // drain is written earlier.
    eventually("both workers have closed their descriptors", || {
        descriptors() == before_the_drain - 2
    });
    let mut waiting: Vec<_> = (0..50).map(|_| Client::connect(manager.address)).collect();
    for client in &mut waiting {
        client.send(b"ping");
    }
    drop(old);
    assert_eq!(proxy.wait().code, Some(0));
    let late = Client::connect(manager.address);
    let next = manager.start(&manager.config);
    for client in &mut waiting {
        assert_eq!(client.read(4), b"ping");
    }
    drop((waiting, late));
    assert_eq!(next.stop().code, Some(0));
}

#[test]
fn a_reload_gives_a_passed_socket_to_the_listener_with_its_address() {
    let manager = ServiceManager::new();
    let elsewhere = manager.config.replace(&manager.address.to_string(), "127.0.0.1:0");
    let proxy = manager.start(&elsewhere);
    let unused = "no listener has the address of a socket of the service manager";
    assert!(has_logged(&proxy, unused), "{:?}", proxy.log());
    let mut early = Client::connect(manager.address);
    early.send(b"ping");
    assert!(proxy.reload(&manager.config));
    assert_eq!(early.read(4), b"ping");
    assert!(proxy.reload(&elsewhere));
    let mut waiting = Client::connect(manager.address);
    waiting.send(b"ping");
    assert!(proxy.reload(&manager.config));
    assert_eq!(waiting.read(4), b"ping");
    drop((early, waiting)); // a drain waits for open sessions
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn the_sockets_of_another_process_are_left_alone() {
    let manager = ServiceManager::new();
    let config = manager.config.replace(&manager.address.to_string(), "127.0.0.1:0");
    let environment = ["env", "LISTEN_PID=1", "LISTEN_FDS=1"];
    let proxy = Proxy::setup(&config).under(&environment).start();
    assert!(!has_logged(&proxy, "service manager"), "{:?}", proxy.log());
    assert_eq!(proxy.stop().code, Some(0));
}
