//! The access log has at most one line per session, written when the session ends.

use std::time::Duration;

use crate::support::client::{Client, ask};
use crate::support::hello::{Hello, captured};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, refusing};
use crate::support::{eventually, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

const FIELDS: [&str; 23] = [
    "time",
    "session",
    "listener",
    "peer",
    "client",
    "sni",
    "alpn",
    "ech",
    "route",
    "pool",
    "server",
    "attempts",
    "hello_ms",
    "connect_ms",
    "duration_ms",
    "bytes_up",
    "bytes_down",
    "ending",
    "tls",
    "client_rtt_us",
    "server_rtt_us",
    "client_retrans",
    "server_retrans",
];

/// A listener `plain` that does not sniff, and a listener `tls` with two routes: one to the same pool, and one that
/// refuses.
fn config(server: std::net::SocketAddr) -> String {
    format!(
        r#"
        [defaults]
        hello_timeout = "300ms"
        [listeners.plain]
        bind = "127.0.0.1:0"
        pool = "p"
        idle_timeout = "700ms"
        [listeners.tls]
        bind = "127.0.0.1:0"
        [[listeners.tls.routes]]
        name = "shop"
        sni = "shop.example.com"
        pool = "p"
        [[listeners.tls.routes]]
        sni = "closed.example"
        refuse = true
        [pools.p]
        servers = [{{ address = "{server}", name = "s1" }}]
        health = {{ check = "off" }}
        "#
    )
}

/// A server that reads once, answers `pong`, and then ends the connection by `close`.
fn answering(close: impl Fn(Client) + Send + Sync + 'static) -> Server {
    Server::run(move |stream| {
        let mut client = Client(stream);
        client.read_some();
        client.send(b"pong");
        close(client);
    })
}

/// Ending, bytes up, bytes down.
fn end(line: &Value) -> (&str, u64, u64) {
    let number = |key| line[key].as_u64().unwrap();
    (
        line["ending"].as_str().unwrap(),
        number("bytes_up"),
        number("bytes_down"),
    )
}

#[test]
fn a_record_has_the_documented_fields_in_order() {
    let server = Server::keeping(b"bye");
    let proxy = Proxy::start(&config(server.address));
    let (hello, _) = captured("openssl-alpn");
    let mut client = Client::connect(proxy.at("tls"));
    let peer = client.0.local_addr().unwrap().to_string();
    assert_eq!(client.send(&hello).finish().read_all(), b"bye");
    let line = proxy.access_line();
    let fields: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, FIELDS);
    for (field, value) in [
        ("listener", "tls"),
        ("peer", &peer),
        ("client", &peer),
        ("sni", "shop.example.com"),
        ("alpn", "h2,http/1.1"),
        ("route", "shop"),
        ("pool", "p"),
        ("server", "s1"),
        ("ending", "client_closed"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!((&line["ech"], &line["attempts"]), (&false.into(), &1.into()));
    assert_eq!(
        (line["bytes_up"].as_u64(), line["bytes_down"].as_u64()),
        (Some(hello.len() as u64), Some(3))
    );
    let ms = |field: &str| line[field].as_f64().unwrap();
    assert!(
        ms("hello_ms") + ms("connect_ms") <= ms("duration_ms") && ms("connect_ms") > 0.0,
        "{line}"
    );
    assert!(
        line["client_rtt_us"].as_u64() > Some(0) && line["server_rtt_us"].as_u64() > Some(0),
        "{line}"
    );
    assert_eq!(
        (&line["client_retrans"], &line["server_retrans"]),
        (&0.into(), &0.into())
    );
    humantime::parse_rfc3339(line["time"].as_str().unwrap()).expect("a time");
}

#[test]
fn session_numbers_are_unique() {
    let server = Server::named("s1");
    let proxy = Proxy::start(&config(server.address));
    (0..20).for_each(|_| drop(ask(proxy.at("plain"), b"x")));
    let lines = proxy.access_lines(20);
    let numbers: std::collections::BTreeSet<_> = lines.iter().map(|line| line["session"].as_u64()).collect();
    assert_eq!(numbers.len(), 20);
}

#[test]
fn the_ending_names_the_side_that_finished_first() {
    let server = answering(|mut client| drop(client.finish().try_read_all()));
    let proxy = Proxy::start(&config(server.address));
    let mut client = Client::connect(proxy.at("plain"));
    assert_eq!(client.send(b"ping\n").read_all(), b"pong");
    drop(client);
    let lines = proxy.access_lines(1);
    assert_eq!(end(&lines[0]), ("server_closed", 5, 4));
    let server = Server::echo();
    let proxy = Proxy::start(&config(server.address));
    assert_eq!(ask(proxy.at("plain"), b"ping"), b"ping");
    assert_eq!(end(&proxy.access_line()), ("client_closed", 4, 4));
}

#[test]
fn the_ending_names_the_side_that_reset() {
    let server = answering(Client::reset);
    let proxy = Proxy::start(&config(server.address));
    let mut client = Client::connect(proxy.at("plain"));
    client.send(b"ping\n");
    assert_eq!(client.read(4), b"pong", "expected the bytes sent before the reset");
    client.must_be_reset();
    assert_eq!(end(&proxy.access_line()), ("server_reset", 5, 4));
    let server = Server::echo();
    let proxy = Proxy::start(&config(server.address));
    let mut client = Client::connect(proxy.at("plain"));
    assert_eq!(client.send(b"ping").read(4), b"ping");
    client.reset();
    assert_eq!(end(&proxy.access_line()), ("client_reset", 4, 4));
}

#[test]
fn sessions_that_reach_no_server_are_logged_with_the_known_fields() {
    let proxy = Proxy::start(&config(refusing().address));
    let mut seen = 0;
    // Sends these bytes. Returns the ending, the SNI, the route, the pool and the attempts in the log.
    let mut logged = |bytes: &[u8]| {
        let mut client = Client::connect(proxy.at("tls"));
        let _ = client.send(bytes).finish().try_read_all();
        seen += 1;
        let line = proxy.access_lines(seen).pop().unwrap();
        let (ending, up, down) = end(&line);
        assert_eq!((up, down), (bytes.len() as u64, 0));
        let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
        let has_server = !line["server"].is_null();
        assert_eq!(has_server, ending == "connect_failed", "{line}");
        [
            ending.to_owned(),
            text("sni"),
            text("route"),
            text("pool"),
            line["attempts"].to_string(),
        ]
        .join(" ")
    };
    assert_eq!(
        logged(&Hello::named("Other.example").bytes()),
        "no_route other.example - - 0"
    );
    assert_eq!(
        logged(&Hello::named("127.0.0.1").bytes()),
        "no_route 127.0.0.1 - - 0",
        "expected an IP address to be logged though it is no valid name"
    );
    assert_eq!(
        logged(&Hello::named("closed.example").bytes()),
        "refused closed.example tls#2 - 0"
    );
    assert_eq!(logged(b"\x16\x03\x01\x00\x00"), "hello_invalid - - - 0");
    assert_eq!(
        logged(&Hello::named("shop.example.com").bytes()[..9]),
        "client_left_early - - - 0"
    );
    assert_eq!(logged(b"plain text"), "no_route - - - 0");
    assert_eq!(
        logged(&Hello::named("shop.example.com").bytes()),
        "connect_failed shop.example.com shop p 1"
    );
}

#[test]
fn timeouts_have_their_own_endings() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(server.address));
    let mut slow = Client::connect(proxy.at("tls"));
    slow.send(b"\x16\x03");
    assert_eq!(slow.read_all(), [21, 3, 3, 0, 2, 2, 90], "user_canceled");
    assert_eq!(end(&proxy.access_lines(1)[0]), ("hello_timeout", 2, 0));
    let mut idle = Client::connect(proxy.at("plain"));
    assert_eq!(idle.send(b"ping").read(4), b"ping");
    assert_eq!(idle.read_all(), b"", "expected a clean close: no bytes are pending");
    assert_eq!(end(&proxy.access_lines(2)[1]), ("idle_timeout", 4, 4));
}

#[test]
fn a_hello_beyond_hello_max_ends_as_hello_too_long() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(server.address).replace("hello_timeout = \"300ms\"", "hello_max = \"512B\""));
    let _ = Client::connect(proxy.at("tls"))
        .send(&Hello::named("shop.example.com").padded(600).bytes())
        .try_read_all();
    assert_eq!(proxy.access_line()["ending"], "hello_too_long");
}

#[test]
fn without_a_usable_server_a_session_ends_as_no_server() {
    let dead = refusing();
    let proxy = Proxy::start(&config(dead.address).replace("check = \"off\"", "check = \"tcp\""));
    let _ = ask(proxy.at("plain"), b"");
    let line = proxy.access_line();
    assert_eq!(
        (end(&line), &line["pool"], &line["attempts"]),
        (("no_server", 0, 0), &"p".into(), &0.into())
    );
}

/// The logged endings of three connections: one without bytes at each listener, and one with bytes.
fn logged_endings(config: &str) -> Vec<String> {
    let proxy = Proxy::start(config);
    for listener in ["plain", "tls"] {
        Client::connect(proxy.at(listener)).finish().read_all();
    }
    ask(proxy.at("plain"), b"x");
    eventually("all three are counted", || {
        proxy.metrics().sum("acequia_sessions_total", &[]) == 3.0
    });
    let stopped = proxy.stop();
    let mut endings: Vec<_> = stopped
        .access
        .iter()
        .map(|line| line["ending"].as_str().unwrap().to_owned())
        .collect();
    endings.sort();
    endings
}

#[test]
fn a_connection_without_bytes_is_always_counted_but_logged_only_at_debug_level() {
    let server = Server::silent();
    let quiet = config(server.address);
    assert_eq!(logged_endings(&quiet), ["client_closed"]);
    let all = logged_endings(&format!("{quiet}\n[log]\nlevel = \"debug\""));
    assert_eq!(all, ["client_closed", "client_closed", "client_left_early"]);
}

#[test]
fn a_line_is_written_soon_after_the_session_ends() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(server.address));
    for sessions in 1..=5 {
        ask(proxy.at("plain"), b"x");
        let began = Instant::now();
        proxy.access_lines(sessions);
        // The writer waits at most 100 ms between batches; the bound here leaves room for a busy machine.
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn standard_output_carries_only_the_access_log() {
    let server = Server::echo();
    for (target, on_stdout, on_stderr) in [("stdout", 1, 0), ("stderr", 0, 1), ("off", 0, 0)] {
        let proxy = Proxy::start(&format!("{}\n[log]\naccess = \"{target}\"", config(server.address)));
        ask(proxy.at("plain"), b"x");
        let stopped = proxy.stop();
        let records = |log: &[Value]| log.iter().filter(|line| line["ending"] == "client_closed").count();
        assert_eq!(
            (stopped.access.len(), records(&stopped.access), records(&stopped.log)),
            (on_stdout, on_stdout, on_stderr)
        );
    }
}

#[test]
fn text_lines_leave_out_fields_without_a_value() {
    let server = Server::echo();
    let proxy = Proxy::setup(&format!(
        "{}\n[log]\nformat = \"text\"\naccess = \"access.log\"",
        config(server.address)
    ));
    let proxy = proxy.start();
    ask(proxy.at("plain"), b"x");
    let file = proxy.directory().join("access.log");
    let text = wait_for("a line", || {
        std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
    });
    let fields: Vec<_> = text
        .split(' ')
        .map(|pair| pair.split_once('=').expect(&text).0)
        .collect();
    let absent = ["sni", "alpn", "route", "hello_ms", "tls"];
    assert_eq!(
        fields,
        FIELDS
            .into_iter()
            .filter(|field| !absent.contains(field))
            .collect::<Vec<_>>()
    );
    assert!(text.contains(" ending=client_closed "), "{text}");
}

#[test]
fn sigusr1_reopens_the_access_log_after_a_rename() {
    let server = Server::echo();
    let proxy = Proxy::start(&format!("{}\n[log]\naccess = \"access.log\"", config(server.address)));
    let (current, renamed) = (
        proxy.directory().join("access.log"),
        proxy.directory().join("access.log.1"),
    );
    let lines = |path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    ask(proxy.at("plain"), b"x");
    eventually("the first line is written", || lines(&current) == 1);
    std::fs::rename(&current, &renamed).unwrap();
    ask(proxy.at("plain"), b"x");
    eventually("the second line is in the renamed file", || lines(&renamed) == 2);
    proxy.signal(Signal::USR1);
    eventually("a new file is opened", || current.exists());
    ask(proxy.at("plain"), b"x");
    eventually("the next line is in the new file", || lines(&current) == 1);
    assert_eq!(lines(&renamed), 2);
    assert_eq!(proxy.stop().access.len(), 0);
}
