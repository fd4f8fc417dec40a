//! The check `send-expect`, against Redis, hostile servers, and servers that stop answering.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::configs::one_pool;
use crate::support::database::Redis;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

fn config(servers: &[SocketAddr], health: &str) -> String {
    let common = "check = \"send-expect\"\ninterval = \"20ms\"\ntimeout = \"300ms\"\nfall = 1";
    one_pool(servers, &format!("[pools.p.health]\n{common}\n{health}"))
}

fn health_and_reason(proxy: &Proxy, server: SocketAddr) -> (String, String) {
    let body = proxy.server("p", &server.to_string());
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (text("health"), text("reason"))
}

#[test]
fn a_conversation_with_redis_passes_or_names_the_failed_step() {
    let redis = Redis::start();
    let ping =
        r#"steps = [{ send = "PING\r\n", expect = '^\+PONG' }, { send = "hex:50494e47 0d0a", expect = 'PONG' }]"#;
    let proxy = Proxy::start(&config(&[redis.address()], ping));
    assert_eq!(health_and_reason(&proxy, redis.address()).0, "up");
    let quit = "steps = [{ send = \"QUIT\\r\\n\", expect = \"OK\" }, { expect = \"more\" }]";
    assert!(proxy.reload(&config(&[redis.address()], quit)));
    eventually("the second step fails", || {
        health_and_reason(&proxy, redis.address()).0 == "down"
    });
    let (_, reason) = health_and_reason(&proxy, redis.address());
    let expected = "step 2 (expect `more`): the server closed the connection; got `\\r\\n`";
    assert_eq!(reason, expected);
}

#[test]
fn hostile_servers_fail() {
    let endless: fn(TcpStream) = |mut stream| while stream.write_all(&[b'a'; 4096]).is_ok() {};
    let dripping: fn(TcpStream) = |mut stream| {
        let _ = stream.set_nodelay(true);
        while stream.write_all(b"a").is_ok() {}
    };
    let silent: fn(TcpStream) = |mut stream| drop(stream.read(&mut [0; 1]));
    let control: fn(TcpStream) = |mut stream| drop(stream.write_all(b"\x1b[2J\xff\xfe\0"));
    let servers = [endless, dripping, silent, control].map(Server::run);
    let addresses = servers.each_ref().map(|server| server.address);
    // Slow for regular expression engines that backtrack.
    let proxy = Proxy::start(&config(&addresses, "steps = [{ expect = '(a*)*(a|aa)+b' }]"));
    let failed = || {
        let metrics = proxy.metrics();
        metrics.sum("acequia_health_checks_total", &[("result", "fail")])
            + metrics.sum("acequia_health_checks_total", &[("result", "timeout")])
    };
    eventually("there were some checks", || failed() >= 40.0);
    for address in addresses {
        let (health, reason) = health_and_reason(&proxy, address);
        assert_eq!(health, "down", "{address}");
        assert!(
            !reason.contains(char::is_control) && reason.chars().count() <= 256,
            "{reason}"
        );
    }
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "pass")]),
        0.0
    );
}

#[test]
fn a_timeout_names_the_step_and_what_came() {
    let first_line: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"220 \x1b[2Jmail\r\n250");
        drop(stream.read_to_end(&mut Vec::new()));
    };
    let silent: fn(TcpStream) = |mut stream| drop(stream.read_to_end(&mut Vec::new()));
    let (first_line, silent) = (Server::run(first_line), Server::run(silent));
    let steps = r#"steps = [{ expect = '^220 .*\n' }, { send = "NOOP\r\n", expect = '^250 ' }]"#;
    let addresses = [first_line.address, silent.address];
    let proxy = Proxy::start(&config(&addresses, steps));
    let expected = [
        "step 2 (expect `^250 `): no match within 300ms; got `250`",
        r"step 1 (expect `^220 .*\n`): nothing within 300ms",
    ];
    for (address, reason) in addresses.into_iter().zip(expected) {
        eventually(reason, || {
            health_and_reason(&proxy, address) == ("down".to_owned(), reason.to_owned())
        });
    }
    let timeouts = proxy
        .metrics()
        .sum("acequia_health_checks_total", &[("result", "timeout")]);
    assert!(timeouts >= 2.0, "{timeouts}");
}
