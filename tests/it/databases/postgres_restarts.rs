//! While a server of PostgreSQL starts or stops, it accepts connections and refuses each session. Its clients are
//! connected to another server, or wait until it is back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::support::client::Client;
use crate::support::configs;
use crate::support::database::{Postgres, psql};
use crate::support::eventually;
use crate::support::process::{Process, finished};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, list};

const STARTUP: [u8; 27] = *b"\0\0\0\x1b\0\x03\0\0user\0a\0database\0b\0\0";

/// Each server has at most two sessions at a time, and the pool has a queue.
const QUEUE: &str = "max_sessions = 2\nqueue = { max = 100, timeout = \"60s\" }";

/// Health checks that do not mark a server down during a restart: that would take 1,000 failed checks in a row.
const CHECKED: &str = "health = { interval = \"200ms\", fall = 1000 }";

const UNCHECKED: &str = "health = { check = \"off\" }";

fn config(servers: &[SocketAddr], pool: &str) -> String {
    configs::listener("db", "p", "protocol = \"postgres\"") + &configs::pool("p", servers, pool)
}

fn waiting(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_pool_queue", &[("pool", "p")])
}

fn not_ready(proxy: &Proxy) -> f64 {
    let labels = [("pool", "p"), ("reason", "not_ready")];
    proxy.metrics().sum("acequia_connect_failures_total", &labels)
}

fn ejected(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("acequia_server_ejected", &[("pool", "p")])
}

/// `psql` with this statement. Clients with odd numbers first ask for TLS, the others do not.
fn client(proxy: &Proxy, number: usize, statement: &str) -> Process {
    let mode = ["disable", "prefer"][number % 2];
    Process::start(psql(proxy.at("db"), statement).env("PGSSLMODE", mode))
}

#[test]
fn all_queued_clients_outlast_a_restart() {
    const CLIENTS: usize = 12;
    for health in [CHECKED, UNCHECKED] {
        let mut server = Postgres::start();
        let proxy = Proxy::start(&config(&[server.address()], &format!("{QUEUE}\n{health}")));
        let _busy: Vec<_> = (0..2)
            .map(|number| client(&proxy, number, "SELECT pg_sleep(600)"))
            .collect();
        eventually("the server is full", || server.sleepers() == 2);
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|number| client(&proxy, number, "SELECT 'served'"))
            .collect();
        eventually("all wait", || waiting(&proxy) == CLIENTS as f64);
        server.restart_slowly();
        let refused = not_ready(&proxy);
        eventually("clients try the server in turn", || not_ready(&proxy) >= refused + 3.0);
        let ended: Vec<_> = clients
            .iter_mut()
            .filter_map(|client| (!client.is_running()).then(|| client.stderr.lines()))
            .collect();
        assert!(ended.is_empty(), "{health}: {ended:#?}");
        server.finish_starting();
        for client in &mut clients {
            let status = client.wait();
            assert!(status.success(), "{health}: {:#?}", client.stderr.lines());
            assert_eq!(client.stdout.lines(), ["served"]);
        }
        let lines = proxy.access_lines(2 + CLIENTS);
        let queued = lines
            .iter()
            .filter(|line| line["queue_ms"].as_f64().is_some_and(|waited| waited > 0.0));
        assert_eq!(queued.count(), CLIENTS, "{lines:#?}");
    }
}

#[test]
fn psql_prints_the_error_of_the_server_if_no_server_becomes_ready() {
    const ERROR: &str = "FATAL:  the database system is not accepting connections";
    let mut server = Postgres::start();
    server.restart_slowly();
    let short = QUEUE.replace("60s", "1500ms");
    let closed = ["server_closed", "client_closed"]; // either may be the first to close after the message
    for (pool, endings) in [
        (UNCHECKED.to_owned(), &closed[..]),
        (format!("{short}\n{UNCHECKED}"), &["queue_timeout"]),
    ] {
        let proxy = Proxy::start(&config(&[server.address()], &pool));
        for mode in ["disable", "prefer"] {
            let refused = finished(psql(proxy.at("db"), "SELECT 1").env("PGSSLMODE", mode));
            assert!(refused.stderr.contains(ERROR), "{pool} {mode}: {refused:#?}");
        }
        let lines = proxy.access_lines(2);
        let is_expected =
            |line: &serde_json::Value| line["ending"].as_str().is_some_and(|ending| endings.contains(&ending));
        assert!(lines.iter().all(is_expected), "{lines:#?}");
        assert!(
            not_ready(&proxy) >= 2.0,
            "{pool}: refusals that reached the clients count, too"
        );
    }
}

#[test]
fn no_client_gets_a_refusal_while_another_server_is_ready() {
    let (ready, mut other) = (Postgres::start(), Postgres::start());
    other.restart_slowly();
    let proxy = Proxy::start(&config(&[other.address(), ready.address()], UNCHECKED));
    for number in 0..8 {
        let mut client = client(&proxy, number, "SELECT inet_server_port()");
        assert!(client.wait().success(), "{:#?}", client.stderr.lines());
        assert_eq!(client.stdout.lines(), [ready.address().port().to_string()]);
    }
    assert!(not_ready(&proxy) >= 1.0);
}

/// Answers a StartupMessage with the error of a server that starts.
fn refuse(mut stream: TcpStream) {
    read_request(&mut stream);
    let fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
    let length = u32::try_from(4 + fields.len()).unwrap().to_be_bytes();
    let _ = stream.write_all(&[b"E", &length[..], fields].concat());
}

fn close_without_answer(mut stream: TcpStream) {
    read_request(&mut stream);
}

const PART_OF_AN_ERROR: &[u8] = b"E\0\0\0\x50SFATAL\0VFA";

/// Closes the connection in the middle of the server's first message, as a server that is killed may do.
fn break_off(mut stream: TcpStream) {
    read_request(&mut stream);
    let _ = stream.write_all(PART_OF_AN_ERROR);
}

/// Reads to the end of the StartupMessage, and returns it with the PROXY header before it, if there is one.
fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    while !request.ends_with(&STARTUP) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
    request
}

#[test]
fn another_server_gets_the_same_bytes_if_one_refuses_or_closes_before_its_first_message_is_complete() {
    // A server that refuses is ejected. One that closes the connection is not, and is picked for half of the clients.
    for (fail, failures) in [(refuse as fn(TcpStream), 1), (close_without_answer, 4), (break_off, 4)] {
        let failing = Server::run(fail);
        let ready = Server::run_on(TcpListener::bind("127.0.0.1:0").unwrap(), |mut stream, received| {
            received.lock().unwrap().push(read_request(&mut stream));
            let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
            let _ = stream.read(&mut [0]);
        });
        let pool = "proxy_protocol = \"v1\"\nbalance = \"round-robin\"\n\
                    health = { check = \"off\", eject_for = \"1h\", eject_max_for = \"1h\" }";
        let servers = list(&[&failing, &ready]);
        let listener = configs::listener("db", "p", "protocol = \"postgres\"");
        let proxy = Proxy::start(&format!("{listener}[pools.p]\nservers = [{servers}]\n{pool}"));
        for _ in 0..8 {
            let mut client = Client::connect(proxy.at("db"));
            let header = format!(
                "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
                client.0.local_addr().unwrap().port(),
                proxy.at("db").port()
            );
            assert_eq!(client.send(&STARTUP).read(9), b"R\0\0\0\x08\0\0\0\0");
            let received = ready.received().pop().unwrap();
            assert_eq!(
                received,
                [header.as_bytes(), &STARTUP].concat(),
                "{}",
                received.escape_ascii()
            );
        }
        assert_eq!((failing.sessions(), not_ready(&proxy)), (failures, failures as f64));
    }
}

/// If a server ends a connection before its first message is complete, the client may be the reason. Such a client must
/// not keep the other queued clients waiting.
#[test]
fn a_session_is_connected_again_only_once_if_its_server_closes_before_its_first_message_is_complete() {
    for (fail, answer) in [
        (close_without_answer as fn(TcpStream), &b""[..]),
        (break_off, PART_OF_AN_ERROR),
    ] {
        let failing = Server::run(fail);
        let proxy = Proxy::start(&config(&[failing.address], &format!("{QUEUE}\n{UNCHECKED}")));
        assert_eq!(Client::connect(proxy.at("db")).send(&STARTUP).read_all(), answer);
        let line = proxy.access_line();
        assert_eq!(
            (&line["ending"], &line["attempts"]),
            (&"server_closed".into(), &2.into()),
            "{line:#}"
        );
        assert_eq!((ejected(&proxy), not_ready(&proxy)), (0.0, 2.0));
    }
}

#[test]
fn a_server_that_closes_at_a_tls_request_has_served_no_session() {
    let closing = Server::run(|mut stream| stream.read_exact(&mut [0; 8]).unwrap());
    let proxy = Proxy::start(&config(&[closing.address], UNCHECKED));
    let mut client = Client::connect(proxy.at("db"));
    assert_eq!(client.send(b"\0\0\0\x08\x04\xd2\x16\x2f").read_all(), b"");
    proxy.access_line();
    let state: serde_json::Value = serde_json::from_str(&proxy.get("/api/v1/state").1).unwrap();
    let server = &state["pools"][0]["servers"][0];
    assert_eq!(
        (&server["sessions_so_far"], &state["totals"]["sessions_so_far"]),
        (&0.into(), &1.into()),
        "{state:#}"
    );
}

/// A client that sends its password before the server has asked for it gets a session, too, and shows that the server
/// is back.
#[test]
fn a_client_that_does_not_wait_for_the_answer_ends_the_ejection_of_its_server() {
    let sessions = AtomicUsize::new(0);
    let server = Server::run(move |mut stream| {
        if sessions.fetch_add(1, Relaxed) == 0 {
            return refuse(stream);
        }
        read_request(&mut stream);
        let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = Proxy::start(&config(&[server.address], &format!("{QUEUE}\n{UNCHECKED}")));
    let mut refused = Client::connect(proxy.at("db"));
    refused.send(&STARTUP);
    eventually("the server is ejected", || ejected(&proxy) == 1.0);
    drop(refused);
    let mut hasty = Client::connect(proxy.at("db"));
    hasty.send(&STARTUP);
    eventually("its first packet is read", || waiting(&proxy) == 1.0);
    hasty.send(b"p\0\0\0\x05\0");
    assert_eq!(hasty.read(9), b"R\0\0\0\x08\0\0\0\0");
    eventually("the server is back", || ejected(&proxy) == 0.0);
}
