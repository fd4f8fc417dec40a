//! Servers that are listed at run time.

use super::*;

const DISCOVERED: &str = "discover = { file = \"/run/servers.json\" }";

#[test]
fn servers_of_a_removed_lister_are_not_used_after_a_reload() {
    let scaled = "[pools.p.scale]\nmin = 0\nmax = 1\nsessions_per_server = 1\ncommand = \"/bin/false\"";
    let live = Live::new(plan_of(DISCOVERED), Vec::new());
    let list = |by, addresses: &[&str]| {
        let listed = addresses.iter().map(|address| ListedServer::at((*address).to_owned()));
        let entries = listed_entries(listed, MemberConfig::default());
        live.set_servers("p", by, entries.unwrap()).is_some()
    };
    let reload = |keys: &str| {
        let next = live.prepare(plan_of(keys), HashMap::new());
        let announced = next.pool("p").unwrap().servers().to_vec();
        drop(live.apply(next));
        assert_eq!(
            labels(&servers(&live)),
            labels(&announced),
            "the report of a reload lists the servers that are used after it"
        );
    };
    assert!(list(Lister::Source, &["10.0.0.1:1"]));
    reload(scaled);
    assert!(labels(&servers(&live)).is_empty(), "no clone runs");
    assert!(!list(Lister::Source, &["10.0.0.2:1"]), "the source is late");
    assert!(list(Lister::Clones, &["127.0.0.1:1"]));
    let holds_clones = || live.in_force().pool("p").unwrap().dynamic().holds_clones();
    // A plan that is prepared and not applied changes nothing.
    drop(live.prepare(plan_of(DISCOVERED), HashMap::new()));
    assert!(!holds_clones() && labels(&servers(&live)) == ["127.0.0.1:1"]);
    reload(DISCOVERED);
    assert_eq!(
        labels(&servers(&live)),
        ["127.0.0.1:1"],
        "the source has listed nothing yet"
    );
    assert!(holds_clones() && live.listed_servers().is_empty());
    reload(&format!("{DISCOVERED}\nbalance = \"round-robin\""));
    assert!(
        holds_clones() && labels(&servers(&live)) == ["127.0.0.1:1"],
        "a reload that changes something else"
    );
    assert!(list(Lister::Source, &["a.test:1"]));
    assert!(
        holds_clones() && labels(&servers(&live)) == ["127.0.0.1:1"],
        "its name is not resolved"
    );
    assert!(!list(Lister::Source, &["a.test:1"]));
    assert!(holds_clones(), "the source lists the same again");
    assert!(list(Lister::Source, &["10.0.0.3:1"]));
    assert!(!holds_clones());
    assert!(!list(Lister::Clones, &[]), "the clones leave");
    assert_eq!(labels(&servers(&live)), ["10.0.0.3:1"]);

    let fixed = "servers = [\"10.0.0.9:1\"]";
    reload(fixed);
    assert_eq!(labels(&servers(&live)), ["10.0.0.9:1"]);
    reload(scaled);
    assert!(list(Lister::Clones, &["127.0.0.1:1"]));
    reload(fixed);
    reload(scaled);
    assert!(labels(&servers(&live)).is_empty(), "the clone of before has left");

    let never_asleep = scaled.replace("min = 0", "min = 1");
    for before in [fixed, DISCOVERED] {
        reload(before);
        list(Lister::Source, &["10.0.0.9:1"]);
        reload(&never_asleep);
        assert_eq!(labels(&servers(&live)), ["10.0.0.9:1"], "the first clone starts");
        reload(&format!("{never_asleep}\ncooldown = \"3s\""));
        assert_eq!(labels(&servers(&live)), ["10.0.0.9:1"], "it still does");
        assert!(list(Lister::Clones, &["127.0.0.1:1"]));
        assert_eq!(labels(&servers(&live)), ["127.0.0.1:1"], "it is up");
    }
    reload(&format!("{fixed}\n{never_asleep}"));
    assert_eq!(labels(&servers(&live)), ["10.0.0.9:1", "127.0.0.1:1"]);

    reload(DISCOVERED);
    assert!(list(Lister::Source, &["10.0.0.9:1"]) && list(Lister::Source, &["a.test:1"]));
    reload(&never_asleep);
    assert_eq!(
        labels(&servers(&live)),
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

/// Listeners `a` and `b` with pools of the same names, each of which lists the other listener: `b` leaves out `a`.
fn live_with_circle() -> Live {
    let live = Live::new(
        plan_of_two(DISCOVERED),
        ["[::1]:1", "[::1]:2"]
            .map(|address| vec![ListenAddr::new(address.parse().unwrap())])
            .into(),
    );
    list_of(&live, "a", "[::1]:2");
    list_of(&live, "b", "[::1]:1");
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

fn list_of(live: &Live, pool: &str, address: &str) {
    let listed = listed_entries([ListedServer::at(address.to_owned())], MemberConfig::default());
    live.set_servers(pool, Lister::Source, listed.unwrap()).unwrap();
}

fn members_of(live: &Live, pool: &str) -> Vec<Member> {
    live.in_force().pool(pool).unwrap().servers().to_vec()
}

#[test]
fn a_plan_that_is_prepared_and_not_applied_changes_nothing() {
    let live = live_with_circle();
    drop(live.prepare(plan_of_two("servers = [\"10.0.0.9:1\"]"), HashMap::new()));
    list_of(&live, "a", "10.0.0.1:1");
    assert_eq!(labels(&members_of(&live, "b")), ["[::1]:1"], "a leads to b no more");
}

#[test]
fn a_pool_that_leaves_out_a_server_is_updated_only_when_the_server_leads_back_no_more() {
    let live = live_with_circle();
    let entries = live.in_force().pool("b").unwrap().subscribe_entries();
    let list_both = ["10.0.0.1:1", "[::1]:2"].map(|address| ListedServer::at(address.to_owned()));
    let list_both = listed_entries(list_both, MemberConfig::default()).unwrap();
    live.set_servers("a", Lister::Source, list_both).unwrap();
    assert!(!entries.has_changed().unwrap(), "a still leads to b");
    assert!(members_of(&live, "b").is_empty());
    list_of(&live, "a", "10.0.0.1:1");
    assert!(entries.has_changed().unwrap());
    assert_eq!(labels(&members_of(&live, "b")), ["[::1]:1"]);
}
