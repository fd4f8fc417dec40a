//! How many sessions each server of a pool has, and its weight and limit, on which its share depends.

use std::collections::HashMap;
use std::num::NonZeroU32;

use tokio::time::Instant;

use super::{CountId, Policy, Pool};

/// The load of a server that may be picked, or of several that have one address.
#[derive(Clone, Copy, Debug)]
pub struct ServerLoad {
    /// See [`Server::count_id`](super::Server::count_id).
    pub id: CountId,
    /// The weight relative to the others, at least 1.
    pub weight: u16,
    /// Open sessions.
    pub sessions: u32,
    /// The most sessions that it may have; `None`: any number. Of several servers, the largest limit.
    pub sessions_max: Option<NonZeroU32>,
}

impl Pool {
    /// The load of each server that may be picked now; empty in panic mode (`panic_threshold`). Servers at one address
    /// are one server.
    #[must_use]
    pub fn loads(&self, now: Instant) -> Vec<ServerLoad> {
        let set = &self.snapshot(now).set;
        if set.panic_tier.is_some() {
            return Vec::new();
        }
        let mut loads = HashMap::<CountId, ServerLoad>::new();
        for candidate in &set.candidates {
            let id = candidate.server.count_id();
            let load = loads.entry(id).or_insert(ServerLoad {
                id,
                weight: 0,
                sessions: candidate.live(),
                sessions_max: candidate.sessions_max,
            });
            load.sessions_max = load.sessions_max.zip(candidate.sessions_max).map(|(a, b)| a.max(b));
            // With `round-robin`, each of the servers at one address has its own turns, so that their weights add up.
            // The policies that compare sessions see the same number for all these servers, so that only the largest
            // weight counts. With `source-hash`, nobody uses the loads: such a pool is never rebalanced.
            load.weight = match self.policy() {
                Policy::RoundRobin => load.weight.saturating_add(candidate.weight),
                _ => load.weight.max(candidate.weight),
            };
        }
        loads.into_values().collect()
    }

    /// Open sessions on its servers. Servers at one address are one server.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        let servers = self.servers();
        let by_address: HashMap<CountId, u32> = servers
            .iter()
            .map(|server| (server.count_id(), server.live()))
            .collect();
        by_address.into_values().map(u64::from).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pool::ejection::LeaseKind;
    use crate::pool::lease::Lease;
    use crate::pool::tests::rules;
    use crate::pool::{Member, MemberConfig, ServerRegistry, ServerSpec};

    /// Two of the three servers have the same address.
    #[test]
    fn sessions_at_one_address_count_once() {
        for (policy, expected) in [
            (Policy::RoundRobin, [(4, 1), (5, 2)]),
            (Policy::LeastConn, [(4, 1), (5, 1)]),
            (Policy::RandomTwo, [(4, 1), (5, 1)]),
        ] {
            let (registry, name) = (ServerRegistry::default(), Arc::<str>::from("p"));
            let server = |label: &str, port: u16| {
                let spec = ServerSpec::for_test(label, ([127, 0, 0, 1], port).into());
                registry.get_or_create(&name, spec, false)
            };
            let servers = [server("a", 1), server("b", 1), server("c", 2)];
            let member = |server: &Arc<_>| Member::new(Arc::clone(server), MemberConfig::default());
            let pool = Pool::new(Arc::clone(&name), rules(policy), servers.iter().map(member).collect());
            let leases = servers
                .iter()
                .zip([2, 3, 4])
                .flat_map(|(server, sessions)| (0..sessions).map(move |_| Lease::take(server, LeaseKind::Regular)));
            let leases: Vec<_> = leases.collect();
            let loads = pool.loads(Instant::now());
            let mut loads: Vec<_> = loads.iter().map(|load| (load.sessions, load.weight)).collect();
            loads.sort_unstable();
            assert_eq!((loads, pool.sessions()), (expected.to_vec(), 9), "{policy:?}");
            drop(leases);
            assert_eq!(pool.sessions(), 0);
        }
    }

    /// The servers at one address have limits of their own, and a pick needs room at one of them.
    #[test]
    fn the_largest_limit_at_one_address_counts() {
        let (registry, name) = (ServerRegistry::default(), Arc::<str>::from("p"));
        for (limits, expected) in [([2, 5], 5), ([5, 2], 5), ([0, 2], 0), ([2, 0], 0)] {
            let member = |(label, limit): (&str, u32)| {
                let spec = ServerSpec::for_test(label, ([127, 0, 0, 1], 1).into());
                let config = MemberConfig {
                    sessions_max: NonZeroU32::new(limit),
                    ..MemberConfig::default()
                };
                Member::new(registry.get_or_create(&name, spec, false), config)
            };
            let members = ["a", "b"].into_iter().zip(limits).map(member).collect();
            let pool = Pool::new(Arc::clone(&name), rules(Policy::LeastConn), members);
            let load = pool.loads(Instant::now())[0];
            assert_eq!(load.sessions_max, NonZeroU32::new(expected), "{limits:?}");
        }
    }

    /// Sessions that began under the former name of a server still load the server.
    #[test]
    fn sessions_of_a_former_name_count_at_the_address() {
        let (registry, name) = (ServerRegistry::default(), Arc::<str>::from("p"));
        let server = |label: &str| {
            let spec = ServerSpec::for_test(label, ([127, 0, 0, 1], 1).into());
            registry.get_or_create(&name, spec, false)
        };
        let before = server("before");
        let _lease = Lease::take(&before, LeaseKind::Regular);
        let member = Member::new(server("now"), MemberConfig::default());
        let pool = Pool::new(Arc::clone(&name), rules(Policy::RoundRobin), vec![member]);
        let load = pool.loads(Instant::now())[0];
        assert_eq!((load.id, load.sessions, pool.sessions()), (before.count_id(), 1, 1));
    }
}
