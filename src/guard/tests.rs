use std::time::{Duration, SystemTime};

use super::*;

/// Rules that admit every client.
fn rules() -> GuardRules {
    GuardRules {
        allow: None,
        deny: NetworkSet::default(),
        sessions: None,
        sessions_per_source: None,
        rate: None,
        rate_per_source: None,
        bandwidth: None,
        bandwidth_per_session: None,
        by: SourceBits::default(),
        sources_max: 1_000,
        report_only: false,
        refuse_with: RefuseWith::Reset,
    }
}

fn guard(rules: GuardRules) -> Arc<Guard> {
    Arc::new(Guard::new("g".into(), rules))
}

fn networks(networks: &[&str]) -> NetworkSet {
    networks
        .iter()
        .map(|network| network.parse::<IpNet>().unwrap())
        .collect()
}

fn client(address: &str) -> ClientAddr {
    ClientAddr::new((address.parse::<std::net::IpAddr>().unwrap(), 1).into())
}

/// Asks for a session that ends at once. Returns why it is refused; `None`: it was admitted, and counts for the rates.
fn refused(guard: &Arc<Guard>, address: &str) -> Option<GuardReason> {
    guard.admit(client(address), Instant::now()).err()
}

fn per_second(count: u32) -> Option<Rate> {
    Some(Rate::new(count, Duration::from_secs(1), count))
}

#[test]
fn deny_comes_before_allow() {
    let guard = guard(GuardRules {
        allow: Some(networks(&["10.0.0.0/8", "2001:db8::/32"])),
        deny: networks(&["10.66.0.0/16"]),
        ..rules()
    });
    for (address, expected) in [
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("10.66.0.1", Some(GuardReason::Deny)),
        ("2001:db8::1", None),
        ("192.0.2.1", Some(GuardReason::NotAllowed)),
        ("2001:db9::1", Some(GuardReason::NotAllowed)),
    ] {
        assert_eq!(refused(&guard, address), expected, "{address}");
    }
    assert_eq!(guard.refusals()[0], (GuardReason::Deny, 1));
    assert_eq!(guard.refusals()[1], (GuardReason::NotAllowed, 2));
}

#[tokio::test(start_paused = true)]
async fn a_greedy_source_does_not_use_up_the_common_rate() {
    let guard = guard(GuardRules {
        rate: per_second(10),
        rate_per_source: per_second(3),
        ..rules()
    });
    let greedy: Vec<_> = (0..100).map(|_| refused(&guard, "192.0.2.1")).collect();
    assert_eq!(greedy.iter().filter(|refused| refused.is_none()).count(), 3);
    assert_eq!(greedy[99], Some(GuardReason::RatePerSource));
    let others: Vec<_> = (2..10)
        .map(|last| refused(&guard, &format!("192.0.2.{last}")))
        .collect();
    assert_eq!(others.iter().filter(|refused| refused.is_none()).count(), 7);
    assert_eq!(others[7], Some(GuardReason::Rate));
    // A session that a common limit refuses costs its source nothing.
    tokio::time::advance(Duration::from_millis(300)).await;
    let again: Vec<_> = (0..3).map(|_| refused(&guard, "192.0.2.9")).collect();
    assert_eq!(again, [None; 3]);
}

#[test]
fn sessions_are_counted_until_their_pass_is_dropped() {
    let guard = guard(GuardRules {
        sessions: Some(3),
        sessions_per_source: Some(2),
        ..rules()
    });
    let admit = |address| guard.admit(client(address), Instant::now());
    let held = [admit("192.0.2.1"), admit("192.0.2.1"), admit("192.0.2.2")].map(Result::unwrap);
    assert_eq!(refused(&guard, "192.0.2.1"), Some(GuardReason::SessionsPerSource));
    assert_eq!(refused(&guard, "192.0.2.3"), Some(GuardReason::Sessions));
    assert_eq!((guard.sessions(), guard.sources()), (3, 2));
    assert_eq!(guard.top_sessions(1)[0].1, 2);
    drop(held);
    assert_eq!((guard.sessions(), guard.sources()), (0, 0));
    assert_eq!(refused(&guard, "192.0.2.1"), None);
}

#[tokio::test(start_paused = true)]
async fn a_reloaded_guard_keeps_its_counts_and_denied_networks() {
    let limits = GuardRules {
        sessions_per_source: Some(2),
        rate_per_source: Some(Rate::new(1, Duration::from_secs(3_600), 3)),
        ..rules()
    };
    let before = guard(limits.clone());
    let held = before.admit(client("192.0.2.1"), Instant::now()).unwrap();
    let edit = DenyEdit {
        network: "192.0.2.66/32".parse().unwrap(),
        by: "test".into(),
        at: SystemTime::now(),
        until: None,
    };
    assert!(before.deny(edit, Instant::now()));
    let after = Arc::new(before.successor(GuardRules {
        sources_max: 5,
        ..limits
    }));
    assert_eq!((after.sessions(), after.edit_count(Instant::now())), (1, 1));
    assert_eq!(refused(&after, "192.0.2.66"), Some(GuardReason::Deny));
    let second = after.admit(client("192.0.2.1"), Instant::now()).unwrap();
    assert_eq!(refused(&after, "192.0.2.1"), Some(GuardReason::SessionsPerSource));
    drop((held, second));
    assert_eq!((before.sessions(), after.sessions()), (0, 0));
    assert_eq!(refused(&after, "192.0.2.1"), None, "the third of the burst");
    assert_eq!(refused(&after, "192.0.2.1"), Some(GuardReason::RatePerSource));
}

#[test]
fn a_report_only_guard_admits_all_clients_and_counts_what_it_would_refuse() {
    let guard = guard(GuardRules {
        deny: networks(&["10.0.0.0/8"]),
        sessions: Some(1),
        bandwidth: Some(1),
        report_only: true,
        ..rules()
    });
    let passes: Vec<_> = ["10.0.0.1", "192.0.2.1", "192.0.2.2"]
        .map(|address| guard.admit(client(address), Instant::now()).unwrap())
        .into();
    let would_refuse: Vec<_> = passes.iter().map(GuardPass::would_refuse).collect();
    assert_eq!(
        would_refuse,
        [Some(GuardReason::Deny), None, Some(GuardReason::Sessions)],
        "a client that would be refused takes nothing from the limit of sessions"
    );
    assert_eq!(guard.reports()[2], (GuardReason::Sessions, 1));
    assert_eq!((guard.sessions(), guard.sources()), (1, 1));
    assert!(guard.refusals().iter().all(|(_, count)| *count == 0));
    assert!(throttle(&passes).is_none());
}

#[test]
fn sessions_without_a_bandwidth_limit_have_no_throttle() {
    let (free, limited) = (
        guard(rules()),
        guard(GuardRules {
            bandwidth: Some(1),
            ..rules()
        }),
    );
    let pass = |guard: &Arc<Guard>| guard.admit(client("192.0.2.1"), Instant::now()).unwrap();
    assert!(throttle(&[pass(&free)]).is_none());
    assert!(throttle(&[pass(&free), pass(&limited)]).is_some());
}
