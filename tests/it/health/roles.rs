//! The check `postgres`: writers reach the primary and readers a replica, whichever servers those are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::scope;

use crate::support::configs::one_pool;
use crate::support::database::{Postgres, pgbench, psql};
use crate::support::process::{Process, finished, must};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::stop::StopOnDrop;
use crate::support::{eventually, wait_for};
use tempfile::TempDir;
use tokio::time::Instant;

/// A primary answers `f`, a replica `t`.
const ROLE: &str = "SELECT pg_is_in_recovery()";
const PASSWORD: &str = "correct horse battery";

/// The password as PostgreSQL stores it, but hashed once instead of 4,096 times: an unoptimised build takes 65 ms for
/// 4,096 times, too much for the many checks of these tests.
const VERIFIER: &str = "SCRAM-SHA-256$1:YWNlcXVpYS1zYWx0LTE2Yg==\
                        $7JPXc+3ut5+ZXKUvyAwbURGa6DxNsjlhDm+XmWjC3oU=:1XRJaDldidyVQUgtfVGTILueAw9LGvP+8MJChk18rcs=";

/// Creates the role that the checks log in as.
pub(crate) fn create_checker(server: &Postgres) {
    must(&mut psql(
        server.address(),
        &format!("CREATE ROLE checker LOGIN PASSWORD '{VERIFIER}'"),
    ));
}

/// Two listeners over the same servers: `write` leads to the primary, `read` to replicas. `more` are further keys of
/// the pool `replica`.
fn config(servers: &[&Postgres], password_file: &Path, more: &str) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|server| format!("\"{}\"", server.address()))
        .collect();
    let servers = servers.join(", ");
    let health = format!(
        "check = \"postgres\"\nuser = \"checker\"\npassword_file = {password_file:?}\ndatabase = \"postgres\"\n\
         interval = \"1s\"\ntimeout = \"8s\"\nfall = 1"
    );
    format!(
        "[listeners.write]\nbind = \"127.0.0.1:0\"\npool = \"primary\"\n[listeners.read]\nbind = \"127.0.0.1:0\"\n\
         pool = \"replica\"\n[pools.primary]\nservers = [{servers}]\nrole = \"primary\"\non_down = \"close\"\n\
         close_over = \"0s\"\n[pools.primary.health]\n{health}\n[pools.replica]\nservers = [{servers}]\n\
         role = \"replica\"\n{more}\n[pools.replica.health]\n{health}"
    )
}

/// A file with the password, in a directory of its own.
pub(crate) fn password_file() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    (directory, file)
}

/// What a statement prints; `None` if it fails.
fn answer(address: std::net::SocketAddr, statement: &str) -> Option<String> {
    let done = finished(psql(address, statement).env("PGCONNECT_TIMEOUT", "10"));
    (done.code == Some(0)).then(|| done.stdout.trim().to_owned())
}

#[test]
fn after_a_promotion_writers_reach_the_new_primary_and_sessions_on_the_old_one_are_cut() {
    let primary = Postgres::start();
    create_checker(&primary);
    must(&mut pgbench(primary.address(), &["-i", "-q"]));
    let replica = Postgres::replica_of(&primary);
    let (_directory, password_file) = password_file();
    let proxy = Proxy::start(&config(&[&primary, &replica], &password_file, ""));
    let (write, read) = (proxy.at("write"), proxy.at("read"));
    // On a busy machine the first check may time out.
    eventually("the checks find both roles", || {
        let is_up = |pool: &str, server: &Postgres| proxy.server(pool, &server.address().to_string())["health"] == "up";
        is_up("primary", &primary) && is_up("replica", &replica)
    });
    for _ in 0..5 {
        assert_eq!(answer(write, ROLE).as_deref(), Some("f"));
        assert_eq!(answer(read, ROLE).as_deref(), Some("t"));
    }
    eventually("the replica is no primary", || {
        proxy.server("primary", &replica.address().to_string())["reason"]
            == "the server is a replica, a primary is required"
    });
    let checks = |pool, result| {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("pool", pool), ("result", result)])
    };
    eventually("both pools have found a wrong role", || {
        checks("primary", "wrong_role") >= 1.0 && checks("replica", "wrong_role") >= 1.0
    });
    assert!(checks("primary", "pass") >= 1.0);
    let mut bench = Process::start(&mut pgbench(write, &["-n", "-c", "8", "-T", "3600"]));
    eventually("eight sessions write", || {
        proxy.server("primary", &primary.address().to_string())["sessions"] == 8
    });
    // A write succeeds only on a primary, and the old one is frozen.
    let (stop, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let took = scope(|all| {
        let _stop = StopOnDrop(&stop);
        all.spawn(|| {
            while !stop.load(SeqCst) {
                if answer(write, "UPDATE pgbench_branches SET bbalance = 0").is_some() {
                    writes.fetch_add(1, SeqCst);
                }
            }
        });
        primary.freeze();
        must(&mut psql(replica.address(), "SELECT pg_promote()"));
        let promoted = Instant::now();
        wait_for("a writer reaches the new primary", || {
            answer(write, "INSERT INTO pgbench_history (tid) VALUES (1)")
        });
        let took = promoted.elapsed();
        let before = writes.load(SeqCst);
        eventually("the other writer reaches it, too", || writes.load(SeqCst) > before);
        took
    });
    println!("writers reached the new primary {took:?} after its promotion");
    assert_ne!(
        bench.wait().code(),
        Some(0),
        "expected pgbench to fail: its sessions were on the old primary"
    );
    let cut_sessions = || {
        let lines = proxy.access();
        lines.iter().filter(|line| line["ending"] == "server_down").count()
    };
    eventually("the eight sessions on the old primary are cut", || cut_sessions() >= 8);
    eventually("the promoted server is no replica", || {
        proxy.server("replica", &replica.address().to_string())["reason"]
            == "the server is a primary, a replica is required"
    });
    assert_eq!(answer(read, ROLE), None);
    assert!((0..5).all(|_| answer(write, ROLE).as_deref() == Some("f")));
}

#[test]
fn a_lagging_replica_is_out_of_use_and_an_idle_one_is_up() {
    let primary = Postgres::start();
    create_checker(&primary);
    let replica = Postgres::replica_of(&primary);
    let (_directory, password_file) = password_file();
    let proxy = Proxy::start(&config(&[&primary, &replica], &password_file, "max_lag = \"1s\""));
    let label = replica.address().to_string();
    let health = || proxy.server("replica", &label);
    eventually("the idle replica is up", || health()["health"] == "up");
    must(&mut psql(primary.address(), "CREATE TABLE early (n int)"));
    eventually("the replica has the table", || {
        answer(replica.address(), "SELECT * FROM early").is_some()
    });
    must(&mut psql(replica.address(), "SELECT pg_wal_replay_pause()"));
    must(&mut psql(primary.address(), "CREATE TABLE late (n int)"));
    let state = wait_for("the lagging replica is out of use", || {
        Some(health()).filter(|state| state["health"] == "wrong role")
    });
    assert!(
        state["reason"]
            .as_str()
            .unwrap()
            .contains("behind its primary, at most 1s are allowed"),
        "{state:#}"
    );
    let metrics = proxy.metrics();
    assert!(metrics.sum("acequia_server_lag_seconds", &[("pool", "replica"), ("server", &label)]) > 1.0);
    let primary = primary.address().to_string();
    assert!(
        metrics
            .series("acequia_server_lag_seconds", &[("server", &primary)])
            .is_empty()
    );
    must(&mut psql(replica.address(), "SELECT pg_wal_replay_resume()"));
    eventually("the replica has caught up and is up", || health()["health"] == "up");
}

#[test]
fn the_check_uses_tls_where_offered_and_never_shows_the_password() {
    let (_keys, tls) = tls_settings();
    let [on, certificate, key] = &tls;
    let server = Postgres::start_with(&[on, certificate, key, "log_connections=on"]);
    create_checker(&server);
    let (_directory, password_file) = password_file();
    let proxy = Proxy::start(&config(&[&server], &password_file, ""));
    let label = server.address().to_string();
    eventually("the check logs in", || {
        proxy.server("primary", &label)["health"] == "up"
    });
    let authorized = |line: &String| line.contains("user=checker") && line.contains("application_name=acequia");
    let line = wait_for("the login in PostgreSQL's log", || {
        server.log().into_iter().find(authorized)
    });
    assert!(line.contains("SSL enabled"), "{line}");
    // After a change of the password the failed login is shown, but neither the old password nor the new one.
    must(&mut psql(
        server.address(),
        "ALTER ROLE checker PASSWORD 'something else'",
    ));
    let failed = wait_for("the login is rejected", || {
        Some(proxy.server("primary", &label)).filter(|state| state["health"] == "check refused")
    });
    assert_eq!(failed["reason"], "password authentication failed for user \"checker\"");
    let state = proxy.answer(&["status"]).to_string();
    let metrics = proxy.get("/metrics").1;
    assert!(
        server.log().iter().all(|line| !line.contains("unexpected EOF")),
        "expected the checks to send Terminate before they close: {:#?}",
        server.log()
    );
    let stopped = proxy.stop();
    let all = format!("{state}{metrics}{:?}{:?}", stopped.log, stopped.access);
    for secret in [PASSWORD, "something else"] {
        assert!(!all.contains(secret));
    }
}

#[test]
fn a_check_without_a_login_passes_and_leaves_no_line_in_the_servers_log() {
    let (_keys, tls) = tls_settings();
    let server = Postgres::start_with(&tls.each_ref().map(String::as_str));
    let other = Server::named("220 smtp");
    let more = "health.check = \"postgres\"\nhealth.interval = \"100ms\"";
    let proxy = Proxy::start(&one_pool(&[server.address(), other.address], more));
    let label = server.address().to_string();
    let before = server.log().len();
    eventually("ten checks pass", || {
        let passed = [("server", label.as_str()), ("result", "pass")];
        proxy.metrics().sum("acequia_health_checks_total", &passed) >= 10.0
    });
    let state = proxy.server("p", &other.address.to_string());
    assert_eq!(
        state["reason"],
        "not a PostgreSQL server: it answers GSSENCRequest with '2'"
    );
    proxy.stop();
    // A refused session leaves a line in the log. Its index is `before` if the checks have left none.
    assert_eq!(
        finished(psql(server.address(), "").env("PGDATABASE", "missing")).code,
        Some(2)
    );
    let line = wait_for("the line of the session", || server.log().get(before).cloned());
    assert!(line.contains("database \"missing\" does not exist"), "{line}");
}

/// Settings that give a server a certificate, and the directory that holds it.
fn tls_settings() -> (TempDir, [String; 3]) {
    let keys = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    must(Command::new("chmod").arg("755").arg(keys.path()));
    let certificate = Postgres::write_private(keys.path(), "server.crt", &made.cert.pem());
    let key = Postgres::write_private(keys.path(), "server.key", &made.signing_key.serialize_pem());
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    (keys, settings)
}
