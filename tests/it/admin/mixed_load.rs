//! A proxy whose sessions end in many ways, for tests of what it counts and shows.

use std::net::{SocketAddr, TcpStream};

use crate::support::client::{Client, ask};
use crate::support::configs::{listener, pool, tls_listener};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::metrics::Metrics;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::{Hanging, Server, hanging, refusing};

/// Listeners that together produce many kinds of endings. Each but `narrow` and `tls` has a pool of the same name. The
/// servers of `dead` and `down` refuse connections. Of these two, only `down` is checked: it has no usable server.
fn config(good: SocketAddr, resets: SocketAddr, dead: SocketAddr, hanging: SocketAddr) -> String {
    let unchecked = "health = { check = \"off\" }\nconnect_timeout = \"300ms\"";
    let tls_keys = "hello_timeout = \"300ms\"\nhello_max = \"1KiB\"";
    let routes = [("good.example", "pool = \"good\""), ("closed.example", "refuse = true")];
    [
        "[guards.wide]\nsessions = 100000\n".to_owned(),
        listener("good", "good", "guards = \"wide\"\nidle_timeout = \"300ms\""),
        listener("resets", "resets", ""),
        listener("dead", "dead", ""),
        listener("down", "down", ""),
        listener("hanging", "hanging", ""),
        listener("narrow", "good", "max_connections = 1"),
        tls_listener("tls", tls_keys, &routes),
        pool("good", &[good], ""),
        pool("resets", &[resets], ""),
        pool("dead", &[dead], unchecked),
        pool("down", &[dead], "max_sessions = 10\nqueue = {}"),
        pool("hanging", &[hanging], unchecked),
    ]
    .concat()
}

/// Runs sessions that end in many ways. Returns their number, and the bytes that clients of the pool `good` sent
/// and received.
pub(super) fn mixed_load(proxy: &Proxy) -> (usize, usize, usize) {
    const ROUNDS: usize = 8;
    const SESSIONS_PER_ROUND: usize = 15;
    let read_to_end = |mut client: Client| drop(client.try_read_all());
    let (tls, hello) = (proxy.at("tls"), Hello::named("good.example").bytes());
    for round in 0..ROUNDS {
        for refused in [
            Hello::named("other.example").bytes(),
            Hello::named("closed.example").bytes(),
            Hello::named("good.example").padded(2000).bytes(),
            b"\x16\x03\x01\x00\x00".to_vec(),
            b"plain".to_vec(),
        ] {
            let mut client = Client::connect(tls);
            client.send(&refused);
            read_to_end(client);
        }
        // Ends before the ClientHello is complete: in the first round by `hello_timeout`, then by the client's reset.
        let mut slow = Client::connect(tls);
        slow.send(&hello[..20]);
        if round == 0 {
            read_to_end(slow)
        } else {
            slow.reset()
        }
        let mut early = Client::connect(tls);
        early.finish();
        read_to_end(early);
        assert_eq!(ask(tls, &hello), hello);
        assert_eq!(ask(proxy.at("good"), b"ping"), b"ping");
        assert_eq!(ask(proxy.at("narrow"), b"ping"), b"ping");
        let mut reset_by_client = Client::connect(proxy.at("good"));
        reset_by_client.send(b"ping").read(4);
        reset_by_client.reset();
        let mut reset_by_server = Client::connect(proxy.at("resets"));
        reset_by_server.send(b"x");
        read_to_end(reset_by_server);
        read_to_end(Client::connect(proxy.at("dead")));
        read_to_end(Client::connect(proxy.at("down")));
        // Ends before the connect: in the first round by `connect_timeout`, then by the client's reset.
        let connecting = Client::connect(proxy.at("hanging"));
        if round == 0 {
            read_to_end(connecting)
        } else {
            connecting.reset()
        }
    }
    read_to_end(Client::connect(proxy.at("good"))); // ends by `idle_timeout`
    let bytes = ROUNDS * (hello.len() + 3 * b"ping".len());
    (ROUNDS * SESSIONS_PER_ROUND + 1, bytes, bytes)
}

/// A proxy in front of servers that echo, reset, refuse and hang.
pub(super) struct Setting {
    pub(super) proxy: Proxy,
    _servers: [Server; 2],
    _dead: Port,
    _hanging: Hanging,
}

impl Setting {
    pub(super) fn start() -> Self {
        let servers = [Server::echo(), Server::run(reset_after_first_bytes)];
        let (dead, hanging) = (refusing(), hanging());
        let [good, resets] = servers.each_ref().map(|server| server.address);
        let proxy = Proxy::start(&config(good, resets, dead.address, hanging.address));
        Self {
            proxy,
            _servers: servers,
            _dead: dead,
            _hanging: hanging,
        }
    }
}

fn reset_after_first_bytes(stream: TcpStream) {
    let mut client = Client(stream);
    client.read_some();
    client.reset();
}

/// Waits until `sessions` sessions have ended and none is open; returns the metrics then.
pub(super) fn metrics_after_sessions(proxy: &Proxy, sessions: usize) -> Metrics {
    eventually("all sessions have ended", || {
        let metrics = proxy.metrics();
        metrics.sum("acequia_sessions_total", &[]) == sessions as f64
            && metrics.sum("acequia_sessions_active", &[]) == 0.0
    });
    proxy.metrics()
}
