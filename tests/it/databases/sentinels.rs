//! The Sentinels that the check `redis` asks: their majority decides, also after they were set up anew.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::redis::{config, has_state, is_written, reason};
use crate::support::counts::ended_sessions;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::sentinel::RedisNode;

/// A Sentinel with fixed answers, as if it belonged to another group of Sentinels, which watches another primary under
/// the same name.
struct ForeignSentinel {
    address: SocketAddr,
    times_asked: Arc<AtomicUsize>,
    is_gone: Arc<AtomicBool>,
}

impl ForeignSentinel {
    /// A Sentinel that names this server as the primary, in this epoch.
    fn naming(server: &RedisNode, epoch: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.address().port().to_string();
        let pairs = ["ip", "127.0.0.1", "port", &port, "runid", "", "config-epoch"];
        let pairs: String = pairs.iter().map(|word| format!("+{word}\r\n")).collect();
        let answer = format!("+PONG\r\n*2\r\n+127.0.0.1\r\n+{port}\r\n*8\r\n{pairs}+{epoch}\r\n");
        let this = Self {
            address: listener.local_addr().unwrap(),
            times_asked: Arc::default(),
            is_gone: Arc::default(),
        };
        let (times_asked, is_gone) = (Arc::clone(&this.times_asked), Arc::clone(&this.is_gone));
        thread::spawn(move || {
            for client in listener.incoming() {
                if is_gone.load(Relaxed) {
                    return;
                }
                let mut client: TcpStream = client.unwrap();
                let _ = client.write_all(answer.as_bytes());
                let _ = client.read_to_end(&mut Vec::new()); // until the check has closed
                times_asked.fetch_add(1, Relaxed);
            }
        });
        this
    }

    fn wait_for_more_queries(&self, count: usize) {
        let before = self.times_asked.load(Relaxed);
        eventually("it is asked", || self.times_asked.load(Relaxed) >= before + count);
    }

    /// From now on its port is closed.
    fn leave(&self) {
        self.is_gone.store(true, Relaxed);
        let _ = TcpStream::connect(self.address); // so that its thread ends
        eventually("its port is closed", || TcpStream::connect(self.address).is_err());
    }
}

fn with_sentinels(servers: &[&RedisNode], sentinels: &[SocketAddr]) -> String {
    let sentinels: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
    config(servers, &format!("sentinels = {sentinels:?}\nmaster = \"orders\""))
}

#[test]
fn a_foreign_sentinel_among_three_changes_nothing_even_while_another_one_hangs() {
    let primary = RedisNode::start(&[]);
    let replica = RedisNode::replica_of(&primary, &[]);
    let (one, two) = (
        RedisNode::sentinel_in_epoch(&primary, 3),
        RedisNode::sentinel_in_epoch(&primary, 3),
    );
    let foreign = ForeignSentinel::naming(&replica, 99);
    let sentinels = [one.address(), two.address(), foreign.address];
    let proxy = Proxy::start(&with_sentinels(&[&primary, &replica], &sentinels));
    eventually("the primary is up", || has_state(&proxy, "primary", &primary, "up"));
    foreign.wait_for_more_queries(3);
    assert!(has_state(&proxy, "primary", &primary, "up"));
    assert!(is_written(proxy.at("primary"), "with-foreign"));
    two.freeze();
    foreign.wait_for_more_queries(3);
    assert!(has_state(&proxy, "primary", &primary, "up"));
    assert!(is_written(proxy.at("primary"), "while-two-hangs"));
    two.thaw();
    foreign.leave();
    let checks = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("pool", "primary")])
    };
    let before = checks();
    eventually("servers are checked without the foreign Sentinel", || {
        checks() >= before + 4.0
    });
    assert!(has_state(&proxy, "primary", &primary, "up"));
    assert!(is_written(proxy.at("primary"), "without-foreign"));
    assert_eq!(ended_sessions(&proxy, "server_down"), 0.0);
}

#[test]
fn sentinels_that_were_set_up_anew_are_followed_in_spite_of_lower_epochs() {
    let first = RedisNode::start(&[]);
    let second = RedisNode::replica_of(&first, &[]);
    let state = tempfile::tempdir().unwrap();
    let text = |sentinel: &RedisNode| {
        let runtime = format!("[runtime]\nstate_dir = {:?}\n", state.path());
        runtime + &with_sentinels(&[&first, &second], &[sentinel.address()])
    };
    let old = RedisNode::sentinel_in_epoch(&first, 7);
    let proxy = Proxy::start(&text(&old));
    eventually("the primary is up", || has_state(&proxy, "primary", &first, "up"));
    let kept = || std::fs::read_to_string(state.path().join("primaries.json")).unwrap_or_default();
    // For Redis, the key `timeline` of the file holds the epoch of the Sentinels.
    eventually("its epoch is remembered", || kept().contains("\"timeline\": 7"));
    let log = proxy.stop().log;
    let new_primary = log.iter().find(|line| line["message"] == "the pool has a new primary");
    assert_eq!(new_primary.unwrap()["epoch"], 7, "{log:?}");
    drop(old);
    let new = RedisNode::sentinel_in_epoch(&first, 0);
    new.wait_for_replica();
    let proxy = Proxy::start(&text(&new));
    eventually("the new epoch is remembered", || kept().contains("\"timeline\": 0"));
    assert!(has_state(&proxy, "primary", &first, "up"));
    assert!(is_written(proxy.at("primary"), "before"));
    new.fail_over();
    eventually("a failover of the new Sentinel counts", || {
        has_state(&proxy, "primary", &second, "up") && has_state(&proxy, "primary", &first, "wrong role")
    });
    assert!(
        is_written(proxy.at("primary"), "after"),
        "{}",
        reason(&proxy, "primary", &second)
    );
}
