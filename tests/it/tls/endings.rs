//! A cut never looks like a complete answer, and a complete answer never like a cut.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread::spawn;
use std::time::Duration;

use super::site::Site;
use crate::support::authority::replace;
use crate::support::client::small_buffer_client;
use crate::support::counts::{ended_sessions, wait_for_ended_sessions};
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, refusing};
use crate::support::stream::{SLOW_READER_BUFFER, SLOW_READER_IDLE_TIMEOUT, fill, read_slowly, read_to_end, reset};
use crate::support::tls_server::ManualTlsServer;
use rustix::process::Signal;
use socket2::Socket;

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

#[test]
fn a_truncated_client_stream_resets_the_server() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    client.send(b"half a request");
    server.read_exact(&mut [0; 14]).unwrap();
    client.truncate();
    assert_eq!(read_to_end(&mut server).1, RESET);
    wait_for_ended_sessions(&proxy, "client_truncated", 1);
}

#[test]
fn a_client_stream_truncated_within_a_record_resets_the_server() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    client.0.sock.write_all(&[23, 3, 3, 0, 100, 1, 2, 3]).unwrap();
    client.truncate();
    assert_eq!(read_to_end(&mut server), (Vec::new(), RESET));
    wait_for_ended_sessions(&proxy, "client_truncated", 1);
}

#[test]
fn a_client_close_after_the_server_end_is_no_truncation() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    client.send(b"?");
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"an answer").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end(), (b"an answer".to_vec(), Ok(())));
    client.truncate();
    assert_eq!(read_to_end(&mut server), (Vec::new(), Ok(())));
    wait_for_ended_sessions(&proxy, "server_closed", 1);
}

/// Starts a proxy that terminates TLS, and uses TLS to this server.
fn start_re_encrypting(site: &Site, server: &ManualTlsServer) -> Proxy {
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    let to_server = format!("[pools.p.tls]\nca_file = {}\n", site.file("ca.pem"));
    Proxy::start(&(site.config(server.manual.server.address, "", "") + &to_server))
}

/// A client may end its request and wait for the answer. If the answer is cut off, the client must notice.
#[test]
fn a_server_stream_truncated_after_the_client_end_resets_the_client() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["127.0.0.1"]));
    let proxy = start_re_encrypting(&site, &server);
    let setup = site.client();
    let client = spawn({
        let at = proxy.at("tls");
        move || {
            let mut client = setup.connect(at, "shop.example").unwrap();
            client.send(b"?").finish();
            client.read_to_end()
        }
    });
    let mut session = server.session();
    assert_eq!(session.read_to_end(), (b"?".to_vec(), Ok(())));
    session.send(b"half an answer").truncate();
    assert_eq!(client.join().unwrap(), (b"half an answer".to_vec(), RESET));
    wait_for_ended_sessions(&proxy, "server_truncated", 1);
}

#[test]
fn a_server_reset_after_delivered_bytes_resets_the_client() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    server.write_all(&[9; 50_000]).unwrap();
    assert_eq!(client.read(50_000), [9; 50_000]);
    reset(server);
    assert_eq!(client.read_to_end(), (Vec::new(), RESET));
    wait_for_ended_sessions(&proxy, "server_reset", 1);
}

#[test]
fn a_clients_reset_resets_the_server() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    Socket::from(client.0.sock.try_clone().unwrap())
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(read_to_end(&mut server).1, RESET);
    wait_for_ended_sessions(&proxy, "client_reset", 1);
}

#[test]
fn tampered_records_of_the_client_reset_the_server() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let proxy = site.start(manual.server.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    client
        .0
        .sock
        .write_all(&[&[23, 3, 3, 0, 40][..], &[7; 40]].concat())
        .unwrap();
    assert_eq!(read_to_end(&mut server), (Vec::new(), RESET));
    let line = proxy.access_line();
    assert_eq!(
        (&line["ending"], &line["tls_error"]),
        (&"tls_failed".into(), &"bad_record_mac".into())
    );
}

/// Nothing more can come from a server that has sent an invalid record, even if it keeps the connection open: the
/// client is reset at once.
#[test]
fn invalid_server_records_reset_the_client_at_once() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["127.0.0.1"]));
    let proxy = start_re_encrypting(&site, &server);
    for (record, error) in [
        (&[&[23, 3, 3, 0, 40][..], &[7; 40]].concat()[..], "bad_record_mac"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "decode_error"),
    ] {
        let (setup, at) = (site.client(), proxy.at("tls"));
        let client = spawn(move || {
            let mut client = setup.connect(at, "shop.example").unwrap();
            let received = client.send(b"?").read(9);
            (received, client.read_to_end())
        });
        let mut session = server.session();
        session.send(b"an answer");
        session.0.sock.write_all(record).unwrap();
        assert_eq!(client.join().unwrap(), (b"an answer".to_vec(), (Vec::new(), RESET)));
        proxy.wait_for_access(error, |line| line["tls_error"] == error);
        let _ = session.0.sock.read_to_end(&mut Vec::new()); // the server keeps the connection open until here
    }
    for line in proxy.access_lines(2) {
        assert_eq!(line["ending"], "server_tls_failed");
        // The proxy waits up to 5 s for the client to receive what the server sent before its failure. This client has
        // received it, so the proxy must not wait.
        assert!(line["duration_ms"].as_f64().unwrap() < 5_000.0, "{line}");
    }
}

#[test]
fn an_idle_session_ends_with_close_notify() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let config = site
        .config(manual.server.address, "", "")
        .replace("hello_timeout", "idle_timeout = \"1s\"\nhello_timeout");
    let proxy = Proxy::start(&config);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    assert_eq!(client.read_to_end(), (Vec::new(), Ok(())));
    assert_eq!(read_to_end(&mut server), (Vec::new(), Ok(())));
    wait_for_ended_sessions(&proxy, "idle_timeout", 1);
}

#[test]
fn an_idle_session_with_undelivered_bytes_is_reset_on_both_sides() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let config = site
        .config(manual.server.address, "", "")
        .replace("hello_timeout", "idle_timeout = \"2s\"\nhello_timeout");
    let proxy = Proxy::start(&config);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    fill(&mut server);
    wait_for_ended_sessions(&proxy, "idle_timeout", 1);
    assert_eq!(client.read_to_end().1, RESET);
    assert_eq!(read_to_end(&mut server).1, RESET);
}

#[test]
fn a_slow_reader_does_not_count_as_idle() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let idle_timeout = format!("idle_timeout = \"{SLOW_READER_IDLE_TIMEOUT}\"\nhello_timeout");
    let config = site
        .config(manual.server.address, "", "")
        .replace("hello_timeout", &idle_timeout);
    let proxy = Proxy::start(&config);
    let socket = small_buffer_client(proxy.at("tls"), SLOW_READER_BUFFER).0;
    let mut client = site.client().over(socket, "shop.example").unwrap();
    let mut server = manual.session();
    fill(&mut server);
    read_slowly(|bytes| assert_eq!(client.read(bytes).len(), bytes));
    assert_eq!(ended_sessions(&proxy, "idle_timeout"), 0.0);
    wait_for_ended_sessions(&proxy, "idle_timeout", 1);
}

#[test]
fn a_session_cut_at_the_end_of_a_drain_is_reset() {
    let (site, manual) = (Site::new(), ManualServer::new());
    let config = format!(
        "[runtime]\ndrain_timeout = \"100ms\"\n{}",
        site.config(manual.server.address, "", "")
    );
    let proxy = Proxy::start(&config);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    let mut server = manual.session();
    proxy.signal(Signal::TERM);
    assert_eq!((client.read_to_end().1, read_to_end(&mut server).1), (RESET, RESET));
    assert_eq!(proxy.wait().access[0]["ending"], "drained");
}

#[test]
fn a_failed_connect_to_the_server_resets_the_client() {
    let (site, port) = (Site::new(), refusing());
    let proxy = site.start(port.address);
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    assert_eq!(client.read_to_end(), (Vec::new(), RESET));
    wait_for_ended_sessions(&proxy, "connect_failed", 1);
}
