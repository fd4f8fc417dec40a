//! Listeners with `protocol = "postgres"` and certificates: acequia terminates TLS, and reads what is sent within it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::client::Client;
use crate::support::database::{Postgres, over_direct_tls, psql};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::process::{finished, must};
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::tls_client::{TlsClient, TlsSetup};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const SELECT_PORT: &str = "SELECT inet_server_port()";

/// A proxy with a certificate for all names.
struct Site {
    authority: Authority,
    directory: TempDir,
    proxy: Proxy,
}

impl Site {
    /// Starts a proxy that routes a.example to the server `a`, and b.example and the database `orders` to the server
    /// `b`. The listener has these further lines.
    fn start(a: SocketAddr, b: SocketAddr, listener_lines: &str) -> Self {
        Self::start_with(a, b, listener_lines, "")
    }

    /// As [`Self::start`]. The pool `a` has further lines, too.
    fn start_with(a: SocketAddr, b: SocketAddr, listener_lines: &str, pool_lines: &str) -> Self {
        let (authority, directory) = (Authority::new("test authority"), tempfile::tempdir().unwrap());
        let names = ["a.example", "b.example", "other.example", "passed.example"];
        authority.issue(&names).write(directory.path(), "site");
        std::fs::write(directory.path().join("authority.txt"), authority.certificate()).unwrap();
        let proxy = Proxy::start(&format!(
            "[guards.nobody]\ndeny = \"127.0.0.0/8\"\n[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n\
             {listener_lines}\n\
             [listeners.db.tls]\ncertificates = {{ directory = {:?} }}\n\
             [[listeners.db.routes]]\nsni = \"a.example\"\npool = \"a\"\n\
             [[listeners.db.routes]]\nsni = \"b.example\"\npool = \"b\"\n\
             [[listeners.db.routes]]\nsni = \"passed.example\"\ntls = \"pass\"\npool = \"b\"\n\
             [[listeners.db.routes]]\ndatabase = \"orders\"\npool = \"b\"\n\
             [[listeners.db.routes]]\ndatabase = \"denied\"\nguards = \"nobody\"\npool = \"b\"\n\
             [[listeners.db.routes]]\ndatabase = \"gone\"\npool = \"gone\"\n\
             [pools.a]\nservers = [\"{a}\"]\nhealth.check = \"off\"\n{pool_lines}\n\
             [pools.b]\nservers = [\"{b}\"]\nhealth.check = \"off\"\n\
             [pools.gone]\nservers = [\"127.0.0.1:1\"]\nhealth.check = \"off\"",
            directory.path()
        ));
        Self {
            authority,
            directory,
            proxy,
        }
    }

    /// `psql` with this statement. It connects to this name, and verifies that the certificate is valid for the name.
    fn psql(&self, name: &str, database: &str, statement: &str) -> Command {
        let mut command = psql(self.proxy.at("db"), statement);
        let authority = self.directory.path().join("authority.txt");
        let target = format!(
            "host={name} hostaddr=127.0.0.1 dbname={database} sslmode=verify-full sslrootcert={}",
            authority.display()
        );
        command.args(["-d", &target]);
        command
    }

    /// A client that has asked for TLS by an SSLRequest, and has completed the handshake.
    fn client(&self) -> TlsClient {
        let mut client = Client::connect(self.proxy.at("db"));
        assert_eq!(client.send(&SSL_REQUEST).read(1), b"S");
        let setup = TlsSetup::trusting(&self.authority).offering(&["postgresql"]);
        setup.over(client.0, "a.example").unwrap()
    }
}

fn startup(database: &str) -> Vec<u8> {
    let content = format!("user\0postgres\0database\0{database}\0\0");
    let length = u32::try_from(content.len() + 8).unwrap();
    [&length.to_be_bytes(), &[0, 3, 0, 0], content.as_bytes()].concat()
}

#[test]
fn psql_is_routed_by_name_or_database_and_prints_why_it_is_refused() {
    let (a, b) = (Postgres::start(), Postgres::start_with_tls());
    must(&mut psql(b.address(), "CREATE DATABASE orders"));
    let site = Site::start(a.address(), b.address(), "tls_required = true");
    for (name, database, server) in [
        ("a.example", "postgres", &a),
        ("b.example", "postgres", &b),
        ("other.example", "orders", &b),
    ] {
        let port = must(&mut site.psql(name, database, SELECT_PORT));
        assert_eq!(port.trim(), server.address().port().to_string(), "{name} {database}");
    }
    let lines = site.proxy.access_lines(3);
    let line = lines.iter().find(|line| line["sni"] == "a.example").unwrap();
    let known = ["sni", "database", "user", "tls"].map(|key| line[key].as_str().unwrap_or("none"));
    assert_eq!(known, ["a.example", "postgres", "postgres", "1.3"], "{line:#?}");
    // TLS that is passed on is decrypted by the server, which has its own certificate.
    let refused = finished(&mut site.psql("passed.example", "postgres", SELECT_PORT));
    assert!(refused.stderr.contains("certificate verify failed"), "{refused:#?}");
    let passed = must(
        site.psql("passed.example", "postgres", SELECT_PORT)
            .env("PGSSLMODE", "require")
            .args(["-d", "host=passed.example hostaddr=127.0.0.1 sslmode=require"]),
    );
    assert_eq!(passed.trim(), b.address().port().to_string());
    for (name, database, answer) in [
        (
            "other.example",
            "none",
            "FATAL:  no route takes database \"none\" and user \"postgres\"",
        ),
        (
            "other.example",
            "denied",
            "FATAL:  connections from this address are refused here",
        ),
        ("other.example", "gone", "FATAL:  no server is available"),
        // This text becomes part of the connection string, so it also sets `channel_binding`.
        ("a.example", "postgres channel_binding=require", "channel binding"),
    ] {
        let refused = finished(&mut site.psql(name, database, SELECT_PORT));
        assert!(refused.stderr.contains(answer), "{name} {database}: {refused:#?}");
    }
    let refused = finished(psql(site.proxy.at("db"), SELECT_PORT).env("PGSSLMODE", "disable"));
    let answer = "FATAL:  connections without TLS are refused here";
    assert!(refused.stderr.contains(answer), "{refused:#?}");
}

#[test]
fn a_cancel_within_tls_reaches_the_session_by_its_key_also_when_its_server_is_full() {
    let server = Postgres::start();
    let limits = "max_sessions = 1\nqueue = { max = 1, timeout = \"1h\" }";
    let site = Site::start_with(server.address(), server.address(), "", limits);
    let mut session = site.client();
    // In single bytes, because the bytes within TLS may be cut anywhere.
    for byte in startup("postgres") {
        session.send(&[byte]);
    }
    let key = loop {
        let header = session.read(5);
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let content = session.read(length - 4);
        if header[0] == b'K' {
            break content;
        }
    };
    assert_eq!(session.read(6), b"Z\0\0\0\x05I");
    let query = b"SELECT pg_sleep(600)\0";
    let length = u32::try_from(query.len() + 4).unwrap().to_be_bytes();
    session.send(&[b"Q", &length[..], query].concat());
    eventually("the query runs", || server.sleepers() == 1); // the server ignores a cancel that comes before
    let mut waiting = site.client();
    waiting.send(&startup("postgres"));
    let queue = || site.proxy.metrics().sum("acequia_pool_queue", &[("pool", "a")]);
    eventually("the queue is full", || queue() == 1.0);
    let length = u32::try_from(key.len() + 8).unwrap().to_be_bytes();
    let request = [&length[..], &[4, 210, 22, 46], &key].concat();
    let cancelled = site.client().send(&request).read_to_end();
    assert_eq!(cancelled, (Vec::new(), Ok(())), "the end of the stream, and no reset");
    let mut answer = String::new();
    while !answer.contains("canceling statement due to user request") {
        answer.push(char::from(session.read(1)[0]));
    }
    let line = site.proxy.access_line();
    assert_eq!((&line["ending"], &line["detail"]), (&"cancel".into(), &"by_key".into()));
    assert_eq!(
        queue(),
        1.0,
        "the request did not wait, and no other client had to leave the queue"
    );
}

#[test]
fn the_proxy_header_of_a_cancel_within_tls_describes_the_tls() {
    let (manual, other) = (ManualServer::new(), ManualServer::new()); // pool `b` gets the request without a header
    let site = Site::start_with(
        manual.server.address,
        other.server.address,
        "cancel_unplaced = \"fanout\"",
        "proxy_protocol = \"v2\"",
    );
    let request = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 1, 2, 3, 4];
    let mut client = site.client();
    client.send(&request);
    let (mut server, header) = manual.session_behind_header();
    let has = |wanted: &[u8]| header.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(b"\x01\0\x0apostgresql"), "the agreed protocol: {header:?}");
    assert!(has(b"\x02\0\x09a.example"), "the server name: {header:?}");
    assert!(has(b"\x01\0\0\0\x01\x21\0\x07TLSv1.3"), "the TLS version: {header:?}");
    let mut sent = [0; 16];
    server.read_exact(&mut sent).unwrap();
    assert_eq!(sent, request);
}

#[test]
fn direct_tls_is_terminated_only_if_the_client_offers_the_postgresql_alpn() {
    let server = Postgres::start();
    let site = Site::start(server.address(), server.address(), "");
    let setup = TlsSetup::trusting(&site.authority).offering(&["postgresql"]);
    let mut client = setup.connect(site.proxy.at("db"), "a.example").unwrap();
    assert_eq!(client.protocol().as_deref(), Some("postgresql"));
    assert_eq!(
        client.send(&startup("postgres")).read(9),
        b"R\0\0\0\x08\0\0\0\0",
        "expected AuthenticationOk, the answer to the startup message"
    );
    drop(client);
    let authority = site.directory.path().join("authority.txt");
    // `None`: the client for this is not installed.
    if let Some(port) = over_direct_tls(site.proxy.at("db"), "a.example", &authority, SELECT_PORT) {
        assert_eq!(port, server.address().port().to_string());
    }
    // Other clients of this listener send an SSLRequest before their ClientHello.
    let port = must(&mut site.psql("a.example", "postgres", SELECT_PORT));
    assert_eq!(port.trim(), server.address().port().to_string());
    for alpn in [&[][..], &["h2"]] {
        let hello = Hello::named("a.example").alpn(alpn).bytes();
        let alert = Client::connect(site.proxy.at("db")).send(&hello).read_all();
        assert_eq!(alert, [21, 3, 3, 0, 2, 2, 120], "no_application_protocol: {alpn:?}");
    }
}

#[test]
fn invalid_and_incomplete_first_packets_reach_no_server() {
    let server = Server::run(|mut stream| drop(stream.read(&mut [0])));
    let site = Site::start(server.address, server.address, "hello_timeout = \"1s\"");
    // Bytes that follow the SSLRequest before its answer (CVE-2021-23214).
    let smuggled = [&SSL_REQUEST[..], &startup("postgres")].concat();
    assert_eq!(Client::connect(site.proxy.at("db")).send(&smuggled).read_all(), b"");
    let hello = Hello::named("a.example").bytes();
    for sent in [
        &SSL_REQUEST[..],
        &hello,
        b"\0\0\0\x07",   // too short to be a packet
        b"\0\0\x27\x15", // longer than a first packet may be
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (answer, end) = site.client().send(sent).read_to_end();
        assert_eq!((answer.as_slice(), end), (&b""[..], Ok(())), "{}", sent.escape_ascii());
    }
    for (sent, answer) in [
        (&b"\0\0\0\x08\0\x02\0\0"[..], "another version of the protocol"),
        (b"\0\0\0\x0a\0\x03\0\0\0\0", "malformed"),
    ] {
        let (message, end) = site.client().send(sent).read_to_end();
        assert!(
            end.is_ok() && String::from_utf8_lossy(&message).contains(answer),
            "{answer}"
        );
    }
    let mut slow = site.client();
    slow.0.write_all(&startup("postgres")[..9]).unwrap();
    assert_eq!(slow.read_to_end(), (Vec::new(), Ok(())), "after hello_timeout");
    site.client().finish();
    let mut endings: Vec<_> = site
        .proxy
        .access_lines(10)
        .iter()
        .map(|line| line["ending"].to_string())
        .collect();
    endings.sort();
    let expected = [
        &["\"client_left_early\""][..],
        &["\"hello_invalid\""; 8],
        &["\"hello_timeout\""],
    ]
    .concat();
    assert_eq!(endings, expected);
    assert_eq!(server.sessions(), 0);
}

#[test]
fn clients_without_tls_are_refused_if_client_certificates_are_required() {
    let (authority, directory, server) = (
        Authority::new("test authority"),
        tempfile::tempdir().unwrap(),
        Server::silent(),
    );
    authority.issue(&["a.example"]).write(directory.path(), "site");
    let ca_file = directory.path().join("authority.txt");
    std::fs::write(&ca_file, authority.certificate()).unwrap();
    let proxy = Proxy::start(&format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\npool = \"p\"\n\
         [listeners.db.tls]\ncertificates = {{ directory = {:?} }}\nclient_auth = {{ ca_file = {ca_file:?} }}\n\
         [pools.p]\nservers = [\"{}\"]\nhealth.check = \"off\"",
        directory.path(),
        server.address
    ));
    let refusal = Client::connect(proxy.at("db")).send(&startup("postgres")).read_all();
    let refusal = String::from_utf8_lossy(&refusal).into_owned();
    assert!(
        refusal.contains("connections without TLS are refused here"),
        "{refusal}"
    );
    assert_eq!(server.sessions(), 0);
}

/// Many clients close without a close_notify alert. acequia then sends the server the end of the stream, although the
/// stream may be cut short: messages of PostgreSQL have lengths, so a server sees that the last one is incomplete.
/// If acequia reset the connection instead, it could not see when the server has ended the session and can take the
/// next client.
#[test]
fn the_server_of_a_client_without_close_notify_sees_the_end_of_the_stream_and_takes_the_next_client() {
    const CLIENTS: usize = 3;
    let server = Server::run_on(TcpListener::bind("127.0.0.1:0").unwrap(), |mut stream, received| {
        let startup = startup("postgres");
        stream.read_exact(&mut vec![0; startup.len()]).unwrap();
        stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
        let result = stream.read_to_end(&mut Vec::new());
        received.lock().unwrap().push(format!("{result:?}").into_bytes());
    });
    let site = Site::start_with(
        server.address,
        server.address,
        "",
        "max_sessions = 1\nqueue = { max = 9 }",
    );
    for _ in 0..CLIENTS {
        let mut client = site.client();
        assert_eq!(
            client.send(&startup("postgres")).read(15),
            b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"
        );
        drop(client); // without a close_notify alert
    }
    let lines = site.proxy.access_lines(CLIENTS);
    assert!(
        lines.iter().all(|line| line["ending"] == "client_truncated"),
        "{lines:#?}"
    );
    eventually("all have ended", || server.received().len() == CLIENTS);
    assert_eq!(
        server.received(),
        vec![b"Ok(0)".to_vec(); CLIENTS],
        "the end of the stream, and no reset"
    );
}
