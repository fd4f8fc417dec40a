//! Tiers, panic, slow start, overrides by operators and agents, and results of checks.

use tokio::time::advance;

use super::*;

/// A pool of servers of these tiers, all of them up.
fn tiers(priorities: &[u8], change_rules: impl Fn(&mut PoolRules)) -> Pool {
    let mut rules = *unchecked(Policy::LeastConn, &[1]).rules();
    change_rules(&mut rules);
    let new_member = |(n, priority): (usize, &u8)| {
        let member_config = MemberConfig {
            weight: 1,
            priority: *priority,
            ..MemberConfig::default()
        };
        server_with(n, member_config, true)
    };
    let servers: Vec<_> = priorities.iter().enumerate().map(new_member).collect();
    servers.iter().for_each(|server| passes(server, 1));
    Pool::new("pool".into(), rules, servers)
}

#[tokio::test(start_paused = true)]
async fn a_worse_tier_is_used_only_when_no_better_one_has_a_usable_server() {
    let pool = tiers(&[1, 0, 2, 0], |_| {});
    let (servers, now) = (pool.servers(), Instant::now());
    assert_eq!(picked(&pool, now), labels(&["s1", "s3"]));
    assert_eq!(pool.best_tier(now), Some(0));
    fails(&servers[1], 3);
    assert_eq!(picked(&pool, now), labels(&["s3"]));
    fails(&servers[3], 3);
    assert_eq!(picked(&pool, now), labels(&["s0"]));
    assert_eq!(pool.best_tier(now), Some(1));
    fails(&servers[0], 3);
    assert_eq!(picked(&pool, now), labels(&["s2"]));
    passes(&servers[3], 2);
    assert_eq!(picked(&pool, now), labels(&["s3"]));
}

#[tokio::test(start_paused = true)]
async fn a_retry_uses_the_next_tier_when_the_first_has_no_server_left() {
    let pool = tiers(&[1, 0], |_| {});
    let (servers, now) = (pool.servers(), Instant::now());
    let next = pool.pick(client(0), &[servers[1].id()], now).unwrap();
    assert_eq!(next.server().id(), servers[0].id());
}

#[test]
fn servers_in_order_begin_with_the_best_tier() {
    let order = tiers(&[1, 0], |_| {}).in_order(None, Instant::now());
    assert_eq!(order.iter().map(|s| s.priority()).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_is_used_only_when_no_other_server_is_left() {
    let pool = tiers(&[0, 0, 1], |_| {});
    let (servers, now) = (pool.servers(), Instant::now());
    let unfit = CheckOutcome::Unfit("it is the primary".into());
    servers[0].record_check(&unfit, THRESHOLDS);
    servers[0].set_stand_in(true); // a pool of replicas falls back to its primary
    servers[0].confirm_stand_in();
    assert_eq!((picked(&pool, now), pool.is_on_stand_in(now)), (labels(&["s1"]), false));
    fails(&servers[1], 3);
    assert_eq!((picked(&pool, now), pool.is_on_stand_in(now)), (labels(&["s2"]), false));
    let retry = pool.pick(client(0), &[servers[2].id()], now).unwrap();
    assert_eq!(retry.server().id(), servers[0].id());
    fails(&servers[2], 3);
    assert_eq!((picked(&pool, now), pool.is_on_stand_in(now)), (labels(&["s0"]), true));
    apply(&servers[0], Override::Drain { close_over: None });
    assert_eq!(pool.pick(client(0), &[], now).unwrap_err(), NoLease::NoServer);
    assert!(!pool.is_on_stand_in(now));
    apply(&servers[0], Override::Enable);
    servers[0].set_stand_in(false);
    assert_eq!(pool.pick(client(0), &[], now).unwrap_err(), NoLease::NoServer);
}

#[tokio::test(start_paused = true)]
async fn unchecked_servers_are_used_before_a_worse_tier() {
    let pool = tiers(&[1, 0], |_| {});
    let servers = vec![pool.servers()[0].clone(), server(7, 1, true)];
    pool.replace_servers(servers);
    assert_eq!(picked(&pool, Instant::now()), labels(&["s7"]));
}

#[tokio::test(start_paused = true)]
async fn the_last_usable_server_of_a_tier_may_be_ejected_when_another_tier_is_usable() {
    let pool = tiers(&[1, 0], |_| {});
    let (servers, now) = (pool.servers(), Instant::now());
    assert_eq!(fail_connects(&pool, &servers[1], 3, now), Some(EJECT.first));
    assert_eq!(picked(&pool, now), labels(&["s0"]));
    assert_eq!(fail_connects(&pool, &servers[0], 3, now), None, "it is the last of all");
}

#[tokio::test(start_paused = true)]
async fn panic_uses_the_whole_best_tier_except_servers_of_the_wrong_role_or_out_of_service() {
    let pool = tiers(&[0, 0, 0, 0, 0, 1], |rules| rules.panic_threshold = Some(50));
    let (servers, now) = (pool.servers(), Instant::now());
    apply(&servers[4], Override::Drain { close_over: None });
    fails(&servers[0], 3);
    fails(&servers[1], 3);
    assert!(!pool.is_panicking(now), "50 % is not below the threshold");
    assert_eq!(picked(&pool, now), labels(&["s2", "s3"]));
    servers[2].record_check(&CheckOutcome::Unfit("a replica".into()), THRESHOLDS);
    assert!(pool.is_panicking(now));
    assert_eq!(picked(&pool, now), labels(&["s0", "s1", "s3"]));
    fails(&servers[2], 3); // unreachable now; a replica when last seen
    assert_eq!(picked(&pool, now), labels(&["s0", "s1", "s3"]));
    fails(&servers[3], 3);
    assert!(!pool.is_panicking(now), "the best tier is another one now");
    assert_eq!(picked(&pool, now), labels(&["s5"]));
    fails(&servers[5], 3);
    assert!(pool.is_panicking(now));
    assert_eq!(
        picked(&pool, now),
        labels(&["s0", "s1", "s3"]),
        "no server is usable, and this is the best tier"
    );
}

#[tokio::test(start_paused = true)]
async fn panic_gives_ejected_servers_sessions_without_a_trial() {
    let pool = tiers(&[0, 0], |rules| rules.panic_threshold = Some(60));
    let (servers, now) = (pool.servers(), Instant::now());
    fail_connects(&pool, &servers[0], 3, now);
    assert!(servers[0].is_ejected());
    assert_eq!(picked(&pool, now), labels(&["s0", "s1"]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_came_back_starts_with_a_tenth_of_its_weight() {
    let slow = Duration::from_secs(10);
    for policy in [Policy::LeastConn, Policy::RoundRobin] {
        let pool = tiers(&[0, 0], |rules| {
            rules.slow_start = Some(slow);
            rules.policy = policy;
        });
        let servers = pool.servers();
        let share = || {
            let leases: Vec<_> = (0..110)
                .filter_map(|n| pool.pick(client(n), &[], Instant::now()).ok())
                .collect();
            let of_first = leases.iter().filter(|lease| lease.server().id() == servers[0].id());
            of_first.count()
        };
        assert_eq!(share(), 55, "the first start of a server is not slow");
        fails(&servers[0], 3);
        passes(&servers[0], 2);
        assert_eq!(share(), 10);
        advance(slow / 2).await;
        assert!((35..=38).contains(&share()), "half its weight, against a whole weight");
        advance(slow / 2).await;
        assert_eq!(share(), 55);
    }
}

#[tokio::test(start_paused = true)]
async fn slow_start_also_follows_an_ejection_and_an_enable() {
    let slow = Duration::from_secs(10);
    let pool = tiers(&[0, 0], |rules| rules.slow_start = Some(slow));
    let server = &pool.servers()[0];
    let percent = || server.slow_start_percent(Instant::now(), slow);
    fail_connects(&pool, server, 3, Instant::now());
    passes(server, 2);
    assert_eq!(percent(), 10);
    advance(slow).await;
    assert_eq!(percent(), 100);
    apply(server, Override::Disable { close_over: None });
    apply(server, Override::Enable);
    assert_eq!(percent(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_gets_no_session_and_its_checks_continue() {
    let pool = tiers(&[0, 0], |_| {});
    let (servers, now) = (pool.servers(), Instant::now());
    let over = Some(Duration::from_secs(30));
    apply(&servers[0], Override::Drain { close_over: over });
    assert_eq!(picked(&pool, now), labels(&["s1"]));
    assert_eq!(
        (servers[0].overrides().admin_state, servers[0].overrides().close_over),
        (AdminState::Draining, over)
    );
    assert!(
        servers[0]
            .record_check(&CheckOutcome::Unfit("x".into()), THRESHOLDS)
            .state
            .is_some()
    );
    servers[0].record_check(&CheckOutcome::Pass, THRESHOLDS);
    apply(&servers[0], Override::Enable);
    assert_eq!(picked(&pool, now), labels(&["s0", "s1"]));
    assert_eq!(servers[0].overrides().close_over, None);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_server_loses_its_health_and_starts_anew() {
    let pool = tiers(&[0, 0], |_| {});
    let servers = pool.servers();
    fail_connects(&pool, &servers[0], 3, Instant::now());
    fails(&servers[0], 3);
    apply(&servers[0], Override::Disable { close_over: None });
    assert!(servers[0].is_disabled() && !servers[0].is_ejected());
    assert_eq!(servers[0].check_state(), CheckState::Unchecked);
    assert_eq!(
        servers[0].record_check(&CheckOutcome::Pass, THRESHOLDS).state,
        None,
        "the result of a check that was under way is ignored"
    );
    apply(&servers[0], Override::Enable);
    assert_eq!(picked(&pool, Instant::now()), labels(&["s1"]), "nothing is known of it");
    passes(&servers[0], 1);
    assert_eq!(servers[0].check_state(), CheckState::Up, "its first result decides");
}

#[tokio::test(start_paused = true)]
async fn a_weight_override_replaces_the_configured_weight_until_it_is_revoked() {
    let server = server(0, 5, true);
    apply(&server, Override::Weight(Some(0)));
    apply(&server, Override::Enable);
    assert_eq!(server.weight(), 0);
    let next = Member::new(
        Arc::clone(&server),
        MemberConfig {
            weight: 9,
            priority: 3,
            ..MemberConfig::default()
        },
    );
    assert_eq!((next.weight(), next.priority()), (0, 3));
    apply(&server, Override::Weight(None));
    assert_eq!((server.weight(), next.weight()), (5, 9));
    assert!(next.overrides().set_by.is_some());
}

#[tokio::test(start_paused = true)]
async fn check_results_are_kept_until_checks_are_turned_on_or_off() {
    let server = server(0, 1, true);
    fails(&server, 1);
    server.set_active_checks(ActiveChecks::Health);
    assert_eq!(server.check_state(), CheckState::Down);
    assert_eq!(server.health().reason.as_deref(), Some("no"));
    server.set_active_checks(ActiveChecks::None);
    assert_eq!((server.check_state(), server.health().reason), (CheckState::Up, None));
    server.set_active_checks(ActiveChecks::Health);
    assert_eq!(server.check_state(), CheckState::Unchecked);
}

#[test]
fn a_server_with_a_required_role_gets_no_session_before_a_check() {
    let server = server(0, 1, true);
    let is_used = || server.availability(Instant::now()) != Availability::Unavailable;
    assert!(is_used());
    server.set_active_checks(ActiveChecks::HealthAndRole); // a reload has added the role
    assert!(!is_used());
    passes(&server, 1);
    assert!(is_used());
    apply(&server, Override::Disable { close_over: None });
    apply(&server, Override::Enable);
    assert_eq!((server.check_state(), is_used()), (CheckState::Unchecked, false));
    server.set_active_checks(ActiveChecks::Health);
    assert!(is_used(), "a reload has removed the role");
}

#[test]
fn the_later_change_of_an_operator_is_shown_beside_the_weight_of_an_agent() {
    let member = server(0, 1, true);
    let changed_by = || member.shown_overrides().set_by.map(|(by, _)| by.to_string());
    let half = AgentSettings {
        weight_percent: Some(50),
        ..AgentSettings::default()
    };
    member.set_agent(half);
    assert_eq!(changed_by().as_deref(), Some("agent"));
    apply(&member, Override::Drain { close_over: None });
    assert_ne!(changed_by().as_deref(), Some("agent"));
    assert_eq!(member.shown_overrides().weight, Some(1), "half of 1, rounded up");
}

#[test]
fn a_role_is_assumed_wrong_only_before_the_first_result() {
    let server = server(0, 1, true);
    server.assume_unfit();
    assert!(server.is_unfit());
    server.record_check(&CheckOutcome::Pass, THRESHOLDS);
    server.assume_unfit();
    assert!(!server.is_unfit());
}

#[test]
fn a_result_that_comes_after_checks_were_switched_off_is_ignored() {
    let server = server(0, 1, true);
    server.record_check(&CheckOutcome::Pass, THRESHOLDS);
    server.set_active_checks(ActiveChecks::None);
    assert_eq!(
        server
            .record_check(&CheckOutcome::Unfit("a replica".into()), THRESHOLDS)
            .state,
        None
    );
    server.assume_unfit();
    assert_eq!(server.check_state(), CheckState::Up);
    assert_eq!(server.health().reason, None);
}

#[test]
fn the_state_from_an_agent_applies_unless_an_operator_has_set_one() {
    let (now, member) = (Instant::now(), server(0, 1, true));
    passes(&member, 1);
    for (admin_state, weight_percent, expected) in [
        (AdminState::Draining, None, MemberState::Draining),
        (AdminState::Disabled, None, MemberState::Disabled),
        (AdminState::Enabled, Some(0), MemberState::ZeroWeight),
        (AdminState::Enabled, None, MemberState::Usable),
    ] {
        member.set_agent(AgentSettings {
            admin_state,
            weight_percent,
        });
        assert_eq!(member.state(now), expected);
    }
    apply(&member, Override::Drain { close_over: None });
    assert_eq!(member.state(now), MemberState::Draining);
}
