//! The PROXY protocol: the server gets one header first, and then exactly the client's bytes.

use std::net::{IpAddr, SocketAddr};

use crate::support::client::Client;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, refusing};

fn config(version: &str, bind: &str, servers: &[SocketAddr], routes: &str) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    format!(
        "[listeners.l]\nbind = \"{bind}\"\npool = \"p\"\n{routes}\n[pools.p]\nbalance = \"round-robin\"\n\
         proxy_protocol = \"{version}\"\nservers = {servers:?}\nhealth = {{ check = \"off\", eject_after = 100 }}"
    )
}

const BY_NAME: &str = "[[listeners.l.routes]]\nsni = \"*\"\npool = \"p\"";

/// A whole session that sends these bytes; returns the client's address.
fn session(proxy: &Proxy, bytes: &[u8]) -> SocketAddr {
    let mut client = Client::connect(proxy.at("l"));
    let address = client.0.local_addr().unwrap();
    assert_eq!(client.send(bytes).finish().read_all(), b"bye");
    address
}

/// The content of a header of version 2 (PROXY protocol specification, section 2.2).
#[derive(Debug, PartialEq)]
struct Header {
    from: SocketAddr,
    to: SocketAddr,
    alpn: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
}

/// The header and the bytes after it. Asserts that the header has the right checksum.
fn parse_version_2_header(bytes: &[u8]) -> (Header, &[u8]) {
    assert_eq!(&bytes[..13], b"\r\n\r\n\0\r\nQUIT\n\x21");
    let (header, rest) = bytes.split_at(16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])));
    let width = match header[13] {
        0x11 => 4,
        0x21 => 16,
        other => panic!("family {other:#x}"),
    };
    let ip = |at: usize| match <[u8; 4]>::try_from(&header[at..at + width]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&header[at..at + width]).unwrap()),
    };
    let u16_at = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let ports = 16 + 2 * width;
    let (from, to) = (
        SocketAddr::new(ip(16), u16_at(ports)),
        SocketAddr::new(ip(16 + width), u16_at(ports + 2)),
    );
    let mut parsed = Header {
        from,
        to,
        alpn: None,
        authority: None,
    };
    let (mut at, mut has_checksum) = (ports + 4, false);
    while at < header.len() {
        let end = at + 3 + usize::from(u16_at(at + 1));
        let value = header[at + 3..end].to_vec();
        match header[at] {
            1 => parsed.alpn = Some(value),
            2 => parsed.authority = Some(value),
            3 => {
                let mut zeroed = header.to_vec();
                zeroed[at + 3..end].fill(0);
                assert_eq!(value, crc32c(&zeroed).to_be_bytes());
                has_checksum = true;
            }
            other => panic!("type {other}"),
        }
        at = end;
    }
    assert!(has_checksum);
    (parsed, rest)
}

/// The CRC-32C of these bytes, computed a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0x82f6_3b78
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

#[test]
fn the_crc32c_of_this_test_matches_published_values() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, appendix B.4");
}

#[test]
fn a_version_1_header_precedes_the_clients_bytes() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::keeping(b"bye");
        let proxy = Proxy::start(&config("v1", bind, &[server.address], ""));
        let (from, to) = (session(&proxy, b"the client's bytes"), proxy.at("l"));
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        let header = format!(
            "PROXY {family} {} {} {} {}\r\n",
            from.ip(),
            to.ip(),
            from.port(),
            to.port()
        );
        assert_eq!(server.received(), [[header.as_bytes(), b"the client's bytes"].concat()]);
    }
}

#[test]
fn a_version_2_header_precedes_the_clients_bytes() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        for server_at in ["127.0.0.1:0", "[::1]:0"] {
            let server = Server::keeping_on(server_at, b"bye");
            let proxy = Proxy::start(&config("v2", bind, &[server.address], ""));
            let from = session(&proxy, b"the client's bytes");
            let received = server.received();
            let (parsed, rest) = parse_version_2_header(&received[0]);
            assert_eq!(
                parsed,
                Header {
                    from,
                    to: proxy.at("l"),
                    alpn: None,
                    authority: None
                }
            );
            assert_eq!(rest, b"the client's bytes");
        }
    }
}

#[test]
fn the_header_is_sent_before_the_client_sends_anything() {
    let server = Server::run(|stream| {
        let mut client = Client(stream);
        assert!(client.read_some().starts_with("PROXY TCP4 "));
        client.send(b"banner");
    });
    let proxy = Proxy::start(&config("v1", "127.0.0.1:0", &[server.address], ""));
    assert_eq!(Client::connect(proxy.at("l")).read_all(), b"banner");
}

#[test]
fn a_version_2_header_carries_server_name_and_first_alpn_of_tls() {
    let server = Server::keeping(b"bye");
    let proxy = Proxy::start(&config("v2", "127.0.0.1:0", &[server.address], BY_NAME));
    let mut hello = Hello::named("Shop.Example.")
        .alpn(&["h2", "http/1.1"])
        .in_records(&[40]);
    hello.extend(b"and more");
    let from = session(&proxy, &hello);
    let received = server.received();
    let (parsed, rest) = parse_version_2_header(&received[0]);
    let (alpn, authority) = (Some(b"h2".to_vec()), Some(b"shop.example".to_vec()));
    assert_eq!(
        parsed,
        Header {
            from,
            to: proxy.at("l"),
            alpn,
            authority
        }
    );
    assert_eq!(rest, hello);
}

#[test]
fn a_version_2_header_has_neither_name_nor_alpn_without_tls() {
    let server = Server::keeping(b"bye");
    let proxy = Proxy::start(&config("v2", "127.0.0.1:0", &[server.address], BY_NAME));
    session(&proxy, b"plain");
    let received = server.received();
    let (parsed, rest) = parse_version_2_header(&received[0]);
    assert_eq!((parsed.alpn, parsed.authority, rest), (None, None, &b"plain"[..]));
}

#[test]
fn the_next_server_gets_one_whole_header_when_the_first_fails() {
    let (dead, server) = (refusing(), Server::keeping(b"bye"));
    let proxy = Proxy::start(&config("v2", "127.0.0.1:0", &[dead.address, server.address], BY_NAME));
    let hello = Hello::named("a.example").padded(2000).bytes();
    let clients: Vec<_> = (0..4).map(|_| session(&proxy, &hello)).collect();
    assert!(proxy.access_lines(4).iter().any(|line| line["attempts"] == 2));
    let received = server.received();
    assert_eq!(received.len(), clients.len());
    for (bytes, from) in received.iter().zip(clients) {
        let (parsed, rest) = parse_version_2_header(bytes);
        assert_eq!((parsed.from, rest), (from, &hello[..]));
    }
}
