//! The check `postgres`: writers reach the primary, readers a replica, whoever is which.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::scope;

use crate::support::database::{Postgres, pgbench, psql};
use crate::support::process::{Process, finished, must};
use crate::support::proxy::Proxy;
use crate::support::{eventually, wait_for};
use tempfile::TempDir;
use tokio::time::Instant;

const ROLE: &str = "SELECT pg_is_in_recovery()";
const PASSWORD: &str = "correct horse battery";

/// That password as PostgreSQL keeps it, but hashed once and not 4,096 times: a build that is not optimised takes 65 ms
/// for those, and for the checks of these tests most of a busy machine.
const VERIFIER: &str = "SCRAM-SHA-256$1:YWNlcXVpYS1zYWx0LTE2Yg==\
                        $7JPXc+3ut5+ZXKUvyAwbURGa6DxNsjlhDm+XmWjC3oU=:1XRJaDldidyVQUgtfVGTILueAw9LGvP+8MJChk18rcs=";

/// Lets the checker in, by its password.
fn with_checker(server: &Postgres) {
    must(&mut psql(
        server.address(),
        &format!("CREATE ROLE checker LOGIN PASSWORD '{VERIFIER}'"),
    ));
}

/// Two listeners over the same servers, `write` to the primary and `read` to replicas.
fn config(servers: &[&Postgres], password: &Path, more: &str) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|server| format!("\"{}\"", server.address()))
        .collect();
    let servers = servers.join(", ");
    let health = format!(
        "check = \"postgres\"\nuser = \"checker\"\npassword_file = {password:?}\ndatabase = \"postgres\"\n\
         interval = \"1s\"\ntimeout = \"8s\"\nfall = 1"
    );
    format!(
        "[listeners.write]\nbind = \"127.0.0.1:0\"\npool = \"primary\"\n[listeners.read]\nbind = \"127.0.0.1:0\"\n\
         pool = \"replica\"\n[pools.primary]\nservers = [{servers}]\nrole = \"primary\"\non_down = \"close\"\n\
         close_over = \"0s\"\n[pools.primary.health]\n{health}\n[pools.replica]\nservers = [{servers}]\n\
         role = \"replica\"\n{more}\n[pools.replica.health]\n{health}"
    )
}

/// The file with the password, in a folder of its own.
fn password() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    (folder, file)
}

fn answer(address: std::net::SocketAddr, statement: &str) -> Option<String> {
    let said = finished(psql(address, statement).env("PGCONNECT_TIMEOUT", "10"));
    (said.code == Some(0)).then(|| said.stdout.trim().to_owned())
}

#[test]
fn when_a_replica_is_promoted_writers_follow_and_stuck_ones_are_freed() {
    let primary = Postgres::start();
    with_checker(&primary);
    must(&mut pgbench(primary.address(), &["-i", "-q"]));
    let replica = Postgres::replica_of(&primary);
    let (_folder, password) = password();
    let proxy = Proxy::start(&config(&[&primary, &replica], &password, ""));
    let (write, read) = (proxy.at("write"), proxy.at("read"));
    // On a busy machine a first check may be too late.
    eventually("both roles are found", || {
        let is_up = |pool: &str, server: &Postgres| proxy.server(pool, &server.address().to_string())["health"] == "up";
        is_up("primary", &primary) && is_up("replica", &replica)
    });
    for _ in 0..5 {
        assert_eq!(answer(write, ROLE).as_deref(), Some("f"));
        assert_eq!(answer(read, ROLE).as_deref(), Some("t"));
    }
    let reason = &proxy.server("primary", &replica.address().to_string())["reason"];
    assert_eq!(reason, "a replica, and a primary is wanted");
    let mut bench = Process::start(&mut pgbench(write, &["-n", "-c", "8", "-T", "3600"]));
    eventually("eight sessions write", || {
        let on_it = |server: &Postgres| proxy.server("primary", &server.address().to_string())["sessions"].clone();
        on_it(&primary) == 8
    });
    let stop = AtomicBool::new(false);
    let (written, is_over) = (Mutex::new(Vec::new()), Mutex::new(None));
    scope(|all| {
        all.spawn(|| {
            while !stop.load(SeqCst) {
                if let Some(role) = answer(
                    write,
                    "UPDATE pgbench_branches SET bbalance = 0; SELECT pg_is_in_recovery()",
                ) {
                    written.lock().unwrap().push(role);
                }
            }
        });
        primary.freeze();
        must(&mut psql(replica.address(), "SELECT pg_promote()"));
        let promoted = Instant::now();
        wait_for("a writer reaches the new primary", || {
            answer(
                write,
                "INSERT INTO pgbench_history (tid) VALUES (1); SELECT pg_is_in_recovery()",
            )
            .filter(|role| role == "f")
        });
        *is_over.lock().unwrap() = Some(promoted.elapsed());
        stop.store(true, SeqCst);
    });
    println!(
        "writers reached the new primary {:?} after its promotion",
        is_over.lock().unwrap().unwrap()
    );
    let written = written.into_inner().unwrap();
    assert!(written.iter().all(|role| role == "f"), "{written:?}");
    assert_ne!(bench.wait().code(), Some(0), "its sessions were on the old one");
    let endings = || {
        let lines = proxy.access();
        lines.iter().filter(|line| line["ending"] == "server_down").count()
    };
    eventually("the stuck ones are freed", || endings() >= 8);
    eventually("nobody is a replica any more", || {
        proxy.server("replica", &replica.address().to_string())["reason"] == "a primary, and a replica is wanted"
    });
    assert_eq!(answer(read, ROLE), None);
    assert!((0..5).all(|_| answer(write, ROLE).as_deref() == Some("f")));
}

#[test]
fn a_replica_that_falls_behind_is_out_and_an_idle_one_is_not() {
    let primary = Postgres::start();
    with_checker(&primary);
    let replica = Postgres::replica_of(&primary);
    let (_folder, password) = password();
    let proxy = Proxy::start(&config(&[&primary, &replica], &password, "max_lag = \"1s\""));
    let label = replica.address().to_string();
    let health = || proxy.server("replica", &label);
    eventually("nothing was written for a while, and it is up", || {
        health()["health"] == "up"
    });
    must(&mut psql(primary.address(), "CREATE TABLE early (n int)"));
    eventually("it follows", || {
        answer(replica.address(), "SELECT * FROM early").is_some()
    });
    must(&mut psql(replica.address(), "SELECT pg_wal_replay_pause()"));
    must(&mut psql(primary.address(), "CREATE TABLE late (n int)"));
    let told = wait_for("it falls behind", || {
        Some(health()).filter(|told| told["health"] == "down")
    });
    assert!(
        told["reason"]
            .as_str()
            .unwrap()
            .contains("behind its primary, and 1s is the most"),
        "{told:#}"
    );
    must(&mut psql(replica.address(), "SELECT pg_wal_replay_resume()"));
    eventually("it catches up", || health()["health"] == "up");
}

#[test]
fn tls_is_used_where_it_is_offered_and_the_password_is_told_to_nobody() {
    let keys = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    must(Command::new("chmod").arg("755").arg(keys.path()));
    let certificate = Postgres::own_file(keys.path(), "server.crt", &made.cert.pem());
    let key = Postgres::own_file(keys.path(), "server.key", &made.signing_key.serialize_pem());
    let server = Postgres::start_with(&[
        "ssl=on",
        &format!("ssl_cert_file={}", certificate.display()),
        &format!("ssl_key_file={}", key.display()),
        "log_connections=on",
    ]);
    with_checker(&server);
    let (_folder, password) = password();
    let proxy = Proxy::start(&config(&[&server], &password, ""));
    let label = server.address().to_string();
    eventually("it is let in", || proxy.server("primary", &label)["health"] == "up");
    let authorized = |line: &String| line.contains("user=checker") && line.contains("application_name=acequia");
    let line = wait_for("it logs in", || server.log().into_iter().find(authorized));
    assert!(line.contains("SSL enabled"), "{line}");
    // Another password: that is said, but neither of them.
    must(&mut psql(
        server.address(),
        "ALTER ROLE checker PASSWORD 'something else'",
    ));
    let told = wait_for("it is not let in", || {
        Some(proxy.server("primary", &label)).filter(|told| told["health"] == "down")
    });
    assert_eq!(told["reason"], "password authentication failed for user \"checker\"");
    let state = proxy.answer(&["status"]).to_string();
    let metrics = proxy.get("/metrics").1;
    assert!(
        server.log().iter().all(|line| !line.contains("unexpected EOF")),
        "{:#?}",
        server.log()
    );
    let stopped = proxy.stop();
    let all = format!("{state}{metrics}{:?}{:?}", stopped.log, stopped.access);
    for secret in [PASSWORD, "something else"] {
        assert!(!all.contains(secret));
    }
}

#[test]
fn without_a_login_any_answer_to_a_request_for_tls_will_do() {
    let server = Postgres::start();
    let other = crate::support::server::Server::named("220 smtp");
    let proxy = Proxy::start(&format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\", \"{}\"]\n\
         health.check = \"postgres\"",
        server.address(),
        other.address
    ));
    eventually("it is up", || {
        proxy.server("p", &server.address().to_string())["health"] == "up"
    });
    let told = proxy.server("p", &other.address.to_string());
    assert_eq!(told["reason"], "no PostgreSQL server: it answers SSLRequest with '2'");
}
