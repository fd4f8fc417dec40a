//! A pool without a usable server uses its fallback, which is logged, until it has a usable server again.

use std::net::{SocketAddr, TcpListener};

use crate::support::client::{ask, served_client};
use crate::support::counts::log_count;
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// The pool `readers` falls back to the pool `other`, and `other` to the pool `writers`. Each has one server.
fn config(reader: SocketAddr, other: SocketAddr, writer: SocketAddr) -> String {
    let health = "health = { interval = \"50ms\", fall = 1, rise = 1 }";
    format!(
        "[listeners.w]\nbind = \"127.0.0.1:0\"\npool = \"writers\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"readers\"\n[pools.readers]\nservers = [\"{reader}\"]\n\
         fallback = \"other\"\non_recover = \"close\"\nclose_over = \"0s\"\n{health}\n[pools.other]\nservers = [\"{other}\"]\n\
         fallback = \"writers\"\n{health}\n[pools.writers]\nservers = [\"{writer}\"]\n{health}"
    )
}

#[test]
fn a_pool_without_a_usable_server_uses_its_fallback_until_it_has_one() {
    let (reader_port, down_port, writer) = (Port::keep(), Port::keep(), Server::echo());
    let reader = reader_port.address;
    let reader_server = Server::echo_on(reader_port.listen());
    let proxy = Proxy::start(&config(reader, down_port.address, writer.address));
    let is_on_fallback = || {
        let metrics = proxy.metrics();
        metrics.sum("acequia_pool_fallback", &[("pool", "readers")]) == 1.0
    };
    let line = |number: usize| proxy.access_lines(number)[number - 1].clone();
    let whole_session = |number| {
        assert_eq!(ask(proxy.at("l"), b"hello"), b"hello");
        line(number)
    };
    let normal = whole_session(1);
    assert_eq!(
        (&normal["pool"], normal.get("fallback_from")),
        (&"readers".into(), None)
    );
    let mut session_of_writers = served_client(proxy.at("w"));

    drop(reader_server);
    eventually("the fallback is used", is_on_fallback);
    let passed_on = whole_session(2);
    assert_eq!(
        (&passed_on["pool"], &passed_on["fallback_from"]),
        (&"writers".into(), &"readers".into())
    );
    let state = proxy.answer(&["status"]);
    assert_eq!(state["pools"][0]["served_by"], "writers");
    assert_eq!(state["pools"][0]["fallback"], "other");
    eventually("the use of a fallback is logged for `readers` and for `other`", || {
        log_count(&proxy, "pool has no usable server: its fallback is used") == 2
    });
    assert_eq!(
        log_count(&proxy, "pool has no usable server"),
        0,
        "logged only without a fallback"
    );
    let mut session_on_fallback = served_client(proxy.at("l"));

    let _back = Server::echo_on(TcpListener::bind(reader).unwrap());
    session_on_fallback.must_be_reset();
    assert_eq!(line(3)["ending"], "failed_back");
    assert!(!is_on_fallback());
    eventually("the return is logged", || {
        log_count(&proxy, "pool has a usable server again") == 1
    });
    assert_eq!(whole_session(4)["pool"], "readers");
    session_of_writers.send(b"still").read(5);
}
