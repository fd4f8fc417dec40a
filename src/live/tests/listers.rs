//! Servers that are listed at run time.

use super::*;

const DISCOVERED: &str = "discover = { file = \"/run/servers.json\" }";
const SCALED: &str = "[pools.p.scale]\nmin = 0\nmax = 1\nsessions_per_server = 1\ncommand = \"/bin/false\"";
const FIXED: &str = "servers = [\"10.0.0.9:1\"]";

/// A plan in force, whose pool is `p`.
struct Fixture(Live);

impl Fixture {
    /// `keys`: those of the pool.
    fn new(keys: &str) -> Self {
        Self(Live::new(plan_of(keys), Vec::new()))
    }

    /// Replaces the list of this lister. Returns whether the list was taken: `by` is the pool's lister, and the list
    /// differs from the latest.
    fn list(&self, by: Lister, addresses: &[&str]) -> bool {
        let listed = addresses.iter().map(|address| ListedServer::at((*address).to_owned()));
        let entries = listed_entries(listed, MemberConfig::default());
        self.0.set_servers("p", by, entries.unwrap()).is_some()
    }

    fn reload(&self, keys: &str) {
        let next = self.0.prepare(plan_of(keys), HashMap::new());
        let reported = next.pool("p").unwrap().servers().to_vec();
        drop(self.0.apply(next));
        assert_eq!(
            self.labels(),
            labels(&reported),
            "the report of a reload lists the servers that are used after it"
        );
    }

    fn labels(&self) -> Vec<String> {
        labels(&servers(&self.0)).into_iter().map(str::to_owned).collect()
    }

    fn holds_clones(&self) -> bool {
        self.0.in_force().pool("p").unwrap().dynamic().holds_clones()
    }
}

#[test]
fn clones_stay_until_a_new_source_lists_a_server_that_can_be_used() {
    let pool = Fixture::new(DISCOVERED);
    assert!(pool.list(Lister::Source, &["10.0.0.1:1"]));
    pool.reload(SCALED);
    assert!(pool.labels().is_empty(), "no clone runs");
    assert!(
        !pool.list(Lister::Source, &["10.0.0.2:1"]),
        "the source is not the lister now"
    );
    assert!(pool.list(Lister::Clones, &["127.0.0.1:1"]));
    // A plan that is prepared and not applied changes nothing.
    drop(pool.0.prepare(plan_of(DISCOVERED), HashMap::new()));
    assert!(!pool.holds_clones() && pool.labels() == ["127.0.0.1:1"]);
    pool.reload(DISCOVERED);
    assert_eq!(pool.labels(), ["127.0.0.1:1"], "the source has listed nothing yet");
    assert!(pool.holds_clones() && pool.0.listed_servers().is_empty());
    pool.reload(&format!("{DISCOVERED}\nbalance = \"round-robin\""));
    assert!(
        pool.holds_clones() && pool.labels() == ["127.0.0.1:1"],
        "a reload that changes something else"
    );
    assert!(pool.list(Lister::Source, &["a.test:1"]));
    assert!(
        pool.holds_clones() && pool.labels() == ["127.0.0.1:1"],
        "the listed name is not resolved"
    );
    assert!(!pool.list(Lister::Source, &["a.test:1"]));
    assert!(pool.holds_clones(), "the source lists the same again");
    assert!(pool.list(Lister::Source, &["10.0.0.3:1"]));
    assert!(!pool.holds_clones());
    assert!(!pool.list(Lister::Clones, &[]), "the clones are not the lister now");
    assert_eq!(pool.labels(), ["10.0.0.3:1"]);
    pool.reload(FIXED);
    assert_eq!(pool.labels(), ["10.0.0.9:1"]);
}

#[test]
fn clones_that_a_reload_has_removed_are_not_used_when_scaling_is_configured_again() {
    let pool = Fixture::new(FIXED);
    pool.reload(SCALED);
    assert!(pool.list(Lister::Clones, &["127.0.0.1:1"]));
    pool.reload(FIXED);
    pool.reload(SCALED);
    assert!(pool.labels().is_empty());
}

#[test]
fn earlier_servers_stay_until_the_first_clone_is_up() {
    let pool = Fixture::new(SCALED);
    let never_asleep = SCALED.replace("min = 0", "min = 1");
    for before in [FIXED, DISCOVERED] {
        pool.reload(before);
        pool.list(Lister::Source, &["10.0.0.9:1"]); // taken only with `DISCOVERED`; `FIXED` configures this server
        pool.reload(&never_asleep);
        assert_eq!(pool.labels(), ["10.0.0.9:1"], "the first clone starts");
        pool.reload(&format!("{never_asleep}\ncooldown = \"3s\""));
        assert_eq!(pool.labels(), ["10.0.0.9:1"], "the first clone still starts");
        assert!(pool.list(Lister::Clones, &["127.0.0.1:1"]));
        assert_eq!(pool.labels(), ["127.0.0.1:1"], "the first clone is up");
    }
    pool.reload(&format!("{FIXED}\n{never_asleep}"));
    assert_eq!(pool.labels(), ["10.0.0.9:1", "127.0.0.1:1"]);
    pool.reload(DISCOVERED);
    assert!(pool.list(Lister::Source, &["10.0.0.9:1"]) && pool.list(Lister::Source, &["a.test:1"]));
    pool.reload(&never_asleep);
    assert_eq!(
        pool.labels(),
        ["10.0.0.9:1"],
        "the name in the latest list is not resolved, so the list before it is kept"
    );
}

#[test]
fn a_server_that_is_a_listener_of_its_own_pool_is_left_out() {
    let listening = |address: &str| vec![vec![ListenAddr::new(address.parse().unwrap())]];
    let live = Live::new(plan_of(DISCOVERED), listening("0.0.0.0:8100"));
    let listed = ["127.0.0.1:8100", "127.0.0.1:8101"].map(|address| ListedServer::at(address.to_owned()));
    let entries = listed_entries(listed, MemberConfig::default()).unwrap();
    live.set_servers("p", Lister::Source, entries).unwrap();
    assert_eq!(labels(&servers(&live)), ["127.0.0.1:8101"]);
    let left_out = live.in_force().pool("p").unwrap().left_out();
    assert_eq!((&*left_out[0].label, &*left_out[0].listener), ("127.0.0.1:8100", "l"));
    let reload = |address| {
        let mut next = live.prepare(plan_of(DISCOVERED), HashMap::new());
        next.addresses = listening(address);
        live.apply(next);
    };
    reload("127.0.0.1:8101");
    assert_eq!(labels(&servers(&live)), ["127.0.0.1:8100"], "the listener has moved");
    reload("127.0.0.1:8102");
    assert_eq!(labels(&servers(&live)), ["127.0.0.1:8100", "127.0.0.1:8101"]);
    let addition = Addition {
        by: "uid 0".into(),
        at: SystemTime::now(),
        until: None,
    };
    let added = live.add_server("p", ListedServer::at("127.0.0.1:8102".to_owned()), addition);
    assert!(matches!(added, Err(AddServerError::OwnListener { .. })), "{added:?}");
}

/// Listeners `a` and `b` with pools of the same names. Each pool lists the other listener. Pool `b` leaves out
/// listener `a`.
fn live_with_circle() -> Live {
    let live = Live::new(
        plan_of_two(DISCOVERED),
        ["[::1]:1", "[::1]:2"]
            .map(|address| vec![ListenAddr::new(address.parse().unwrap())])
            .into(),
    );
    set_list(&live, "a", "[::1]:2");
    set_list(&live, "b", "[::1]:1");
    assert!(members_of(&live, "b").is_empty(), "a circle");
    live
}

/// A plan with pools `a` and `b`; `b` has these keys.
fn plan_of_two(keys: &str) -> Plan {
    let text = format!(
        "[listeners.a]\nbind = \"[::1]:1\"\npool = \"a\"\n[listeners.b]\nbind = \"[::1]:2\"\npool = \"b\"\n\
         [pools.a]\n{DISCOVERED}\n[pools.b]\n{keys}"
    );
    plan_from(&text)
}

fn set_list(live: &Live, pool: &str, address: &str) {
    let listed = listed_entries([ListedServer::at(address.to_owned())], MemberConfig::default());
    live.set_servers(pool, Lister::Source, listed.unwrap()).unwrap();
}

fn members_of(live: &Live, pool: &str) -> Vec<Member> {
    live.in_force().pool(pool).unwrap().servers().to_vec()
}

#[test]
fn a_change_of_one_pool_updates_the_other_after_a_plan_was_prepared_and_not_applied() {
    let live = live_with_circle();
    drop(live.prepare(plan_of_two("servers = [\"10.0.0.9:1\"]"), HashMap::new()));
    set_list(&live, "a", "10.0.0.1:1");
    assert_eq!(labels(&members_of(&live, "b")), ["[::1]:1"], "a no longer leads to b");
}

#[test]
fn a_pool_that_leaves_out_a_server_is_updated_only_when_the_server_no_longer_leads_back() {
    let live = live_with_circle();
    let entries = live.in_force().pool("b").unwrap().subscribe_entries();
    let list_both = ["10.0.0.1:1", "[::1]:2"].map(|address| ListedServer::at(address.to_owned()));
    let list_both = listed_entries(list_both, MemberConfig::default()).unwrap();
    live.set_servers("a", Lister::Source, list_both).unwrap();
    assert!(!entries.has_changed().unwrap(), "a still leads to b");
    assert!(members_of(&live, "b").is_empty());
    set_list(&live, "a", "10.0.0.1:1");
    assert!(entries.has_changed().unwrap());
    assert_eq!(labels(&members_of(&live, "b")), ["[::1]:1"]);
}
