//! Listeners with `protocol = "postgres"`: each client reaches the server that it names; a refused client
//! prints the reason.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::support::client::Client;
use crate::support::counts::log_lines;
use crate::support::database::{Postgres, psql};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::process::{finished, must};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::stream::reset;

pub(super) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const SELECT_PORT: &str = "SELECT inet_server_port()";

/// A listener with these lines, two routes by name, and one by database.
fn by_name(a: SocketAddr, b: SocketAddr, lines: &str) -> String {
    format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n{lines}\n[[listeners.db.routes]]\nsni = \"a.example\"\n\
         pool = \"a\"\n[[listeners.db.routes]]\nsni = \"b.example\"\npool = \"b\"\n[[listeners.db.routes]]\n\
         database = \"post*\"\nuser = \"postgres\"\npool = \"b\"\n[pools.a]\nservers = [\"{a}\"]\ndirect = \"off\"\n\
         health.check = \"off\"\n[pools.b]\nservers = [\"{b}\"]\nhealth.check = \"off\""
    )
}

/// `psql` that connects to a name.
fn psql_to(name: &str, address: SocketAddr, mode: &str) -> Command {
    let mut command = psql(address, SELECT_PORT);
    command.args(["-d", &format!("host={name} hostaddr=127.0.0.1 sslmode={mode}")]);
    command
}

#[test]
fn tls_clients_are_routed_by_name_and_others_by_database() {
    let (a, b) = (Postgres::start_with_tls(), Postgres::start_with_tls());
    let proxy = Proxy::start(&by_name(a.address(), b.address(), ""));
    let db = proxy.at("db");
    for (name, server) in [("a.example", &a), ("b.example", &b)] {
        let port = must(&mut psql_to(name, db, "require"));
        assert_eq!(port.trim(), server.address().port().to_string());
    }
    let refused = finished(&mut psql_to("c.example", db, "require"));
    assert!(refused.stderr.contains("unrecognized name"), "{refused:#?}");
    let port = must(&mut psql_to("c.example", db, "disable"));
    assert_eq!(port.trim(), b.address().port().to_string());
    let refused = finished(
        psql(db, SELECT_PORT)
            .env("PGSSLMODE", "disable")
            .env("PGDATABASE", "orders"),
    );
    let message = "FATAL:  no route takes database \"orders\" and user \"postgres\"";
    assert!(refused.stderr.contains(message), "{refused:#?}");
    let lines = proxy.access_lines(5);
    let is_logged = |key: &str, value: &str, endings: &[&str]| {
        let mut matching = lines.iter().filter(|line| line[key] == value);
        matching.any(|line| endings.iter().any(|ending| line["ending"] == *ending))
    };
    // psql and the server both close after the Terminate message of psql; acequia may see either first.
    let closed = ["client_closed", "server_closed"];
    assert!(is_logged("server", &a.address().to_string(), &closed), "{lines:#?}");
    assert!(is_logged("database", "orders", &["no_route"]), "{lines:#?}");
}

#[test]
fn the_server_answers_the_tls_request_if_no_route_needs_a_name() {
    let (with, without) = (Postgres::start_with_tls(), Postgres::start());
    let listener = |name: &str, server: &Postgres, more: &str| {
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\npool = \"{name}\"\n{more}\n[pools.{name}]\n\
             servers = [\"{}\"]\n",
            server.address()
        )
    };
    let proxy = Proxy::start(
        &[
            listener("with", &with, ""),
            listener("without", &without, ""),
            listener("strict", &with, "tls_required = true"),
            listener("impossible", &without, "tls_required = true"),
        ]
        .concat(),
    );
    // `t` if the session uses TLS, else `f`; and what psql prints to stderr.
    let output_and_errors = |listener: &str, mode: &str| {
        let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let done = finished(psql(proxy.at(listener), query).env("PGSSLMODE", mode));
        (done.stdout.trim().to_owned(), done.stderr)
    };
    for (listener, mode, answer) in [
        ("with", "prefer", "t"),
        ("with", "disable", "f"),
        ("without", "prefer", "f"),
        ("strict", "prefer", "t"),
    ] {
        assert_eq!(
            output_and_errors(listener, mode),
            (answer.to_owned(), String::new()),
            "{listener} {mode}"
        );
    }
    let errors = output_and_errors("without", "require").1;
    assert!(
        errors.contains("server does not support SSL, but SSL was required"),
        "{errors}"
    );
    for (listener, mode) in [("strict", "disable"), ("impossible", "prefer")] {
        let errors = output_and_errors(listener, mode).1;
        assert!(
            errors.contains("FATAL:  connections without TLS are refused here"),
            "{errors}"
        );
    }
}

#[test]
fn requests_sent_byte_by_byte_are_answered_and_the_hello_is_replayed_unchanged() {
    let hello = Hello::named("a.example").bytes();
    let length = hello.len();
    let server = Server::run(move |mut stream| {
        let mut request = [0; 8];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request, SSL_REQUEST);
        stream.write_all(b"S").unwrap();
        let mut hello = vec![0; length];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
    });
    let proxy = Proxy::start(&by_name(server.address, server.address, ""));
    let mut client = Client::connect(proxy.at("db"));
    assert_eq!(client.send_in_pieces(&GSSENC_REQUEST, 1).read(1), b"N");
    assert_eq!(client.send_in_pieces(&SSL_REQUEST, 1).read(1), b"S");
    assert_eq!(client.send_in_pieces(&hello, 7).read(length), hello);
    drop(client);
    assert_eq!(proxy.access_line()["pool"], "a");
}

#[test]
fn a_client_queued_beyond_hello_timeout_still_gets_its_tls_answer() {
    const STARTUP: [u8; 16] = *b"\0\0\0\x10\0\x03\0\0user\0a\0\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    let server = Server::run(|mut stream| {
        let _ = stream.read_exact(&mut [0; 8]);
        let _ = stream.write_all(b"N");
        let _ = stream.read_exact(&mut [0; STARTUP.len()]);
        let _ = stream.write_all(READY);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = Proxy::start(&format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nhello_timeout = \"1s\"\npool = \"p\"\n[pools.p]\n\
         servers = [\"{}\"]\nhealth.check = \"off\"\nmax_sessions = 1\nqueue = {{ max = 9, timeout = \"60s\" }}",
        server.address
    ));
    let log_in = |client: &mut Client| {
        assert_eq!(client.read(1), b"N");
        assert_eq!(client.send(&STARTUP).read(READY.len()), READY);
    };
    let mut first = Client::connect(proxy.at("db"));
    log_in(first.send(&SSL_REQUEST));
    let mut second = Client::connect(proxy.at("db"));
    second.send(&SSL_REQUEST);
    let queued = || proxy.metrics().sum("acequia_pool_queue", &[("pool", "p")]) == 1.0;
    eventually("the second client waits", queued);
    std::thread::sleep(std::time::Duration::from_millis(1200)); // longer than hello_timeout
    drop(first);
    log_in(&mut second);
}

#[test]
fn a_hello_before_our_tls_answer_and_a_byte_after_the_servers_answer_are_refused() {
    let with_byte_after_s = Server::run(|mut stream| {
        let _ = stream.read_exact(&mut [0; 8]);
        let _ = stream.write_all(b"S!");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let proxy = Proxy::start(&by_name(with_byte_after_s.address, with_byte_after_s.address, ""));
    let mut client = Client::connect(proxy.at("db"));
    let smuggled = [&SSL_REQUEST[..], &Hello::named("a.example").bytes()].concat();
    assert_eq!(client.send(&smuggled).read_all(), b"", "bytes before our S");
    let mut client = Client::connect(proxy.at("db"));
    assert_eq!(client.send(&SSL_REQUEST).read(1), b"S");
    let alert = client.send(&Hello::named("a.example").bytes()).read_all();
    assert_eq!(
        alert,
        [21, 3, 3, 0, 2, 2, 40],
        "handshake_failure: a byte after the server's S"
    );
    let lines = proxy.access_lines(2);
    let has = |ending: &str| lines.iter().any(|line| line["ending"] == ending);
    assert!(has("hello_invalid") && has("server_refused_tls"), "{lines:#?}");
    assert_eq!(with_byte_after_s.sessions(), 1, "the first client had no server");
}

#[test]
fn a_startup_message_outside_of_required_tls_does_not_reach_the_server() {
    const STARTUP: [u8; 16] = *b"\0\0\0\x10\0\x03\0\0user\0a\0\0";
    let (answer_with, answers) = channel::<u8>();
    let answers = Mutex::new(answers);
    let server = Server::run_on(
        TcpListener::bind("127.0.0.1:0").unwrap(),
        move |mut stream, received| {
            let _ = stream.read_exact(&mut [0; 8]);
            let answer = answers.lock().unwrap().recv().unwrap();
            let _ = stream.write_all(&[answer]);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            received.lock().unwrap().push(rest);
        },
    );
    let proxy = Proxy::start(&format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\ntls_required = true\npool = \"p\"\n[pools.p]\n\
         servers = [\"{}\"]\nhealth.check = \"off\"",
        server.address
    ));
    let mut ended = 0;
    for (answer, is_early, ending) in [
        (b'S', true, "hello_invalid"),
        (b'N', true, "hello_invalid"),
        (b'E', false, "server_refused_tls"),
    ] {
        let mut client = Client::connect(proxy.at("db"));
        client.send(&SSL_REQUEST);
        eventually("the server is asked", || server.sessions() == ended + 1);
        if is_early {
            client.send(&STARTUP);
        }
        answer_with.send(answer).unwrap();
        if !is_early {
            assert_eq!(client.read(1), [answer]);
            client.send(&STARTUP);
        }
        client.must_be_closed();
        ended += 1;
        assert_eq!(proxy.access_lines(ended)[ended - 1]["ending"], ending);
    }
    eventually("the sessions of the server have ended", || {
        server.received().len() == ended
    });
    assert!(
        server.received().iter().all(Vec::is_empty),
        "nothing reached the server"
    );
}

#[test]
fn an_alert_refuses_tls_that_the_server_or_pool_does_not_accept() {
    let without = Postgres::start();
    let proxy = Proxy::start(&by_name(without.address(), without.address(), ""));
    let refused = finished(&mut psql_to("b.example", proxy.at("db"), "require"));
    assert!(refused.stderr.contains("handshake failure"), "{refused:#?}");
    assert_eq!(proxy.access_line()["ending"], "server_refused_tls");
    // Pool `a` has `direct = "off"`: it takes no hello without an SSLRequest before it.
    let direct = Hello::named("a.example").alpn(&["postgresql"]).bytes();
    let alert = Client::connect(proxy.at("db")).send(&direct).read_all();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 120], "no_application_protocol");
    let line = &proxy.access_lines(2)[1];
    assert_eq!(
        (&line["ending"], &line["detail"]),
        (&"refused".into(), &"direct_tls".into())
    );
}

#[test]
fn the_ending_tells_whether_the_server_closed_reset_or_hung_at_a_tls_request() {
    let on_request = |then: fn(TcpStream)| {
        Server::run(move |mut stream| {
            let _ = stream.read_exact(&mut [0; 8]);
            then(stream);
        })
    };
    let servers = [
        ("closes", "server_closed", on_request(drop)),
        ("resets", "server_reset", on_request(reset)),
        (
            "hangs",
            "server_lost",
            on_request(|mut stream| drop(stream.read_to_end(&mut Vec::new()))),
        ),
    ];
    let route = |(name, _, server): &(&str, &str, Server)| {
        format!(
            "[[listeners.db.routes]]\nsni = \"{name}.example\"\npool = \"{name}\"\n[listeners.{name}]\n\
             bind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nhello_timeout = \"500ms\"\npool = \"{name}\"\n\
             [pools.{name}]\nservers = [\"{}\"]\nhealth.check = \"off\"\nconnect_timeout = \"500ms\"\n",
            server.address
        )
    };
    let routes: String = servers.iter().map(route).collect();
    let proxy = Proxy::start(&format!(
        "log.level = \"debug\"\n[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n{routes}"
    ));
    let mut sessions = 0;
    for (name, ending, _) in &servers {
        // Routes of `db` need a name: acequia agrees to TLS itself, and asks the server later.
        let mut client = Client::connect(proxy.at("db"));
        assert_eq!(client.send(&SSL_REQUEST).read(1), b"S");
        let alert = client
            .send(&Hello::named(&format!("{name}.example")).bytes())
            .read_all();
        assert_eq!(alert, [21, 3, 3, 0, 2, 2, 80], "{name}: internal_error");
        // The other listeners leave the answer to the server. If the server resets or hangs, acequia itself agrees to
        // TLS, so that an alert can follow the hello.
        let answer = Client::connect(proxy.at(name)).send(&SSL_REQUEST).read_all();
        let expected: &[u8] = if *name == "closes" { b"" } else { b"S" };
        assert_eq!(answer, expected, "{name}");
        sessions += 2;
        for line in &proxy.access_lines(sessions)[sessions - 2..] {
            assert_eq!(line["ending"], *ending, "{name}: {line:#}");
            // On the listener `closes`, acequia relays the close of the server as in any session.
            let is_relayed = line["listener"] == "closes";
            assert_eq!(line["detail"] == "tls_request", !is_relayed, "{name}: {line:#}");
        }
    }
    let lines = log_lines(&proxy, "the server does not answer a request for TLS", 5);
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["closed", "broke", "broke", "timeout", "timeout"]);
    let error = lines[1]["error"].as_str().unwrap();
    assert!(error.contains("Connection reset by peer"), "{error}");
}
