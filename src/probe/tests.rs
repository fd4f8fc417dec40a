use super::*;
use crate::pool::{Allotment, Member, Server};

/// Of a configuration with only one pool, with these lines in it.
pub(super) fn plan(lines: &str) -> Plan {
    let text = format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\n{lines}");
    let loaded = crate::config::read("test.toml", &text);
    loaded.unwrap_or_else(|report| panic!("{report}")).plan
}

/// That pool.
pub(super) fn pool(lines: &str) -> Arc<PoolPlan> {
    Arc::clone(&plan(lines).pools[0])
}

fn checks() -> Arc<Checks> {
    Arc::new(Checks::new(4, Arc::new(Metrics::new()), Arc::default()))
}

#[tokio::test]
async fn a_prober_that_ends_leaves_nothing_behind() {
    let (checks, pool) = (checks(), pool(r#"servers = ["127.0.0.1:1", "127.0.0.1:2"]"#));
    let mut probers = Probers::default();
    for _ in 0..100 {
        let anew =
            |server: &Member| Member::new(Arc::new(Server::new(server.spec().clone(), true)), Allotment::default());
        pool.pool
            .replace_servers(pool.pool.servers().iter().map(anew).collect());
        checks.run_probers(&pool, &mut probers);
        tokio::task::yield_now().await;
    }
    assert_eq!(probers.running.len(), 2);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive(), 2);
    drop(probers);
    tokio::task::yield_now().await;
    assert_eq!(alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_beat_is_never_early_and_never_late_by_more_than_itself() {
    let checks = checks();
    for micros in [0, 1, 9_999, 10_000, 10_001, 123_456] {
        let at = checks.begun + Duration::from_micros(micros);
        let beat = checks.on_the_beat(at);
        assert!(beat >= at && beat - at < Duration::from_millis(10), "{micros}");
        assert_eq!((beat - checks.begun).as_micros() % 10_000, 0);
    }
}

/// A minute of a thousand servers that are checked each second.
#[test]
fn checks_are_spread_and_stay_spread() {
    let second = Duration::from_secs(1);
    let mut tenths = vec![0; 600];
    for number in 1..=1000 {
        let mut at = first_gap(number, second);
        while at < 60 * second {
            tenths[usize::try_from(at.as_millis() / 100).unwrap()] += 1;
            at += jittered(second);
        }
    }
    let (least, most) = (tenths.iter().min().unwrap(), tenths.iter().max().unwrap());
    assert!(*least > 50 && *most < 160, "100 each is even: {least} to {most}");
}
