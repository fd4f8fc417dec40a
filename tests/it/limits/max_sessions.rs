//! `max_sessions` of servers: no server gets more sessions, and the place of a session is freed only when the server
//! has ended the session, or a second after acequia has ended it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::{Client, served_client};
use crate::support::configs;
use crate::support::counts::wait_for_ended_sessions;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::stream::reset;

/// A listener `l` whose pool `p` is not checked. `listener` and `pool`: further lines of their sections.
fn config(servers: &[SocketAddr], listener: &str, pool: &str) -> String {
    configs::listener("l", "p", listener)
        + &configs::pool("p", servers, &format!("health = {{ check = \"off\" }}\n{pool}"))
}

#[test]
fn without_a_queue_sessions_end_as_servers_full() {
    let (a, b) = (Server::echo(), Server::echo());
    let text = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[runtime]\nworkers = 2\n[pools.p]\nmax_sessions = 2\n\
         health = {{ check = \"off\" }}\nservers = [\"{}\", {{ address = \"{}\", max_sessions = 3 }}]",
        a.address, b.address
    );
    let proxy = Proxy::start(&text);
    let mut served: Vec<_> = (0..5).map(|_| served_client(proxy.at("l"))).collect();
    assert_eq!((a.sessions(), b.sessions()), (2, 3));
    assert_eq!(Client::connect(proxy.at("l")).read_all(), b"");
    assert_eq!(proxy.access_line()["ending"], "servers_full");
    let limit = |server: &Server| {
        let labels = [("pool", "p"), ("server", &*server.address.to_string())];
        proxy.metrics().sum("acequia_server_max_sessions", &labels)
    };
    assert_eq!((limit(&a), limit(&b)), (2.0, 3.0));
    let printed = proxy.command(&["servers"]).stdout;
    assert!(printed.contains("2 of 2") && printed.contains("3 of 3"), "{printed}");
    let (status, body) = proxy.get("/api/v1/route?listener=l");
    assert_eq!(status, 200, "{body}");
    let explained: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        explained["full"], explained["servers"],
        "expected every server to be full"
    );
    let printed = proxy
        .command(&["route", "-c", "acequia.toml", "--listener", "l"])
        .stdout;
    for expected in [
        format!(
            "  {}, at most 2 sessions\n  {}, at most 3 sessions\n",
            a.address, b.address
        ),
        "while all are full: refused (servers_full); otherwise full servers are passed over\n".to_owned(),
    ] {
        assert!(printed.contains(&expected), "{printed}");
    }
    served.pop();
    wait_for_ended_sessions(&proxy, "client_closed", 1);
    served_client(proxy.at("l"));
}

/// In the pool, a renamed server is a new one. Its sessions and those under its former name are counted together.
#[test]
fn a_server_that_is_renamed_has_no_second_limit() {
    let server = Server::echo();
    let text = |server: &str| {
        configs::listener("l", "p", "")
            + &format!("[pools.p]\nservers = [{server}]\nmax_sessions = 2\nhealth = {{ check = \"off\" }}\n")
    };
    let address = server.address;
    let proxy = Proxy::start(&text(&format!("\"{address}\"")));
    let mut served: Vec<_> = (0..2).map(|_| served_client(proxy.at("l"))).collect();
    for renamed in [
        format!("{{ address = \"{address}\", name = \"db1\" }}"),
        format!("\"localhost:{}@{}\"", address.port(), address.ip()),
    ] {
        assert!(proxy.reload(&text(&renamed)), "{renamed}");
        assert!(Client::connect(proxy.at("l")).read_all().is_empty(), "{renamed}");
        assert_eq!(server.sessions(), 2, "{renamed}");
        let active = proxy.metrics().sum("acequia_server_sessions_active", &[("pool", "p")]);
        assert_eq!(active, 2.0, "each session counts once");
    }
    served.pop();
    wait_for_ended_sessions(&proxy, "client_closed", 1);
    served_client(proxy.at("l"));
}

/// Two servers with one address share their limit, and each session counts once.
#[test]
fn two_servers_with_one_address_have_one_limit() {
    let server = Server::echo();
    let text = configs::listener("l", "p", "")
        + &format!(
            "[pools.p]\nmax_sessions = 4\nbalance = \"round-robin\"\nhealth = {{ check = \"off\" }}\n\
             servers = [{{ address = \"{0}\", name = \"a\" }}, {{ address = \"localhost:{1}@{2}\", name = \"b\" }}]",
            server.address,
            server.address.port(),
            server.address.ip()
        );
    let proxy = Proxy::start(&text);
    let _served: Vec<_> = (0..4).map(|_| served_client(proxy.at("l"))).collect();
    assert!(Client::connect(proxy.at("l")).read_all().is_empty());
    let metrics = proxy.metrics();
    let active = |labels: &[(&str, &str)]| metrics.sum("acequia_server_sessions_active", labels);
    assert_eq!(active(&[("pool", "p")]), 4.0);
    assert_eq!(active(&[("pool", "p"), ("server", "a")]), 2.0);
    let printed = proxy.command(&["servers"]).stdout;
    assert_eq!(printed.matches("4 of 4").count(), 2, "{printed}");
    let status = proxy.command(&["status"]).stdout;
    let words_of = |begin| {
        let line = status.lines().find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("{status}")).split_whitespace()
    };
    let mut columns = words_of("POOL ").zip(words_of("p "));
    assert!(columns.any(|column| column == ("SESSIONS", "4")), "{status}");
}

#[test]
fn database_clients_get_an_error_of_their_protocol_when_servers_are_full() {
    for (protocol, request, answer) in [
        ("mysql", &b""[..], &b"\x17\0\0\0\xff\x10\x04too many connections"[..]),
        ("redis", b"PING\r\n", b"-ERR max number of clients reached\r\n"),
        (
            "postgres",
            b"\0\0\0\x1b\0\x03\0\0user\0a\0database\0b\0\0",
            b"E\0\0\0\x30SFATAL\0VFATAL\0C53300\0Mtoo many connections\0\0",
        ),
    ] {
        let manual = ManualServer::new();
        let more = format!("protocol = \"{protocol}\"");
        let proxy = Proxy::start(&config(&[manual.server.address], &more, "max_sessions = 1"));
        let mut first = Client::connect(proxy.at("l"));
        first.send(request);
        let _session = manual.session();
        let refused = Client::connect(proxy.at("l")).send(request).read_all();
        assert_eq!(refused, answer, "{protocol}");
    }
}

/// Whether a place is freed at once in at least one of five rounds: a round may take long because the machine is busy.
/// `round` returns how long it took until the place was free.
fn is_freed_at_once(mut round: impl FnMut() -> Duration) -> bool {
    (0..5).any(|_| round() < Duration::from_millis(700))
}

#[test]
fn a_place_is_freed_when_the_server_has_closed_or_after_a_second() {
    let manual = ManualServer::new();
    let pool = "max_sessions = 1\nqueue = { timeout = \"20s\" }";
    let proxy = Proxy::start(&config(&[manual.server.address], "idle_timeout = \"100ms\"", pool));
    let mut clients = vec![Client::connect(proxy.at("l"))];
    let mut session = manual.session();
    assert!(is_freed_at_once(|| {
        clients.push(Client::connect(proxy.at("l")));
        assert_eq!(session.read(&mut [0]).unwrap(), 0, "acequia ends it when idle");
        let began = Instant::now();
        session.shutdown(Shutdown::Write).unwrap();
        session = manual.session();
        began.elapsed()
    }));
    // The server does not end this session. Its place is freed after a second.
    assert_eq!(session.read(&mut [0]).unwrap(), 0);
    let ended = Instant::now();
    clients.push(Client::connect(proxy.at("l")));
    let _next = manual.session();
    let took = ended.elapsed();
    // That second began a little before the end was read here.
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

#[test]
fn a_place_is_kept_for_a_second_if_the_client_resets_but_freed_if_the_server_does() {
    let manual = ManualServer::new();
    let pool = "max_sessions = 1\nqueue = { timeout = \"20s\" }";
    let proxy = Proxy::start(&config(&[manual.server.address], "", pool));
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"hi");
    let mut session = manual.session();
    session.read_exact(&mut [0; 2]).unwrap();
    let reset_at = Instant::now();
    client.reset();
    Client(session).must_be_reset();
    let _waiting = Client::connect(proxy.at("l"));
    let mut session = Some(manual.session());
    assert!(reset_at.elapsed() >= Duration::from_secs(1));
    // A server that resets has ended the session.
    let mut clients = Vec::new();
    assert!(is_freed_at_once(|| {
        clients.push(Client::connect(proxy.at("l")));
        let aborted = Instant::now();
        reset(session.take().unwrap());
        session = Some(manual.session());
        aborted.elapsed()
    }));
}

/// A client whose TLS is passed through may close without waiting for the close_notify of its server.
#[test]
fn a_place_is_freed_when_the_server_closes_after_its_client_has_finished_and_gone() {
    let manual = ManualServer::new();
    let proxy = Proxy::start(&config(
        &[manual.server.address],
        "",
        "max_sessions = 1\nqueue = { timeout = \"20s\" }",
    ));
    let mut rounds = 0;
    assert!(is_freed_at_once(|| {
        rounds += 1;
        let mut client = Client::connect(proxy.at("l"));
        client.send(b"hi");
        let mut session = manual.session();
        drop(client);
        let mut received = Vec::new();
        session.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"hi");
        session.write_all(b"bye").unwrap();
        proxy.access_lines(2 * rounds - 1); // the session of `client` has ended
        let mut next = Client::connect(proxy.at("l"));
        let closed = Instant::now();
        drop(session);
        let session = manual.session();
        let took = closed.elapsed();
        drop(session);
        assert_eq!(next.read_all(), b"");
        drop(next);
        proxy.access_lines(2 * rounds);
        took
    }));
}

/// Some clients, such as pools of idle connections, do not look at their sockets for a long time. When the server has
/// ended the session of such a client, the client keeps no place.
#[test]
fn a_place_is_freed_when_the_server_closes_although_the_client_stays() {
    for (protocol, session_ends_with_server) in [("tcp", false), ("redis", true)] {
        let manual = ManualServer::new();
        let pool = "max_sessions = 1\nqueue = { timeout = \"20s\" }";
        let listener = format!("protocol = \"{protocol}\"");
        let proxy = Proxy::start(&config(&[manual.server.address], &listener, pool));
        let mut clients = vec![Client::connect(proxy.at("l"))];
        let mut session = Some(manual.session());
        assert!(is_freed_at_once(|| {
            clients.push(Client::connect(proxy.at("l")));
            let mut ended = session.take().unwrap();
            ended.write_all(b"bye").unwrap();
            drop(ended);
            let began = Instant::now();
            session = Some(manual.session());
            began.elapsed()
        }));
        let (first, rest) = clients.split_at_mut(1);
        assert_eq!(first[0].read_all(), b"bye");
        let server = &*manual.server.address.to_string();
        let metrics = proxy.metrics();
        let of_server = metrics.sum("acequia_server_sessions_active", &[("pool", "p"), ("server", server)]);
        assert_eq!(of_server, 1.0, "{protocol}");
        if session_ends_with_server {
            wait_for_ended_sessions(&proxy, "server_closed", rest.len());
        } else {
            let open = metrics.sum("acequia_sessions_active", &[("listener", "l")]) as usize;
            assert_eq!(
                open,
                1 + rest.len(),
                "a client of this protocol may still have something to say"
            );
        }
    }
}

/// The server counts a connection as a session from the start, whether the TLS handshake succeeds or not.
#[test]
fn after_failed_tls_a_place_is_kept_until_the_server_has_ended_the_connection_or_for_a_second() {
    let manual = ManualServer::new();
    let pool = "max_sessions = 1\nqueue = { timeout = \"20s\" }\nretries = 0\nconnect_timeout = \"15s\"\n\
                [pools.p.tls]\nverify = false";
    let proxy = Proxy::start(&config(&[manual.server.address], "", pool));
    // The client leaves during the handshake.
    let client = Client::connect(proxy.at("l"));
    let _first = manual.session();
    let reset = Instant::now();
    client.reset();
    let mut client = Client::connect(proxy.at("l"));
    let mut session = manual.session();
    assert!(reset.elapsed() >= Duration::from_secs(1), "{:?}", reset.elapsed());
    // The handshake fails, and the server does not end the connection.
    let failed = Instant::now();
    session.write_all(b"this is no TLS").unwrap();
    assert_eq!(client.read_all(), b"");
    client = Client::connect(proxy.at("l"));
    let mut failing = Some(manual.session());
    assert!(failed.elapsed() >= Duration::from_secs(1), "{:?}", failed.elapsed());
    // The handshake fails, and the server ends the connection.
    assert!(is_freed_at_once(|| {
        let mut session = failing.take().unwrap();
        session.write_all(b"this is no TLS").unwrap();
        assert_eq!(client.read_all(), b"");
        drop(session);
        let ended = Instant::now();
        client = Client::connect(proxy.at("l"));
        failing = Some(manual.session());
        ended.elapsed()
    }));
}
