//! If a pool sends PROXY headers to its servers, its checks send them, too. The check `tcp` sends nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ServerConnection;

use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::tls::config_for;

const V1: &[u8] = b"PROXY UNKNOWN\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"; // LOCAL, and nothing after it

fn config(server: &Server, version: &str, health: &str) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]\n\
         proxy_protocol = \"{version}\"\nhealth = {{ {health}, interval = \"20ms\" }}",
        server.address
    )
}

/// A server that closes unless the first bytes are exactly `header`; if they are, it goes on with `then`.
fn demanding(header: &'static [u8], then: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
    Server::run(move |mut stream| {
        let mut bytes = vec![0; header.len()];
        if stream.read_exact(&mut bytes).is_ok() && bytes == header {
            then(stream);
        }
    })
}

/// Answers a GSSENCRequest (8 bytes) as a PostgreSQL server without GSSAPI does.
fn refuse_gssapi(mut stream: TcpStream) {
    let _ = stream.read_exact(&mut [0; 8]).and_then(|()| stream.write_all(b"N"));
}

fn is_up(proxy: &Proxy, server: &Server) -> bool {
    proxy.server("p", &server.address.to_string())["health"] == "up"
}

#[test]
fn a_server_that_requires_a_proxy_header_passes_a_tls_check() {
    for (version, header) in [("v1", V1), ("v2", V2)] {
        let tls = Arc::new(config_for(vec!["db.example".to_owned()]).0);
        let server = demanding(header, move |mut stream| {
            let mut connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
            while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        });
        let proxy = Proxy::start(&config(&server, version, "check = \"tls\""));
        assert!(is_up(&proxy, &server), "{version}");
    }
}

#[test]
fn a_server_that_requires_a_proxy_header_passes_a_postgres_check() {
    for (version, header) in [("v1", V1), ("v2", V2)] {
        let server = demanding(header, refuse_gssapi);
        let proxy = Proxy::start(&config(&server, version, "check = \"postgres\""));
        assert!(is_up(&proxy, &server), "{version}");
    }
}

#[test]
fn a_tcp_check_sends_nothing_even_with_a_proxy_header_configured() {
    let server = Server::silent();
    let proxy = Proxy::start(&config(&server, "v2", "check = \"tcp\""));
    let passed = || {
        let labels = [("result", "pass")];
        proxy.metrics().sum("acequia_health_checks_total", &labels)
    };
    eventually("there were some checks", || passed() >= 10.0);
    assert!(is_up(&proxy, &server));
    assert_eq!(
        server.sessions(),
        0,
        "the server's kernel answers the TCP handshake, and the server's program never sees the connection"
    );
}

#[test]
fn a_reload_that_changes_the_proxy_header_begins_a_new_check() {
    let server = demanding(V2, refuse_gssapi);
    let proxy = Proxy::start(&config(&server, "v1", "check = \"postgres\", timeout = \"100ms\""));
    assert!(!is_up(&proxy, &server));
    assert!(proxy.reload(&config(&server, "v2", "check = \"postgres\", timeout = \"100ms\"")));
    eventually("the server is up", || is_up(&proxy, &server));
}
