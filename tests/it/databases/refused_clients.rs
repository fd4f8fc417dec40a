//! Listeners with `protocol = "mysql"`, `"redis"` or `"postgres"`: their clients print why they are refused.

use std::process::Command;

use super::postgres_names::SSL_REQUEST;
use crate::support::client::Client;
use crate::support::database::psql;
use crate::support::hello::Hello;
use crate::support::mariadb::mariadb;
use crate::support::process::finished;
use crate::support::proxy::Proxy;

fn config(protocol: &str) -> String {
    format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n[[listeners.db.routes]]\n\
         from = \"127.0.0.0/8\"\npool = \"db\"\n[pools.db]\nservers = [\"127.0.0.1:1\"]\n\
         health = {{ check = \"off\" }}"
    )
}

#[test]
fn the_client_of_mariadb_prints_why_it_is_refused() {
    let proxy = Proxy::start(&config("mysql"));
    let done = finished(&mut mariadb(proxy.at("db"), "SELECT 1"));
    assert!(done.stderr.contains("no server is available"), "{done:#?}");
    assert_eq!(proxy.access_line()["ending"], "connect_failed");
    let refusing = config("mysql").replace("127.0.0.0/8", "192.0.2.0/24");
    let proxy = Proxy::start(&refusing);
    let done = finished(&mut mariadb(proxy.at("db"), "SELECT 1"));
    assert!(done.stderr.contains("this client may not connect here"), "{done:#?}");
    assert_eq!(proxy.access_line()["ending"], "no_route");
}

#[test]
fn the_client_of_redis_prints_that_no_server_is_available() {
    let proxy = Proxy::start(&config("redis"));
    let mut client = Command::new("redis-cli");
    client.args(["-p", &proxy.at("db").port().to_string(), "PING"]);
    let done = finished(&mut client);
    let printed = format!("{}{}", done.stdout, done.stderr);
    assert!(printed.contains("no server is available"), "{done:#?}");
}

#[test]
fn psql_prints_why_it_is_refused_whatever_its_sslmode() {
    let refusing = config("postgres").replace("127.0.0.0/8", "192.0.2.0/24");
    for (text, message, alert) in [
        (config("postgres"), "no server is available", "alert internal error"),
        (refusing, "no route takes database \"postgres\"", "alert access denied"),
    ] {
        let proxy = Proxy::start(&text);
        for (mode, expected) in [("prefer", message), ("disable", message), ("require", alert)] {
            let done = finished(psql(proxy.at("db"), "SELECT 1").env("PGSSLMODE", mode));
            assert!(done.stderr.contains(expected), "{mode}: {done:#?}");
        }
        // A client that sends nothing after its SSLRequest is not waited for long.
        let mut client = Client::connect(proxy.at("db"));
        assert_eq!(client.send(&SSL_REQUEST).read_all(), b"S");
    }
}

#[test]
fn clients_refused_by_a_listener_guard_print_the_refusal() {
    let guarded = |protocol: &str, guard: &str| {
        let config = config(protocol).replace("protocol =", "guards = \"g\"\nprotocol =");
        Proxy::start(&format!("[guards.g]\n{guard}\n{config}"))
    };
    let (deny, limit) = ("deny = \"127.0.0.0/8\"", "rate = \"1/h\"\nburst = 1");
    for (guard, passes, message, redis_message) in [
        (
            deny,
            0,
            "this client may not connect here",
            "this client may not connect here",
        ),
        (limit, 1, "too many connections", "max number of clients reached"),
    ] {
        let proxy = guarded("mysql", guard);
        let printed: Vec<_> = (0..=passes)
            .map(|_| finished(&mut mariadb(proxy.at("db"), "SELECT 1")).stderr)
            .collect();
        assert!(printed[passes].contains(message), "{printed:?}");
        let proxy = guarded("redis", guard);
        for _ in 0..passes {
            Client::connect(proxy.at("db")).send(b"PING\r\n").read_all();
        }
        let answer = Client::connect(proxy.at("db")).send(b"PING\r\n").read_all();
        assert_eq!(answer, format!("-ERR {redis_message}\r\n").as_bytes());
    }
    let alert = "alert access denied";
    for (guard, passes, message) in [
        (deny, 0, "connections from this address are refused here"),
        (limit, 1, "too many connections"),
    ] {
        let proxy = guarded("postgres", guard);
        for _ in 0..passes {
            finished(psql(proxy.at("db"), "SELECT 1").env("PGSSLMODE", "disable"));
        }
        for (mode, expected) in [("prefer", message), ("disable", message), ("require", alert)] {
            let done = finished(psql(proxy.at("db"), "SELECT 1").env("PGSSLMODE", mode));
            assert!(done.stderr.contains(expected), "{mode}: {done:#?}");
        }
        // A client that begins with a ClientHello gets the same alert.
        let direct = Client::connect(proxy.at("db"))
            .send(&Hello::named("a.example").bytes())
            .read_all();
        assert_eq!(direct, [21, 3, 3, 0, 2, 2, 49], "access_denied");
        // A client that says nothing is not waited for long, and is reset.
        Client::connect(proxy.at("db")).must_be_reset();
        // Six connections were refused: two of psql with `prefer`, which tries again without TLS, and one of each other
        // client.
        let line = &proxy.access_lines(passes + 6)[passes];
        assert_eq!(line["guard"], "g", "{line:#}");
    }
}
