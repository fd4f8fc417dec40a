//! Servers that share a policy, and the choice of one of them.
//!
//! Each policy chooses among candidates in a file of its own. Who is a candidate is worked out when something changes
//! (health, ejection, an operator's command, slow start, the list of servers) and kept as a snapshot, so that a pick takes
//! no lock and allocates nothing. This file picks from the snapshot and turns the choice into a [`Lease`].

mod candidates;
mod changes;
pub mod health;
mod lease;
mod least_conn;
mod member;
mod ramp;
mod random_two;
mod roster;
mod round_robin;
pub mod served;
mod server;
mod snapshot;
mod source_hash;
mod spec;
mod steering;
mod turn_counter;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::time::Instant;

use crate::addr::ClientAddr;
use candidates::{Availability, Candidate, CandidateSet};
use health::{EjectLimits, Ejection};
pub use lease::Lease;
pub use member::Member;
pub use roster::{Roster, ServerPath};
use round_robin::RoundRobin;
use served::{Finished, Proof};
pub use server::Server;
use snapshot::{Snapshot, SnapshotCell};
pub use spec::{MemberConfig, ServerId, ServerSpec};
pub use steering::{Steer, Steering, Use};
use turn_counter::TurnCounter;

/// How a server is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The lowest (live sessions + 1) / weight.
    LeastConn,
    /// Weighted rendezvous hashing of the client's address.
    SourceHash,
    /// By turns, weighted and smooth.
    RoundRobin,
    /// The less loaded of two drawn at random.
    RandomTwo,
}

impl Policy {
    /// The word the configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastConn => "least-conn",
            Self::SourceHash => "source-hash",
            Self::RoundRobin => "round-robin",
            Self::RandomTwo => "random-two",
        }
    }
}

/// How a pool treats its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRules {
    /// How a server is chosen.
    pub policy: Policy,
    /// When failed connects take a server out.
    pub eject: EjectLimits,
    /// Bounds how long the one trial of an ejected server is waited for.
    pub connect_timeout: Duration,
    /// How long a server that came back takes to have its whole share again; `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// Under this percentage of healthy servers, 1 to 100, among those enabled in the best tier, all of these are used;
    /// `None`: never.
    pub panic_threshold: Option<u8>,
}

/// Servers that share a policy. Which servers those are may change (names are resolved anew); a session sees one
/// consistent set.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    rules: PoolRules,
    members: ArcSwap<Vec<Member>>,
    snapshot: SnapshotCell,
    was_resolved: AtomicBool,
    /// Turns among equally loaded servers, and of retries.
    ties: TurnCounter,
    // A std mutex: held for a few lines when a connect has failed.
    ejecting: Mutex<()>,
}

impl Pool {
    /// A pool of these servers.
    #[must_use]
    pub fn new(name: Arc<str>, rules: PoolRules, servers: Vec<Member>) -> Self {
        let pool = Self {
            name,
            rules,
            members: ArcSwap::default(),
            snapshot: SnapshotCell::new(),
            was_resolved: AtomicBool::new(false),
            ties: TurnCounter::default(),
            ejecting: Mutex::new(()),
        };
        pool.replace_servers(servers);
        pool
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.rules.policy
    }

    /// How it treats its servers.
    #[must_use]
    pub fn rules(&self) -> &PoolRules {
        &self.rules
    }

    /// Its servers now.
    #[must_use]
    pub fn servers(&self) -> Arc<Vec<Member>> {
        self.members.load_full()
    }

    /// Puts another set of servers in place; sessions on servers that are gone go on.
    pub fn replace_servers(&self, servers: Vec<Member>) {
        self.snapshot.watch(servers.iter().map(|server| &**server));
        self.members.store(Arc::new(servers));
        self.snapshot.invalidate();
        // Now and not at the next pick: the old snapshot would hold the servers that are gone.
        drop(self.snapshot(Instant::now()));
    }

    /// Its servers are those its names stand for, or some of them.
    pub fn mark_resolved(&self) {
        self.was_resolved.store(true, Release);
    }

    /// Whether its names have been resolved, so far as they can be.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.was_resolved.load(Acquire)
    }

    /// The best tier in which a server is up; `None`: none is.
    #[must_use]
    pub fn best_tier(&self, now: Instant) -> Option<u8> {
        self.snapshot(now).set.best_tier
    }

    /// Whether so few servers of the best tier are healthy that all of them are used.
    #[must_use]
    pub fn is_panicking(&self, now: Instant) -> bool {
        self.snapshot(now).set.panic_tier.is_some()
    }

    /// Whether so few are healthy that this one is used whether it is healthy or not.
    #[must_use]
    pub fn uses_in_panic(&self, server: &Member, now: Instant) -> bool {
        self.snapshot(now).set.panic_tier == Some(server.priority()) && server.is_usable_in_panic()
    }

    /// A place on the server the policy chooses for this client, none of `tried` (those this session has failed on).
    ///
    /// Two picks at the same instant may see the same counts of sessions; the error is at most the number of picks in
    /// flight, and the turning tie-break spreads it. A first pick takes no lock and allocates nothing, unless something has
    /// changed since the last one; a further one works its candidates out anew.
    #[must_use]
    pub fn pick(&self, client: ClientAddr, tried: &[ServerId], now: Instant) -> Option<Lease> {
        let snapshot = self.snapshot(now);
        if !tried.is_empty() {
            return self.pick_again(client.ip(), tried.to_vec(), now);
        }
        let chosen = match self.rules.policy {
            Policy::RoundRobin => snapshot.next_turn()?,
            _ => self.choose(&snapshot.set, client.ip())?,
        };
        match snapshot.set.admit(chosen, &self.rules, now) {
            Some(terms) => Some(Lease::take(&chosen.server, terms)),
            None => self.pick_again(client.ip(), vec![chosen.server.id()], now),
        }
    }

    /// A place on a server that is not excluded.
    #[cold]
    fn pick_again(&self, client: IpAddr, mut excluded: Vec<ServerId>, now: Instant) -> Option<Lease> {
        let members = self.members.load();
        // Bounded: each round either returns or excludes one more server.
        loop {
            let set = CandidateSet::new(&members, &self.rules, now, |id| excluded.contains(&id));
            let chosen = self.choose(&set, client)?;
            if let Some(terms) = set.admit(chosen, &self.rules, now) {
                return Some(Lease::take(&chosen.server, terms));
            }
            excluded.push(chosen.server.id());
        }
    }

    /// The servers that may be picked now: the best tier first, and within it the best first where the policy has an
    /// order that does not change by use (source-hash), else as listed.
    #[must_use]
    pub fn in_order(&self, client: Option<IpAddr>, now: Instant) -> Vec<Member> {
        let servers = self.members.load();
        let mut order: Vec<usize> = Vec::with_capacity(servers.len());
        loop {
            let is_listed = |id| order.iter().any(|index| servers[*index].id() == id);
            let next = CandidateSet::new(&servers, &self.rules, now, is_listed).candidates;
            match client {
                _ if next.is_empty() => break,
                Some(client) if self.rules.policy == Policy::SourceHash => {
                    order.extend(source_hash::in_order(&next, client));
                }
                _ => order.extend(next.iter().map(|candidate| candidate.index)),
            }
        }
        order.into_iter().map(|index| servers[index].clone()).collect()
    }

    fn choose<'a>(&self, set: &'a CandidateSet, client: IpAddr) -> Option<&'a Candidate> {
        let candidates = &set.candidates;
        match self.rules.policy {
            Policy::LeastConn => least_conn::choose(candidates, |equals| self.ties.take() % equals),
            Policy::SourceHash => source_hash::choose(candidates, client),
            // Retries take turns of their own, among the servers that are left to them: if they took those of the others,
            // the server after one that fails would get no session at first hand.
            Policy::RoundRobin => {
                let position = RoundRobin::new(candidates, self.ties.take()).next()?;
                candidates.get(position)
            }
            Policy::RandomTwo => random_two::choose(candidates, |bound| fastrand::usize(..bound)),
        }
    }

    /// The candidates as of now, rebuilt if they have changed.
    fn snapshot(&self, now: Instant) -> Guard<Arc<Snapshot>> {
        self.snapshot.get(now, |previous| {
            let set = CandidateSet::new(&self.members.load(), &self.rules, now, |_| false);
            let round_robin = match self.rules.policy {
                Policy::RoundRobin => {
                    RoundRobin::resume(&set.candidates, &previous.round_robin, &previous.set.candidates)
                }
                _ => RoundRobin::default(),
            };
            (set, round_robin)
        })
    }

    /// A session has connected to a server of this pool; whether that ended an ejection.
    pub fn connected(&self, lease: &Lease) -> bool {
        lease.server().connected(lease.terms())
    }

    /// A connect to a server of this pool has failed, by the server's fault; the back-off, if that takes it out.
    ///
    /// The last usable server is never taken out, nor more than the permitted share of the pool's servers; those that
    /// carry nothing (of weight 0, drained, disabled) do not count.
    pub fn connect_failed(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        self.blame(lease, now, |ejection, permitted| {
            ejection.failed(now, self.rules.eject, permitted, lease.terms())
        })
    }

    /// A session on a server of this pool is over; what that changed. A session that the server did not serve
    /// ([`Finished::proof`]) counts like a failed connect, within the same bounds.
    pub fn finished(&self, lease: &Lease, session: &Finished, now: Instant) -> Option<Change> {
        match session.proof(self.rules.eject.on_reset) {
            Proof::Served => lease.server().has_served(session.connected).then_some(Change::Back),
            Proof::Unserved => {
                let back_off = self.blame(lease, now, |ejection, permitted| {
                    ejection.unserved(session.client, now, self.rules.eject, permitted, lease.terms())
                });
                back_off.map(Change::Ejected)
            }
            Proof::Nothing => {
                lease.server().learnt_nothing();
                None
            }
        }
    }

    /// Notes something against a server, knowing whether it may be taken out.
    fn blame(
        &self,
        lease: &Lease,
        now: Instant,
        bad: impl FnOnce(&mut Ejection, bool) -> Option<Duration>,
    ) -> Option<Duration> {
        // One at a time, so that two workers do not each take out one of the last two.
        let _turn = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = self.members.load();
        let others = || {
            servers
                .iter()
                .filter(|server| server.id() != lease.server().id() && server.is_in_service())
        };
        let is_usable = |availability| matches!(availability, Availability::Up | Availability::Unchecked);
        let others_usable = others().any(|server| is_usable(server.availability(now)));
        let out = 1 + others().filter(|server| server.is_ejected()).count();
        let permitted = others_usable && out * 100 <= (1 + others().count()) * self.rules.eject.percent_max as usize;
        lease.server().blame(|ejection| bad(ejection, permitted))
    }
}

/// What a finished session changed for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is out for so long.
    Ejected(Duration),
    /// It is back in use.
    Back,
}

#[cfg(test)]
mod tests;
