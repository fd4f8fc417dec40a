//! Picks in pools whose servers have a session limit, and the wait for a server with room.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::candidates::{Candidate, CandidateSet};
use super::full_servers::FullServers;
use super::queue::QueueTurn;
use super::{Lease, NoLease, Policy, Pool, QueueLimits, ServerId};
use crate::addr::{ClientAddr, ClientHost};

/// The most clients that may wait for a server to be started, in a pool that has no `queue`: the default of `max` in a
/// `queue`.
const START_WAITERS_MAX: usize = 1000;

/// Why a client no longer waits for a server with room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFailure {
    /// No server is left that it could wait for.
    NoServer,
    /// The pool has no queue.
    NoQueue,
    /// The queue is full.
    Full,
    /// It has waited for the longest permitted time.
    Timeout,
}

impl Pool {
    /// [`Self::pick`] in a pool with a limited server. If the pool has a `queue`, a client that comes while others wait
    /// must join it.
    #[cold]
    pub(super) fn pick_limited(&self, client: ClientHost, tried: &[ServerId], now: Instant) -> Result<Lease, NoLease> {
        if self.rules.queue.is_some() && !self.queue.is_empty() {
            return Err(NoLease::Full);
        }
        self.pick_with_room(client, tried, &mut FullServers::default(), now)
    }

    /// A lease on the server that the policy picks among those with room. The servers in `full` count as full. A chosen
    /// server that has no room is added to `full`; if no server has room, all of them are.
    ///
    /// The next tier is not a substitute for a full one: its servers are for the time when those of the better tier are
    /// down.
    pub(super) fn pick_with_room(
        &self,
        client: ClientHost,
        tried: &[ServerId],
        full: &mut FullServers,
        now: Instant,
    ) -> Result<Lease, NoLease> {
        let mut excluded = tried.to_vec();
        // Bounded: each round returns or excludes one more server.
        loop {
            let snapshot = self.snapshot(now);
            let remaining;
            let set = if excluded.is_empty() {
                &snapshot.set
            } else {
                let is_excluded = |id| excluded.contains(&id);
                remaining = CandidateSet::new(&self.members.load(), &self.rules, now, is_excluded);
                &remaining
            };
            let first = match self.rules.policy {
                Policy::RoundRobin if excluded.is_empty() => snapshot.next_turn(),
                _ => self.choose(&set.candidates, client),
            };
            let first = first.ok_or_else(|| self.no_lease_for(tried))?;
            let taken = self.take_place(set, first, client, full).ok_or(NoLease::Full)?;
            match set.admit(&taken, &self.rules, now) {
                Some(kind) => return Ok(Lease::for_place(taken, kind)),
                None => {
                    // Another session has the trial, so the server admits nobody else.
                    taken.server.remove_session();
                    excluded.push(taken.server.id());
                }
            }
        }
    }

    /// Takes a place on the first choice or, if that is full, on the one that the policy chooses among the others with
    /// room. But if the policy chooses by client and there is a queue, the client has to wait for its first choice.
    fn take_place(
        &self,
        set: &CandidateSet,
        first: &Candidate,
        client: ClientHost,
        full: &mut FullServers,
    ) -> Option<Candidate> {
        let mut chosen = first.clone();
        loop {
            let id = chosen.server.id();
            if !full.contains(id) {
                if chosen.try_add_session() {
                    return Some(chosen);
                }
                full.add(id);
            }
            if !self.waits_for_any_server() && self.rules.queue.is_some() {
                full.awaited = Some(id);
                return None;
            }
            let has_room = |other: &&Candidate| other.has_room() && !full.contains(other.server.id());
            let with_room: Vec<_> = set.candidates.iter().filter(has_room).cloned().collect();
            match self.choose(&with_room, client) {
                Some(next) => chosen = next.clone(),
                None => {
                    full.add_all(&set.candidates);
                    return None;
                }
            }
        }
    }

    /// Whether a client waits for any server with room. With a policy that chooses by client, it waits for its own
    /// server.
    pub(super) fn waits_for_any_server(&self) -> bool {
        !self.rules.policy.is_by_client()
    }

    /// Whether a client could be given, or wait for, a server that is not among these.
    pub fn has_any_besides(&self, tried: &[ServerId], now: Instant) -> bool {
        self.can_pick_besides(tried, now) || self.waits_for_return_besides(tried)
    }

    /// Waits in the queue of the pool for a lease, in the order of arrival. After a failed connect (`tried`) the
    /// client keeps its earlier place in the order. `on_join` gets the position in the queue, from 1, if the client has
    /// to wait. Once `stream_end` is ready, the client has ended its stream: it moves behind the clients that have not.
    ///
    /// After a reload during the wait, the client waits for the servers of the new pool of this name.
    /// Dropping the future leaves the queue.
    ///
    /// # Errors
    /// Why the client waits no longer.
    pub async fn wait_for_lease(
        &self,
        client: ClientAddr,
        tried: &[ServerId],
        turn: &mut QueueTurn,
        stream_end: impl Future<Output = ()>,
        on_join: impl FnOnce(usize),
    ) -> Result<Lease, QueueFailure> {
        let began = Instant::now();
        let limits = self.queue_limits(began).ok_or(QueueFailure::NoQueue)?;
        if !tried.is_empty() && !self.queue.has_any_besides(self, tried, began) {
            return Err(QueueFailure::NoServer); // it need not wait for its turn to learn that
        }
        let deadline = *turn.since.get_or_insert(began) + limits.timeout;
        let mut place = self.queue.join(self, (client.host(), tried), turn, limits.clients_max);
        let answer = if let Ok(answer) = place.answer.try_recv() {
            Ok(answer)
        } else {
            on_join(place.position);
            let mut stream_end = pin!(stream_end);
            loop {
                let changed = pin!(self.queue.changed()); // before the queue is served, so that no change is missed
                let expires_at = self.queue.serve_if_stale(self, Instant::now());
                tokio::select! {
                    biased;
                    answer = &mut place.answer => break answer,
                    () = &mut stream_end, if !turn.has_stream_ended => {
                        turn.has_stream_ended = true;
                        place.move_behind_open();
                    }
                    () = changed => {}
                    () = sleep_until(expires_at.map_or(deadline, |expires_at| expires_at.min(deadline))) => {
                        if Instant::now() >= deadline {
                            if place.leave() {
                                return Err(QueueFailure::Timeout);
                            }
                            break (&mut place.answer).await; // the answer has come, or is about to come
                        }
                    }
                }
            }
        };
        let lease = answer.expect("a client in the queue is answered, or leaves by itself");
        lease.map_err(|reason| match reason {
            NoLease::NoServer => QueueFailure::NoServer,
            NoLease::Full => QueueFailure::Full,
        })
    }

    /// The answer to a client that has tried these servers, if no other can be picked. A client that has tried none
    /// waits if the pool may sleep or a server is being started. Any client waits if a server that it has not tried
    /// is ejected or suspended, and the pool waits for the return of that server.
    pub(super) fn no_lease_for(&self, tried: &[ServerId]) -> NoLease {
        if (self.start_wait().is_some() && tried.is_empty()) || self.waits_for_return_besides(tried) {
            NoLease::Full
        } else {
            NoLease::NoServer
        }
    }

    /// Whether this is a pool that may sleep, and has no usable server at this time.
    #[must_use]
    pub fn needs_wake(&self, now: Instant) -> bool {
        self.rules.wake.is_some() && !self.is_usable(now)
    }

    /// How long clients may wait for a server to be started while none is usable; `None`: they may not wait for that.
    fn start_wait(&self) -> Option<Duration> {
        self.rules.wake.or_else(|| self.queue.start_wait())
    }

    /// Sets how long clients may wait, while no server is usable, for one that is being started; `None`: no server is
    /// being started. A pool that may sleep does not need it. The setting also holds for the pools of this name in
    /// other plans.
    pub fn set_start_wait(&self, wait: Option<Duration>) {
        self.queue.set_start_wait(wait);
    }

    /// The limits of the queue at this time; `None`: nobody may wait. While no server is usable, clients may wait for
    /// [`Self::start_wait`], if that is set, even in a pool that has no `queue`.
    fn queue_limits(&self, now: Instant) -> Option<QueueLimits> {
        match self.start_wait() {
            Some(timeout) if !self.is_usable(now) => {
                let clients_max = self.rules.queue.map_or(START_WAITERS_MAX, |queue| queue.clients_max);
                Some(QueueLimits { clients_max, timeout })
            }
            _ => self.rules.queue,
        }
    }

    /// Waits until a client has joined the queue of the pool since the last call. Only one task may wait for that.
    pub fn queue_joined(&self) -> impl Future<Output = ()> + use<> {
        let queue = Arc::clone(&self.queue);
        async move { queue.joined().await }
    }

    /// How many clients wait in the queue of the pool.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::num::NonZeroU32;

    use super::super::tests::rules;
    use super::super::{Member, MemberConfig, ServerRegistry, ServerSpec};
    use super::*;

    /// `a` and `b` have the same address, so they share the count of sessions. The client waits for `b`. The place that
    /// becomes free is that of a session which was counted for `a` and not begun: `remove_session`.
    #[tokio::test(start_paused = true)]
    async fn a_waiting_client_gets_the_place_of_a_session_that_was_not_begun_after_all() {
        let (registry, name) = (ServerRegistry::default(), Arc::<str>::from("p"));
        let server = |label| {
            let spec = ServerSpec::for_test(label, ([127, 0, 0, 1], 1).into());
            registry.get_or_create(&name, spec, false)
        };
        let (a, b) = (server("a"), server("b"));
        let config = MemberConfig {
            sessions_max: NonZeroU32::new(1),
            ..MemberConfig::default()
        };
        let queue = QueueLimits {
            clients_max: 1,
            timeout: Duration::from_secs(5),
        };
        let rules = super::super::PoolRules {
            queue: Some(queue),
            ..rules(Policy::LeastConn)
        };
        let members = vec![Member::new(b, config)];
        let pool = Pool::with_queue(Arc::clone(&name), rules, members, registry.queue(&name));
        assert!(a.add_session_below(1));
        let client = ClientAddr::new(([192, 0, 2, 1], 1).into());
        let mut turn = QueueTurn::default();
        let given_back = async {
            while pool.queue_len() == 0 {
                tokio::task::yield_now().await;
            }
            a.remove_session();
        };
        let waiting = pool.wait_for_lease(client, &[], &mut turn, pending(), |_| {});
        let (lease, ()) = tokio::join!(waiting, given_back);
        assert_eq!(&*lease.unwrap().server().spec().label, "b");
    }
}
