//! Sessions whose TLS the proxy terminates, as their clients and servers see them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread::{scope, spawn};
use std::time::Duration;

use super::site::Site;
use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::stream::read_to_end;
use crate::support::tls::tls_server;
use crate::support::tls_client::{TlsClient, TlsSetup};
use crate::support::usage::tcp_sockets;
use rustls::version::{TLS12, TLS13};

/// Bytes whose pattern does not repeat at the length of a record.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

#[test]
fn the_server_gets_the_plaintext_and_the_log_shows_the_agreed_tls() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    for (number, (versions, version)) in (1..).zip([([&TLS13], "1.3"), ([&TLS12], "1.2")]) {
        let setup = TlsSetup::new(&site.authority, &versions, None);
        let mut client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
        client.send(b"a request").finish();
        let mut server = manual.session();
        assert_eq!(read_to_end(&mut server), (b"a request".to_vec(), Ok(())));
        server.write_all(b"an answer").unwrap();
        drop(server);
        assert_eq!(client.read_to_end(), (b"an answer".to_vec(), Ok(())));
        let lines = proxy.access_lines(number);
        let line = lines.iter().find(|line| line["tls"] == version).unwrap();
        assert_eq!(line["ending"], "client_closed");
        assert_eq!((&line["bytes_up"], &line["bytes_down"]), (&9.into(), &9.into()));
        assert_eq!(
            (&line["sni"], &line["tls_resumed"]),
            (&"shop.example".into(), &false.into())
        );
        assert!(line["tls_cipher"].as_str().unwrap().starts_with("TLS_"), "{line:#}");
        assert!(line["tls_group"].is_string(), "{line:#}");
    }
    let metrics = proxy.metrics();
    for version in ["1.2", "1.3"] {
        let of = [("version", version), ("result", "ok")];
        assert_eq!(metrics.sum("acequia_tls_handshakes_total", &of), 1.0);
    }
    assert_eq!(metrics.sum("acequia_tls_handshake_seconds_count", &[]), 2.0);
}

/// Sends these bytes, and receives as many at the same time.
fn exchange(client: &mut TlsClient, bytes: &[u8]) -> Vec<u8> {
    let (connection, mut socket) = (Mutex::new(&mut client.0.conn), &client.0.sock);
    scope(|all| {
        all.spawn(|| {
            for chunk in bytes.chunks(10_000) {
                let mut records = Vec::new();
                let mut connection = connection.lock().unwrap();
                connection.writer().write_all(chunk).unwrap();
                while connection.wants_write() {
                    connection.write_tls(&mut records).unwrap();
                }
                drop(connection);
                (&client.0.sock).write_all(&records).unwrap();
            }
        });
        let (mut received, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
        while received.len() < bytes.len() {
            let read = socket.read(&mut buffer).unwrap();
            assert!(read > 0, "the stream ends after {} bytes", received.len());
            let mut connection = connection.lock().unwrap();
            let mut unread = &buffer[..read];
            while !unread.is_empty() {
                connection.read_tls(&mut unread).unwrap();
                let plaintext = connection.process_new_packets().unwrap().plaintext_bytes_to_read();
                let end = received.len();
                received.resize(end + plaintext, 0);
                connection.reader().read_exact(&mut received[end..]).unwrap();
            }
        }
        received
    })
}

#[test]
fn megabytes_pass_both_ways_at_once_unchanged() {
    let (site, server) = (Site::new(), Server::echo());
    let proxy = site.start(server.address);
    let bytes = pattern(6_000_000);
    for versions in [[&TLS13], [&TLS12]] {
        let setup = TlsSetup::new(&site.authority, &versions, None);
        let mut client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
        // The server sends back what it has read before it reads more, so that both directions stay full.
        assert!(exchange(&mut client, &bytes) == bytes);
        client.finish();
        assert_eq!(client.read_to_end(), (Vec::new(), Ok(())));
    }
}

#[test]
fn a_client_that_reads_late_and_in_small_pieces_gets_a_large_answer_and_its_end() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    client.send(b"?").finish();
    let mut server = manual.session();
    let bytes = pattern(251 * 4096).repeat(64);
    // The client does not read before all buffers are full.
    server.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while let Ok(written @ 1..) = server.write(&bytes[sent..]) {
        sent += written;
    }
    let bytes = &bytes[..sent + 1_000_000];
    server.set_write_timeout(Some(PATIENCE)).unwrap();
    scope(|all| {
        all.spawn(|| {
            server.write_all(&bytes[sent..]).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        while received.len() < bytes.len() {
            received.extend(client.read(1000.min(bytes.len() - received.len())));
        }
        assert!(received == bytes);
        assert_eq!(client.read_to_end(), (Vec::new(), Ok(())));
    });
    wait_for_ended_sessions(&proxy, "client_closed", 1);
}

#[test]
fn a_half_close_passes_both_ways() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    server.write_all(b"a greeting").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end(), (b"a greeting".to_vec(), Ok(())));
    let upload = pattern(1_000_000);
    let sent = upload.clone();
    let sending = spawn(move || {
        client.send(&sent).finish();
        client
    });
    let (received, end) = read_to_end(&mut server);
    assert!(received == upload && end.is_ok());
    drop((server, sending.join().unwrap()));
    wait_for_ended_sessions(&proxy, "server_closed", 1);
}

#[test]
fn a_listener_terminates_one_name_and_passes_another_through() {
    let (site, plain, tls) = (Site::new(), Server::named("plaintext"), tls_server("tenant.example"));
    let routes = "[[listeners.tls.routes]]\nsni = \"tenant.example\"\ntls = \"pass\"\npool = \"tenants\"\n";
    let config = site.config(plain.address, "", routes)
        + &format!(
            "[pools.tenants]\nservers = [\"{}\"]\nhealth.check = \"off\"\n",
            tls.address
        );
    let proxy = Proxy::start(&config);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    assert_eq!(client.read(9), b"plaintext");
    drop(client);
    let foreign = site.client().connect(proxy.at("tls"), "tenant.example");
    let error = foreign.err().unwrap().to_string();
    assert!(
        error.contains("UnknownIssuer"),
        "expected the server's own certificate: {error}"
    );
    let lines = proxy.access_lines(2);
    let passed = lines.iter().find(|line| line["sni"] == "tenant.example").unwrap();
    assert_eq!(passed["tls"], "pass");
}

#[test]
fn a_guard_refusal_is_logged_as_pass_through_only_on_a_route_that_passes_tls() {
    let (site, server) = (Site::new(), Server::named("plaintext"));
    let routes = "[[listeners.tls.routes]]\nsni = \"other.example\"\nguards = \"nobody\"\npool = \"p\"\n\
                  [[listeners.tls.routes]]\nsni = \"shop.example\"\nguards = \"nobody\"\ntls = \"pass\"\npool = \"p\"\n";
    let config = site.config(server.address, "", routes) + "[guards.nobody]\ndeny = \"127.0.0.0/8\"\n";
    let proxy = Proxy::start(&config);
    for name in ["other.example", "shop.example"] {
        assert!(site.client().connect(proxy.at("tls"), name).is_err());
    }
    for line in proxy.access_lines(2) {
        let is_passed = line["sni"] == "shop.example";
        assert_eq!(
            (&line["ending"], line["tls"] == "pass"),
            (&"denied".into(), is_passed),
            "{line:#?}"
        );
    }
}

#[test]
fn the_alpn_protocol_is_that_of_the_route_or_else_of_the_listener() {
    let (site, server) = (Site::new(), Server::named("hello"));
    // Clients that do not offer the route's protocol do not match the route.
    let routes = "[[listeners.tls.routes]]\nsni = \"shop.example\"\nalpn = \"h2\"\npool = \"p\"\n";
    let proxy = Proxy::start(&site.config(server.address, "alpn = [\"http/1.1\"]", routes));
    let agreed = |name, offered: &[&str]| {
        let client = site.client().offering(offered).connect(proxy.at("tls"), name);
        client.map(|client| client.protocol())
    };
    assert_eq!(
        agreed("shop.example", &["h2", "http/1.1"]).unwrap().as_deref(),
        Some("h2")
    );
    assert_eq!(
        agreed("shop.example", &["http/1.1"]).unwrap().as_deref(),
        Some("http/1.1")
    );
    assert_eq!(
        agreed("other.example", &["h2", "http/1.1"]).unwrap().as_deref(),
        Some("http/1.1")
    );
    assert_eq!(agreed("other.example", &[]).unwrap(), None);
    let refused = agreed("other.example", &["h2"]).err().unwrap().to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn sessions_are_resumed_on_any_worker() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let config = format!("[runtime]\nworkers = 4\n{}", site.config(server.address, "", ""));
    let proxy = Proxy::start(&config);
    for versions in [[&TLS13], [&TLS12]] {
        let setup = TlsSetup::new(&site.authority, &versions, None);
        let connect = || {
            let mut client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
            client.read(5); // the ticket comes before these bytes
            client.is_resumed()
        };
        assert!(!connect());
        assert!((0..12).all(|_| connect()));
    }
    assert_eq!(proxy.metrics().sum("acequia_tls_resumptions_total", &[]), 24.0);
}

#[test]
fn instances_with_common_secrets_resume_each_others_sessions() {
    let (site, server) = (Site::new(), Server::named("hello"));
    std::fs::write(site.directory().join("tickets"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let config = site.config(server.address, &format!("tickets = {}", site.file("tickets")), "");
    let (one, two, alone) = (Proxy::start(&config), Proxy::start(&config), site.start(server.address));
    let setup = site.client();
    let is_resumed = |proxy: &Proxy| {
        let mut client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
        client.read(5);
        client.is_resumed()
    };
    assert_eq!([&one, &two, &one].map(is_resumed), [false, true, true]);
    assert!(!is_resumed(&alone));
}

#[test]
fn a_proxy_header_describes_the_terminated_tls() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let config = site.config(manual.server.address, "alpn = [\"h2\"]", "").replace(
        "health = { check = \"off\" }",
        "health = { check = \"off\" }\nproxy_protocol = \"v2\"",
    );
    let proxy = Proxy::start(&config);
    let setup = site.client().offering(&["http/1.1", "h2"]);
    let _client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
    let (_server, header) = manual.session_behind_header();
    let has = |wanted: &[u8]| header.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(b"\x01\0\x02h2"), "the agreed protocol: {header:?}");
    assert!(has(b"\x02\0\x0cshop.example"), "the server name: {header:?}");
    assert!(has(b"\x01\0\0\0\x01\x21\0\x07TLSv1.3"), "the TLS version: {header:?}");
}

#[test]
fn a_client_that_does_not_speak_tls_is_closed_and_a_later_one_served() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    // SMTP, a ClientHello of SSL 2.0, and zeros.
    let requests: [&[u8]; 3] = [b"HELO x\r\n", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", &[0; 64]];
    for request in requests {
        let mut client = Client::connect(proxy.at("tls"));
        client.send(request);
        client.must_be_closed();
    }
    let lines = proxy.access_lines(3);
    assert!(
        lines
            .iter()
            .all(|line| line["ending"] == "tls_failed" && line["tls_error"] == "not_tls"),
        "{lines:#?}"
    );
    assert_eq!(
        site.client().connect(proxy.at("tls"), "shop.example").unwrap().read(5),
        b"hello"
    );
}

#[test]
fn a_cleartext_http_client_gets_an_http_answer() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let requests = [
        "GET /",
        "OPTIONS *",
        "CONNECT shop.example:443",
        "GET http://shop.example/",
    ];
    for request in requests {
        let mut client = Client::connect(proxy.at("tls"));
        client.send(format!("{request} HTTP/1.1\r\nHost: shop.example\r\n\r\n").as_bytes());
        let answer = String::from_utf8(client.read_all()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert_eq!(body, "This port is for https.\n", "{request}");
    }
    // The method comes in pieces, each of which is read before the next one is sent.
    let mut client = Client::connect(proxy.at("tls"));
    let (client_port, proxy_port) = (client.0.local_addr().unwrap().port(), proxy.at("tls").port());
    let proxy_end = format!("( sport = :{proxy_port} and dport = :{client_port} )");
    for piece in ["G", "ET ", "/ HTTP/1.1\r\n"] {
        eventually(
            "all is read",
            || matches!(&tcp_sockets(&proxy_end)[..], [(state, 0)] if state == "ESTAB"),
        );
        client.send(piece.as_bytes());
    }
    assert!(client.read_all().starts_with(b"HTTP/1.1 400 "));
    for line in proxy.access_lines(requests.len() + 1) {
        assert!(
            line["ending"] == "tls_failed" && line["tls_error"] == "http_request",
            "{line}"
        );
    }
}

#[test]
fn a_cleartext_redis_client_gets_a_redis_error() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let config = site.config(server.address, "", "");
    let proxy = Proxy::start(&config.replace("hello_timeout", "protocol = \"redis\"\nhello_timeout"));
    let mut client = Client::connect(proxy.at("tls"));
    client.send(b"PING\r\n");
    assert_eq!(client.read_all(), b"-ERR connections without TLS are refused here\r\n");
    let line = proxy.access_line();
    assert_eq!(
        (&line["ending"], &line["tls_error"]),
        (&"tls_failed".into(), &"not_tls".into())
    );
}

#[test]
fn a_client_without_an_acceptable_version_gets_an_alert() {
    let (site, server) = (Site::new(), Server::named("hello"));
    for (keys, hello, alert) in [
        ("", old_hello(0), [21, 3, 1, 0, 2, 2, 70]),
        ("", old_hello(1), [21, 3, 1, 0, 2, 2, 70]),
        ("", old_hello(2), [21, 3, 3, 0, 2, 2, 70]),
        (
            "min_version = \"1.3\"",
            TlsSetup::new(&site.authority, &[&TLS12], None).hello("shop.example"),
            [21, 3, 3, 0, 2, 2, 70],
        ),
    ] {
        let proxy = Proxy::start(&site.config(server.address, keys, ""));
        let mut client = Client::connect(proxy.at("tls"));
        client.send(&hello);
        assert_eq!(client.read(7), alert);
        let line = proxy.access_line();
        assert_eq!(
            (&line["ending"], &line["tls_error"]),
            (&"tls_failed".into(), &"protocol_version".into())
        );
        let failed = [("result", "failed")];
        assert_eq!(proxy.metrics().sum("acequia_tls_handshakes_total", &failed), 1.0);
    }
}

/// A ClientHello without extensions (RFC 4346, section 7.4.1.2). `minor` is the highest version that the client offers:
/// 0 is SSL 3.0, 1 is TLS 1.0, 2 is TLS 1.1.
fn old_hello(minor: u8) -> Vec<u8> {
    let rest = [0, 0, 2, 0, 0x2f, 1, 0]; // no session, one suite, no compression
    [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, minor][..], &[7; 32], &rest].concat()
}

#[test]
fn clients_that_vanish_during_the_handshake_leave_nothing_behind() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let hello = site.client().hello("shop.example");
    for round in 0..2_000 {
        let mut socket = TcpStream::connect(proxy.at("tls")).unwrap();
        socket.write_all(&hello).unwrap();
        if round % 3 == 0 {
            let _ = socket.read(&mut [0; 100]).unwrap(); // waits for the proxy's part of the handshake
        }
        if round % 2 == 0 {
            Client(socket).reset();
        }
    }
    wait_for_active_sessions(&proxy, 0);
    assert_eq!(
        server.sessions(),
        0,
        "the proxy connects to the server only after the handshake"
    );
    assert_eq!(
        site.client().connect(proxy.at("tls"), "shop.example").unwrap().read(5),
        b"hello"
    );
}

#[test]
fn a_slow_handshake_ends_at_its_deadline() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let mut client = Client::connect(proxy.at("tls"));
    client.send(&site.client().hello("shop.example"));
    match client.try_read_all() {
        Ok(bytes) => assert!(!bytes.is_empty(), "expected the proxy's part of the handshake"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    let line = proxy.access_line();
    assert_eq!(line["ending"], "hello_timeout");
    assert!(line["duration_ms"].as_f64().unwrap() < 3_000.0, "{line:#}");
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_tls_handshakes_total", &[("result", "timeout")]),
        1.0
    );
}

#[test]
fn client_bytes_are_not_logged_by_the_tls_library() {
    let (site, server) = (Site::new(), Server::echo());
    let proxy = site.start(server.address);
    let mut client = Client::connect(proxy.at("tls"));
    // rustls warns of an IP address as a server name: "Illegal SNI extension: …".
    client.send(&Hello::named("192.0.2.1").bytes()).read(1); // the proxy has parsed the ClientHello
    site.client().connect(proxy.at("tls"), "shop.example").unwrap(); // meanwhile the warning would reach the log
    let log = proxy.log();
    assert!(!log.iter().any(|line| line.to_string().contains("SNI")), "{log:#?}");
}
