//! `max_sessions` of servers: none gets one too many, and its place comes back when it has ended the session, too.

use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::{Client, served_client};
use crate::support::counts::wait_for_ended_sessions;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::{configs, eventually};

/// A listener `l` whose pool `p` is not checked.
fn config(servers: &[SocketAddr], listener: &str, pool: &str) -> String {
    configs::listener("l", "p", listener)
        + &configs::pool("p", servers, &format!("health = {{ check = \"off\" }}\n{pool}"))
}

#[test]
fn when_all_servers_are_full_and_there_is_no_queue_a_session_ends_as_servers_full() {
    let (a, b) = (Server::echo(), Server::echo());
    let servers = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[runtime]\nworkers = 2\n[pools.p]\nmax_sessions = 2\n\
         health = {{ check = \"off\" }}\nservers = [\"{}\", {{ address = \"{}\", max_sessions = 3 }}]",
        a.address, b.address
    );
    let proxy = Proxy::start(&servers);
    let mut served: Vec<_> = (0..5).map(|_| served_client(proxy.at("l"))).collect();
    assert_eq!((a.sessions(), b.sessions()), (2, 3));
    assert_eq!(Client::connect(proxy.at("l")).read_all(), b"");
    assert_eq!(proxy.access_line()["ending"], "servers_full");
    let limits = |server: &Server| {
        let labels = [("pool", "p"), ("server", &*server.address.to_string())];
        proxy.metrics().sum("acequia_server_max_sessions", &labels)
    };
    assert_eq!((limits(&a), limits(&b)), (2.0, 3.0));
    let printed = proxy.command(&["servers"]).stdout;
    assert!(printed.contains("2 of 2") && printed.contains("3 of 3"), "{printed}");
    let explained = || -> serde_json::Value {
        let (status, body) = proxy.get("/api/v1/route?listener=l");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(explained()["full"], explained()["servers"]);
    let printed = proxy
        .command(&["route", "-c", "acequia.toml", "--listener", "l"])
        .stdout;
    for expected in [
        format!(
            "  {}, at most 2 sessions\n  {}, at most 3 sessions\n",
            a.address, b.address
        ),
        "while all are full: refused (servers_full); full servers are passed over\n".to_owned(),
    ] {
        assert!(printed.contains(&expected), "{printed}");
    }
    served.pop();
    wait_for_ended_sessions(&proxy, "client_closed", 1);
    served_client(proxy.at("l"));
}

#[test]
fn clients_of_databases_print_that_there_are_too_many_connections() {
    for (protocol, request, answer) in [
        ("mysql", &b""[..], &b"\x17\0\0\0\xff\x10\x04too many connections"[..]),
        ("redis", b"PING\r\n", b"-ERR too many connections\r\n"),
        (
            "postgres",
            b"\0\0\0\x14\0\x03\0\0user\0a\0database\0b\0\0",
            b"E\0\0\0\x30SFATAL\0VFATAL\0C53300\0Mtoo many connections\0\0",
        ),
    ] {
        let manual = ManualServer::new();
        let more = format!("protocol = \"{protocol}\"");
        let proxy = Proxy::start(&config(&[manual.server.address], &more, "max_sessions = 1"));
        let request = if protocol == "postgres" {
            [&(request.len() as u32).to_be_bytes()[..], &request[4..]].concat()
        } else {
            request.to_vec()
        };
        let mut first = Client::connect(proxy.at("l"));
        first.send(&request);
        let _session = manual.session();
        let refused = Client::connect(proxy.at("l")).send(&request).read_all();
        assert_eq!(refused, answer, "{protocol}");
    }
}

#[test]
fn a_place_comes_back_when_the_server_has_ended_the_session() {
    let manual = ManualServer::new();
    let pool = "max_sessions = 1\nqueue = { timeout = \"20s\" }";
    let proxy = Proxy::start(&config(&[manual.server.address], "idle_timeout = \"100ms\"", pool));
    let _idle = Client::connect(proxy.at("l"));
    let mut session = manual.session();
    let mut waiting = Client::connect(proxy.at("l"));
    waiting.send(b"hi");
    assert_eq!(session.read(&mut [0]).unwrap(), 0, "our end, by the idle timeout");
    session.shutdown(Shutdown::Write).unwrap();
    let ended = Instant::now();
    let mut next = manual.session();
    assert!(ended.elapsed() < Duration::from_millis(900), "{:?}", ended.elapsed());
    // This server does not end its session. Its place comes back after a second.
    next.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(next.read(&mut [0]).unwrap(), 0);
    let (ended, _last) = (Instant::now(), Client::connect(proxy.at("l")));
    let _session = manual.session();
    let took = ended.elapsed();
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

#[test]
fn a_place_is_kept_for_a_second_after_a_reset() {
    let manual = ManualServer::new();
    let pool = "max_sessions = 1\nqueue = { timeout = \"20s\" }";
    let proxy = Proxy::start(&config(&[manual.server.address], "", pool));
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"hi");
    let mut session = manual.session();
    session.read_exact(&mut [0; 2]).unwrap();
    let reset = Instant::now();
    client.reset();
    assert!(session.read(&mut [0]).is_err());
    let _waiting = Client::connect(proxy.at("l"));
    eventually("it waits", || proxy.metrics().sum("acequia_pool_queue", &[]) == 1.0);
    let next = manual.session();
    assert!(reset.elapsed() >= Duration::from_secs(1));
    // A server that resets has ended the session.
    drop(session);
    let (aborted, _last) = (Instant::now(), Client::connect(proxy.at("l")));
    socket2::SockRef::from(&next).set_linger(Some(Duration::ZERO)).unwrap();
    drop(next);
    let _last_session = manual.session();
    assert!(aborted.elapsed() < Duration::from_millis(900));
}
