//! Pools of servers, and the pick of one server for a session.
//!
//! Each policy has a file of its own and picks among candidates. The candidates are computed when something changes
//! (health, ejection, an operator's override, slow start, the list of servers) and kept as a snapshot, so that a pick takes
//! no lock and allocates nothing. This file picks from the snapshot and returns a [`Lease`].

mod turn_counter;
mod changes;
mod spec;
mod facts;
mod health;
mod requirement;
mod known_primary;
mod primary;
mod lag;
mod session_outcome;
mod ejection;
mod rules;
mod slow_start;
mod overrides;
mod server;
mod member;
mod roles;
mod registry;
mod candidates;
mod lease;
mod least_conn;
mod random_two;
mod round_robin;
mod source_hash;
mod snapshot;
mod fallback;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::time::Instant;

use crate::addr::ClientAddr;
use candidates::{Candidate, CandidateSet};
pub use ejection::EjectLimits;
use ejection::Ejection;
pub use facts::{Role, ServerFacts, WalPosition};
pub use fallback::FallbackOrigin;
use health::Availability;
pub use health::{CheckOutcome, CheckState, Health, RefusedCheck, Thresholds};
pub use known_primary::KnownPrimary;
pub use lease::Lease;
pub use member::Member;
pub use overrides::{AdminState, Override, Overrides};
pub use registry::{ServerPath, ServerRegistry};
pub use requirement::RoleRequirement;
pub use roles::{PoolRoles, RoleJudgement};
use round_robin::RoundRobin;
pub use rules::{Policy, PoolRules};
pub use server::Server;
pub use session_outcome::{FinishedSession, SERVED_AFTER, ServerEnd, SessionOutcome};
use snapshot::{Snapshot, SnapshotCell};
pub use spec::{MemberConfig, ServerId, ServerSpec};
use turn_counter::TurnCounter;

/// A set of servers with a common policy. The set may change, as when a name is resolved again; each pick sees one
/// consistent set.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    rules: PoolRules,
    members: ArcSwap<Vec<Member>>,
    snapshot: SnapshotCell,
    was_resolved: AtomicBool,
    /// Turns of equally loaded servers, and of retries.
    ties: TurnCounter,
    // A std mutex: held for a few lines after a failure.
    ejecting: Mutex<()>,
}

impl Pool {
    /// Creates a pool of these servers.
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

    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> &PoolRules {
        &self.rules
    }

    /// Its current servers.
    #[must_use]
    pub fn servers(&self) -> Arc<Vec<Member>> {
        self.members.load_full()
    }

    /// Replaces the servers. Sessions on removed servers continue.
    pub fn replace_servers(&self, servers: Vec<Member>) {
        self.snapshot.watch(servers.iter().map(|server| &**server));
        self.members.store(Arc::new(servers));
        self.snapshot.invalidate();
        // Rebuild now and not at the next pick, because the old snapshot holds the removed servers.
        drop(self.snapshot(Instant::now()));
    }

    /// Records that its names have been resolved, as far as possible.
    pub fn mark_resolved(&self) {
        self.was_resolved.store(true, Release);
    }

    /// Whether its names have been resolved, as far as possible.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.was_resolved.load(Acquire)
    }

    /// Whether a session could be given a server now.
    #[must_use]
    pub fn is_usable(&self, now: Instant) -> bool {
        !self.snapshot(now).set.candidates.is_empty()
    }

    /// The best tier that has a server that is up; `None`: no server is up.
    #[must_use]
    pub fn best_tier(&self, now: Instant) -> Option<u8> {
        self.snapshot(now).set.best_tier
    }

    /// Whether all servers of the best tier are used because too few are healthy.
    #[must_use]
    pub fn is_panicking(&self, now: Instant) -> bool {
        self.snapshot(now).set.panic_tier.is_some()
    }

    /// Whether this server is used in panic, whether it is healthy or not.
    #[must_use]
    pub fn uses_in_panic(&self, server: &Member, now: Instant) -> bool {
        self.snapshot(now).set.panic_tier == Some(server.priority()) && server.is_usable_in_panic()
    }

    /// A lease on the server that the policy picks for this client, excluding `tried` (on which this session has failed);
    /// `None`: no server is left.
    ///
    /// Concurrent picks may see the same session counts; the error is at most the number of concurrent picks, and turns
    /// among equals spread it. A first pick takes no lock and allocates nothing unless something has changed since the last
    /// one; a retry computes its candidates anew.
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
            Some(kind) => Some(Lease::take(&chosen.server, kind)),
            None => self.pick_again(client.ip(), vec![chosen.server.id()], now),
        }
    }

    /// A lease on a server that is not excluded.
    #[cold]
    fn pick_again(&self, client: IpAddr, mut excluded: Vec<ServerId>, now: Instant) -> Option<Lease> {
        let members = self.members.load();
        // Bounded: each round either returns or excludes one more server.
        loop {
            let set = CandidateSet::new(&members, &self.rules, now, |id| excluded.contains(&id));
            let chosen = self.choose(&set, client)?;
            if let Some(kind) = set.admit(chosen, &self.rules, now) {
                return Some(Lease::take(&chosen.server, kind));
            }
            excluded.push(chosen.server.id());
        }
    }

    /// The servers that may be picked now, best tier first. Within a tier they are in the order of preference if the policy
    /// has a fixed one for a client (source-hash), else as listed.
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
            // Only retries come here. They have turns of their own: if they used those of first picks, the server after a
            // failing one would get retries only.
            Policy::RoundRobin => {
                let position = RoundRobin::new(candidates, self.ties.take()).next()?;
                candidates.get(position)
            }
            Policy::RandomTwo => random_two::choose(candidates, |bound| fastrand::usize(..bound)),
        }
    }

    /// The snapshot as of now, rebuilt after a change.
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

    /// Records that a session has connected to a server of this pool. Returns whether that ended an ejection.
    pub fn connected(&self, lease: &Lease) -> bool {
        lease.server().record_connect(lease.kind())
    }

    /// Records that a connect failed because of the server. Returns the back-off if that ejects it.
    ///
    /// The last usable server is never ejected, nor are more than [`EjectLimits::percent_max`] of the servers in service.
    pub fn connect_failed(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        self.record_failure(lease, now, |ejection, permitted| {
            ejection.record_failure(now, self.rules.eject, permitted, lease.kind())
        })
    }

    /// Records that a session has ended. Returns what that changed. A session that the server did not serve
    /// ([`FinishedSession::outcome`]) counts as a failed connect, with the same limits.
    pub fn finished(&self, lease: &Lease, session: &FinishedSession, now: Instant) -> Option<EjectionChange> {
        match session.outcome(self.rules.eject.on_reset) {
            SessionOutcome::Served => {
                let has_ended = lease.server().record_served(session.connected_at);
                has_ended.then_some(EjectionChange::Ended)
            }
            SessionOutcome::Unserved => {
                let back_off = self.record_failure(lease, now, |ejection, permitted| {
                    ejection.record_unserved(session.client, now, self.rules.eject, permitted, lease.kind())
                });
                back_off.map(EjectionChange::Began)
            }
            SessionOutcome::Inconclusive => {
                lease.server().record_inconclusive();
                None
            }
        }
    }

    /// Records a failure on a server. `record` is told whether the pool permits one more ejection.
    fn record_failure(
        &self,
        lease: &Lease,
        now: Instant,
        record: impl FnOnce(&mut Ejection, bool) -> Option<Duration>,
    ) -> Option<Duration> {
        // One at a time, so that two workers do not each eject one of the last two servers.
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = self.members.load();
        let others = || {
            servers
                .iter()
                .filter(|server| server.id() != lease.server().id() && server.is_in_service())
        };
        let is_usable = |availability| matches!(availability, Availability::Up | Availability::Unchecked);
        let others_usable = others().any(|server| is_usable(server.availability(now)));
        let ejected = 1 + others().filter(|server| server.is_ejected()).count();
        let permitted =
            others_usable && ejected * 100 <= (1 + others().count()) * self.rules.eject.percent_max as usize;
        lease.server().record_failure(|ejection| record(ejection, permitted))
    }
}

/// A change of a server's ejection that the end of a session caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionChange {
    /// The server is ejected for this back-off.
    Began(Duration),
    /// The server is back in use.
    Ended,
}

#[cfg(test)]
mod tests;
