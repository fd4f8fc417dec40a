//! Properties of the choice of a primary, tested with generated clusters and events.

use proptest::prelude::*;

use super::*;

/// Servers of one database, as they really are.
#[derive(Clone, Debug)]
struct Cluster {
    /// The timeline of each server that is a primary; `None`: the server is a replica.
    timelines: Vec<Option<u32>>,
    hung: Vec<bool>,
    /// The highest timeline so far.
    newest: u32,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Promotes a server, whether or not another primary lives.
    Promote(usize),
    /// Makes a server follow another one.
    Demote(usize),
    Hang(usize),
    Resume(usize),
    Check(usize),
    /// Restarts this process. It keeps only [`PrimaryWatch::memory`].
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let server = 0..SERVERS.len();
    let event = prop_oneof![
        1 => server.clone().prop_map(Event::Promote),
        1 => server.clone().prop_map(Event::Demote),
        1 => server.clone().prop_map(Event::Hang),
        2 => server.clone().prop_map(Event::Resume),
        8 => server.prop_map(Event::Check),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(event, 1..80)
}

impl Cluster {
    fn new() -> Self {
        Self {
            timelines: vec![Some(1), None, None],
            hung: vec![false; SERVERS.len()],
            newest: 1,
        }
    }

    fn observation(&self, server: usize) -> Observation {
        match self.timelines[server] {
            _ if self.hung[server] => DOWN,
            None => REPLICA,
            timeline => primary(timeline),
        }
    }

    /// Applies an event that is not a check.
    fn apply(&mut self, event: Event) {
        match event {
            Event::Promote(server) if self.timelines[server].is_none() => {
                self.newest += 1;
                self.timelines[server] = Some(self.newest);
            }
            Event::Demote(server) => self.timelines[server] = None,
            Event::Hang(server) => self.hung[server] = true,
            Event::Resume(server) => self.hung[server] = false,
            Event::Promote(_) | Event::Check(_) | Event::Restart => {}
        }
    }
}

proptest! {
    #[test]
    fn a_known_old_primary_is_never_used(events in events()) {
        let mut cluster = Cluster::new();
        let mut pool = watch(None, &SERVERS);
        let mut highest_accepted = 0;
        for event in events {
            cluster.apply(event);
            match event {
                Event::Check(server) => pool.observe(SERVERS[server], cluster.observation(server)),
                Event::Restart => pool = watch(pool.memory(), &SERVERS),
                _ => {}
            }
            let Some(server) = pool.in_force() else { continue };
            let known = pool.known().unwrap();
            prop_assert_eq!(&*known.server, server);
            prop_assert!(known.timeline.unwrap() >= highest_accepted);
            highest_accepted = known.timeline.unwrap();
            // No other server counts as the primary.
            for other in SERVERS.iter().filter(|other| **other != server) {
                prop_assert_ne!(pool.verdict(other), PrimaryVerdict::Primary);
            }
        }
        // Once a server on a timeline above all others has been checked, it is the primary.
        cluster.apply(Event::Demote(2));
        cluster.apply(Event::Resume(2));
        cluster.apply(Event::Promote(2));
        for (index, server) in SERVERS.iter().enumerate() {
            pool.observe(server, cluster.observation(index));
        }
        prop_assert_eq!(pool.in_force(), Some("c"));
    }

    #[test]
    fn the_order_of_the_first_checks_does_not_matter(
        timelines in prop::collection::vec(prop::option::of(1u32..4), 3),
        order in Just(vec![0, 1, 2]).prop_shuffle(),
    ) {
        let observation = |index: usize| timelines[index].map_or(REPLICA, primary);
        let mut pool = watch(None, &SERVERS);
        for index in order {
            prop_assert_eq!(pool.in_force(), None);
            pool.observe(SERVERS[index], observation(index));
        }
        let top = timelines.iter().max().copied().flatten();
        let tops: Vec<_> = (0..3).filter(|index| top.is_some() && timelines[*index] == top).collect();
        let expected = (tops.len() == 1).then(|| SERVERS[tops[0]]);
        prop_assert_eq!(pool.in_force(), expected);
    }
}
