//! Sessions reach the right server even where checks do not learn everything: a server refuses the checks, the checks
//! may not call some functions, or a reload starts the checks again. Also: when sessions of a replica with too much
//! lag, or of a hung primary, are cut.

use super::primary::{config, is_up, primary_and_replica, reached, reason};
use crate::support::counts::{ended_sessions, log_count};
use crate::support::database::{Postgres, psql};
use crate::support::process::{Process, finished, must};
use crate::support::proxy::Proxy;
use crate::support::{eventually, wait_for};

fn run(server: &Postgres, statement: &str) {
    must(&mut psql(server.address(), statement));
}

/// Makes the server reject the database user of the checks.
fn refuse_checks(server: &Postgres) {
    let file = server.directory().join("data/pg_hba.conf");
    let rules = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("host all watcher 127.0.0.1/32 reject\n{rules}")).unwrap();
    run(server, "SELECT pg_reload_conf()");
}

/// Reloads with another interval. This starts the checks again.
fn restart_checks(proxy: &Proxy, text: &str) {
    assert!(proxy.reload(&text.replace("interval = \"100ms\"", "interval = \"150ms\"")));
}

#[test]
fn a_promotion_ends_the_trust_in_a_primary_that_refuses_the_check() {
    let (a, b) = primary_and_replica();
    let proxy = Proxy::start(&config([&a, &b], "", None));
    eventually("a is the primary", || is_up(&proxy, "writers", "a"));
    refuse_checks(&a);
    eventually("the check of a is refused", || {
        proxy.server("writers", "a")["health"] == "check refused"
    });
    assert_eq!(
        reached(proxy.at("write")),
        Some(a.address().port()),
        "its last known role is trusted for a minute (`role_trust`)"
    );
    run(&b, "SELECT pg_promote()");
    eventually("b is the primary", || is_up(&proxy, "writers", "b"));
    let state = wait_for("a is no longer used", || {
        Some(proxy.server("writers", "a")).filter(|state| state["usable"] == false)
    });
    assert_eq!(
        (&state["up"], &state["health"]),
        (&true.into(), &"check refused".into())
    );
    for _ in 0..10 {
        assert_eq!(reached(proxy.at("write")), Some(b.address().port()));
    }
}

#[test]
fn a_reload_keeps_the_known_primary_and_the_checks_need_no_privilege() {
    let (a, b) = primary_and_replica();
    run(
        &a,
        "REVOKE EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() FROM PUBLIC",
    );
    let text = config([&a, &b], "", None);
    eventually("the replica has replayed the REVOKE", || {
        let asked =
            finished(psql(b.address(), "SELECT 1 FROM pg_control_system()").args(["-U", "watcher", "-d", "postgres"]));
        asked.stderr.contains("permission denied")
    });
    let proxy = Proxy::start(&text);
    eventually("a is the primary", || is_up(&proxy, "writers", "a"));
    assert_eq!(
        log_count(
            &proxy,
            "the server denies the check one of its queries: old primaries or lag may stay undetected"
        ),
        4,
        "once for each server and query: both pools share the checks"
    );
    a.freeze();
    run(&b, "SELECT pg_promote()");
    eventually("b is the primary", || is_up(&proxy, "writers", "b"));
    b.freeze();
    restart_checks(&proxy, &text);
    a.thaw();
    let why = "an old primary: timeline 1, and b was on 2";
    eventually("a is known to be old", || reason(&proxy, "writers", "a") == why);
    for _ in 0..5 {
        assert_eq!(reached(proxy.at("write")), None);
    }
    b.thaw();
    eventually("b is used again", || {
        reached(proxy.at("write")) == Some(b.address().port())
    });
}

#[test]
fn the_reason_names_a_function_that_the_check_may_not_call() {
    let (a, b) = primary_and_replica();
    run(&a, "REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC");
    let text = config([&a, &b], "max_lag = \"1h\"", None);
    let is_allowed = || {
        let query = "SELECT has_function_privilege('watcher', 'pg_walfile_name(pg_lsn)', 'execute')";
        finished(psql(b.address(), query).args(["-At"])).stdout.contains('t')
    };
    eventually("the replica has replayed the REVOKE", || !is_allowed());
    let proxy = Proxy::start(&text);
    let why = "it is not known how far the server is behind its primary: the check may not call pg_walfile_name(pg_lsn): \
               GRANT EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) TO its user";
    eventually("the reason names the function", || {
        reason(&proxy, "readers", "b") == why
    });
    run(&a, "GRANT EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) TO PUBLIC");
    eventually("the replica has replayed the GRANT", is_allowed);
    restart_checks(&proxy, &text);
    eventually("the replica is up", || is_up(&proxy, "readers", "b"));
}

#[test]
fn sessions_of_a_replica_that_is_behind_are_cut_only_with_on_lag_close() {
    let (a, b) = primary_and_replica();
    let readers = "max_lag = \"1s\"\nclose_over = \"0s\"";
    let proxy = Proxy::start(&config([&a, &b], &format!("{readers}\non_lag = \"keep\""), None));
    eventually("the replica is up", || is_up(&proxy, "readers", "b"));
    let mut reader = Process::start(&mut psql(proxy.at("read"), "SELECT pg_sleep(600)"));
    eventually("a reader is served", || proxy.server("readers", "b")["sessions"] == 1);
    run(&b, "SELECT pg_wal_replay_pause()");
    run(&a, "INSERT INTO t VALUES (1)");
    eventually("the replica is not up", || !is_up(&proxy, "readers", "b"));
    assert_eq!(ended_sessions(&proxy, "server_down"), 0.0);
    assert_eq!(proxy.server("readers", "b")["sessions"], 1, "the session goes on");
    assert!(proxy.reload(&config([&a, &b], &format!("{readers}\non_lag = \"close\""), None)));
    reader.wait();
    eventually("the session was cut", || ended_sessions(&proxy, "server_down") == 1.0);
}

#[test]
fn clients_that_wait_for_a_hung_primary_are_cut_although_an_operator_has_taken_it_out() {
    for command in [&["disable"][..], &["drain", "--close-over", "1h"]] {
        let (a, b) = primary_and_replica();
        let proxy = Proxy::start(&config([&a, &b], "", None));
        eventually("a is the primary", || is_up(&proxy, "writers", "a"));
        a.freeze();
        let insert = || Process::start(psql(proxy.at("write"), "INSERT INTO t VALUES (1)").env("PGSSLMODE", "disable"));
        let mut waiting: Vec<_> = (0..3).map(|_| insert()).collect();
        let sessions = || proxy.server("writers", "a")["sessions"].as_u64();
        eventually("the clients wait for a", || sessions() == Some(3));
        proxy.answer(&[&["server", command[0], "writers/a"], &command[1..]].concat());
        run(&b, "SELECT pg_promote()");
        for client in &mut waiting {
            client.wait();
        }
        eventually("b is the primary", || is_up(&proxy, "writers", "b"));
        a.thaw();
        let rows = finished(&mut psql(a.address(), "SELECT count(*) FROM t"));
        // The old primary has run no INSERT of the clients that were cut.
        assert_eq!(rows.stdout.trim(), "0", "{command:?}: {rows:#?}");
    }
}
