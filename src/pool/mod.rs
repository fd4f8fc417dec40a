//! Pools of servers, and the pick of one server for a session.
//!
//! Each policy picks among candidates, by a function in a file of its own. The candidates are computed after a change,
//! and kept as a snapshot, so that a pick usually takes no lock and allocates nothing (see [`Pool::pick`]). This file
//! picks from the snapshot and returns a [`Lease`].
//!
//! **A new policy** is a variant of [`Policy`], a file with its function, and an arm in `choose`; its name stands in
//! `config::parse::pool`. If it picks by the client, as `source-hash` does, it also belongs in [`Policy::is_by_client`]
//! and [`Pool::in_order`].

mod turn_counter;
mod server_observer;
mod changes;
mod spec;
mod health;
mod facts;
mod requirement;
mod known_primary;
mod primary;
mod histories;
mod lag;
mod diverged;
mod session_outcome;
mod ejection;
mod rules;
mod slow_start;
mod overrides;
mod agent;
mod live_count;
mod server;
mod member;
mod member_state;
mod roles;
mod candidates;
mod server_load;
mod lease;
mod least_conn;
mod random_two;
mod round_robin;
mod source_hash;
mod snapshot;
mod full_servers;
mod queue;
mod limited;
mod server_failure;
mod own_listeners;
mod registry;
mod fallback;

use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::addr::{ClientAddr, ClientHost};
pub use agent::AgentSettings;
use candidates::{Candidate, CandidateSet};
use ejection::Ejection;
pub use ejection::{EjectLimits, RETURN_WAIT};
pub use facts::{FailedCheck, Numbering, Role, ServerFacts, Stream, WalPosition};
pub use fallback::FallbackOrigin;
pub use health::{ActiveChecks, CheckChange, CheckOutcome, CheckState, CheckVerdict, Health, RefusedCheck, Thresholds};
pub use known_primary::{KnownPrimary, Standing};
pub use lease::{Lease, NoLease};
pub use limited::QueueFailure;
pub use live_count::CountId;
pub use member::Member;
pub use member_state::MemberState;
pub use overrides::{AdminState, Override, Overrides};
pub use own_listeners::{LeftOutServer, ListenerLookup, OwnListener, OwnListeners};
pub use queue::{PoolQueue, QueueTurn};
pub use registry::{ServerPath, ServerRegistry};
pub use requirement::RoleRequirement;
pub use roles::{PoolRoles, RoleJudgement};
use round_robin::RoundRobin;
pub use rules::{Policy, PoolRules, QueueLimits};
pub use server::Server;
pub use server_failure::{AfterFailure, ServerFailure};
pub use server_load::ServerLoad;
use server_observer::ServerObserver;
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
    /// Shared by all pools of this name.
    queue: Arc<PoolQueue>,
    /// Turns of equally loaded servers, and those of `round-robin` when a session cannot use its first choice.
    tie_breaker: TurnCounter,
    // A blocking mutex: held for a few lines after a failure.
    ejecting: Mutex<()>,
}

impl Pool {
    /// Creates a pool of these servers, with a new queue.
    #[must_use]
    pub fn new(name: Arc<str>, rules: PoolRules, servers: Vec<Member>) -> Self {
        Self::with_queue(name, rules, servers, Arc::default())
    }

    /// Creates a pool of these servers. Their changes are reported to the queue.
    #[must_use]
    pub fn with_queue(name: Arc<str>, rules: PoolRules, servers: Vec<Member>, queue: Arc<PoolQueue>) -> Self {
        let pool = Self {
            name,
            rules,
            members: ArcSwap::default(),
            snapshot: SnapshotCell::new(Arc::clone(&queue) as Arc<dyn ServerObserver>),
            was_resolved: AtomicBool::new(false),
            queue,
            tie_breaker: TurnCounter::default(),
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

    /// Makes the clients in the queue wait for the servers of this pool from now on. `shared`: this pool, or the value
    /// that contains it.
    pub fn take_over_queue(&self, shared: Weak<dyn AsRef<Self> + Send + Sync>) {
        self.queue.put_in_force(shared);
    }

    /// Records that the host names of its servers have been resolved, as far as possible.
    pub fn mark_resolved(&self) {
        self.was_resolved.store(true, Release);
    }

    /// Whether the host names of its servers have been resolved, as far as possible.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.was_resolved.load(Acquire)
    }

    /// Whether there is a server now that a session could be given. A server at its session limit counts, too.
    #[must_use]
    pub fn is_usable(&self, now: Instant) -> bool {
        !self.snapshot(now).set.candidates.is_empty()
    }

    /// The next instant at which time alone may change the candidates or their weights; `None`: never.
    #[must_use]
    pub fn changes_at(&self, now: Instant) -> Option<Instant> {
        self.snapshot(now).set.expires_at()
    }

    /// Whether a session would be given the primary, because no replica is usable.
    #[must_use]
    pub fn is_on_stand_in(&self, now: Instant) -> bool {
        let snapshot = self.snapshot(now);
        snapshot.set.are_stand_ins && !snapshot.set.candidates.is_empty()
    }

    /// The best tier that has a server that is up; `None`: there is none.
    #[must_use]
    pub fn best_tier(&self, now: Instant) -> Option<u8> {
        self.snapshot(now).set.best_tier
    }

    /// Whether a tier is in panic: too few of its servers are healthy, so unhealthy ones are picked, too.
    #[must_use]
    pub fn is_panicking(&self, now: Instant) -> bool {
        self.snapshot(now).set.panic_tier.is_some()
    }

    /// Whether the tier of this server is in panic, and the server is used even if it is not healthy.
    #[must_use]
    pub fn uses_in_panic(&self, server: &Member, now: Instant) -> bool {
        self.snapshot(now).set.panic_tier == Some(server.priority()) && server.is_usable_in_panic()
    }

    /// A lease on the server that the policy picks for this client, excluding `tried` (on which this session has
    /// failed).
    ///
    /// No lease is given on a server that has reached its limit of sessions, counted over all workers.
    ///
    /// Concurrent picks may see the same session counts. Then a server may exceed its share, by at most one session
    /// for each concurrent pick; equally loaded servers take turns, which spreads these picks. A first pick usually
    /// takes no lock and allocates nothing: only the first one after a change computes the candidates anew. A retry
    /// always does.
    ///
    /// # Errors
    /// [`NoLease`]: no server is left, or the client has to wait.
    pub fn pick(&self, client: ClientAddr, tried: &[ServerId], now: Instant) -> Result<Lease, NoLease> {
        let snapshot = self.snapshot(now);
        if snapshot.set.is_limited {
            return self.pick_limited(client.host(), tried, now);
        }
        if !tried.is_empty() {
            let lease = self.pick_again(client.host(), tried.to_vec(), now);
            return lease.ok_or_else(|| self.no_lease_for(tried));
        }
        let chosen = match self.rules.policy {
            Policy::RoundRobin => snapshot.next_turn(),
            _ => self.choose(&snapshot.set.candidates, client.host()),
        };
        let lease = chosen.and_then(|chosen| match snapshot.set.admit(chosen, &self.rules, now) {
            Some(kind) => Some(Lease::take(&chosen.server, kind)),
            None => self.pick_again(client.host(), vec![chosen.server.id()], now),
        });
        lease.ok_or_else(|| self.no_lease_for(tried))
    }

    /// A lease on a server that is not excluded; `None`: none can be picked.
    #[cold]
    fn pick_again(&self, client: ClientHost, mut excluded: Vec<ServerId>, now: Instant) -> Option<Lease> {
        let members = self.members.load();
        // Bounded: each round either returns or excludes one more server.
        loop {
            let set = CandidateSet::new(&members, &self.rules, now, |id| excluded.contains(&id));
            let chosen = self.choose(&set.candidates, client)?;
            if let Some(kind) = set.admit(chosen, &self.rules, now) {
                return Some(Lease::take(&chosen.server, kind));
            }
            excluded.push(chosen.server.id());
        }
    }

    /// The servers that may be picked now, the preferred ones first: best tier first, unchecked servers last within a
    /// tier that is not in panic, and stand-ins after all tiers. A policy that picks by the client further sorts them
    /// in the order in which it tries them for this client.
    #[must_use]
    pub fn in_order(&self, client: Option<ClientHost>, now: Instant) -> Vec<Member> {
        let servers = self.members.load();
        let mut order: Vec<usize> = Vec::with_capacity(servers.len());
        // Each round lists the best tier of the servers that are not listed yet.
        loop {
            let is_listed = |id| order.iter().any(|index| servers[*index].id() == id);
            let next = CandidateSet::new(&servers, &self.rules, now, is_listed).candidates;
            if next.is_empty() {
                break;
            }
            match (client, self.rules.policy) {
                (Some(client), Policy::SourceHash) => order.extend(source_hash::in_order(&next, client)),
                _ => order.extend(next.iter().map(|candidate| candidate.index)),
            }
        }
        order.into_iter().map(|index| servers[index].clone()).collect()
    }

    fn choose<'a>(&self, candidates: &'a [Candidate], client: ClientHost) -> Option<&'a Candidate> {
        match self.rules.policy {
            Policy::LeastConn => least_conn::choose(candidates, |equals| self.tie_breaker.take() % equals),
            Policy::SourceHash => source_hash::choose(candidates, client),
            // Only sessions that cannot use their first choice come here. They have turns of their own: if they used
            // those of first choices, the server after a failing one would get retries only.
            Policy::RoundRobin => {
                let position = RoundRobin::new(candidates, self.tie_breaker.take()).next()?;
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

    /// Records that a session has connected to a server of this pool. Returns whether that ended an ejection. Later
    /// calls for the same lease change nothing.
    pub fn record_connect(&self, lease: &Lease) -> bool {
        let was_recorded = lease.note_served();
        !was_recorded && lease.server().record_connect(lease.kind())
    }

    /// Records that a session has ended. Returns what that changed.
    pub fn record_end(&self, lease: &Lease, session: &FinishedSession, now: Instant) -> Option<EjectionChange> {
        match session.outcome(self.rules.eject.on_reset) {
            SessionOutcome::Served => {
                let ended_ejection = lease.server().record_served(session.connected_at);
                ended_ejection.then_some(EjectionChange::Ended)
            }
            SessionOutcome::Unserved => {
                let back_off = self.update_ejection(lease, now, |ejection, permitted| {
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

    /// Changes the ejection of a server after a failure. `record` gets whether the pool permits one more ejection, and
    /// returns the back-off if it ejects the server.
    fn update_ejection(
        &self,
        lease: &Lease,
        now: Instant,
        record: impl FnOnce(&mut Ejection, bool) -> Option<Duration>,
    ) -> Option<Duration> {
        // One at a time, so that two workers do not each eject one of the last two servers.
        let _one_at_a_time = self.ejecting.lock();
        let servers = self.members.load();
        let others = || {
            servers
                .iter()
                .filter(|server| server.id() != lease.server().id() && server.is_in_service())
        };
        let others_usable = others().any(|server| server.availability(now).is_up_or_unchecked());
        // As if this server were ejected, too.
        let ejected = 1 + others().filter(|server| server.is_ejected()).count();
        let permitted =
            others_usable && ejected * 100 <= (1 + others().count()) * self.rules.eject.percent_max as usize;
        lease.server().record_failure(|ejection| record(ejection, permitted))
    }
}

impl AsRef<Self> for Pool {
    fn as_ref(&self) -> &Self {
        self
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
