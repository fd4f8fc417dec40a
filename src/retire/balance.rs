//! Whether the sessions of a pool are spread evenly, and how many have to move. Pure functions of counts.

use crate::pool::{CountId, ServerLoad};

/// Rebalancing begins when [`Balance::fullest`] is above this.
const BEGIN_AT: f64 = 1.2;

/// Rebalancing ends when [`Balance::fullest`] is not above this.
const END_AT: f64 = 1.05;

/// How sessions are spread over the servers of a pool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Balance {
    /// The largest ratio of a server's sessions to its share. Only servers in `excess` count; 0: there are none, or no
    /// session can move.
    fullest: f64,
    /// The servers with sessions in excess of their share, and how many sessions of each are to move: those in excess,
    /// rounded down, for which the other servers have room; 0 if there is no room left. Most first.
    pub(super) excess: Vec<(CountId, usize)>,
    /// The servers that are not in `excess`.
    pub(super) without_excess: Vec<CountId>,
}

impl Balance {
    /// The balance of these servers. The share of a server is proportional to its weight, but not above its limit.
    pub(super) fn new(servers: &[ServerLoad]) -> Self {
        let (mut excess, mut without_excess) = (Vec::new(), Vec::new());
        let (mut fullest, mut room) = (0_f64, 0_f64);
        for (server, share) in servers.iter().zip(shares(servers)) {
            let sessions = f64::from(server.sessions);
            let over = sessions - share;
            room += (share - sessions).max(0.0);
            // 1e-9 is a tolerance: floating-point shares are not exact.
            if over + 1e-9 >= 1.0 {
                excess.push((server.id, (over + 1e-9) as usize));
                fullest = fullest.max(sessions / share);
            } else {
                without_excess.push(server.id);
            }
        }
        excess.sort_by_key(|(_, sessions)| std::cmp::Reverse(*sessions));
        // Where the limits leave less room than the excess, only as many sessions move as there is room for.
        let mut room = (room + 1e-9) as usize;
        if room == 0 {
            fullest = 0.0;
        }
        for (_, sessions) in &mut excess {
            *sessions = room.min(*sessions);
            room -= *sessions;
        }
        Self {
            fullest,
            excess,
            without_excess,
        }
    }

    /// Whether rebalancing is to begin. Between the two bounds, the pool is neither uneven nor even: then rebalancing
    /// does not begin, and goes on if it has begun.
    pub(super) fn is_uneven(&self) -> bool {
        self.fullest > BEGIN_AT
    }

    /// Whether rebalancing is to end.
    pub(super) fn is_even(&self) -> bool {
        self.fullest <= END_AT
    }

    /// How many sessions of all servers are to move.
    pub(super) fn total(&self) -> usize {
        self.excess.iter().map(|(_, sessions)| sessions).sum()
    }
}

/// The share of each server. What exceeds the limit of a server is shared by the others.
fn shares(servers: &[ServerLoad]) -> Vec<f64> {
    let mut shares = vec![0.0; servers.len()];
    // The servers that are below their limits, and the sessions that they share.
    let mut open: Vec<usize> = (0..servers.len()).collect();
    let mut sessions: f64 = servers.iter().map(|server| f64::from(server.sessions)).sum();
    // Bounded: each round but the last one takes a server out.
    loop {
        let weights: f64 = open.iter().map(|index| f64::from(servers[*index].weight)).sum();
        let share = |index: usize| sessions * f64::from(servers[index].weight) / weights;
        let max = |index: usize| {
            servers[index]
                .sessions_max
                .map_or(f64::INFINITY, |max| f64::from(max.get()))
        };
        let Some(at) = open.iter().position(|index| share(*index) > max(*index)) else {
            open.iter().for_each(|index| shares[*index] = share(*index));
            return shares;
        };
        let limited = open.remove(at);
        shares[limited] = max(limited);
        sessions -= shares[limited];
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use proptest::prelude::*;

    /// Each tuple is a server: its weight, its sessions, and the most sessions that it may have; 0: any number.
    fn loads(servers: &[(u16, u32, u32)]) -> Vec<ServerLoad> {
        let load = |(weight, sessions, max): &(u16, u32, u32)| ServerLoad {
            id: CountId::for_test(),
            weight: *weight,
            sessions: *sessions,
            sessions_max: NonZeroU32::new(*max),
        };
        servers.iter().map(load).collect()
    }

    /// How many sessions of each server are to move, in the order of the servers.
    fn excess(servers: &[(u16, u32, u32)]) -> Vec<usize> {
        let loads = loads(servers);
        let balance = Balance::new(&loads);
        let excess = |id| {
            balance
                .excess
                .iter()
                .find(|(other, _)| *other == id)
                .map_or(0, |(_, n)| *n)
        };
        loads.iter().map(|load| excess(load.id)).collect()
    }

    fn is_uneven(servers: &[(u16, u32, u32)]) -> bool {
        Balance::new(&loads(servers)).is_uneven()
    }

    #[test]
    fn a_new_server_gets_its_share_by_weight() {
        assert_eq!(excess(&[(1, 150, 0), (1, 150, 0), (1, 0, 0)]), [50, 50, 0]);
        assert_eq!(excess(&[(2, 150, 0), (1, 150, 0), (3, 0, 0)]), [50, 100, 0]);
        assert!(is_uneven(&[(1, 150, 0), (1, 150, 0), (1, 0, 0)]));
    }

    #[test]
    fn rebalancing_begins_above_one_bound_and_ends_at_the_other() {
        assert!(!is_uneven(&[(1, 120, 0), (1, 80, 0)]));
        assert!(is_uneven(&[(1, 121, 0), (1, 79, 0)]));
        assert!(!Balance::new(&loads(&[(1, 106, 0), (1, 94, 0)])).is_even());
        assert!(Balance::new(&loads(&[(1, 105, 0), (1, 95, 0)])).is_even());
    }

    #[test]
    fn rebalancing_does_not_begin_if_a_move_would_not_help() {
        for even in [
            &[(1, 1, 0), (1, 0, 0)][..],
            &[(1, 2, 0), (1, 1, 0)],
            &[(1, 1, 0), (1, 1, 0), (1, 0, 0)],
        ] {
            assert!(!is_uneven(even), "{even:?}");
        }
        assert_eq!(excess(&[(1, 2, 0), (1, 0, 0)]), [1, 0]);
        assert!(is_uneven(&[(1, 2, 0), (1, 0, 0)]));
    }

    #[test]
    fn the_share_above_the_limit_of_a_server_goes_to_the_others() {
        assert_eq!(excess(&[(1, 90, 0), (1, 10, 10)]), [0, 0]);
        assert_eq!(excess(&[(1, 100, 0), (1, 0, 10)]), [10, 0]);
        assert!(!is_uneven(&[(1, 90, 0), (1, 10, 10)]), "no other server has room");
    }

    #[test]
    fn no_more_sessions_move_than_the_other_servers_have_room_for() {
        assert_eq!(
            excess(&[(1, 10, 5), (1, 5, 5)]),
            [0, 0],
            "a reload has lowered the limits"
        );
        assert!(!is_uneven(&[(1, 10, 5), (1, 5, 5)]));
        assert_eq!(excess(&[(1, 10, 5), (1, 3, 5)]), [2, 0]);
        assert!(is_uneven(&[(1, 10, 5), (1, 3, 5)]));
    }

    proptest! {
        #[test]
        fn the_excess_leaves_a_server_its_share_and_less_than_one_session_more(
            servers in prop::collection::vec((1u16..20, 0u32..500, 0u32..300), 1..12),
        ) {
            let loads = loads(&servers);
            let sessions: u32 = loads.iter().map(|load| load.sessions).sum();
            let shares = shares(&loads);
            let balance = Balance::new(&loads);
            for (load, share) in loads.iter().zip(&shares) {
                let over = balance.excess.iter().find(|(id, _)| *id == load.id).map_or(0, |(_, n)| *n);
                let left = f64::from(load.sessions) - over as f64;
                prop_assert!(over == 0 || left + 1e-6 >= *share, "the excess is not more than what is above the share");
                let are_all_full = shares.iter().sum::<f64>() < f64::from(sessions) - 1e-6;
                prop_assert!(are_all_full || left < share + 1.0 + 1e-6);
            }
            prop_assert!(shares.iter().sum::<f64>() <= f64::from(sessions) + 1e-6);
        }
    }
}
