use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::server_check::ServerCheck;
use super::*;
use crate::addr::ListenAddr;
use crate::check::{CheckFailure, CheckPass};
use crate::pool::{AgentSettings, CheckVerdict, Member, MemberConfig, RefusedCheck, Role, Server, ServerFacts};

/// A plan with one pool that has these lines.
fn plan(lines: &str) -> Plan {
    let text = format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\n{lines}");
    let loaded = crate::config::read("test.toml", &text);
    loaded.unwrap_or_else(|report| panic!("{report}")).plan
}

/// The plan with these lines, in force.
fn live(lines: &str) -> Arc<Live> {
    Arc::new(Live::new(plan(lines), Vec::new()))
}

/// A runner of checks for a pool with these lines, and the pool.
fn shared_checks(lines: &str) -> (Arc<SharedChecks>, Arc<LivePool>) {
    let live = live(lines);
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    (
        SharedChecks::new(CheckContext::new(Arc::new(Metrics::new()), live)),
        pool,
    )
}

/// The check of the pool's first server.
fn first_check(pool: &LivePool) -> ServerCheck {
    let server = &pool.servers()[0];
    let series = Metrics::new().server(pool.name(), server);
    ServerCheck::new(pool, Arc::clone(server), series, Arc::new(Semaphore::new(1)))
}

#[tokio::test]
async fn checks_of_removed_servers_leave_no_task_behind() {
    let (shared, pool) = shared_checks(r#"servers = ["127.0.0.1:1", "127.0.0.1:2"]"#);
    let mut checks = PoolChecks::default();
    for _ in 0..100 {
        let new = |server: &Member| {
            Member::new(
                Arc::new(Server::new(server.spec().clone(), true)),
                MemberConfig::default(),
            )
        };
        pool.replace_servers(pool.servers().iter().map(new).collect());
        checks.update(&pool, &shared);
        yield_now().await;
    }
    assert_eq!(checks.uses.len(), 2);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive(), 2);
    drop(checks);
    yield_now().await;
    assert_eq!(alive(), 0);
}

#[tokio::test]
async fn a_server_that_becomes_our_own_listener_is_no_longer_checked() {
    let plan = plan(r#"servers = ["192.0.2.7:1", "127.0.0.1:2"]"#);
    let live = Arc::new(Live::new(
        plan,
        vec![vec![ListenAddr::new("0.0.0.0:1".parse().unwrap())]],
    ));
    let monitor = HealthMonitor::new(Arc::new(Metrics::new()), Arc::clone(&live));
    let _monitoring = AbortOnDropHandle::new(tokio::spawn(monitor.run()));
    let tasks = async || {
        for _ in 0..20 {
            yield_now().await;
        }
        tokio::runtime::Handle::current().metrics().num_alive_tasks()
    };
    assert_eq!(tasks().await, 4, "the monitor, the pool, and the checks of its servers");
    let local = ["127.0.0.0/8", "192.0.2.7/32"].map(|network| network.parse().unwrap());
    live.set_local_addresses(local.into_iter().collect());
    assert_eq!(live.in_force().pool("p").unwrap().left_out().len(), 1);
    assert_eq!(tasks().await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_does_not_end_the_task_of_later_checks() {
    let (shared, pool) = shared_checks(r#"servers = ["127.0.0.1:1"]"#);
    shared.context.capacity.close(); // taking a permit panics from now on
    let mut checks = PoolChecks::default();
    checks.update(&pool, &shared);
    tokio::time::sleep(3 * pool.plan().health.interval).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
}

#[tokio::test(start_paused = true)]
async fn set_limits_changes_how_many_checks_may_run_at_once() {
    let monitor = HealthMonitor::new(Arc::new(Metrics::new()), live(r#"servers = ["127.0.0.1:1"]"#));
    for concurrency in [2, 4, 1] {
        monitor.set_limits(concurrency, 1);
        let mut permits = Vec::new();
        while let Ok(permit) = timeout(Duration::from_secs(1), monitor.checks.context.capacity.acquire()).await {
            permits.push(permit);
        }
        assert_eq!(permits.len(), concurrency);
    }
}

#[tokio::test(start_paused = true)]
async fn the_panic_threshold_uses_only_servers_last_known_to_have_the_required_role() {
    let (_, pool) = shared_checks(
        "servers = [\"127.0.0.1:1\"]\nrole = \"primary\"\n[pools.p.health]\n\
         check = \"postgres\"\nuser = \"u\"\nfall = 1\npanic_threshold = 100",
    );
    let (check, metrics) = (first_check(&pool), Metrics::new());
    let timed_out = || Err(CheckFailure::Io(std::io::ErrorKind::TimedOut.into()));
    let found = |role| {
        let facts = ServerFacts {
            role: Some(role),
            ..ServerFacts::default()
        };
        Ok(CheckPass {
            facts,
            ..CheckPass::default()
        })
    };
    let is_used = || {
        let client = crate::addr::ClientAddr::new("10.0.0.1:1".parse().unwrap());
        pool.pick(client, &[], Instant::now()).is_ok()
    };
    assert!(check.start_if_enabled());
    for (result, used) in [
        (timed_out(), false), // its role was never known
        (found(Role::Primary), true),
        (timed_out(), true), // it was last known to be a primary
        (found(Role::Replica), false),
        (timed_out(), false), // it was last known to be a replica
    ] {
        check.record(&pool, &metrics, &result);
        assert_eq!(is_used(), used);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_reporting_its_role_is_trusted_for_a_while() {
    let (_, pool) = shared_checks(
        "servers = [\"127.0.0.1:1\"]\nrole = \"primary\"\nrole_trust = \"1m\"\n[pools.p.health]\ncheck = \"redis\"\nfall = 1",
    );
    let (check, metrics) = (first_check(&pool), Metrics::new());
    let facts = ServerFacts {
        role: Some(Role::Primary),
        ..ServerFacts::default()
    };
    check.record(&pool, &metrics, &Ok(facts.into()));
    let denied = Ok(CheckPass {
        role_denied: Some("NOPERM".to_owned()),
        ..CheckPass::default()
    });
    for (wait_seconds, refusal) in [
        (1, RefusedCheck::Tolerated),
        (58, RefusedCheck::Tolerated),
        (2, RefusedCheck::Suspended), // 61 seconds after the last report: longer than `role_trust`
    ] {
        tokio::time::advance(Duration::from_secs(wait_seconds)).await;
        check.record(&pool, &metrics, &denied);
        let health = pool.servers()[0].health();
        assert_eq!(
            (health.verdict, health.refusal),
            (CheckVerdict::Up, refusal),
            "no session is cut"
        );
        assert_eq!(health.reason.as_deref(), Some("NOPERM"));
        assert_eq!(pool.roles().primary_in_force().as_deref(), Some("127.0.0.1:1"));
    }
    let (_, pool) = shared_checks("servers = [\"127.0.0.1:1\"]\n[pools.p.health]\ncheck = \"redis\"");
    first_check(&pool).record(&pool, &metrics, &denied);
    assert!(pool.servers()[0].is_up(), "its role does not matter");
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_failure_is_truncated_and_escaped() {
    let (_, pool) = shared_checks("servers = [\"127.0.0.1:1\"]");
    let server = &pool.servers()[0];
    let (check, metrics) = (first_check(&pool), Metrics::new());
    let text = format!("\u{1b}[2J\u{202e}\n{}", "x".repeat(100_000));
    for failure in [
        CheckFailure::Io(std::io::Error::other(text.clone())),
        CheckFailure::Down {
            reason: text.clone(),
            agent: AgentSettings::default(),
        },
        CheckFailure::Unfit {
            reason: text,
            facts: Box::default(),
        },
    ] {
        check.record(&pool, &metrics, &Err(failure));
        let reason = server.health().reason.unwrap();
        assert!(reason.starts_with("\\u{1b}[2J\\u{202e}\\nxxx"), "{reason}");
        assert_eq!(reason.chars().count(), crate::text::REASON_CHARS_MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_check_waits_for_its_turn_and_fails_if_it_panics() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let live = live(&format!("servers = [\"{address}\"]"));
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    let monitor = HealthMonitor::new(Arc::new(Metrics::new()), live);
    let checks = monitor.single_checks();
    let spec = pool.servers()[0].spec().clone();
    let passes = || timeout(Duration::from_secs(60), checks.passes(pool.plan(), &spec, None));
    assert_eq!(passes().await, Ok(true));
    let capacity = Arc::clone(&monitor.checks.context.capacity);
    let only_permit = capacity.acquire().await;
    assert!(passes().await.is_err(), "the check waits for the permit");
    drop(only_permit);
    assert_eq!(passes().await, Ok(true));
    capacity.close(); // taking a permit panics from now on
    assert_eq!(passes().await, Ok(false));
}
