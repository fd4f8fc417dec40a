//! Servers that have left the pool, and come back or are replaced.

use super::*;

fn set_servers(pool: &mut PrimaryWatch, servers: &[&str]) {
    let labels: Vec<Arc<str>> = servers.iter().map(|server| Arc::from(*server)).collect();
    pool.set_servers(labels.iter().map(|label| (label, false)));
}

#[test]
fn a_decision_of_an_operator_holds_for_a_replica_that_has_left() {
    let mut pool = watch(None, &["a", "b", "d"]);
    observe(&mut pool, &[("a", primary(3)), ("b", primary(7)), ("d", REPLICA)]);
    set_servers(&mut pool, &["a", "b"]);
    assert!(pool.trust("a"));
    set_servers(&mut pool, &["a", "b", "d"]);
    assert_eq!(observe(&mut pool, &[("d", primary(5)), ("a", primary(3))]), ["a", "a"]);
    let steps = [("a", DOWN), ("d", primary(5))];
    assert_eq!(
        observe(&mut pool, &steps),
        ["", ""],
        "d may have been promoted before the operator decided"
    );
    assert_eq!(observe(&mut pool, &[("d", primary(8))]), ["d"]);
}

#[test]
fn a_replica_that_leaves_and_comes_back_can_succeed_the_primary() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("b", REPLICA), ("a", primary(None))]);
    set_servers(&mut pool, &["a"]);
    observe(&mut pool, &[("a", primary(None))]);
    set_servers(&mut pool, &["a", "b"]);
    let steps = [("a", DOWN), ("b", primary(None))];
    assert_eq!(observe(&mut pool, &steps), ["", "b"]);
}

/// `c` may be `a` under another name, but also a server of the overruled branch, that of `b`: both branches may have a
/// timeline 3.
#[test]
fn a_newcomer_is_not_taken_for_a_trusted_primary_that_has_left() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("a", primary(3)), ("b", primary(7))]);
    assert!(pool.trust("a"));
    set_servers(&mut pool, &["b", "c"]);
    let steps = [("b", primary(7)), ("c", primary(3))];
    assert_eq!(observe(&mut pool, &steps), ["", ""]);
    assert!(pool.trust("c"));
    assert_eq!(pool.in_force(), Some("c"));
}
