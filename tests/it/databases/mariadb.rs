//! The check `mysql` with MariaDB: writers reach the server that takes writes, and readers reach a replica that is not
//! too far behind.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::configs::one_pool;
use crate::support::mariadb::{MariaDb, PASSWORD, mariadb};
use crate::support::process::{finished, must};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

fn password() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    (directory, file)
}

/// Two listeners, `primary` and `replica`, each with a pool of the same name and role. Both pools have the same
/// servers. `replica_lines` are further lines of the pool `replica`.
fn config(servers: &[&MariaDb], password: &Path, replica_lines: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.address().to_string()).collect();
    let pool = |name: &str, more: &str| {
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n[pools.{name}]\nservers = {servers:?}\n\
             role = \"{name}\"\n{more}\n[pools.{name}.health]\ncheck = \"mysql\"\nuser = \"checker\"\n\
             password_file = {password:?}\ninterval = \"500ms\"\ntimeout = \"4s\"\nrise = 1\nfall = 1\n"
        )
    };
    pool("primary", "") + &pool("replica", replica_lines)
}

fn has_state(proxy: &Proxy, pool: &str, server: &MariaDb, state: &str) -> bool {
    proxy.server(pool, &server.address().to_string())["health"] == state
}

fn reason(proxy: &Proxy, pool: &str, server: &MariaDb) -> String {
    proxy.server(pool, &server.address().to_string())["reason"].to_string()
}

/// The answer to a statement at this address; `None`: an error.
fn answer(address: SocketAddr, statement: &str) -> Option<String> {
    let done = finished(&mut mariadb(address, statement));
    (done.code == Some(0)).then(|| done.stdout.trim().to_owned())
}

#[test]
fn after_a_failover_writers_reach_the_new_primary_even_if_the_old_one_hangs() {
    let first = MariaDb::start(1, &[]);
    let second = MariaDb::replica_of(&first, 2);
    let (_directory, password) = password();
    let proxy = Proxy::start(&config(&[&first, &second], &password, "max_lag = \"5s\""));
    let (write, read) = (proxy.at("primary"), proxy.at("replica"));
    eventually("the checks find both roles", || {
        has_state(&proxy, "primary", &first, "up") && has_state(&proxy, "replica", &second, "up")
    });
    must(&mut mariadb(
        write,
        "CREATE DATABASE shop; CREATE TABLE shop.orders (server INT)",
    ));
    for _ in 0..3 {
        assert_eq!(answer(write, "SELECT @@server_id").as_deref(), Some("1"));
        assert_eq!(answer(read, "SELECT @@server_id").as_deref(), Some("2"));
    }
    eventually("the replica has the table", || {
        answer(read, "SELECT count(*) FROM shop.orders").is_some()
    });
    first.freeze();
    second.run("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF"); // before the check finds that `first` hangs
    let written = wait_for("a writer reaches the new primary", || {
        answer(
            write,
            "INSERT INTO shop.orders VALUES (@@server_id); SELECT @@server_id",
        )
    });
    assert_eq!(written, "2");
    eventually("a hung server is down", || has_state(&proxy, "primary", &first, "down"));
    eventually("no replica is left", || answer(read, "SELECT 1").is_none());
    first.thaw();
    eventually("the old primary is reported as a second one", || {
        reason(&proxy, "primary", &first).contains("a second primary")
    });
    for _ in 0..10 {
        assert_eq!(answer(write, "SELECT @@server_id").as_deref(), Some("2"));
    }
    second.run("SET GLOBAL read_only = ON");
    eventually("no server that takes writes may be used", || {
        answer(write, "SELECT 1").is_none()
    });
    second.run("SET GLOBAL read_only = OFF");
    eventually("writers reach the new primary again", || {
        answer(write, "SELECT @@server_id").as_deref() == Some("2")
    });
}

#[test]
fn a_replica_whose_sql_thread_stops_is_out_of_use_after_max_lag() {
    let primary = MariaDb::start(1, &[]);
    let replica = MariaDb::replica_of(&primary, 2);
    let (_directory, password) = password();
    let proxy = Proxy::start(&config(&[&primary, &replica], &password, "max_lag = \"2s\""));
    eventually("the replica is up", || has_state(&proxy, "replica", &replica, "up"));
    replica.run("STOP SLAVE SQL_THREAD");
    eventually("it is out of use once it is too far behind", || {
        has_state(&proxy, "replica", &replica, "wrong role") && reason(&proxy, "replica", &replica).contains("behind")
    });
    replica.run("START SLAVE SQL_THREAD");
    eventually("it has caught up and is up", || {
        has_state(&proxy, "replica", &replica, "up")
    });
    replica.run("STOP SLAVE SQL_THREAD");
    proxy.stop();
    let proxy = Proxy::start(&config(&[&primary, &replica], &password, "max_lag = \"2s\""));
    eventually("after a start, the lag counts from the first check", || {
        reason(&proxy, "replica", &replica).contains("behind its primary, at most 2s are allowed")
    });
    let label = replica.address().to_string();
    let up = [("pool", "replica"), ("server", label.as_str()), ("to", "up")];
    assert_eq!(
        proxy.metrics().sum("acequia_health_transitions_total", &up),
        1.0,
        "it was up before it was behind"
    );
}

#[test]
fn a_full_server_is_not_marked_down() {
    let server = MariaDb::start(1, &["--max-connections=10", "--connect-timeout=3600"]);
    let (_directory, password) = password();
    let proxy = Proxy::start(&config(&[&server], &password, ""));
    eventually("it is up", || has_state(&proxy, "primary", &server, "up"));
    let clients: Vec<_> = (0..16).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    eventually("the check is refused", || {
        has_state(&proxy, "primary", &server, "check refused")
    });
    assert!(reason(&proxy, "primary", &server).contains("Too many connections"));
    assert_eq!(
        answer(proxy.at("primary"), "SELECT 1"),
        None,
        "the server itself is full"
    );
    let labels = [("pool", "primary")];
    assert_eq!(
        proxy.metrics().sum("acequia_health_transitions_total", &labels),
        1.0,
        "only to `up`"
    );
    drop(clients);
    eventually("the check passes again", || has_state(&proxy, "primary", &server, "up"));
}

#[test]
fn all_galera_nodes_take_writes_and_none_is_a_rival_primary() {
    let first = MariaDb::galera_node(1, None);
    let second = MariaDb::galera_node(2, Some(&first));
    let (_directory, password) = password();
    let proxy = Proxy::start(&config(&[&first, &second], &password, ""));
    eventually("both are up", || {
        has_state(&proxy, "primary", &first, "up") && has_state(&proxy, "primary", &second, "up")
    });
    let state = proxy.answer(&["status"]);
    assert_eq!(state["pools"][0]["primaries"], serde_json::json!([]), "{state:#}");
    for node in ["1", "2"] {
        eventually(&format!("a session reaches node {node}"), || {
            answer(proxy.at("primary"), "SELECT @@server_id").as_deref() == Some(node)
        });
    }
    let label = second.address().to_string();
    let refused = proxy.command(&["pool", "trust", &format!("primary/{label}")]);
    assert!(refused.stderr.contains("nothing to trust"), "{refused:?}");
}

#[test]
fn the_check_logs_in_with_tls_if_the_server_offers_it() {
    let keys = tempfile::tempdir().unwrap();
    must(Command::new("chmod").arg("755").arg(keys.path())); // MariaDB runs as another user
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    let (certificate, key) = (keys.path().join("certificate"), keys.path().join("key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = [
        format!("--ssl-cert={}", certificate.display()),
        format!("--ssl-key={}", key.display()),
    ];
    let server = MariaDb::start(1, &settings.each_ref().map(String::as_str));
    server.run("ALTER USER checker@'127.0.0.1' REQUIRE SSL");
    let (_directory, password) = password();
    let proxy = Proxy::start(&config(&[&server], &password, ""));
    eventually("it is up", || has_state(&proxy, "primary", &server, "up"));
    server.run("ALTER USER checker@'127.0.0.1' IDENTIFIED BY 'something else'");
    eventually("the login is denied, and the server is not down", || {
        has_state(&proxy, "primary", &server, "check refused")
    });
    assert!(reason(&proxy, "primary", &server).contains("Access denied"));
}

#[test]
fn checks_leave_no_line_in_the_servers_log_and_no_output_shows_the_password() {
    let server = MariaDb::start(1, &[]);
    let (_directory, password) = password();
    let proxy = Proxy::start(&config(&[&server], &password, "").replace("500ms", "100ms"));
    let before = server.log().len();
    let label = server.address().to_string();
    eventually("ten checks pass", || {
        let passed = [("server", label.as_str()), ("pool", "primary"), ("result", "pass")];
        proxy.metrics().sum("acequia_health_checks_total", &passed) >= 10.0
    });
    assert_eq!(
        finished(mariadb(server.address(), "").args(["-u", "missing"])).code,
        Some(1)
    );
    // If the checks had logged a line, it would come first.
    let line = wait_for("the line of a denied login", || server.log().get(before).cloned());
    assert!(line.contains("Access denied for user 'missing'"), "{line}");
    let state = proxy.answer(&["status"]).to_string();
    let stopped = proxy.stop(); // only now: a check that is cut off leaves a line
    let all = format!("{state}{:?}{:?}{:?}", stopped.log, stopped.access, server.log());
    assert!(!all.contains(PASSWORD));
}

#[test]
fn without_a_user_checks_cause_only_one_denied_login_a_minute() {
    let server = MariaDb::start(1, &[]);
    let smtp = Server::named("220 smtp");
    let keys = "health.check = \"mysql\"\nhealth.interval = \"100ms\"\nhealth.fall = 1";
    let proxy = Proxy::start(&one_pool(&[server.address(), smtp.address], keys));
    let label = server.address().to_string();
    eventually("twenty checks pass", || {
        let passed = [("server", label.as_str()), ("result", "pass")];
        proxy.metrics().sum("acequia_health_checks_total", &passed) >= 20.0
    });
    let state = proxy.server("p", &smtp.address.to_string());
    assert_eq!(
        state["reason"],
        "not a MySQL server, or one that sends more than 256 KiB"
    );
    let lines: Vec<_> = server
        .log()
        .into_iter()
        .filter(|line| line.contains("[Warning]"))
        .collect();
    let denied = lines
        .iter()
        .filter(|line| line.contains("Access denied for user 'acequia'"));
    assert_eq!(denied.count(), 1, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("Aborted")), "{lines:#?}");
}
