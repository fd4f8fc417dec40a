//! Checks of Redis whose answers are missing or wrong: servers and Sentinels hang, Sentinels were reset, servers refuse
//! the check.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::redis::{config, has_state, is_written, reason};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::sentinel::{RedisNode, redis_answer};
use crate::support::server::{Server, list};

/// A server that sends these bytes at once, and then one more every 10 ms for as long as the client stays.
fn dripping(first: &'static [u8]) -> Server {
    Server::run(move |mut stream| {
        let mut sent = stream.write_all(first);
        while sent.is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(10));
            sent = stream.write_all(b"x");
        }
    })
}

/// A listener and a pool, both named `primary`. `servers` are those of the pool, written as in a configuration.
fn one_pool(servers: &str, health: &str) -> String {
    format!(
        "[listeners.primary]\nbind = \"127.0.0.1:0\"\npool = \"primary\"\n[pools.primary]\nservers = [{servers}]\n\
         [pools.primary.health]\ncheck = \"redis\"\n{health}\n"
    )
}

/// The number of checks of this server of the pool `primary` with this result.
fn results(proxy: &Proxy, server: SocketAddr, result: &str) -> f64 {
    let labels = [
        ("pool", "primary"),
        ("server", &*server.to_string()),
        ("result", result),
    ];
    proxy.metrics().sum("acequia_health_checks_total", &labels)
}

#[test]
fn checks_of_servers_that_hang_or_send_single_bytes_end_within_their_timeout() {
    let not_redis = dripping(b"");
    let hanging = [
        Server::silent(),
        dripping(b"+"),
        dripping(b"+PONG\r\n*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n$60000\r\n"),
    ];
    let servers: Vec<_> = hanging.iter().chain([&not_redis]).collect();
    let health = "interval = \"200ms\"\ninterval_down = \"200ms\"\ntimeout = \"150ms\"\nfall = 2";
    let proxy = Proxy::start(&one_pool(&list(&servers), health));
    for server in &servers {
        let (result, why) = match server.address == not_redis.address {
            true => ("fail", "not a Redis server"),
            false => ("timeout", "timed out"),
        };
        let address = server.address;
        eventually("its checks end", || results(&proxy, address, result) >= 3.0);
        assert_eq!(results(&proxy, address, "pass"), 0.0, "{address}");
        let server = proxy.server("primary", &address.to_string());
        assert_eq!(server["health"], "down", "{server:#}");
        assert!(server["reason"].to_string().contains(why), "{server:#}");
    }
    assert!(!is_written(proxy.at("primary"), "key"));
}

#[test]
fn hanging_and_dripping_sentinels_do_not_remove_a_primary_that_another_sentinel_names() {
    let primary = RedisNode::start(&[]);
    let sentinel = RedisNode::sentinel_of(&primary);
    let (silent, dripping) = (Server::silent(), dripping(b"+PONG\r\n*2\r\n$60000\r\n"));
    let config_with = |sentinels: &[SocketAddr]| {
        let sentinels: Vec<_> = sentinels.iter().map(SocketAddr::to_string).collect();
        let health = format!("timeout = \"500ms\"\nsentinels = {sentinels:?}\nmaster = \"orders\"");
        config(&[&primary], &health)
    };
    let hanging = [silent.address, dripping.address];
    let proxy = Proxy::start(&config_with(&hanging));
    let address = primary.address();
    let why = "no Sentinel has said which server is the primary";
    assert!(reason(&proxy, "primary", &primary).contains(why));
    eventually("the checks end before their timeout", || {
        results(&proxy, address, "wrong_role") >= 3.0
    });
    assert!(proxy.reload(&config_with(&[hanging[0], hanging[1], sentinel.address()])));
    eventually("one Sentinel is enough", || {
        has_state(&proxy, "primary", &primary, "up")
    });
    sentinel.freeze();
    let passed = results(&proxy, address, "pass");
    eventually("what it has said still counts", || {
        results(&proxy, address, "pass") >= passed + 5.0
    });
    assert!(is_written(proxy.at("primary"), "key"));
    assert_eq!(results(&proxy, address, "timeout"), 0.0);
    primary.freeze();
    eventually("a primary that hangs is down", || {
        has_state(&proxy, "primary", &primary, "down") && reason(&proxy, "primary", &primary).contains("timed out")
    });
}

#[test]
fn reset_sentinels_with_a_lower_epoch_do_not_remove_the_primary() {
    let old = RedisNode::start(&[]);
    let new = RedisNode::replica_of(&old, &[]);
    let sentinel = RedisNode::sentinel_of(&old);
    sentinel.wait_for_replica();
    let with = |sentinel: &RedisNode| {
        let sentinels = format!("sentinels = \"{}\"\nmaster = \"orders\"", sentinel.address());
        config(&[&old, &new], &sentinels)
    };
    let proxy = Proxy::start(&with(&sentinel));
    eventually("the primary is up", || has_state(&proxy, "primary", &old, "up"));
    sentinel.fail_over();
    eventually("the new primary is up", || has_state(&proxy, "primary", &new, "up"));
    assert!(is_written(proxy.at("primary"), "new"));
    let lost_role = || {
        let labels = [
            ("pool", "primary"),
            ("server", &*new.address().to_string()),
            ("to", "wrong_role"),
        ];
        proxy.metrics().sum("acequia_health_transitions_total", &labels)
    };
    let (lost_before, passed_before) = (lost_role(), results(&proxy, new.address(), "pass"));
    let reset = RedisNode::sentinel_of(&new);
    assert!(reset.ask("SENTINEL MASTER orders").contains("config-epoch\r\n$1\r\n0"));
    assert!(proxy.reload(&with(&reset)));
    eventually("the checks of the new primary pass", || {
        results(&proxy, new.address(), "pass") >= passed_before + 5.0
    });
    assert_eq!(lost_role(), lost_before);
    assert!(is_written(proxy.at("primary"), "again"));
}

#[test]
fn alternately_passed_and_refused_checks_restore_a_server() {
    const FAILED: usize = 3;
    let checks = AtomicUsize::new(0);
    let server = Server::run(move |mut stream| {
        let answer: &[u8] = match checks.fetch_add(1, SeqCst) {
            number if number < FAILED => return,
            number if number % 2 == 0 => b"+PONG\r\n*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n$13\r\nrole:master\r\n\r\n",
            _ => b"-NOPERM this user has no permissions to run the 'ping' command\r\n",
        };
        let _ = stream.write_all(answer);
        let _ = stream.read_to_end(&mut Vec::new()); // until the check has closed
    });
    let address = server.address;
    let health = "interval = \"100ms\"\ninterval_down = \"100ms\"\nfall = 1\nrise = 4";
    let proxy = Proxy::start(&one_pool(&list(&[&server]), health));
    let transitions = |to| {
        let labels = [("pool", "primary"), ("to", to)];
        proxy.metrics().sum("acequia_health_transitions_total", &labels)
    };
    eventually("it was down, and is up again", || {
        transitions("down") == 1.0 && transitions("up") == 1.0
    });
    assert_eq!(results(&proxy, address, "fail"), FAILED as f64);
    assert!(results(&proxy, address, "pass") >= 2.0 && results(&proxy, address, "refused") >= 2.0);
}

#[test]
fn after_a_reload_to_the_role_primary_a_replica_gets_no_session() {
    let primary = RedisNode::start(&[]);
    let replica = RedisNode::replica_of(&primary, &[]);
    let address = replica.address();
    // The pool is named `primary` also while it requires the role `replica`.
    let text = |role: &str| {
        let health = "interval = \"200ms\"\ninterval_down = \"200ms\"\nrise = 1";
        one_pool(&format!("\"{address}\""), health).replace(
            "[pools.primary.health]",
            &format!("role = \"{role}\"\n[pools.primary.health]"),
        )
    };
    let proxy = Proxy::start(&text("replica"));
    eventually("the replica is up", || has_state(&proxy, "primary", &replica, "up"));
    replica.ask("ACL SETUSER default -role");
    eventually("its checks are refused", || results(&proxy, address, "refused") >= 2.0);
    let is_reached = || {
        let answer = redis_answer(proxy.at("primary"), "PING");
        answer.is_ok_and(|answer| answer.starts_with("+PONG"))
    };
    assert!(is_reached(), "as a replica it is trusted");
    assert!(proxy.reload(&text("primary")));
    assert!(!is_reached(), "before the next check");
    let refused = results(&proxy, address, "refused");
    eventually("its checks are refused again", || {
        results(&proxy, address, "refused") >= refused + 3.0
    });
    assert!(!is_reached(), "after further refused checks");
    replica.ask("ACL SETUSER default +role");
    eventually("its role is known", || {
        reason(&proxy, "primary", &replica).contains("the server is a replica, a primary is required")
    });
    assert!(!is_reached());
}
