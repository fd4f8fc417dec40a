//! Strays are replicas that follow an old primary. They do not lag behind it, but their data is not that of the new
//! primary.

use std::io::ErrorKind;

use super::redis::{config, has_state, reason};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::sentinel::{RedisNode, redis_answer};

#[test]
fn a_replica_of_an_old_primary_of_redis_serves_no_reader_until_it_follows_the_new_one() {
    let a = RedisNode::start(&[]);
    let (b, c) = (RedisNode::replica_of(&a, &[]), RedisNode::replica_of(&a, &[]));
    let proxy = Proxy::start(&config(&[&a, &b, &c], "timeout = \"1s\""));
    let is_up = |pool, server| has_state(&proxy, pool, server, "up");
    eventually("all are up", || {
        is_up("primary", &a) && is_up("replica", &b) && is_up("replica", &c)
    });
    a.freeze();
    b.ask("REPLICAOF NO ONE");
    eventually("b is the primary", || is_up("primary", &b));
    a.thaw();
    // acequia does not know this host name of `a`. It compares streams of changes to find which server `c` follows.
    c.ask(&format!("REPLICAOF localhost {}", a.address().port()));
    let why = format!("not a replica of {}: it follows {}", b.address(), a.address());
    eventually("c is no replica of b", || reason(&proxy, "replica", &c).contains(&why));
    let answer = redis_answer(proxy.at("replica"), "ROLE").or_else(|error| match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => Ok(String::new()),
        _ => Err(error),
    });
    assert_eq!(answer.unwrap(), "", "no server is used");
    // A disabled server is still known as an old primary: a replica that follows it stays out of use.
    for pool in ["primary", "replica"] {
        proxy.answer(&["server", "disable", &format!("{pool}/{}", a.address())]);
    }
    let checks = || {
        let labels = [("pool", "replica"), ("server", &*c.address().to_string())];
        proxy.metrics().sum("acequia_health_checks_total", &labels)
    };
    let before = checks();
    eventually("c is checked while a is disabled", || checks() >= before + 3.0);
    assert!(reason(&proxy, "replica", &c).contains(&why));
    c.ask(&format!("REPLICAOF localhost {}", b.address().port()));
    eventually("c follows b", || is_up("replica", &c));
}
