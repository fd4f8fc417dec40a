//! Handshakes of many clients at once.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::spawn;

use super::site::Site;
use crate::support::PATIENCE;
use crate::support::authority::replace;
use crate::support::client::Client;
use crate::support::configs::{listener, pool};
use crate::support::counts::wait_for_active_sessions;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::tls_server::ManualTlsServer;
use rustls::{ClientConnection, StreamOwned};

/// So many clients that their handshakes keep the worker busy for seconds.
const CROWD: usize = 500;

/// A proxy with one worker, and a listener `tls` whose certificate for shop.example has a key that signs slowly. `more`
/// is further configuration.
fn start(site: &Site, server: &Server, more: &str) -> Proxy {
    let slow = site.authority.issue_slow(&["shop.example"]);
    slow.write(site.directory(), "shop");
    let config = site
        .config(server.address, "", "")
        .replace("hello_timeout = \"2s\"", "hello_timeout = \"10m\"");
    Proxy::start(&format!("[runtime]\nworkers = 1\n{config}{more}"))
}

fn connection(site: &Site) -> ClientConnection {
    let config = Arc::clone(&site.client().config);
    ClientConnection::new(config, "shop.example".try_into().unwrap()).unwrap()
}

fn connect(proxy: &Proxy) -> TcpStream {
    let socket = TcpStream::connect(proxy.at("tls")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Clients that have sent a ClientHello, and do no more.
struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// `others`: the number of other open sessions.
    fn new(site: &Site, proxy: &Proxy, others: usize) -> Self {
        let hello = site.client().hello("shop.example");
        let clients = (0..CROWD).map(|_| {
            let mut socket = connect(proxy);
            socket.write_all(&hello).unwrap();
            socket
        });
        let crowd = Self(clients.collect());
        wait_for_active_sessions(proxy, CROWD + others);
        crowd
    }

    /// Asserts that more than a fourth of the clients have no answer yet.
    fn assert_many_wait(&self) {
        let is_waiting = |socket: &&TcpStream| {
            socket.set_nonblocking(true).unwrap();
            let peeked = socket.peek(&mut [0]);
            peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        let waiting = self.0.iter().filter(is_waiting).count();
        assert!(waiting > CROWD / 4, "only {waiting} of {CROWD} wait");
    }
}

/// A handshake would never end in a storm if it waited, between its steps, for all those that came later.
#[test]
fn a_started_handshake_continues_before_new_ones_start() {
    let (site, server) = (Site::new(), Server::named("served"));
    let proxy = start(&site, &server, "");
    let (mut first, mut socket) = (connection(&site), connect(&proxy));
    first.write_tls(&mut socket).unwrap();
    socket.peek(&mut [0]).unwrap(); // the handshake has begun
    let crowd = Crowd::new(&site, &proxy, 1);
    StreamOwned::new(first, socket).read_exact(&mut [0; 6]).unwrap();
    crowd.assert_many_wait();
}

/// If a handshake with a server waited for those with clients, a server that works would seem to fail.
#[test]
fn handshakes_with_servers_do_not_wait_for_those_with_clients() {
    let (site, server) = (Site::new(), Server::named("served"));
    let tls_server = ManualTlsServer::new(&site.authority.issue(&["127.0.0.1"]));
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    let address = tls_server.manual.server.address;
    let more = listener("plain", "q", "")
        + &pool("q", &[address], "health = { check = \"off\" }")
        + &format!("[pools.q.tls]\nca_file = {}\n", site.file("ca.pem"));
    let proxy = start(&site, &server, &more);
    let crowd = Crowd::new(&site, &proxy, 0);
    let serving = spawn(move || {
        tls_server.session().send(b"encrypted").finish();
    });
    assert_eq!(Client::connect(proxy.at("plain")).read(9), b"encrypted");
    crowd.assert_many_wait();
    serving.join().unwrap();
}
