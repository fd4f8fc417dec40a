//! What a listener that terminates TLS and its clients agree on in the handshake.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;

use super::site::Site;
use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), "shop.example".try_into().unwrap()).unwrap()
}

fn greeting(connection: ClientConnection, socket: TcpStream) -> Vec<u8> {
    let mut greeting = vec![0; 5];
    StreamOwned::new(connection, socket).read_exact(&mut greeting).unwrap();
    greeting
}

#[test]
fn the_listener_prefers_protocols_in_the_order_of_its_alpn_setting() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = Proxy::start(&site.config(server.address, "alpn = [\"h2\", \"http/1.1\", \"x\"]", ""));
    for (offered, agreed) in [
        (&["http/1.1", "h2"][..], "h2"),
        (&["x", "http/1.1"], "http/1.1"),
        (&["y", "x"], "x"),
    ] {
        let setup = site.client().offering(offered);
        let client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
        assert_eq!(client.protocol().as_deref(), Some(agreed), "of {offered:?}");
    }
}

#[test]
fn a_post_quantum_key_exchange_is_agreed() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    assert_eq!(client.read(5), b"hello");
    drop(client);
    assert_eq!(proxy.access_line()["tls_group"], "X25519MLKEM768");
}

#[test]
fn a_handshake_is_completed_however_its_client_hello_is_cut() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    for length in [1, 3, 5, 9, 100, 1000] {
        let (mut connection, mut hello) = (connection(&site.client().config), Vec::new());
        connection.write_tls(&mut hello).unwrap();
        let mut client = Client::connect(proxy.at("tls"));
        client.0.set_nodelay(true).unwrap();
        client.send_in_pieces(&hello, length);
        assert_eq!(greeting(connection, client.0), b"hello", "in pieces of {length} bytes");
    }
}

#[test]
fn a_resumed_session_has_no_early_data() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let mut config = ClientConfig::clone(&site.client().config);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for is_resumed in [false, true] {
        let mut connection = connection(&config);
        assert!(connection.early_data().is_none());
        let mut socket = TcpStream::connect(proxy.at("tls")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        let kind = connection.handshake_kind();
        assert_eq!(kind == Some(rustls::HandshakeKind::Resumed), is_resumed);
        assert_eq!(greeting(connection, socket), b"hello");
    }
}
