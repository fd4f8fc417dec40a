//! The servers, overrides, roles and queues in a registry.

use super::*;
use crate::pool::AdminState;

/// The most entries that are kept while at most 8 are in use. The unused ones are removed when there are 16 plus twice
/// as many entries as the last removal has left.
const ENTRIES_MAX: usize = 32;

fn spec(label: &str, port: u16) -> ServerSpec {
    ServerSpec::for_test(label, ([127, 0, 0, 1], port).into())
}

#[test]
fn a_server_is_found_again_while_something_holds_it() {
    let registry = ServerRegistry::default();
    let (pool, other) = (Arc::<str>::from("p"), Arc::<str>::from("q"));
    let get = |pool, label, port| registry.get_or_create(pool, spec(label, port), true);
    let first = get(&pool, "a", 1);
    let id = first.id();
    assert_eq!(get(&pool, "a", 1).id(), id);
    for different in [get(&other, "a", 1), get(&pool, "b", 1), get(&pool, "a", 2)] {
        assert_ne!(different.id(), id);
    }
    drop(first);
    assert_ne!(get(&pool, "a", 1).id(), id, "it was dropped");
}

#[test]
fn servers_of_one_pool_and_address_share_their_count_of_sessions() {
    let registry = ServerRegistry::default();
    let (pool, other) = (Arc::<str>::from("p"), Arc::<str>::from("q"));
    let get = |pool, label, port| registry.get_or_create(pool, spec(label, port), true);
    let first = get(&pool, "a", 1);
    first.add_session();
    let renamed = get(&pool, "b", 1);
    assert_ne!(renamed.id(), first.id());
    assert!(!renamed.add_session_below(1) && renamed.add_session_below(2));
    assert_eq!((first.live(), first.count_id()), (2, renamed.count_id()));
    assert_eq!(
        (first.own_live(), renamed.own_live()),
        (1, 1),
        "each also counts its own"
    );
    for different in [get(&other, "a", 1), get(&pool, "a", 2)] {
        assert_ne!(different.count_id(), first.count_id());
        assert_eq!(different.live(), 0);
    }
    drop(first);
    renamed.end_session();
    let last = get(&pool, "c", 1);
    assert_eq!((last.live(), last.own_live(), renamed.own_live()), (1, 0, 0));
}

#[test]
fn entries_of_dropped_servers_are_removed() {
    let registry = ServerRegistry::default();
    let pool = Arc::<str>::from("p");
    for port in 1..=10_000 {
        drop(registry.get_or_create(&pool, spec("a", port), true));
        drop(registry.get_or_create(&pool, spec(&format!("b{port}"), 1), true));
    }
    let entries = registry.entries.lock();
    assert!(
        entries.counts.len() <= ENTRIES_MAX
            && entries.servers.len() <= ENTRIES_MAX
            && entries.servers.values().all(|named| named.len() == 1)
    );
}

/// As with a name that is resolved again and again, each time to another address.
#[test]
fn counts_of_dropped_servers_are_removed_while_the_names_stay() {
    let registry = ServerRegistry::default();
    let pool = Arc::<str>::from("p");
    let mut server = registry.get_or_create(&pool, spec("a", 1), true);
    for port in 2..=10_000 {
        server = registry.get_or_create(&pool, spec("a", port), true);
    }
    let entries = registry.entries.lock();
    assert!(entries.counts.len() <= ENTRIES_MAX, "{}", entries.counts.len());
    let last = (pool, server.spec().address);
    assert!(entries.counts[&last].strong_count() > 0);
}

#[test]
fn servers_that_differ_only_in_their_host_names_exist_together_and_share_overrides() {
    let registry = ServerRegistry::default();
    let pool = Arc::<str>::from("p");
    let get = |host: &str| {
        let resolved_from = Some(host.into());
        let spec = ServerSpec {
            resolved_from,
            ..spec("a", 1)
        };
        registry.get_or_create(&pool, spec, true)
    };
    let old = get("old.test:443");
    let new = get("new.test:443");
    assert_eq!(
        (old.spec().host(), new.spec().host()),
        (Some("old.test"), Some("new.test"))
    );
    assert_eq!(new.count_id(), old.count_id());
    // The new server has not replaced the old one: its plan may never be put in force.
    set(&registry, "a", DRAIN);
    assert!(!old.is_enabled() && !new.is_enabled());
    assert_eq!(
        (get("old.test:443").id(), get("new.test:443").id()),
        (old.id(), new.id())
    );
    drop(new);
    set(&registry, "a", Override::Enable);
    assert!(old.is_enabled());
}

#[test]
fn pools_that_are_gone_are_forgotten_unless_their_primary_is_known() {
    let known = KnownPrimary {
        server: "a".into(),
        ..KnownPrimary::default()
    };
    let registry = ServerRegistry::new(BTreeMap::from([("known".into(), known)]));
    let held = (registry.roles(&"held".into()), registry.queue(&"held".into()));
    for number in 0..1_000 {
        let pool = Arc::<str>::from(number.to_string());
        drop((registry.roles(&pool), registry.queue(&pool)));
    }
    let (roles, queues) = (registry.roles.lock().pools.len(), registry.queues.lock().pools.len());
    assert!(roles <= ENTRIES_MAX && queues <= ENTRIES_MAX);
    assert!(Arc::ptr_eq(&held.0, &registry.roles(&"held".into())));
    assert!(Arc::ptr_eq(&held.1, &registry.queue(&"held".into())));
    assert!(registry.roles(&"known".into()).known_primary().is_some());
}

const DRAIN: Override = Override::Drain { close_over: None };

fn set(registry: &ServerRegistry, label: &str, change: Override) {
    let _ = registry.apply_override(&("p".into(), label.into()), change, "uid 0".into(), SystemTime::now());
}

fn overridden(registry: &ServerRegistry) -> Vec<String> {
    let all = registry.absent_overrides(&HashSet::new()).into_iter();
    all.map(|((_, label), _)| label.to_string()).collect()
}

#[test]
fn overrides_apply_to_a_server_that_returns_under_its_name() {
    let registry = ServerRegistry::default();
    let pool = Arc::<str>::from("p");
    let get = |port| registry.get_or_create(&pool, spec("a", port), true);
    drop(get(1));
    set(&registry, "a", DRAIN);
    set(&registry, "a", Override::Weight(Some(3)));
    let (back, moved) = (get(1), get(2));
    for server in [&back, &moved] {
        let overrides = server.overrides();
        assert_eq!(
            (overrides.admin_state, overrides.weight),
            (AdminState::Draining, Some(3))
        );
    }
    set(&registry, "a", Override::Enable);
    assert_eq!(overridden(&registry), ["a"], "its weight is still set");
    set(&registry, "a", Override::Weight(None));
    assert_eq!(
        (overridden(&registry).len(), back.is_enabled(), moved.weight_override()),
        (0, true, None)
    );
}

#[test]
fn the_oldest_overrides_of_too_many_absent_servers_are_evicted() {
    let registry = ServerRegistry::default();
    for number in 0..ABSENT_MAX + 3 {
        set(&registry, &number.to_string(), DRAIN);
    }
    set(&registry, "1", DRAIN); // again: now the latest
    assert!(registry.has_excess_overrides());
    let present = HashSet::from([("p".into(), "0".into())]);
    let evicted = registry.evict_overrides(&present);
    let labels: Vec<_> = evicted.iter().map(|(_, label)| &**label).collect();
    assert_eq!(labels, ["2", "3"]);
    assert_eq!(overridden(&registry).len(), ABSENT_MAX + 1, "one is present");
    assert!(registry.evict_overrides(&present).is_empty());
}
