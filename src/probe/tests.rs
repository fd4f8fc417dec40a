use tokio::time::timeout;

use super::*;
use crate::pool::{Member, MemberConfig, Server};

/// A plan with one pool, with these lines in it.
pub(super) fn plan(lines: &str) -> Plan {
    let text = format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\n{lines}");
    let loaded = crate::config::read("test.toml", &text);
    loaded.unwrap_or_else(|report| panic!("{report}")).plan
}

/// The pool of such a plan.
pub(super) fn pool(lines: &str) -> Arc<PoolPlan> {
    Arc::clone(&plan(lines).pools[0])
}

fn checks() -> Checks {
    Checks::new(Arc::new(Metrics::new()), Arc::default())
}

#[tokio::test]
async fn a_prober_that_ends_leaves_nothing_behind() {
    let (checks, pool) = (Arc::new(checks()), pool(r#"servers = ["127.0.0.1:1", "127.0.0.1:2"]"#));
    let mut probers = Probers::default();
    for _ in 0..100 {
        let anew = |server: &Member| {
            Member::new(
                Arc::new(Server::new(server.spec().clone(), true)),
                MemberConfig::default(),
            )
        };
        pool.pool
            .replace_servers(pool.pool.servers().iter().map(anew).collect());
        checks.run_probers(&pool, &mut probers);
        yield_now().await;
    }
    assert_eq!(probers.running.len(), 2);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive(), 2);
    drop(probers);
    yield_now().await;
    assert_eq!(alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_is_not_the_last() {
    let (checks, pool) = (Arc::new(checks()), pool(r#"servers = ["127.0.0.1:1"]"#));
    checks.turns.close(); // who asks for a turn panics
    let mut probers = Probers::default();
    checks.run_probers(&pool, &mut probers);
    tokio::time::sleep(3 * pool.health.interval).await;
    assert!(probers.running.values().all(|prober| !prober.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn checks_at_once_become_more_and_fewer() {
    let probing = Probing::new(checks());
    for concurrency in [2, 4, 1] {
        probing.limit(concurrency, 1);
        let mut turns = Vec::new();
        while let Ok(turn) = timeout(Duration::from_secs(1), probing.checks.turns.acquire()).await {
            turns.push(turn);
        }
        assert_eq!(turns.len(), concurrency);
    }
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

#[tokio::test(start_paused = true)]
async fn a_panic_uses_no_server_whose_role_nobody_knows() {
    let plan = pool(
        "servers = [\"127.0.0.1:1\"]\nrole = \"primary\"\n[pools.p.health]\n\
         check = \"postgres\"\nuser = \"u\"\nfall = 1\npanic_threshold = 100",
    );
    let server = &plan.pool.servers()[0];
    let series = Metrics::new().server(plan.pool.name(), server);
    let prober = Prober::new(
        plan.health.check.clone().unwrap(),
        CheckPlan::of(&plan),
        Arc::clone(server),
        series,
    );
    let lost = || Err(Failure::Io(std::io::ErrorKind::TimedOut.into()));
    let is_used = || {
        let client = crate::addr::ClientAddr::new("10.0.0.1:1".parse().unwrap());
        plan.pool.pick(client, &[], Instant::now()).is_some()
    };
    prober.doubt();
    for (checked, used) in [
        (lost(), false), // it was never reached
        (Ok(()), true),
        (lost(), true), // as far as anybody knows it is a primary
        (Err(Failure::Unfit("a replica".into())), false),
        (lost(), false), // as far as anybody knows it is a replica
    ] {
        prober.take_in("p", checked);
        assert_eq!(is_used(), used);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_cut_and_escaped_where_it_enters_health() {
    let plan = pool("servers = [\"127.0.0.1:1\"]");
    let server = &plan.pool.servers()[0];
    let series = Metrics::new().server(plan.pool.name(), server);
    let kind = plan.health.check.clone().unwrap();
    let prober = Prober::new(kind, CheckPlan::of(&plan), Arc::clone(server), series);
    let said = format!("\u{1b}[2J\u{202e}\n{}", "x".repeat(100_000));
    for failure in [Failure::Io(std::io::Error::other(said.clone())), Failure::Unfit(said)] {
        prober.take_in("p", Err(failure));
        let reason = server.health().reason.unwrap();
        assert!(reason.starts_with("\\u{1b}[2J\\u{202e}\\nxxx"), "{reason}");
        assert_eq!(reason.chars().count(), crate::text::REASON_CHARS_MAX);
    }
}
