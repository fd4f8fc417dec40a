//! After thousands of sessions that failed, or that clients left in any phase, every gauge of open sessions is 0, and
//! servers get even shares.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::thread::scope;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::limits::raise_descriptor_limit;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, hanging};

const THREADS: usize = 20;
const ROUNDS: usize = 25;
const SESSIONS_PER_ROUND: usize = 10;

/// Two servers are healthy, one refuses, one hangs. None is ever ejected, so that every session may reach any of them.
fn config(servers: &[(&str, SocketAddr)]) -> String {
    let entry = |(name, address): &(&str, SocketAddr)| format!("{{ name = \"{name}\", address = \"{address}\" }}");
    let servers: Vec<_> = servers.iter().map(entry).collect();
    format!(
        "[listeners.tls]\nbind = \"127.0.0.1:0\"\nhello_timeout = \"100ms\"\n\
         [[listeners.tls.routes]]\nsni = \"good.example\"\npool = \"p\"\n\
         [listeners.plain]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nretries = 1\nconnect_timeout = \"20ms\"\nservers = [{}]\n\
         health = {{ check = \"off\", eject_after = 1000, eject_max_percent = 0 }}",
        servers.join(", ")
    )
}

/// Ten sessions: the client leaves in different phases, or waits for the end.
fn leave_in_every_phase(proxy: &Proxy, hello: &[u8]) {
    let connected = |listener: &str, bytes: &[u8]| {
        let mut client = Client::connect(proxy.at(listener));
        client.send(bytes);
        client
    };
    let wait = |mut client: Client| drop(client.try_read_all());
    Client::connect(proxy.at("plain")).reset(); // before it is accepted, or during connect
    drop(Client::connect(proxy.at("plain")));
    connected("plain", b"request").reset();
    connected("tls", &hello[..9]).reset(); // during its hello
    drop(connected("tls", &hello[..9]));
    wait(connected("tls", &hello[..9])); // until hello_timeout
    connected("tls", hello).reset(); // during connect
    drop(connected("tls", hello));
    let mut partial = connected("plain", b"request");
    let _ = partial.0.read(&mut [0]); // after some bytes, if the server is healthy
    partial.reset();
    let finished = connected("tls", hello);
    let _ = finished.0.shutdown(Shutdown::Write);
    wait(finished);
}

#[test]
fn after_sessions_left_in_every_phase_session_gauges_are_0_and_shares_are_even() {
    raise_descriptor_limit();
    let (a, b) = (Server::named("a"), Server::named("b"));
    let (refusing, hanging) = (Port::keep(), hanging());
    let proxy = Proxy::start(&config(&[
        ("a", a.address),
        ("b", b.address),
        ("c", refusing.address),
        ("d", hanging.address),
    ]));
    let hello = Hello::named("good.example").bytes();
    scope(|all| {
        for _ in 0..THREADS {
            all.spawn(|| (0..ROUNDS).for_each(|_| leave_in_every_phase(&proxy, &hello)));
        }
    });
    eventually("all sessions are over", || {
        proxy.metrics().sum("acequia_sessions_total", &[]) == (THREADS * ROUNDS * SESSIONS_PER_ROUND) as f64
    });
    let metrics = proxy.metrics();
    for gauge in ["acequia_sessions_active", "acequia_server_sessions_active"] {
        let series = metrics.series(gauge, &[]);
        assert!(
            series.len() >= 2 && series.iter().all(|series| series.value == 0.0),
            "{series:?}"
        );
    }
    for reason in ["refused", "timeout"] {
        let failures = metrics.sum("acequia_connect_failures_total", &[("reason", reason)]);
        assert!(
            failures > 100.0,
            "expected more than 100 connect failures with reason {reason}, got {failures}"
        );
    }
    // Now all four servers are healthy. One whose session count has leaked would get fewer sessions.
    let (c, d) = (
        Server::named_on(refusing.listen(), "c"),
        Server::named_on(hanging.resume(), "d"),
    );
    let mut shares = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..40 {
        let mut client = Client::connect(proxy.at("plain"));
        shares.entry(client.read_some()).or_default().push(client);
    }
    assert_eq!(shares.values().map(Vec::len).collect::<Vec<_>>(), [10; 4]);
    drop((c, d));
}
