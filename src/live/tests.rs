mod large;
mod listers;

use super::*;
use crate::addr::{ClientAddr, ServerAddr};
use crate::plan::{ListedServer, Lister, listed_entries};
use crate::pool::{CheckOutcome, CheckState, FailedCheck, MemberConfig, Role, ServerFacts, Thresholds};

const THRESHOLDS: Thresholds = Thresholds { rise: 1, fall: 1 };

fn plan_from(text: &str) -> Plan {
    crate::config::read("a.toml", text).ok().unwrap().plan
}

/// A plan with one pool, `p`, that has these keys.
fn plan_of(keys: &str) -> Plan {
    plan_from(&format!(
        "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\n{keys}"
    ))
}

fn plan(servers: &str) -> Plan {
    plan_of(&format!("servers = [{servers}]"))
}

fn live(servers: &str) -> Live {
    Live::new(plan(servers), Vec::new())
}

fn servers(live: &Live) -> Vec<Member> {
    live.in_force().pool("p").unwrap().servers().to_vec()
}

fn reload(live: &Live, servers: &str) -> Vec<Member> {
    let next = live.prepare(plan(servers), HashMap::new());
    live.apply(next).pool("p").unwrap().servers().to_vec()
}

#[test]
fn reload_keeps_a_server_whose_pool_and_name_and_address_are_unchanged() {
    let live = live(r#""10.0.0.1:1", { address = "10.0.0.2:1", name = "b" }"#);
    let before = servers(&live);
    before[0].record_check(&CheckOutcome::Fail("gone".into()), THRESHOLDS);
    let after = reload(
        &live,
        r#"{ address = "10.0.0.3:1", name = "b" }, { address = "10.0.0.1:1", weight = 7 }"#,
    );
    assert_eq!(after[1].id(), before[0].id());
    assert_eq!((after[1].check_state(), after[1].weight()), (CheckState::Down, 7));
    assert_ne!(after[0].id(), before[1].id(), "its address has changed");
    assert_eq!(after[0].check_state(), CheckState::Unchecked);
}

#[test]
fn a_removed_server_with_sessions_returns_with_its_identity() {
    let live = live(r#""10.0.0.1:1", "10.0.0.2:1""#);
    let held = servers(&live).remove(1); // as its sessions hold it
    reload(&live, r#""10.0.0.1:1""#);
    assert_eq!(reload(&live, r#""10.0.0.1:1", "10.0.0.2:1""#)[1].id(), held.id());
}

/// A session reports its end to the pool in force. Reloads may have replaced the pool that the session has chosen.
#[test]
fn a_replaced_pool_finds_its_successor() {
    let live = live(r#""10.0.0.1:1""#);
    let chosen = Arc::clone(live.in_force().pool("p").unwrap().in_force());
    for servers in [r#""10.0.0.1:1", "10.0.0.2:1""#, r#""10.0.0.2:1""#] {
        reload(&live, servers);
        assert!(Arc::ptr_eq(&chosen.get().unwrap(), live.in_force().pool("p").unwrap()));
    }
    let text = "[listeners.l]\nbind = \"[::1]:1\"\npool = \"q\"\n[pools.q]\nservers = [\"10.0.0.1:1\"]";
    live.apply(live.prepare(plan_from(text), HashMap::new()));
    assert!(chosen.get().is_none(), "its pool was removed");
}

/// Sets the addresses of a name.
fn resolve(live: &Live, name: &str, addresses: &[&str]) {
    let addresses = addresses
        .iter()
        .map(|address| ServerAddr::new(address.parse().unwrap()));
    live.set_addresses("p", NameAddresses::from([(name.into(), addresses.collect())]));
}

fn labels(servers: &[Member]) -> Vec<&str> {
    servers.iter().map(|server| &*server.spec().label).collect()
}

#[test]
fn reload_keeps_weights_for_sessions_on_the_old_plan() {
    let live = live(r#"{ address = "10.0.0.1:1", priority = 3 }"#);
    let before = live.in_force();
    let after = reload(&live, r#"{ address = "10.0.0.1:1", weight = 0 }, "10.0.0.2:1""#);
    let shares = |servers: &[Member]| -> Vec<_> { servers.iter().map(|s| (s.weight(), s.priority())).collect() };
    assert_eq!(
        (shares(&before.pool("p").unwrap().servers()), shares(&after)),
        (vec![(1, 3)], vec![(0, 0), (1, 0)])
    );
    let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
    let lease = before.pool("p").unwrap().pick(client, &[], Instant::now());
    assert_eq!(lease.map(|lease| lease.server().id()), Ok(after[0].id()));
}

#[test]
fn reload_keeps_the_addresses_of_a_name() {
    let live = live(r#""a.test:1""#);
    resolve(&live, "a.test:1", &["10.0.0.8:1", "10.0.0.9:1"]);
    let before = servers(&live);
    let kept = reload(&live, r#""b.test:1", { address = "a.test:1", weight = 3 }"#);
    assert_eq!(labels(&kept), ["a.test:1@10.0.0.8", "a.test:1@10.0.0.9"]);
    assert_eq!((kept[0].id(), kept[0].weight()), (before[0].id(), 3));
}

#[test]
fn reload_keeps_the_addresses_of_a_name_whose_servers_are_renamed() {
    let live = live(r#""a.test:1""#);
    resolve(&live, "a.test:1", &["10.0.0.9:1"]);
    let called = |name: &str| format!(r#"{{ address = "a.test:1", name = "{name}" }}"#);
    assert_eq!(labels(&reload(&live, &called("x"))), ["x@10.0.0.9"]);
    assert_eq!(labels(&reload(&live, &called("y"))), ["y@10.0.0.9"]);
    assert_eq!(labels(&reload(&live, r#""a.test:1""#)), ["a.test:1@10.0.0.9"]);
}

#[test]
fn an_address_of_two_names_stays_when_one_of_them_is_removed() {
    let live = live(r#""a.test:1", "b.test:1""#);
    resolve(&live, "a.test:1", &["10.0.0.9:1"]);
    resolve(&live, "b.test:1", &["10.0.0.9:1"]);
    assert_eq!(labels(&servers(&live)), ["a.test:1@10.0.0.9"]);
    assert_eq!(labels(&reload(&live, r#""b.test:1""#)), ["b.test:1@10.0.0.9"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_an_address_delays_readiness_by_thirty_seconds_at_most() {
    let live = live(r#""a.test:1", "b.test:1""#);
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    let waits = Some("an address of pool `p`: `a.test:1` is not resolved yet".to_owned());
    assert_eq!(live.why_not_ready(), waits);
    pool.mark_resolved();
    tokio::time::advance(START_WAIT_MAX - Duration::from_millis(1)).await;
    assert_eq!(live.why_not_ready(), waits, "the lookups have ended without an address");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(live.why_not_ready(), None);
}

#[test]
fn ready_once_each_name_is_looked_up_and_each_server_has_its_first_check() {
    let live = live(r#""a.test:1", "b.test:1""#);
    resolve(&live, "b.test:1", &["10.0.0.9:1"]);
    assert!(live.why_not_ready().is_some(), "`a.test:1` is not resolved yet");
    live.in_force().pool("p").unwrap().mark_resolved();
    let waits = Some("the first checks: `b.test:1@10.0.0.9` of pool `p`".to_owned());
    assert_eq!(live.why_not_ready(), waits);
    servers(&live)[0].record_check(&CheckOutcome::Fail("gone".into()), THRESHOLDS);
    assert_eq!(live.why_not_ready(), None);
    reload(&live, r#""c.test:1""#);
    assert_eq!(live.why_not_ready(), None, "a reload does not make it unready");
}

#[test]
fn addresses_found_after_a_reload_was_prepared_are_kept() {
    let live = live(r#""a.test:1""#);
    let next = live.prepare(plan(r#"{ address = "a.test:1", weight = 3 }"#), HashMap::new());
    resolve(&live, "a.test:1", &["10.0.0.9:1"]);
    live.apply(next);
    assert_eq!(labels(&servers(&live)), ["a.test:1@10.0.0.9"]);
}

#[test]
fn a_server_that_a_reload_removes_while_an_address_changes_has_departed_once() {
    let live = live(r#""a.test:1", "10.0.0.1:1""#);
    let removed = servers(&live).remove(0);
    let next = live.prepare(plan(r#""a.test:1""#), HashMap::new());
    resolve(&live, "a.test:1", &["10.0.0.9:1"]);
    let departed = live.apply(next).pool("p").unwrap().departed();
    let ids = departed.iter().map(|departed| departed.server.upgrade().unwrap().id());
    assert_eq!(ids.collect::<Vec<_>>(), [removed.id()]);
}

#[test]
fn addresses_of_a_lookup_that_began_before_a_reload_go_to_the_new_pool() {
    let live = live(r#""a.test:1""#);
    let old = live.in_force();
    reload(&live, r#""a.test:1", "10.0.0.1:1""#);
    resolve(&live, "a.test:1", &["10.0.0.9:1"]);
    assert_eq!(labels(&servers(&live)), ["a.test:1@10.0.0.9", "10.0.0.1:1"]);
    assert!(old.pool("p").unwrap().servers().is_empty());
}

#[test]
fn an_unchanged_pool_is_kept_when_its_index_changes() {
    let text = |pools: &str| format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n{pools}");
    let plan = |pools: &str| plan_from(&text(pools));
    let (p, q) = (
        "[pools.p]\nservers = [\"10.0.0.1:1\"]\n",
        "[pools.q]\nservers = [\"10.0.0.2:1\"]\n",
    );
    let live = Live::new(plan(p), Vec::new());
    let before = live.in_force();
    let after = live.apply(live.prepare(plan(&format!("{q}{p}")), HashMap::new()));
    assert!(Arc::ptr_eq(before.pool("p").unwrap(), after.pool("p").unwrap()));
    let default = *after.plan.listeners[0].routes.default().unwrap();
    assert_eq!(&**after.pools[default].name(), "p");
}

/// A plan of pools that use only their primary. `pools`: of each, the name and the address of its server `a`.
fn plan_of_primaries(pools: &[(&str, &str)]) -> Plan {
    let pool = |(name, address): &(&str, &str)| {
        format!(
            "[pools.{name}]\nservers = [{{ name = \"a\", address = \"{address}\" }}, \"10.0.0.2:1\"]\nrole = \"primary\"\n\
             health = {{ check = \"postgres\", user = \"u\" }}\n"
        )
    };
    let text: String = pools.iter().map(pool).collect();
    let listener = format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"{}\"\n", pools[0].0);
    plan_from(&(listener + &text))
}

#[test]
fn a_renamed_or_new_pool_starts_with_the_known_primary_of_its_servers() {
    let live = Live::new(plan_of_primaries(&[("p", "10.0.0.1:1")]), Vec::new());
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    for (server, role) in pool.servers().iter().zip([Role::Primary, Role::Replica]) {
        let facts = ServerFacts {
            role: Some(role),
            timeline: (role == Role::Primary).then_some(4),
            ..ServerFacts::default()
        };
        pool.record_check(server, Ok(facts));
    }
    let known = pool.roles().known_primary();
    assert_eq!(known.as_ref().and_then(|known| known.timeline), Some(4));
    let pools = [("q", "10.0.0.1:1"), ("r", "10.0.0.1:1"), ("s", "10.0.0.3:1")];
    let next = live.apply(live.prepare(plan_of_primaries(&pools), HashMap::new()));
    let primary_of = |pool: &str| next.pool(pool).unwrap().roles().known_primary();
    assert_eq!(
        [primary_of("q"), primary_of("r"), primary_of("s")],
        [known.clone(), known.clone(), None]
    );
    // The primary is remembered for `q` and `r`, too. After a restart, a pool with yet another name starts with it.
    let remembered = live.known_primaries();
    assert_eq!(
        remembered.keys().map(|pool| &**pool).collect::<Vec<_>>(),
        ["p", "q", "r"]
    );
    let again = plan_of_primaries(&[("t", "10.0.0.1:1")]);
    let restarted = Live::with_known_primaries(again, Vec::new(), remembered);
    assert_eq!(restarted.in_force().pool("t").unwrap().roles().known_primary(), known);
}

/// A plan whose servers are checked as databases. `role_keys`: the keys of the pool about their role.
fn plan_with_role(servers: &str, role_keys: &str) -> Plan {
    plan_of(&format!(
        "servers = [{servers}]\n{role_keys}\nhealth = {{ check = \"postgres\", user = \"u\" }}"
    ))
}

#[test]
fn a_returning_server_gets_no_session_before_its_role_is_checked() {
    let with = |servers| plan_with_role(servers, "role = \"replica\"");
    let live = Live::new(with(r#""10.0.0.1:1", "a.test:1""#), Vec::new());
    let replica = || ServerFacts {
        role: Some(Role::Replica),
        ..ServerFacts::default()
    };
    let pass_all = || {
        let pool = Arc::clone(live.in_force().pool("p").unwrap());
        for server in pool.servers().iter() {
            pool.record_check(server, Ok(replica()));
        }
        pool.servers().to_vec() // as sessions hold them
    };
    let states = || -> Vec<_> {
        let members = servers(&live);
        let state = |member: &Member| (member.check_state(), !member.is_unfit());
        members.iter().map(state).collect()
    };
    let (used, unused) = ((CheckState::Up, true), (CheckState::Unchecked, false));
    resolve(&live, "a.test:1", &["10.0.0.8:1"]);
    assert_eq!(states(), [unused, unused]);
    let held = pass_all();
    resolve(&live, "a.test:1", &["10.0.0.9:1"]);
    resolve(&live, "a.test:1", &["10.0.0.8:1"]);
    assert_eq!(servers(&live)[1].id(), held[1].id(), "10.0.0.8 is back");
    assert_eq!(states(), [used, unused]);
    pass_all();
    for servers in [r#""a.test:1""#, r#""10.0.0.1:1", "a.test:1""#] {
        live.apply(live.prepare(with(servers), HashMap::new()));
    }
    assert_eq!(servers(&live)[0].id(), held[0].id(), "10.0.0.1 is back");
    assert_eq!(states(), [unused, used]);
}

/// Two servers of Redis, of which the primary is used.
const REDIS_PRIMARY: &str =
    "servers = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\nrole = \"primary\"\nhealth = { check = \"redis\" }";

#[test]
fn a_demoted_primary_gives_way_before_it_is_in_sync() {
    let live = Live::new(plan_of(REDIS_PRIMARY), Vec::new());
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    let [old, new] = [0, 1].map(|index| Arc::clone(&pool.servers()[index]));
    let facts_of = |role| ServerFacts {
        role: Some(role),
        ..ServerFacts::default()
    };
    let unfit = || FailedCheck {
        outcome: CheckOutcome::Unfit("the link of the replica to its primary is down: sync".into()),
        facts: Box::new(facts_of(Role::Replica)),
    };
    let loading = || CheckOutcome::Refused {
        reason: "LOADING".into(),
        accepts_sessions: false,
    };
    pool.record_check(&new, Ok(facts_of(Role::Replica)));
    pool.record_check(&old, Ok(facts_of(Role::Primary)));
    pool.record_check(&new, Ok(facts_of(Role::Primary)));
    assert_eq!(new.check_state(), CheckState::Down, "a second primary");
    for result in [
        Err(unfit()),
        Err(loading().into()),
        Err(unfit()),
        Ok(facts_of(Role::Replica)),
    ] {
        pool.record_check(&old, result);
        assert_eq!(
            [old.check_state(), new.check_state()],
            [CheckState::Down, CheckState::Up]
        );
        assert_eq!(pool.roles().claimants(), [Arc::clone(&new.spec().label)]);
        pool.record_check(&new, Ok(facts_of(Role::Primary)));
    }
}

#[test]
fn a_pool_is_ready_after_the_first_checks_even_without_a_decided_primary() {
    let live = Live::new(plan_of(REDIS_PRIMARY), Vec::new());
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    let [refusing, primary] = [0, 1].map(|index| Arc::clone(&pool.servers()[index]));
    let facts = ServerFacts {
        role: Some(Role::Primary),
        ..ServerFacts::default()
    };
    pool.record_check(&primary, Ok(facts));
    let needs_address = true;
    assert!(pool.why_not_ready(needs_address).is_some());
    let refused = CheckOutcome::Refused {
        reason: "WRONGPASS".into(),
        accepts_sessions: false,
    };
    pool.record_check(&refusing, Err(refused.into()));
    assert_eq!(pool.why_not_ready(needs_address), None);
    let reason = primary.health().reason;
    let expected = "not decided: the role of 10.0.0.1:1 is not known; `acequia pool trust` decides";
    assert_eq!(
        (primary.check_state(), reason.as_deref()),
        (CheckState::Down, Some(expected))
    );
    assert!(pool.trust("10.0.0.2:1").is_some());
    assert_eq!(primary.check_state(), CheckState::Up);
}

#[test]
fn a_wrong_role_and_a_lag_do_not_count_as_failures() {
    let reason = || "why".into();
    for (outcome, expected) in [
        (CheckOutcome::Fail(reason()), true),
        (CheckOutcome::Unfit(reason()), false),
        (CheckOutcome::Behind(reason()), false),
    ] {
        let live = live(r#""10.0.0.1:1""#);
        let server = servers(&live).remove(0);
        server.record_check(&CheckOutcome::Pass, THRESHOLDS);
        let recorded = RecordedOutcome::record(&server, outcome, THRESHOLDS);
        assert_eq!(recorded.change.state, Some(CheckState::Down));
        assert_eq!(recorded.is_failure(), expected, "{recorded:?}");
    }
}

#[test]
fn a_reload_that_requires_another_role_discards_the_check_result() {
    let with = |role_keys| plan_with_role("\"10.0.0.1:1\"", role_keys);
    let [replica, primary] = ["role = \"replica\"", "role = \"primary\""];
    let max_lag = "role = \"replica\"\nmax_lag = \"1s\"";
    for (before, after, is_kept) in [
        (replica, primary, false),
        (primary, replica, false),
        ("", primary, false),
        (replica, max_lag, true),
        (replica, "", true),
    ] {
        let live = Live::new(with(before), Vec::new());
        let server = servers(&live).remove(0);
        server.record_check(&CheckOutcome::Pass, THRESHOLDS);
        live.apply(live.prepare(with(after), HashMap::new()));
        let server = servers(&live).remove(0);
        let is_used = server.check_state() == CheckState::Up && !server.is_unfit();
        let has_passed = server.passed_within(Duration::from_secs(60));
        assert_eq!((is_used, has_passed), (is_kept, is_kept), "{before} {after}");
    }
}
