//! Servers that are given other names: tests of the rules that [`super::super::names`] states.

use super::*;

const MARIADB_PRIMARY: Observation = Observation::Primary {
    system_identifier: None,
    claim: Claim {
        timeline: None,
        numbering: Numbering::None,
    },
};
const MARIADB_REPLICA: Observation = Observation::Replica {
    system_identifier: None,
};

/// Sets the servers of the pool, each a label and an address.
fn set_servers(pool: &mut PrimaryWatch, servers: &[(&str, &str)]) {
    let servers = servers
        .iter()
        .map(|(label, address)| (Arc::from(*label), (*address).to_owned()));
    let servers: BTreeMap<Arc<str>, String> = servers.collect();
    pool.follow_names(&servers);
    pool.set_servers(servers.keys().map(|label| (label, false)));
}

const UNNAMED: [(&str, &str); 2] = [("10.0.0.1:3306", "10.0.0.1:3306"), ("10.0.0.2:3306", "10.0.0.2:3306")];
const NAMED: [(&str, &str); 2] = [("db1", "10.0.0.1:3306"), ("db2", "10.0.0.2:3306")];
const NAMES_SWAPPED: [(&str, &str); 2] = [("db1", "10.0.0.2:3306"), ("db2", "10.0.0.1:3306")];
const RENAMED: [(&str, &str); 2] = [("m", "10.0.0.1:3306"), ("db.example:3306@10.0.0.2", "10.0.0.2:3306")];
const HOSTS: [(&str, &str); 2] = [
    ("db1:3306@10.0.0.1", "10.0.0.1:3306"),
    ("db2:3306@10.0.0.2", "10.0.0.2:3306"),
];

#[test]
fn an_old_primary_stays_rejected_whatever_name_it_is_given() {
    let mut pool = failed_over(UNNAMED);
    for servers in [NAMED, RENAMED, UNNAMED, RENAMED] {
        let [(old, _), (new, _)] = servers;
        let mut restarted = PrimaryWatch::new(pool.memory());
        for pool in [&mut pool, &mut restarted] {
            set_servers(pool, &servers);
            assert_eq!(
                observe(pool, &[(new, DOWN), (old, MARIADB_PRIMARY), (new, MARIADB_PRIMARY)]),
                ["", "", new]
            );
            assert_eq!(reason(pool, old), format!("a second primary: {new} is the first"));
        }
    }
}

#[test]
fn memory_has_only_the_addresses_that_labels_do_not_contain() {
    let mut pool = failed_over(UNNAMED);
    assert_eq!(pool.memory().unwrap().addresses, BTreeMap::new());
    set_servers(&mut pool, &RENAMED);
    let addresses = BTreeMap::from([("m".into(), "10.0.0.1:3306".into())]);
    assert_eq!(pool.memory().unwrap().addresses, addresses);
}

/// The first server was the primary, and came back after the second one was promoted.
fn failed_over(servers: [(&str, &str); 2]) -> PrimaryWatch {
    let mut pool = PrimaryWatch::default();
    set_servers(&mut pool, &servers);
    let [(old, _), (new, _)] = servers;
    let failover = [
        (new, MARIADB_REPLICA),
        (old, MARIADB_PRIMARY),
        (old, DOWN),
        (new, MARIADB_PRIMARY),
        (old, MARIADB_PRIMARY),
    ];
    assert_eq!(observe(&mut pool, &failover), ["", old, "", new, new]);
    pool
}

/// These servers, in the same order, after an exchange of their names. If a name was resolved, the address is a part of
/// the label.
fn exchanged<'a>([first, second]: [(&str, &'a str); 2]) -> [(String, &'a str); 2] {
    let label = |before: &str, address: &str| match before.split_once('@') {
        Some((name, _)) => format!("{name}@{}", address.trim_end_matches(":3306")),
        None => before.to_owned(),
    };
    [
        (label(second.0, first.1), first.1),
        (label(first.0, second.1), second.1),
    ]
}

#[test]
fn an_old_primary_stays_rejected_when_names_are_exchanged() {
    for before in [NAMED, HOSTS] {
        let after = exchanged(before);
        let [old, new] = after.each_ref().map(|(label, address)| (&**label, *address));
        let [old_before, new_before] = before;
        let pool = failed_over(before);
        let restarted = PrimaryWatch::new(pool.memory());
        // Host names are resolved one after the other: for some time one server has both names, and the other one none.
        let mut new_has_both = pool.clone();
        set_servers(&mut new_has_both, &[new, new_before]);
        let steps = [
            (new_before.0, MARIADB_PRIMARY),
            (new.0, MARIADB_PRIMARY),
            (new_before.0, MARIADB_PRIMARY),
        ];
        observe(&mut new_has_both, &steps);
        let mut old_has_both = pool.clone();
        set_servers(&mut old_has_both, &[old_before, old]);
        let steps = [
            (old_before.0, MARIADB_PRIMARY),
            (old.0, MARIADB_PRIMARY),
            (old_before.0, MARIADB_PRIMARY),
        ];
        assert_eq!(observe(&mut old_has_both, &steps), [""; 3]);
        for mut pool in [pool, restarted, new_has_both, old_has_both] {
            set_servers(&mut pool, &[new, old]);
            assert_ne!(pool.in_force(), Some(old.0));
            let steps = [
                (old.0, MARIADB_PRIMARY),
                (new.0, MARIADB_PRIMARY),
                (old.0, MARIADB_PRIMARY),
            ];
            let primaries = observe(&mut pool, &steps);
            assert_ne!(primaries[0], old.0);
            assert_eq!(primaries[1..], [new.0, new.0]);
            assert_eq!(
                reason(&pool, old.0),
                format!("a second primary: {} is the first", new.0)
            );
        }
    }
}

#[test]
fn a_primary_with_a_new_address_stays_the_primary_and_the_address_is_saved() {
    let mut pool = failed_over(NAMED);
    pool.take_rest_of_memory_changed(); // clears the flag, which the failover may have set
    set_servers(&mut pool, &NAMED);
    assert!(!pool.take_rest_of_memory_changed());
    let moved = [("db1", "10.0.0.1:3306"), ("db2", "10.0.0.3:3306")];
    set_servers(&mut pool, &moved);
    assert!(pool.take_rest_of_memory_changed());
    assert_eq!(&*pool.memory().unwrap().addresses["db2"], "10.0.0.3:3306");
    assert_eq!(
        observe(&mut pool, &[("db1", MARIADB_PRIMARY), ("db2", MARIADB_PRIMARY)]),
        ["", "db2"]
    );
}

/// The operator gives the name of the old primary to the new one, and leaves the old one out.
#[test]
fn a_server_that_left_is_remembered_by_its_address_if_another_one_has_its_name() {
    let mut pool = failed_over(NAMED);
    set_servers(&mut pool, &[("db1", "10.0.0.2:3306")]);
    assert_eq!(observe(&mut pool, &[("db1", MARIADB_PRIMARY)]), ["db1"]);
    set_servers(&mut pool, &NAMES_SWAPPED);
    assert_eq!(
        observe(
            &mut pool,
            &[("db2", MARIADB_PRIMARY), ("db1", DOWN), ("db2", MARIADB_PRIMARY)]
        ),
        ["db1", "", ""]
    );
    assert_eq!(reason(&pool, "db2"), "a second primary: db1 is the first");
}

/// Checks a primary and its replica (`before`), restarts this process, and sets the servers `after`. Returns the labels
/// under which the primary and the replica are remembered then.
fn remembered(before: [(&str, &str); 2], after: &[(&str, &str)]) -> String {
    let mut pool = PrimaryWatch::default();
    set_servers(&mut pool, &before);
    let [(primary, _), (replica, _)] = before;
    observe(&mut pool, &[(replica, MARIADB_REPLICA), (primary, MARIADB_PRIMARY)]);
    assert_eq!(pool.in_force(), Some(primary));
    let mut restarted = PrimaryWatch::new(pool.memory());
    set_servers(&mut restarted, after);
    let memory = restarted.memory().unwrap();
    let others: Vec<_> = memory.others.keys().map(|label| &**label).collect();
    format!("{}, {}", memory.server, others.join(" "))
}

#[test]
fn memory_moves_with_the_address_or_else_with_the_name() {
    let swapped = [
        ("db1:3306@10.0.0.2", "10.0.0.2:3306"),
        ("db2:3306@10.0.0.1", "10.0.0.1:3306"),
    ];
    assert_eq!(remembered(HOSTS, &swapped), "db2:3306@10.0.0.1, db1:3306@10.0.0.2");
    // Host names resolve one after the other.
    assert_eq!(remembered(HOSTS, &swapped[1..]), "db2:3306@10.0.0.1, db2:3306@10.0.0.2");
    // `m` and `r` are names that the operator gave: a server that gets one at the same address is the same server.
    let named = [("m@10.0.0.1", "10.0.0.1:3306"), ("r@10.0.0.2", "10.0.0.2:3306")];
    let swapped = [("m@10.0.0.2", "10.0.0.2:3306"), ("r@10.0.0.1", "10.0.0.1:3306")];
    assert_eq!(remembered(named, &swapped), "r@10.0.0.1, m@10.0.0.2");
    assert_eq!(remembered(HOSTS, &named), "m@10.0.0.1, r@10.0.0.2");
    // `db1` and `DB1.example.` may be one host.
    let respelled = [
        ("DB1.example.:3306@10.0.0.1", "10.0.0.1:3306"),
        ("db2.example.com:3306@10.0.0.2", "10.0.0.2:3306"),
    ];
    let expected = "DB1.example.:3306@10.0.0.1, db2.example.com:3306@10.0.0.2";
    assert_eq!(remembered(HOSTS, &respelled), expected);
    // The old host names are gone, and each address was given to another host: memory stays at the old labels.
    let moved = [
        ("db1.example:3306@10.0.0.2", "10.0.0.2:3306"),
        ("db2.example:3306@10.0.0.1", "10.0.0.1:3306"),
    ];
    assert_eq!(remembered(HOSTS, &moved), "db1:3306@10.0.0.1, db2:3306@10.0.0.2");
    // The primary's host name is gone, and its address was given to another host: memory stays at the old label.
    let taken = [HOSTS[1], ("db3:3306@10.0.0.1", "10.0.0.1:3306")];
    assert_eq!(remembered(HOSTS, &taken), "db1:3306@10.0.0.1, db2:3306@10.0.0.2");
    // One server has got the primary's address, and another one its name: the address counts.
    let moved = [HOSTS[1], ("db1:3306@10.0.0.3", "10.0.0.3:3306"), ("m", "10.0.0.1:3306")];
    assert_eq!(remembered(HOSTS, &moved), "m, db2:3306@10.0.0.2");
    // Pods with other addresses.
    let moved = [
        ("db1:3306@10.0.0.3", "10.0.0.3:3306"),
        ("db2:3306@10.0.0.4", "10.0.0.4:3306"),
    ];
    assert_eq!(remembered(HOSTS, &moved), "db1:3306@10.0.0.3, db2:3306@10.0.0.4");
}

#[test]
fn memory_of_a_server_does_not_move_to_a_new_address_of_a_name_with_several_addresses() {
    let pods = [
        ("db:3306@10.0.0.1", "10.0.0.1:3306"),
        ("db:3306@10.0.0.2", "10.0.0.2:3306"),
    ];
    let new = ("db:3306@10.0.0.3", "10.0.0.3:3306");
    for after in [&[pods[1], new][..], &[new]] {
        assert_eq!(remembered(pods, after), "db:3306@10.0.0.1, db:3306@10.0.0.2");
    }
}

#[test]
fn a_newcomer_on_the_timeline_of_a_primary_that_has_left_becomes_the_primary() {
    let mut pool = watch(None, &["a"]);
    observe(&mut pool, &[("a", primary(3))]);
    let labels: [Arc<str>; 2] = ["db1".into(), "db2".into()];
    // `follow_names` is not called, so nothing says that `db1` is `a` under another name.
    pool.set_servers(labels.iter().map(|label| (label, false)));
    let steps = [("db1", primary(3)), ("db2", primary(2))];
    assert_eq!(observe(&mut pool, &steps), ["", "db1"]);
}
