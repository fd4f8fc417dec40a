//! Servers of another database, which have another system identifier.

use super::*;

#[test]
fn another_database_is_used_once_all_servers_have_it() {
    let known = KnownPrimary {
        server: "a".into(),
        system_identifier: Some(SYSTEM),
        timeline: Some(9),
        ..KnownPrimary::default()
    };
    let mut pool = watch(Some(known), &["a", "b"]);
    let steps = [("a", primary_of(5, 1)), ("b", REPLICA), ("b", DOWN)];
    assert_eq!(observe(&mut pool, &steps), ["", "", ""]);
    let expected = format!("another database: its system identifier is 5, and was {SYSTEM}");
    assert_eq!(reason(&pool, "a"), expected);
    let replica = Observation::Replica {
        system_identifier: Some(5),
    };
    assert_eq!(
        observe(&mut pool, &[("b", replica), ("a", primary_of(5, 1))]),
        ["a", "a"]
    );
    assert_eq!(pool.known().unwrap().timeline, Some(1));
    // A stray server of a third database, on a high timeline, changes nothing.
    assert_eq!(observe(&mut pool, &[("b", primary_of(6, 30))]), ["a"]);
}

#[test]
fn a_server_of_another_database_takes_over_only_if_an_operator_trusts_it() {
    let start = || {
        let mut pool = watch(None, &["a", "x"]);
        let steps = [
            ("a", primary(3)),
            ("x", DOWN),
            ("x", primary_of(5, 9)),
            ("a", primary(3)),
        ];
        assert_eq!(observe(&mut pool, &steps), ["", "a", "a", "a"]);
        pool
    };
    let expected = format!("another database: its system identifier is 5, and that of a is {SYSTEM}");
    let mut pool = start();
    set_disabled(&mut pool, &["a"]);
    assert_eq!(observe(&mut pool, &[("x", primary_of(5, 9))]), [""]);
    assert_eq!(reason(&pool, "x"), expected);
    set_disabled(&mut pool, &[]);
    assert_eq!(
        observe(&mut pool, &[("x", primary_of(5, 9)), ("a", primary(3))]),
        ["", "a"]
    );
    let remaining: Arc<str> = "x".into();
    let mut pool = start();
    pool.set_servers([(&remaining, false)].into_iter());
    assert_eq!(observe(&mut pool, &[("x", primary_of(5, 9))]), [""]);
    assert_eq!(reason(&pool, "x"), expected);
    assert!(pool.trust("x"));
}
