//! Servers without timelines (MySQL, MariaDB, Redis): their earlier roles decide which one is the primary, even after
//! a restart of this process.

use proptest::prelude::*;

use super::*;

const PRIMARY: Observation = Observation::Primary {
    system_identifier: None,
    claim: Claim {
        timeline: None,
        numbering: Numbering::Timeline,
    },
};
const REPLICA: Observation = Observation::Replica {
    system_identifier: None,
};

/// The watch after a restart of this process, which keeps only [`PrimaryWatch::memory`].
fn restarted(pool: &PrimaryWatch) -> PrimaryWatch {
    watch(pool.memory(), &["a", "b"])
}

/// `a` was the primary, `b` has succeeded it, and `a` is back as a second primary.
fn after_a_failover() -> PrimaryWatch {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [
        ("b", REPLICA),
        ("a", PRIMARY),
        ("a", DOWN),
        ("b", PRIMARY),
        ("a", PRIMARY),
    ];
    assert_eq!(observe(&mut pool, &steps), ["", "a", "", "b", "b"]);
    pool
}

#[test]
fn an_old_primary_stays_out_after_restarts_or_a_rename_of_its_pool() {
    let pool = after_a_failover();
    let mut renamed = watch(None, &["a", "b"]);
    assert!(renamed.inherit(pool.memory().unwrap()));
    for mut pool in [restarted(&pool), restarted(&restarted(&pool)), renamed] {
        let steps = [
            ("b", FAILED), // the first failed check does not make it down yet
            ("a", PRIMARY),
            ("b", DOWN),
            ("a", PRIMARY),
        ];
        assert_eq!(observe(&mut pool, &steps), [""; 4]);
        assert_eq!(reason(&pool, "a"), "a second primary: b is the first");
        assert_eq!(observe(&mut pool, &[("b", PRIMARY), ("a", PRIMARY)]), ["b", "b"]);
    }
}

#[test]
fn a_replica_promoted_while_acequia_is_stopped_succeeds_a_dead_primary() {
    let mut pool = watch(None, &["a", "b"]);
    observe(&mut pool, &[("b", REPLICA), ("a", PRIMARY)]);
    let mut pool = restarted(&pool);
    let steps = [("a", FAILED), ("b", PRIMARY), ("a", DOWN), ("a", PRIMARY)];
    assert_eq!(observe(&mut pool, &steps), ["", "", "b", "b"]);
}

#[test]
fn a_server_that_was_always_down_may_be_an_old_primary() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [("a", DOWN), ("b", PRIMARY), ("b", DOWN), ("a", PRIMARY)];
    assert_eq!(observe(&mut pool, &steps), ["", "b", "", ""]);
    for mut pool in [restarted(&pool), pool] {
        let steps = [("b", DOWN), ("a", PRIMARY), ("a", REPLICA), ("a", PRIMARY)];
        assert_eq!(observe(&mut pool, &steps), ["", "", "", "a"]);
    }
}

#[test]
fn a_server_of_unknown_role_is_awaited_until_it_tells_its_role_or_is_down() {
    let mut pool = watch(None, &["a", "b"]);
    let steps = [("b", FAILED), ("a", PRIMARY), ("b", FAILED), ("b", REPLICA)];
    assert_eq!(observe(&mut pool, &steps), ["", "", "", "a"]);
    let mut pool = watch(None, &["a", "b"]);
    assert_eq!(observe(&mut pool, &[("a", PRIMARY), ("b", DOWN)]), ["", "a"]);
}

#[test]
fn a_removed_primary_is_succeeded_by_a_new_primary_and_not_by_an_old_one() {
    let mut pool = after_a_failover();
    let labels: [Arc<str>; 2] = ["a".into(), "c".into()];
    pool.set_servers(labels.iter().map(|label| (label, false)));
    let steps = [("a", PRIMARY), ("c", REPLICA), ("a", PRIMARY), ("c", PRIMARY)];
    assert_eq!(observe(&mut pool, &steps), ["", "", "", "c"]);
}

#[test]
fn a_returning_old_primary_is_recognized_and_the_memory_is_bounded() {
    let mut pool = after_a_failover();
    let only: [Arc<str>; 1] = ["b".into()];
    let both: [Arc<str>; 2] = ["a".into(), "b".into()];
    pool.set_servers(only.iter().map(|label| (label, false)));
    pool.set_servers(both.iter().map(|label| (label, false)));
    let steps = [("b", DOWN), ("a", PRIMARY)];
    assert_eq!(observe(&mut pool, &steps), ["", ""]);
    for number in 0..1_000 {
        let with_another: [Arc<str>; 2] = ["b".into(), number.to_string().into()];
        pool.set_servers(with_another.iter().map(|label| (label, false)));
        observe(&mut pool, &[("b", PRIMARY)]);
    }
    assert!(pool.memory().unwrap().others.len() <= DEPARTED_MAX + 2);
}

/// If more than [`DEPARTED_MAX`] servers have left the pool, none of them is remembered, even if they all left at once.
#[test]
fn the_memory_of_departed_servers_is_bounded_when_a_long_list_becomes_short() {
    let labels = |range: std::ops::Range<usize>| range.map(|n| Arc::from(n.to_string())).collect::<Vec<Arc<str>>>();
    let mut pool = watch(None, &["0"]);
    for listed in [labels(0..DEPARTED_MAX + 2), labels(0..1), labels(0..1)] {
        pool.set_servers(listed.iter().map(|label| (label, false)));
        listed.iter().skip(1).for_each(|label| pool.observe(label, REPLICA));
        pool.observe("0", PRIMARY);
    }
    assert_eq!(pool.in_force(), Some("0"));
    assert!(pool.memory().unwrap().others.is_empty());
}

#[test]
fn a_server_of_unknown_role_delays_a_failover_only_if_it_may_be_the_promoted_one() {
    let servers = ["a", "b", "c"];
    let mut pool = watch(None, &servers);
    observe(&mut pool, &[("b", REPLICA), ("c", DOWN), ("a", PRIMARY)]);
    let failover = [("c", REFUSED), ("a", DOWN), ("b", PRIMARY)];
    let mut restarted = watch(pool.memory(), &servers);
    assert_eq!(
        observe(&mut restarted, &failover),
        ["", "", "b"],
        "c was never a replica"
    );
    observe(&mut pool, &[("c", REPLICA)]);
    let mut restarted = watch(pool.memory(), &servers);
    assert_eq!(observe(&mut restarted, &failover), ["", "", ""], "c was a replica");
    let expected = "not decided: the role of c is not known; `acequia pool trust` decides";
    assert_eq!(reason(&restarted, "b"), expected);
    assert_eq!(observe(&mut restarted, &[("c", REPLICA)]), ["b"]);
}

/// The real state of a simulated server.
#[derive(Clone, Debug, Default)]
struct Node {
    is_primary: bool,
    is_hung: bool,
    refuses: bool,
    is_disabled: bool,
    /// Failed checks in a row that this process has seen.
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
enum NodeEvent {
    Promote,
    Demote,
    Hang,
    Resume,
    Refuse,
    Check,
    Disable,
    Enable,
    /// Restarts this process.
    Restart,
}

const FALL: u32 = 2;

fn node_events() -> impl Strategy<Value = Vec<(usize, NodeEvent)>> {
    let event = prop_oneof![
        2 => Just(NodeEvent::Promote),
        2 => Just(NodeEvent::Demote),
        2 => Just(NodeEvent::Hang),
        3 => Just(NodeEvent::Resume),
        1 => Just(NodeEvent::Refuse),
        1 => Just(NodeEvent::Disable),
        2 => Just(NodeEvent::Enable),
        16 => Just(NodeEvent::Check),
        1 => Just(NodeEvent::Restart),
    ];
    prop::collection::vec((0..SERVERS.len(), event), 1..120)
}

impl Node {
    fn apply(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Promote => self.is_primary = true,
            NodeEvent::Demote => self.is_primary = false,
            NodeEvent::Hang => self.is_hung = true,
            NodeEvent::Resume => (self.is_hung, self.refuses) = (false, false),
            NodeEvent::Refuse => self.refuses = true,
            NodeEvent::Disable => self.is_disabled = true,
            NodeEvent::Enable => self.is_disabled = false,
            NodeEvent::Check | NodeEvent::Restart => {}
        }
    }

    fn check(&mut self) -> Observation {
        self.failures = if self.is_hung { self.failures + 1 } else { 0 };
        match self {
            Self {
                is_hung: true,
                failures,
                ..
            } => Observation::Failed {
                is_down: *failures >= FALL,
            },
            Self { refuses: true, .. } => REFUSED,
            Self { is_primary: true, .. } => PRIMARY,
            _ => REPLICA,
        }
    }
}

/// What the checks have found, across restarts: a simple model of which servers must not be used.
#[derive(Debug, Default)]
struct SeenNodes {
    /// Whether each server called itself primary when it last told its role.
    claims: [bool; 3],
    /// Whether each server is an old primary: it was the primary, or called itself primary while another server was in
    /// use as the primary, and has not been seen as a replica since.
    is_old: [bool; 3],
    /// The primary that was used last.
    last: Option<usize>,
    /// Whether the server `last` has been down, a replica, or disabled since it was used last, and has not been seen as
    /// a primary again.
    last_is_gone: bool,
}

impl SeenNodes {
    fn note(&mut self, server: usize, observation: Observation, used_before: Option<usize>) {
        match observation {
            Observation::Primary { .. } => self.claims[server] = true,
            Observation::Replica { .. } => (self.claims[server], self.is_old[server]) = (false, false),
            Observation::Refused { .. } | Observation::Failed { .. } => {}
        }
        let stays_primary = matches!(observation, Observation::Primary { .. } | Observation::Refused { .. });
        if used_before == Some(server) && stays_primary {
            for other in (0..SERVERS.len()).filter(|other| *other != server) {
                self.is_old[other] |= self.claims[other];
            }
        }
        if self.last == Some(server) {
            self.last_is_gone = match observation {
                Observation::Primary { .. } => false,
                Observation::Replica { .. } | Observation::Failed { is_down: true } => true,
                Observation::Refused { .. } | Observation::Failed { .. } => self.last_is_gone,
            };
        }
    }

    fn use_next(&mut self, server: usize) {
        if let Some(last) = self.last.filter(|last| *last != server) {
            self.is_old[last] = self.claims[last];
        }
        (self.last, self.last_is_gone) = (Some(server), false);
        self.is_old[server] = false;
    }
}

proptest! {
    #[test]
    fn a_server_last_seen_as_an_old_primary_is_never_used(events in node_events()) {
        let mut nodes: [Node; 3] = Default::default();
        nodes[0].is_primary = true;
        let mut pool = watch(None, &SERVERS);
        let mut seen = SeenNodes::default();
        let used = |pool: &PrimaryWatch| SERVERS.iter().position(|server| Some(*server) == pool.in_force());
        for (server, event) in events {
            nodes[server].apply(event);
            let disabled: Vec<_> = (0..3).filter(|node| nodes[*node].is_disabled).map(|node| SERVERS[node]).collect();
            match event {
                NodeEvent::Check if nodes[server].is_disabled => {}
                NodeEvent::Check => {
                    let observation = nodes[server].check();
                    seen.note(server, observation, used(&pool));
                    pool.observe(SERVERS[server], observation);
                }
                NodeEvent::Restart => {
                    nodes.iter_mut().for_each(|node| node.failures = 0);
                    pool = watch(pool.memory(), &SERVERS);
                    set_disabled(&mut pool, &disabled);
                }
                NodeEvent::Disable => {
                    seen.last_is_gone |= seen.last == Some(server);
                    set_disabled(&mut pool, &disabled);
                }
                NodeEvent::Enable => set_disabled(&mut pool, &disabled),
                _ => {}
            }
            let claims = |label: &&Arc<str>| pool.seen(label).is_some_and(|seen| seen.claim.is_some());
            let claiming: BTreeSet<_> = pool.servers.keys().filter(claims).map(Arc::clone).collect();
            prop_assert_eq!(&pool.claiming, &claiming);
            let Some(now) = used(&pool) else { continue };
            if seen.last != Some(now) {
                prop_assert!(!seen.is_old[now], "{now} is an old primary: {seen:?}");
                prop_assert!(seen.last.is_none() || seen.last_is_gone, "the primary used last may live: {seen:?}");
                seen.use_next(now);
            }
        }
        // Whatever happened before: a replica that is promoted after all others are down is used.
        set_disabled(&mut pool, &[]);
        for (server, node) in nodes.iter_mut().enumerate() {
            *node = Node::default();
            pool.observe(SERVERS[server], node.check());
        }
        nodes[2].apply(NodeEvent::Promote);
        for server in [0, 0, 1, 1, 2] {
            nodes[server].is_hung = server != 2;
            pool.observe(SERVERS[server], nodes[server].check());
        }
        prop_assert_eq!(pool.in_force(), Some("c"));
    }
}
