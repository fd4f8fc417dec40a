//! The first answer of a session is not late. A server with Nagle's algorithm holds back a second small write until the
//! first is acknowledged; if acequia's kernel delays that ACK, the second write is 40 ms late.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// An answer that takes so long is late. This is far below the 40 ms by which a kernel delays an ACK. Tests compare it
/// with the median of many tries: a busy machine delays a few tries, and a delayed ACK delays all of them.
const LATE: Duration = Duration::from_millis(15);

const TRIES: usize = 21;

fn config(server: &Server, listener: &str, pool: &str) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n{listener}\n[pools.p]\nservers = [\"{}\"]\n{pool}\n\
         health = {{ check = \"off\" }}",
        server.address
    )
}

const BY_NAME: &str = "routes = [{ sni = \"*\", pool = \"p\" }]";

/// A server that reads once, then writes two bytes, each with a call of its own. Its sockets use Nagle's algorithm, as
/// they do by default.
fn writing_twice() -> Server {
    Server::run(|mut stream| {
        assert!(!stream.nodelay().unwrap());
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"a").and_then(|()| stream.write_all(b"b"));
        let _ = io::copy(&mut stream, &mut io::sink());
    })
}

/// The median of [`TRIES`] measurements.
fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    let mut took: Vec<_> = (0..TRIES).map(|_| measure()).collect();
    took.sort();
    took[TRIES / 2]
}

/// The time from sending these bytes to the whole answer.
fn answer_time(address: SocketAddr, bytes: &[u8]) -> Duration {
    let mut client = Client::connect(address);
    let began = Instant::now();
    assert_eq!(client.send(bytes).read(2), b"ab");
    began.elapsed()
}

#[test]
fn two_small_writes_arrive_at_once_if_the_client_hello_is_read() {
    let server = writing_twice();
    let proxy = Proxy::start(&config(&server, BY_NAME, ""));
    let hello = Hello::named("a.example").bytes();
    let took = median(|| answer_time(proxy.at("l"), &hello));
    assert!(took < LATE, "{took:?}");
}

#[test]
fn two_small_writes_arrive_at_once_after_only_a_proxy_header() {
    let server = writing_twice();
    let proxy = Proxy::start(&config(&server, "", "proxy_protocol = \"v2\""));
    let took = median(|| answer_time(proxy.at("l"), b""));
    assert!(took < LATE, "{took:?}");
}

#[test]
fn two_small_writes_arrive_at_once_if_the_client_sends_before_the_dial() {
    let server = writing_twice();
    let proxy = Proxy::start(&config(&server, "", ""));
    let took = median(|| {
        proxy.signal(Signal::STOP); // while the proxy is stopped, the kernel queues the client and its bytes
        let mut client = Client::connect(proxy.at("l"));
        client.send(b"x");
        let began = Instant::now();
        proxy.signal(Signal::CONT);
        assert_eq!(client.read(2), b"ab");
        began.elapsed()
    });
    assert!(took < LATE, "{took:?}");
}

/// The ACK that completes the TCP handshake with the server must not wait for bytes that the client never sends.
#[test]
fn a_greeting_arrives_at_once_after_a_header_that_names_the_client() {
    let server = Server::run(|mut stream| {
        let _ = stream.write_all(b"ab");
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let proxy = Proxy::start(&config(&server, "accept_proxy = { from = \"127.0.0.1\" }", ""));
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    let took = median(|| answer_time(proxy.at("l"), header));
    assert!(took < LATE, "{took:?}");
}

/// Writes at most 4 KiB at a time, as OpenSSL does in a handshake.
struct InPieces(TcpStream);

impl Read for InPieces {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for InPieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(4096)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The TLS configurations of a server with a certificate of more than 4 KiB, and of a client that trusts it.
fn long_certificate() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let names: Vec<_> = (0..200).map(|n| format!("service-{n}.shop.example.com")).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    assert!(made.cert.der().len() > 4096);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.into()],
            PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into(),
        )
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

#[test]
fn a_long_certificate_arrives_at_once() {
    let (server_side, client_side) = long_certificate();
    let server = Server::run(move |stream| {
        let mut tls = ServerConnection::new(Arc::clone(&server_side)).unwrap();
        let mut stream = InPieces(stream);
        while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let proxy = Proxy::start(&config(&server, BY_NAME, ""));
    let took = median(|| {
        let name = "service-7.shop.example.com".try_into().unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&client_side), name).unwrap();
        let mut client = Client::connect(proxy.at("l"));
        let began = Instant::now();
        while tls.is_handshaking() {
            tls.complete_io(&mut client.0).unwrap();
        }
        began.elapsed()
    });
    assert!(took < LATE, "{took:?}");
}
