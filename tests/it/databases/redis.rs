//! The check `redis`: writers reach the primary and readers a replica, also after a failover by Sentinel.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::counts::ended_sessions;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::sentinel::{RedisNode, redis_answer};

/// Two listeners, each with a pool of these servers. Listener and pool are named after the role that the pool requires:
/// `primary` or `replica`. `health` are further lines of the `health` section of both pools.
pub(super) fn config(servers: &[&RedisNode], health: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.address().to_string()).collect();
    let pool = |name: &str| {
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n[pools.{name}]\nservers = {servers:?}\n\
             role = \"{name}\"\n[pools.{name}.health]\ncheck = \"redis\"\ninterval = \"200ms\"\nfall = 1\nrise = 1\n{health}\n"
        )
    };
    pool("primary") + &pool("replica")
}

/// Whether `health` of this server in this pool is `state`.
pub(super) fn has_state(proxy: &Proxy, pool: &str, server: &RedisNode, state: &str) -> bool {
    proxy.server(pool, &server.address().to_string())["health"] == state
}

/// `reason` of this server in this pool, as JSON: a text in quotes, or `null`.
pub(super) fn reason(proxy: &Proxy, pool: &str, server: &RedisNode) -> String {
    proxy.server(pool, &server.address().to_string())["reason"].to_string()
}

/// Whether the server that is reached at this address acknowledges a write. Panics if that server is read-only.
pub(super) fn is_written(address: SocketAddr, key: &str) -> bool {
    let answer = redis_answer(address, &format!("SET {key} 1")).unwrap_or_default();
    assert!(!answer.contains("READONLY"), "{key}: {answer}");
    answer.starts_with("+OK")
}

/// A primary and its replica behind acequia. With a `state_dir`, acequia remembers the primary over a restart.
pub(super) struct RememberingPair {
    /// The primary at the start.
    pub(super) old: RedisNode,
    /// The replica of `old` at the start, and the primary after a failover.
    pub(super) new: RedisNode,
    /// The `state_dir`.
    pub(super) state: TempDir,
    /// The configuration.
    pub(super) text: String,
    pub(super) proxy: Proxy,
}

impl RememberingPair {
    pub(super) fn start() -> Self {
        let old = RedisNode::start(&[]);
        let new = RedisNode::replica_of(&old, &[]);
        let state = tempfile::tempdir().unwrap();
        let text = format!("[runtime]\nstate_dir = {:?}\n", state.path()) + &config(&[&old, &new], "timeout = \"1s\"");
        let proxy = Proxy::start(&text);
        Self {
            old,
            new,
            state,
            text,
            proxy,
        }
    }

    /// A pair after a failover: `old` hangs, `new` was promoted, and a writer has reached `new` through acequia and has
    /// set the key `new`.
    pub(super) fn failed_over() -> Self {
        let pair = Self::start();
        let Self { old, new, proxy, .. } = &pair;
        eventually("both roles are known", || {
            has_state(proxy, "primary", old, "up") && has_state(proxy, "replica", new, "up")
        });
        old.freeze();
        new.ask("REPLICAOF NO ONE");
        eventually("writers reach the new primary", || {
            is_written(proxy.at("primary"), "new")
        });
        pair
    }
}

#[test]
fn writers_reach_the_primary_and_readers_a_replica_in_sync() {
    let primary = RedisNode::start(&[]);
    let replica = RedisNode::replica_of(&primary, &[]);
    let proxy = Proxy::start(&config(&[&primary, &replica], ""));
    eventually("the checks find both roles", || {
        has_state(&proxy, "primary", &primary, "up") && has_state(&proxy, "replica", &replica, "up")
    });
    for number in 0..4 {
        assert!(is_written(proxy.at("primary"), &format!("key{number}")));
        let role = redis_answer(proxy.at("replica"), "ROLE").unwrap();
        assert!(role.contains("slave"), "{role}");
    }
    assert_eq!(
        reason(&proxy, "primary", &replica),
        "\"the server is a replica, a primary is required\""
    );
    replica.ask("REPLICAOF 127.0.0.1 1"); // nothing listens there
    eventually("a replica without its primary is down", || {
        reason(&proxy, "replica", &replica).contains("the link of the replica to its primary is down")
    });
}

#[test]
fn an_old_primary_that_comes_back_gets_no_writers_even_after_a_restart_of_acequia() {
    // Redis has no timelines, by which acequia could tell that `new` is the later primary. So it must remember that.
    let RememberingPair {
        old,
        new,
        state: _state,
        text,
        proxy,
    } = RememberingPair::failed_over();
    old.thaw();
    let is_second = |proxy: &Proxy| reason(proxy, "primary", &old).contains("a second primary");
    eventually("the old primary is rejected as a second primary", || is_second(&proxy));
    proxy.stop();
    new.freeze();
    let proxy = Proxy::start(&text);
    eventually("the old primary is still rejected while the new one hangs", || {
        has_state(&proxy, "primary", &new, "down") && is_second(&proxy)
    });
    let timeouts = || {
        proxy.metrics().sum(
            "acequia_health_checks_total",
            &[("pool", "primary"), ("result", "timeout")],
        )
    };
    let before = timeouts();
    eventually("three checks of the new primary fail", || timeouts() >= before + 3.0);
    assert!(!is_written(proxy.at("primary"), "lost"));
    new.thaw();
    eventually("writers reach the new primary again", || {
        is_written(proxy.at("primary"), "again")
    });
    assert_eq!(new.ask("EXISTS again"), ":1\r\n");
    assert_eq!(old.ask("EXISTS new lost again"), ":0\r\n");
}

#[test]
fn after_a_switchover_the_new_primary_is_used_before_the_old_one_is_in_sync() {
    let old = RedisNode::start(&[]);
    // After its promotion, `new` sends its data to a replica only after 8 s. Meanwhile `old` is not in sync.
    let new = RedisNode::replica_of(&old, &["repl-diskless-sync-delay 8"]);
    let proxy = Proxy::start(&config(&[&old, &new], ""));
    eventually("both roles are known", || {
        has_state(&proxy, "primary", &old, "up") && has_state(&proxy, "replica", &new, "up")
    });
    new.ask("REPLICAOF NO ONE");
    old.ask("SET lost 1"); // `new` does not have this key: the data diverges, and `old` needs a full sync
    old.ask(&format!("REPLICAOF 127.0.0.1 {}", new.address().port()));
    eventually("the new primary is used before the old one is in sync", || {
        has_state(&proxy, "primary", &new, "up") && old.ask("INFO replication").contains("master_link_status:down")
    });
    assert!(is_written(proxy.at("primary"), "new"));
    assert!(reason(&proxy, "primary", &old).contains("the link of the replica to its primary is down"));
    let primaries = [("pool", "primary")];
    assert_eq!(proxy.metrics().sum("acequia_pool_primaries", &primaries), 1.0);
    eventually("the old primary serves readers", || {
        has_state(&proxy, "replica", &old, "up")
    });
    assert!(is_written(proxy.at("primary"), "later"));
}

#[test]
fn a_primary_keeps_its_sessions_when_the_check_is_no_longer_permitted_to_ask_for_the_role() {
    let server = RedisNode::start(&[]);
    let proxy = Proxy::start(&config(&[&server], ""));
    eventually("the primary is up", || has_state(&proxy, "primary", &server, "up"));
    let mut session = Client::connect(proxy.at("primary"));
    session.send(b"PING\r\n").read(b"+PONG\r\n".len());
    server.ask("ACL SETUSER default -role");
    eventually("the check is refused", || {
        has_state(&proxy, "primary", &server, "check refused") && reason(&proxy, "primary", &server).contains("NOPERM")
    });
    assert!(is_written(proxy.at("primary"), "key"), "the primary is still used");
    server.ask("ACL SETUSER default +role");
    eventually("the check passes again", || has_state(&proxy, "primary", &server, "up"));
    session.send(b"PING\r\n").read(b"+PONG\r\n".len());
    assert_eq!(ended_sessions(&proxy, "server_down"), 0.0);
}

#[test]
fn if_a_server_refuses_checks_from_the_start_acequia_is_ready_but_uses_no_primary_before_pool_trust() {
    let refusing = RedisNode::start(&["requirepass secret"]); // the check has no password
    let primary = RedisNode::start(&[]);
    let proxy = Proxy::start(&config(&[&refusing, &primary], ""));
    eventually("acequia is ready", || proxy.get("/ready").0 == 200);
    let why = format!("not decided: the role of {} is not known", refusing.address());
    eventually("the reason names the refusing server", || {
        reason(&proxy, "primary", &primary).contains(&why)
    });
    assert!(!is_written(proxy.at("primary"), "key"));
    let path = format!("primary/{}", primary.address());
    assert_eq!(proxy.command(&["pool", "trust", &path]).code, Some(0));
    assert!(is_written(proxy.at("primary"), "key"));
}

#[test]
fn in_a_pool_for_primaries_a_replica_that_dies_is_logged_counted_and_dated_as_down() {
    let primary = RedisNode::start(&[]);
    let replica = RedisNode::replica_of(&primary, &[]);
    let proxy = Proxy::start(&config(&[&primary, &replica], "timeout = \"300ms\""));
    let is = |state| has_state(&proxy, "primary", &replica, state);
    let address = replica.address().to_string();
    let logged = |message: &str| {
        let mut log = proxy.log().into_iter();
        log.any(|line| line["message"] == message && line["pool"] == "primary" && line["server"] == address)
    };
    let out_of_use = "server answers, but is out of use for its role or lag";
    eventually("the replica answers", || is("wrong role") && logged(out_of_use));
    assert!(!logged("server is down"), "the replica answers");
    let since = || proxy.server("primary", &address)["since"].clone();
    let before = since();
    replica.freeze();
    eventually("the replica is down", || is("down") && logged("server is down"));
    assert_ne!(since(), before);
    let changes = |to| {
        let labels = [("pool", "primary"), ("server", &*address), ("to", to)];
        proxy.metrics().sum("acequia_health_transitions_total", &labels)
    };
    replica.thaw();
    eventually("the replica answers again", || is("wrong role"));
    // It answered at the start and again after it was down.
    assert_eq!((changes("wrong_role"), changes("down"), changes("up")), (2.0, 1.0, 0.0));
}

#[test]
fn a_sentinel_failover_moves_the_writers_away_from_the_old_primary() {
    let old = RedisNode::start(&[]);
    let new = RedisNode::replica_of(&old, &[]);
    let sentinel = RedisNode::sentinel_of(&old);
    sentinel.wait_for_replica();
    let sentinels = format!("sentinels = \"{}\"\nmaster = \"orders\"", sentinel.address());
    let proxy = Proxy::start(&config(&[&old, &new], &sentinels));
    eventually("the primary is up", || has_state(&proxy, "primary", &old, "up"));
    assert!(is_written(proxy.at("primary"), "before"));
    old.freeze();
    let mut written = Vec::new();
    eventually("the new primary is the only one", || {
        has_state(&proxy, "primary", &new, "up") && has_state(&proxy, "primary", &old, "down")
    });
    // The old primary comes back, and would take writes until Sentinel makes it a replica. No writer must reach it.
    old.thaw();
    eventually("the old primary has become a replica", || {
        let key = format!("after{}", written.len());
        if is_written(proxy.at("primary"), &key) {
            written.push(key);
        }
        // The connection may fail: Sentinel closes all connections of a server that it makes a replica.
        redis_answer(old.address(), "ROLE").is_ok_and(|role| role.contains("slave"))
    });
    assert!(!written.is_empty());
    for key in &written {
        assert_eq!(
            new.ask(&format!("EXISTS {key}")),
            ":1\r\n",
            "{key} was written elsewhere"
        );
    }
    eventually("the old primary serves readers", || {
        has_state(&proxy, "replica", &old, "up")
    });
}

#[test]
fn a_server_that_refuses_the_check_is_not_down_and_no_output_shows_a_password() {
    // At most 20 clients: the check would soon be refused for that if it left its connections open.
    let server = RedisNode::start(&["requirepass right-password", "maxclients 20"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "wrong-password\n").unwrap();
    let health = format!("password_file = {file:?}");
    let without_roles = config(&[&server], &health).replace("role = ", "# role = "); // comments the keys out
    let proxy = Proxy::start(&without_roles);
    eventually("the wrong password is shown as the reason", || {
        has_state(&proxy, "primary", &server, "check refused")
            && reason(&proxy, "primary", &server).contains("WRONGPASS")
    });
    std::fs::write(&file, "right-password\n").unwrap();
    eventually("the check passes", || has_state(&proxy, "primary", &server, "up"));
    let state = proxy.answer(&["status"]).to_string();
    let stopped = proxy.stop();
    let all = format!("{state}{:?}{:?}{:?}", stopped.log, stopped.access, server.log());
    for secret in ["wrong-password", "right-password"] {
        assert!(!all.contains(secret));
    }
}

#[test]
fn the_check_uses_tls_if_configured() {
    let keys = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    let (certificate, key) = (keys.path().join("certificate"), keys.path().join("key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = RedisNode::start_tls(&certificate, &key);
    let proxy = Proxy::start(&config(&[&server], "tls = true"));
    eventually("the primary is up", || has_state(&proxy, "primary", &server, "up"));
    let plain = Proxy::start(&config(&[&server], "tls = false"));
    eventually("without TLS, the check of a server that speaks only TLS fails", || {
        has_state(&plain, "primary", &server, "down")
    });
}

#[test]
fn with_single_false_all_primaries_are_used() {
    // Neither of the two primaries knows of the other.
    let (a, b) = (RedisNode::start(&[]), RedisNode::start(&[]));
    let replica = RedisNode::replica_of(&a, &[]);
    let text = config(&[&a, &b, &replica], "").replace("role = \"primary\"", "role = \"primary\"\nsingle = false");
    let proxy = Proxy::start(&text);
    eventually("both primaries are up", || {
        has_state(&proxy, "primary", &a, "up") && has_state(&proxy, "primary", &b, "up")
    });
    assert!(has_state(&proxy, "primary", &replica, "wrong role"));
    let state = proxy.answer(&["status"]);
    assert_eq!(state["pools"][0]["primaries"], serde_json::json!([]), "{state:#}");
    let metrics = proxy.get("/metrics").1;
    assert!(
        !metrics.contains("acequia_pool_primaries{pool=\"primary\"}"),
        "with `single = false` several primaries are intended, so they are not counted"
    );
    // The pool `replica` has no `single = false`. It counts two primaries only after three checks, of `a`, `b` and `a`
    // or the other way round. Before the third, the primary that was checked first may have become a replica.
    eventually("the pool `replica` counts two primaries", || {
        let metrics = proxy.get("/metrics").1;
        metrics.contains("acequia_pool_primaries{pool=\"replica\"} 2")
    });
    // After this reload, only one primary may be used. Which of the two is the right one is not known: neither is used.
    assert!(proxy.reload(&text.replace("single = false", "")));
    eventually("neither primary is used", || {
        reason(&proxy, "primary", &a).contains("none is known to be the right one")
            && reason(&proxy, "primary", &b).contains("none is known to be the right one")
    });
    assert!(proxy.reload(&text));
    eventually("both primaries are used again", || {
        has_state(&proxy, "primary", &a, "up") && has_state(&proxy, "primary", &b, "up")
    });
}
