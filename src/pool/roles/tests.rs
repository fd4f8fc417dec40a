use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::pool::{CheckState, CheckVerdict, MemberConfig, Override, ServerRegistry, ServerSpec, Thresholds};

const REQUIRED: RoleRequirement = RoleRequirement {
    role: Some(Role::Primary),
    max_lag: Some(Duration::from_secs(10)),
    single: true,
};
const THRESHOLDS: Thresholds = Thresholds { rise: 1, fall: 2 };

fn pool_name() -> Arc<str> {
    "p".into()
}

fn address(n: usize) -> SocketAddr {
    ([10, 0, 0, 1], u16::try_from(n).unwrap() + 1).into()
}

fn member(registry: &ServerRegistry, n: usize) -> Member {
    let spec = ServerSpec::for_test(&format!("s{n}"), address(n));
    Member::new(
        registry.get_or_create(&pool_name(), spec, true),
        MemberConfig::default(),
    )
}

fn members(registry: &ServerRegistry, servers: impl Iterator<Item = usize>) -> Arc<Vec<Member>> {
    Arc::new(servers.map(|n| member(registry, n)).collect())
}

fn set(registry: &ServerRegistry, n: usize, change: Override) {
    let path = (pool_name(), format!("s{n}").into());
    let _ = registry.apply_override(&path, change, "uid 0".into(), SystemTime::now());
}

const DISABLE: Override = Override::Disable { close_over: None };

fn facts(role: Role, timeline: Option<u32>) -> ServerFacts {
    ServerFacts {
        role: Some(role),
        timeline,
        lag: Some(Duration::ZERO),
        ..ServerFacts::default()
    }
}

/// The facts of a server with this role that streams the changes of `source`. A primary streams its own.
fn streaming(role: Role, source: usize) -> ServerFacts {
    ServerFacts {
        stream: Some(Stream::Source(source as u32)),
        ..facts(role, None)
    }
}

#[test]
fn a_replica_of_a_rejected_primary_is_not_used() {
    let registry = ServerRegistry::default();
    let roles = registry.roles(&pool_name());
    let list = members(&registry, 0..3);
    let readers = RoleRequirement {
        role: Some(Role::Replica),
        ..REQUIRED
    };
    let judge = |n: usize, facts| {
        let judgement = roles.judge(&list[n], &facts, &list, readers, Instant::now());
        let mut outcomes = judgement.outcomes.into_iter();
        outcomes.find_map(|(server, outcome)| (server.spec().label == list[n].spec().label).then_some(outcome))
    };
    let follower = |followed| streaming(Role::Replica, followed);
    let primary = |n| streaming(Role::Primary, n);
    let fail = |n: usize| {
        let failed = CheckOutcome::Fail("timed out".into());
        for _ in 0..THRESHOLDS.fall {
            list[n].record_check(&failed, THRESHOLDS);
            roles.note_failure(&list[n], &failed.clone().into(), &list, readers, THRESHOLDS.fall);
        }
    };
    judge(1, follower(0));
    judge(2, follower(0));
    judge(0, primary(0));
    // s1 was promoted, and s2 follows it before s0 is known to be down.
    assert_eq!(roles.primary_in_force().as_deref(), Some("s0"));
    judge(1, primary(1));
    assert_eq!(judge(2, follower(1)), Some(CheckOutcome::Pass));
    fail(0);
    assert_eq!(roles.primary_in_force().as_deref(), Some("s1"));
    assert_eq!(judge(2, follower(1)), Some(CheckOutcome::Pass));
    // The old primary s0 comes back, and s2 follows it.
    judge(0, primary(0));
    let why = CheckOutcome::Unfit("not a replica of s1: it follows s0".into());
    assert_eq!(judge(2, follower(0)), Some(why.clone()));
    fail(1);
    assert_eq!(judge(2, follower(0)), Some(why), "still, while the primary is down");
    // s2 follows s0, which is a replica of the primary now.
    judge(1, primary(1));
    judge(0, follower(1));
    assert_eq!(judge(2, follower(0)), Some(CheckOutcome::Pass));
    // A MariaDB replica reports the `server_id` of its primary. Here s0 and s1 have the same id, so the report does not
    // prove which of them s2 follows.
    judge(0, primary(1));
    assert_eq!(judge(2, follower(1)), Some(CheckOutcome::Pass));
}

#[test]
fn a_promoted_server_passes_before_the_old_primary_is_rejected() {
    for _ in 0..32 {
        let registry = ServerRegistry::default(); // new hash maps, with keys in another order
        let roles = registry.roles(&pool_name());
        let list = members(&registry, 0..3);
        let judge = |n: usize, role, timeline| {
            roles
                .judge(&list[n], &facts(role, Some(timeline)), &list, REQUIRED, Instant::now())
                .outcomes
        };
        judge(1, Role::Replica, 1);
        judge(2, Role::Replica, 1);
        judge(0, Role::Primary, 1);
        let outcomes = judge(1, Role::Primary, 2);
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|(server, outcome)| (&*server.spec().label, *outcome == CheckOutcome::Pass))
            .collect();
        assert_eq!(outcomes, [("s1", true), ("s0", false)], "whether each passes");
    }
}

/// An old primary that is dead when another server is promoted.
#[test]
fn a_dead_server_stays_down_when_it_is_rejected() {
    let mut pool = Checked::new();
    let server = pool.all[0].clone();
    let mut health_after = |event| {
        pool.apply(event, Instant::now());
        let health = server.health();
        (health.verdict, health.reason.unwrap_or_else(|| "".into()))
    };
    health_after(Event::List(0b11));
    health_after(Event::Replica(1, 0));
    assert_eq!(health_after(Event::Primary(0, Some(1))).0, CheckVerdict::Up);
    health_after(Event::Failed(0));
    let down = (CheckVerdict::Down, "timed out".into());
    assert_eq!(health_after(Event::Failed(0)), down);
    let since = server.health().since;
    let events = [
        Event::Primary(1, Some(2)),
        Event::Failed(0),
        Event::Primary(1, Some(3)),
        Event::Failed(0),
    ];
    for event in events {
        assert_eq!(health_after(event), down, "{event:?}");
    }
    assert_eq!(server.health().since, since);
    // The server comes back, but at first it does not report its role.
    for event in [Event::Refused(0), Event::Refused(0)] {
        health_after(event);
        assert_eq!((server.check_state(), server.is_unfit()), (CheckState::Down, true));
    }
    let why = "an old primary: timeline 1, and s1 is on 3".into();
    assert_eq!(health_after(Event::Primary(0, Some(1))), (CheckVerdict::WrongRole, why));
    assert_eq!(health_after(Event::Primary(0, Some(4))).0, CheckVerdict::Up);
}

#[test]
fn a_change_of_the_list_is_processed_by_one_check_only() {
    const LIST_LEN: usize = 50;
    let registry = ServerRegistry::default();
    let roles = registry.roles(&pool_name());
    let now = Instant::now();
    // The number of checks, in a round over all servers, that went through the whole list.
    let round = |list: &Arc<Vec<Member>>| {
        let judgements = list.iter().enumerate().map(|(n, server)| {
            let role = if n == 0 { Role::Primary } else { Role::Replica };
            roles.judge(server, &facts(role, Some(1)), list, REQUIRED, now)
        });
        judgements
            .filter(|judgement| judgement.has_new_primary_or_servers)
            .count()
    };
    let list = members(&registry, 0..LIST_LEN);
    assert_eq!(round(&list), 2, "the list is new, and then the primary is known");
    assert_eq!([round(&list), round(&list)], [0, 0]);
    set(&registry, 7, DISABLE);
    assert_eq!([round(&list), round(&list)], [1, 0]);
    set(&registry, 7, Override::Enable);
    assert_eq!([round(&list), round(&list)], [1, 0]);
    let smaller = members(&registry, 0..LIST_LEN - 1);
    // This call gets the new list first, but is refused. So the next check must still process the list.
    assert!(roles.trust("s7", &smaller, REQUIRED).is_none(), "s7 is a replica");
    assert_eq!([round(&smaller), round(&smaller)], [1, 0]);
    assert_eq!(Arc::strong_count(&list), 1, "the roles do not hold the old list");
}

#[test]
fn the_next_check_no_longer_waits_for_a_disabled_server() {
    let registry = ServerRegistry::default();
    let roles = registry.roles(&pool_name());
    let list = members(&registry, 0..2);
    let check = || {
        roles.judge(&list[0], &facts(Role::Primary, None), &list, REQUIRED, Instant::now());
        roles.primary_in_force()
    };
    assert_eq!(check(), None, "s1 has not reported its role");
    set(&registry, 1, DISABLE);
    assert_eq!(check().as_deref(), Some("s0"));
}

const SERVERS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The server says that it is a primary, on this timeline.
    Primary(usize, Option<u32>),
    /// The first server says that it follows the second.
    Replica(usize, usize),
    Refused(usize),
    Failed(usize),
    Disable(usize),
    Enable(usize),
    /// From now on, the pool consists of the servers whose bits are set.
    List(u8),
    /// An operator says that the server is the primary.
    Trust(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let server = 0..SERVERS;
    let event = prop_oneof![
        6 => (server.clone(), prop::option::of(1..4_u32)).prop_map(|(n, timeline)| Event::Primary(n, timeline)),
        8 => (server.clone(), server.clone()).prop_map(|(n, followed)| Event::Replica(n, followed)),
        2 => server.clone().prop_map(Event::Refused),
        4 => server.clone().prop_map(Event::Failed),
        1 => server.clone().prop_map(Event::Disable),
        2 => server.clone().prop_map(Event::Enable),
        2 => (0..1_u8 << SERVERS).prop_map(Event::List),
        1 => server.prop_map(Event::Trust),
    ];
    prop::collection::vec(event, 1..60)
}

/// A pool whose servers record the outcomes of checks, as they do at run time.
struct Checked {
    registry: ServerRegistry,
    all: Vec<Member>,
    list: Arc<Vec<Member>>,
    /// Whether each check goes through the list of servers.
    scans: bool,
}

impl Checked {
    fn new() -> Self {
        let registry = ServerRegistry::default();
        let list = members(&registry, 0..SERVERS);
        Self {
            registry,
            all: list.to_vec(),
            list,
            scans: false,
        }
    }

    /// Applies an event. Returns the judgement and what is known of the roles after it, as text to be compared.
    fn apply(&mut self, event: Event, now: Instant) -> String {
        let roles = self.registry.roles(&pool_name());
        if self.scans {
            roles.forget_list();
        }
        let judge = |n: usize, facts| roles.judge(&self.all[n], &facts, &self.list, REQUIRED, now);
        let fail = |n: usize, outcome: CheckOutcome| {
            self.all[n].record_check(&outcome, THRESHOLDS);
            roles.note_failure(&self.all[n], &outcome.into(), &self.list, REQUIRED, THRESHOLDS.fall)
        };
        let refused = CheckOutcome::Refused {
            reason: "too many connections".into(),
            accepts_sessions: true,
        };
        let judgement = match event {
            Event::Primary(n, timeline) => {
                let facts = streaming(Role::Primary, n);
                judge(n, ServerFacts { timeline, ..facts })
            }
            Event::Replica(n, followed) => judge(n, streaming(Role::Replica, followed)),
            Event::Refused(n) => fail(n, refused),
            Event::Failed(n) => fail(n, CheckOutcome::Fail("timed out".into())),
            Event::Trust(n) => {
                let Some(judgement) = roles.trust(&format!("s{n}"), &self.list, REQUIRED) else {
                    return "not trusted".to_owned();
                };
                judgement
            }
            Event::Disable(n) => return self.set(n, DISABLE),
            Event::Enable(n) => return self.set(n, Override::Enable),
            Event::List(bits) => {
                let listed = (0..SERVERS).filter(|n| bits & 1 << n != 0);
                self.list = Arc::new(listed.map(|n| self.all[n].clone()).collect());
                return String::new();
            }
        };
        for (server, outcome) in &judgement.outcomes {
            server.record_check(outcome, THRESHOLDS);
        }
        let outcomes = judgement.outcomes.iter();
        let mut outcomes: Vec<_> = outcomes
            .map(|(server, outcome)| format!("{} {outcome:?}", server.spec().label))
            .collect();
        outcomes.sort();
        let (rivals, primary) = (&judgement.rivals, roles.primary_in_force());
        let (claimants, memory) = (roles.claimants(), roles.known_primary());
        format!("{outcomes:?} {rivals:?} {primary:?} {claimants:?} {memory:?}")
    }

    fn set(&self, n: usize, change: Override) -> String {
        set(&self.registry, n, change);
        String::new()
    }
}

proptest! {
    #[test]
    fn incremental_judgements_equal_a_full_evaluation(events in events()) {
        let mut pool = Checked::new();
        let mut scanning = Checked { scans: true, ..Checked::new() };
        let now = Instant::now();
        for event in events {
            prop_assert_eq!(pool.apply(event, now), scanning.apply(event, now), "{:?}", event);
        }
    }
}
