//! The report of a reload.

use std::collections::HashMap;

use super::*;
use crate::live::Live;

fn changes(old: &str, new: &str) -> Changes {
    let plan = |text| crate::config::read("a.toml", text).ok().unwrap().plan;
    let live = Live::new(plan(old), Vec::new());
    Changes::between(&live.in_force(), &live.prepare(plan(new), HashMap::new()))
}

#[test]
fn changes_are_listed_by_name() {
    let old = "[listeners.a]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [\"10.0.0.1:1\", \"10.0.0.2:1\"]";
    let new = "[listeners.a]\nbind = \"[::1]:2\"\npool = \"p\"\n[listeners.b]\nbind = \"[::1]:1\"\npool = \"p\"\n\
               [pools.p]\nservers = [\"10.0.0.2:1\", { address = \"10.0.0.1:1\", name = \"x\" }]";
    let changes = changes(old, new);
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (changes.listeners.added, changes.listeners.kept),
        (owned(&["b"]), owned(&["a"]))
    );
    assert_eq!(changes.pools.kept, owned(&["p"]));
    assert_eq!(changes.servers.added, owned(&["p/x"]));
    assert_eq!(changes.servers.removed, owned(&["p/10.0.0.1:1"]));
    assert_eq!(changes.servers.kept, owned(&["p/10.0.0.2:1"]));
    // A server with another address is a new one, although its name stays.
    let moved = new.replace("10.0.0.1:1", "10.0.0.3:1");
    let changes = self::changes(new, &moved).servers;
    assert_eq!((&changes.added, &changes.removed), (&owned(&["p/x"]), &owned(&["p/x"])));
}

#[test]
fn changed_keys_are_listed_where_names_stay() {
    let old = "[log]\nlevel = \"info\"\n[listeners.l]\nbind = \"[::1]:1\"\npool = \"orders\"\n\
               [[listeners.l.routes]]\nsni = \"a.test\"\npool = \"web\"\n\
               [pools.orders]\nservers = [\"10.0.0.1:1\", { address = \"10.0.0.2:1\", name = \"b\" }]\n\
               [pools.orders.health]\ninterval = \"2s\"\n[pools.web]\nservers = [\"10.0.0.3:1\"]\n\
               [pools.web.health]\nrise = 2\n";
    assert_eq!(changes(old, old).changed_lines(), Vec::<String>::new());
    for (from, to, expected) in [
        (
            "interval = \"2s\"",
            "interval = \"3s\"",
            "1 pool changed: orders (health.interval, health.interval_down)",
        ),
        ("rise = 2", "rise = 3", "1 pool changed: web (health.rise)"),
        (
            "name = \"b\"",
            "name = \"b\", weight = 5",
            "1 server changed: orders/b (weight)",
        ),
        ("sni = \"a.test\"", "sni = \"b.test\"", "1 listener changed: l (routes)"),
        (
            "pool = \"orders\"",
            "pool = \"web\"\nbacklog = 9",
            "1 listener changed: l (backlog, pool)",
        ),
        ("level = \"info\"", "level = \"warn\"", "1 setting changed: log.level"),
        (
            "[log]",
            "[defaults]\nconnect_timeout = \"1s\"\n[log]",
            "2 pools changed: orders (connect_timeout), web (connect_timeout)",
        ),
    ] {
        let new = old.replace(from, to);
        assert_ne!(old, new);
        assert_eq!(changes(old, &new).changed_lines(), [expected]);
    }
}
