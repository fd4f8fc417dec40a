//! Timeouts and durations follow the monotonic clock. A step of the wall clock changes times of day, as in the log.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::support::client::{Client, ask};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};
use serde_json::Value;

/// Where Debian's libfaketime is.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A proxy whose wall clock is offset as the file `clock` in its directory says: `+0`, `+1d`. Its monotonic clock is
/// the kernel's.
fn start(server: &Server) -> Proxy {
    let config = format!(
        r#"
        [defaults]
        hello_timeout = "2s"
        [listeners.quick]
        bind = "127.0.0.1:0"
        pool = "p"
        idle_timeout = "400ms"
        [listeners.slow]
        bind = "127.0.0.1:0"
        pool = "p"
        idle_timeout = "1h"
        [listeners.tls]
        bind = "127.0.0.1:0"
        routes = [{{ sni = "*", pool = "p" }}]
        [pools.p]
        servers = ["{}"]
        health = {{ interval = "100ms" }}
        "#,
        server.address
    );
    let script = format!(
        "echo +0 >clock; export LD_PRELOAD='{LIBRARY}' FAKETIME_TIMESTAMP_FILE=clock FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1; exec \"$@\""
    );
    Proxy::setup(&config).under(&["sh", "-c", &script, "sh"]).start()
}

fn step(proxy: &Proxy, to: &str) {
    let next = proxy.directory().join("next");
    fs::write(&next, format!("{to}\n")).unwrap();
    fs::rename(next, proxy.directory().join("clock")).unwrap();
}

fn checks(proxy: &Proxy) -> f64 {
    proxy
        .metrics()
        .sum("acequia_health_checks_total", &[("result", "pass")])
}

/// The access log line of the `count`th session with this ending.
fn nth_line(proxy: &Proxy, ending: &str, count: usize) -> Value {
    wait_for(ending, || {
        let lines = proxy.access();
        let mut with_ending = lines.into_iter().filter(|line| line["ending"] == ending);
        with_ending.nth(count - 1)
    })
}

fn duration_ms(line: &Value) -> f64 {
    line["duration_ms"].as_f64().unwrap()
}

#[test]
fn wall_clock_steps_do_not_change_timeouts_or_durations() {
    let server = Server::echo();
    let proxy = start(&server);
    let began = SystemTime::now();
    let mut lasting = Client::connect(proxy.at("slow"));
    // The offset of the proxy's wall clock, and how far ahead of real time the clock then is; zero if it is behind.
    let steps = [("+1d", DAY), ("-1d", Duration::ZERO), ("+2d", 2 * DAY)];
    for (round, (clock, ahead)) in (1..).zip(steps) {
        let mut idle = Client::connect(proxy.at("quick"));
        assert_eq!(idle.send(b"ping").read(4), b"ping");
        let mut silent = Client::connect(proxy.at("tls"));
        step(&proxy, clock);
        let before = checks(&proxy);
        eventually("checks go on", || checks(&proxy) > before + 3.0);
        assert_eq!(idle.read_all(), b"", "expected a clean close after idle_timeout");
        silent.must_be_closed();
        assert_eq!(ask(proxy.at("slow"), b"ping"), b"ping");
        assert_eq!(
            lasting.send(b"ping").read(4),
            b"ping",
            "expected the session to stay open: it was idle for seconds, not for days"
        );
        for (ending, least) in [("idle_timeout", 400.0), ("hello_timeout", 2000.0)] {
            let line = nth_line(&proxy, ending, round);
            assert!((least..20_000.0).contains(&duration_ms(&line)), "{line}");
            let time = humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
            let follows_the_clock = if ahead.is_zero() {
                time <= began
            } else {
                time > began + ahead
            };
            assert!(
                follows_the_clock,
                "expected the time in the log to follow the stepped wall clock (libfaketime): {line}"
            );
        }
    }
    lasting.finish().read_all();
    // The first three sessions with this ending are those of `ask`.
    assert!(duration_ms(&nth_line(&proxy, "client_closed", 4)) < 60_000.0);
    assert_eq!(proxy.metrics().sum("acequia_server_up", &[]), 1.0);
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_health_transitions_total", &[("to", "down")]),
        0.0
    );
}
