//! What the commands report about databases: primaries, refused checks, and the database and user of a session.

use crate::support::client::Client;
use crate::support::database::Postgres;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::sentinel::{RedisNode, redis_answer};

#[test]
fn commands_report_refused_checks_and_how_to_end_the_wait_for_failback() {
    let server = RedisNode::start(&[]);
    let label = server.address().to_string();
    let proxy = Proxy::start(&format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\npool = \"db\"\n[pools.db]\nservers = [\"{label}\"]\nrole = \"primary\"\n\
         failback = \"manual\"\n[pools.db.health]\ncheck = \"redis\"\ninterval = \"100ms\"\ntimeout = \"500ms\"\nfall = 1"
    ));
    let printed = |command: &str| proxy.command(&[command]).stdout;
    eventually("the primary is shown", || {
        printed("status").contains("PRIMARY") && printed("servers").contains("  primary  ")
    });
    server.ask("CONFIG SET requirepass secret");
    let refused = format!("db/{label}: check refused, is used as before: NOAUTH Authentication required.\n");
    eventually("the refused check is shown", || printed("status").contains(&refused));
    ask_with_password(&server, "CONFIG SET requirepass \"\"");
    eventually("it is no longer shown", || !printed("status").contains("check refused"));
    server.freeze();
    eventually("the primary awaits failback", || {
        proxy.server("db", &label)["use"] == "awaiting failback"
    });
    server.thaw();
    let awaiting =
        format!("db/{label}: the primary, awaits failback; `acequia server enable db/{label}` uses it again\n");
    for command in ["status", "servers"] {
        eventually("the awaited failback is shown", || printed(command).contains(&awaiting));
    }
    proxy.answer(&["server", "enable", &format!("db/{label}")]);
    assert!(!printed("status").contains("failback"));
}

#[test]
fn pools_have_servers_after_switchovers_and_a_pool_whose_primary_is_drained_is_reported_as_unusable() {
    let servers = [RedisNode::start(&[]), RedisNode::start(&[])];
    let labels = servers.each_ref().map(|server| server.address().to_string());
    let pool = |name: &str, role: &str| {
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n[pools.{name}]\nservers = {labels:?}\n\
             role = \"{role}\"\nfailback = \"manual\"\n[pools.{name}.health]\ncheck = \"redis\"\ninterval = \"100ms\"\n\
             timeout = \"5s\"\nfall = 2\nrise = 1\n"
        )
    };
    let make_other_follow = |primary: usize| {
        let port = servers[primary].address().port();
        servers[1 - primary].ask(&format!("REPLICAOF 127.0.0.1 {port}"));
    };
    make_other_follow(0);
    let proxy = Proxy::start(&(pool("write", "primary") + &pool("read", "replica")));
    let is_primary = |number: usize| proxy.server("write", &labels[number])["health"] == "up";
    eventually("the first is the primary", || is_primary(0));
    for next in [1, 0] {
        make_other_follow(next);
        eventually("there is no primary", || !is_primary(1 - next));
        servers[next].ask("REPLICAOF NO ONE");
        eventually("both are in their pools", || {
            proxy.server("write", &labels[next])["health"] == "up"
                && proxy.server("read", &labels[1 - next])["health"] == "up"
        });
        for name in ["write", "read"] {
            for label in &labels {
                assert_eq!(proxy.server(name, label)["use"], "enabled");
            }
            assert!(redis_answer(proxy.at(name), "PING").unwrap().starts_with("+PONG"));
        }
    }
    let unusable = "\nwrite: no usable server\n";
    assert!(!proxy.command(&["status"]).stdout.contains(unusable));
    let path = format!("write/{}", labels[0]);
    for (set, reset) in [
        (vec!["server", "drain", &path], vec!["server", "enable", &path]),
        (
            vec!["server", "weight", &path, "0"],
            vec!["server", "weight", &path, "1"],
        ),
    ] {
        proxy.answer(&set);
        let printed = proxy.command(&["status"]).stdout;
        assert!(printed.contains(unusable), "{printed}");
        assert_eq!(proxy.answer(&["status"])["pools"][0]["usable"], false);
        proxy.answer(&reset);
        assert!(!proxy.command(&["status"]).stdout.contains(unusable));
    }
}

fn ask_with_password(server: &RedisNode, command: &str) {
    let mut client = Client::connect(server.address());
    client.send(format!("AUTH secret\r\n{command}\r\nQUIT\r\n").as_bytes());
    assert!(String::from_utf8_lossy(&client.read_all()).starts_with("+OK\r\n+OK\r\n"));
}

#[test]
fn sessions_are_filtered_by_database_and_user() {
    let server = Postgres::start();
    let proxy = Proxy::start(&format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\npool = \"db\"\n[pools.db]\nservers = [\"{}\"]",
        server.address()
    ));
    let open = |database: &str| {
        let parameters = format!("\0\u{3}\0\0user\0postgres\0database\0{database}\0\0");
        let mut client = Client::connect(proxy.at("db"));
        let length = u32::try_from(parameters.len() + 4).unwrap();
        client.send(&length.to_be_bytes()).send(parameters.as_bytes());
        assert_eq!(client.read(1), b"R");
        client
    };
    let _sessions = [open("postgres"), open("template1")];
    let with = |filter: &str| proxy.answer(&["sessions", "--filter", filter]);
    let found = with("database=template1");
    assert_eq!(found["total"], 1, "{found:#}");
    assert_eq!(found["sessions"][0]["database"], "template1");
    assert_eq!(with("user=postgres")["total"], 2);
    assert_eq!(with("user=root")["total"], 0);
    let printed = proxy.command(&["sessions"]).stdout;
    assert!(
        printed.contains("DATABASE") && printed.contains("template1"),
        "{printed}"
    );
}
