//! Servers that are given other names.

use super::*;

const MARIADB: Observation = Observation::Primary {
    system_identifier: None,
    claim: Claim {
        timeline: None,
        numbering: Numbering::None,
    },
};
const MARIADB_REPLICA: Observation = Observation::Replica {
    system_identifier: None,
};

/// The pool with these servers, each a label and an address.
fn list(pool: &mut PrimaryWatch, servers: &[(&str, &str)]) {
    let servers = servers
        .iter()
        .map(|(label, address)| (Arc::from(*label), (*address).to_owned()));
    let servers: BTreeMap<Arc<str>, String> = servers.collect();
    pool.follow_names(&servers);
    pool.set_servers(servers.keys().map(|label| (label, false)));
}

const UNNAMED: [(&str, &str); 2] = [("10.0.0.1:3306", "10.0.0.1:3306"), ("10.0.0.2:3306", "10.0.0.2:3306")];
const NAMED: [(&str, &str); 2] = [("db1", "10.0.0.1:3306"), ("db2", "10.0.0.2:3306")];
const RENAMED: [(&str, &str); 2] = [("m", "10.0.0.1:3306"), ("db.example:3306@10.0.0.2", "10.0.0.2:3306")];

#[test]
fn an_old_primary_stays_one_whatever_name_it_is_given() {
    let mut pool = PrimaryWatch::default();
    list(&mut pool, &UNNAMED);
    let [(old, _), (new, _)] = UNNAMED;
    let failover = [
        (new, MARIADB_REPLICA),
        (old, MARIADB),
        (old, DOWN),
        (new, MARIADB),
        (old, MARIADB),
    ];
    assert_eq!(in_force(&mut pool, &failover), ["", old, "", new, new]);
    for servers in [NAMED, RENAMED, UNNAMED, RENAMED] {
        let [(old, _), (new, _)] = servers;
        let mut restarted = PrimaryWatch::new(pool.memory());
        for pool in [&mut pool, &mut restarted] {
            list(pool, &servers);
            assert_eq!(
                in_force(pool, &[(new, DOWN), (old, MARIADB), (new, MARIADB)]),
                ["", "", new]
            );
            assert_eq!(reason(pool, old), format!("a second primary: {new} is the first"));
        }
    }
    list(&mut pool, &UNNAMED);
    assert_eq!(
        pool.memory().unwrap().addresses,
        BTreeMap::new(),
        "their labels tell them"
    );
    list(&mut pool, &RENAMED);
    let addresses = BTreeMap::from([("m".into(), "10.0.0.1:3306".into())]);
    assert_eq!(pool.memory().unwrap().addresses, addresses);
}

#[test]
fn a_name_that_moves_to_another_address_brings_no_memory_of_another_server() {
    let mut pool = PrimaryWatch::default();
    list(&mut pool, &NAMED);
    in_force(&mut pool, &[("db2", MARIADB_REPLICA), ("db1", MARIADB)]);
    // Of both names, something is remembered.
    list(&mut pool, &[("db1", "10.0.0.2:3306"), ("db2", "10.0.0.1:3306")]);
    assert_eq!(&*pool.known().unwrap().server, "db1");
    let memory = pool.memory().unwrap();
    assert_eq!(&*memory.addresses["db1"], "10.0.0.2:3306");
}

/// The first of these servers is the primary of a pool, and the second its replica. After a restart, the servers are the latter
/// ones. Returns the labels of the primary and of the replica that are remembered then.
fn after_restart(before: [(&str, &str); 2], after: &[(&str, &str)]) -> String {
    let mut pool = PrimaryWatch::default();
    list(&mut pool, &before);
    let [(primary, _), (replica, _)] = before;
    in_force(&mut pool, &[(replica, MARIADB_REPLICA), (primary, MARIADB)]);
    assert_eq!(pool.in_force(), Some(primary));
    let mut restarted = PrimaryWatch::new(pool.memory());
    list(&mut restarted, after);
    let memory = restarted.memory().unwrap();
    let others: Vec<_> = memory.others.keys().map(|label| &**label).collect();
    format!("{}, {}", memory.server, others.join(" "))
}

#[test]
fn memory_follows_a_name_before_an_address() {
    const HOSTS: [(&str, &str); 2] = [
        ("db1:3306@10.0.0.1", "10.0.0.1:3306"),
        ("db2:3306@10.0.0.2", "10.0.0.2:3306"),
    ];
    let swapped = [
        ("db1:3306@10.0.0.2", "10.0.0.2:3306"),
        ("db2:3306@10.0.0.1", "10.0.0.1:3306"),
    ];
    assert_eq!(after_restart(HOSTS, &swapped), "db1:3306@10.0.0.2, db2:3306@10.0.0.1");
    // Host names resolve one after the other.
    assert_eq!(
        after_restart(HOSTS, &swapped[1..]),
        "db1:3306@10.0.0.1, db2:3306@10.0.0.1"
    );
    let named = [("m@10.0.0.1", "10.0.0.1:3306"), ("r@10.0.0.2", "10.0.0.2:3306")];
    let swapped = [("m@10.0.0.2", "10.0.0.2:3306"), ("r@10.0.0.1", "10.0.0.1:3306")];
    assert_eq!(after_restart(named, &swapped), "m@10.0.0.2, r@10.0.0.1");
    assert_eq!(after_restart(HOSTS, &named), "m@10.0.0.1, r@10.0.0.2");
    let respelled = [
        ("DB1.example.:3306@10.0.0.1", "10.0.0.1:3306"),
        ("db2.example.com:3306@10.0.0.2", "10.0.0.2:3306"),
    ];
    let expected = "DB1.example.:3306@10.0.0.1, db2.example.com:3306@10.0.0.2";
    assert_eq!(after_restart(HOSTS, &respelled), expected);
    let moved = [
        ("db1.example:3306@10.0.0.2", "10.0.0.2:3306"),
        ("db2.example:3306@10.0.0.1", "10.0.0.1:3306"),
    ];
    assert_eq!(after_restart(HOSTS, &moved), "db1:3306@10.0.0.1, db2:3306@10.0.0.2");
    // Another host that has got the address of the primary.
    let taken = [HOSTS[1], ("db3:3306@10.0.0.1", "10.0.0.1:3306")];
    assert_eq!(after_restart(HOSTS, &taken), "db1:3306@10.0.0.1, db2:3306@10.0.0.2");
    let moved = [HOSTS[1], ("db1:3306@10.0.0.3", "10.0.0.3:3306"), ("m", "10.0.0.1:3306")];
    assert_eq!(after_restart(HOSTS, &moved), "db1:3306@10.0.0.3, db2:3306@10.0.0.2");
}

#[test]
fn memory_of_one_of_several_addresses_of_a_name_does_not_move_to_another_one() {
    let pods = [
        ("db:3306@10.0.0.1", "10.0.0.1:3306"),
        ("db:3306@10.0.0.2", "10.0.0.2:3306"),
    ];
    let new = ("db:3306@10.0.0.3", "10.0.0.3:3306");
    for after in [&[pods[1], new][..], &[new]] {
        assert_eq!(after_restart(pods, after), "db:3306@10.0.0.1, db:3306@10.0.0.2");
    }
}

#[test]
fn a_renamed_server_takes_over_as_the_primary() {
    let mut pool = watch(None, &["a"]);
    in_force(&mut pool, &[("a", primary(3))]);
    let labels: [Arc<str>; 2] = ["db1".into(), "db2".into()];
    pool.set_servers(labels.iter().map(|label| (label, false)));
    let steps = [("db1", primary(3)), ("db2", primary(2))];
    assert_eq!(in_force(&mut pool, &steps), ["", "db1"]);
}
