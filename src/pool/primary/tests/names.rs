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
const RENAMED: [(&str, &str); 2] = [
    ("m", "10.0.0.1:3306"),
    ("db.example:3306@10.0.0.2:3306", "10.0.0.2:3306"),
];

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
