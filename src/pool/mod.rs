//! Servers that share a policy, and the choice of one of them.
//!
//! Each policy is a pure function over [`Candidate`]s in a file of its own. This file decides who is a candidate
//! and turns the choice into a [`Lease`].

mod candidates;
pub mod health;
mod lease;
pub mod least_conn;
mod member;
mod ramp;
pub mod random_two;
pub mod round_robin;
mod roster;
mod server;
pub mod source_hash;
mod spec;
mod steering;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::addr::ClientAddr;
use candidates::Choice;
pub use candidates::Standing;
use health::EjectLimits;
pub use lease::Lease;
pub use member::Member;
pub use roster::{Roster, ServerPath};
use round_robin::RoundRobin;
pub use server::Server;
pub use spec::{Allotment, ServerId, ServerSpec};
pub use steering::{Steer, Steering, Use};

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

/// What a policy sees of a server that may be picked.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its place in the pool, for the caller.
    pub index: usize,
    /// 1 to 256, or a hundred times that in a pool whose servers start slowly.
    pub weight: u16,
    /// Sessions on it now.
    pub live: u32,
    /// XXH3-64 of `identity`.
    pub key: u64,
    /// Who it is, for ties.
    pub identity: &'a str,
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
    was_resolved: AtomicBool,
    turn: AtomicUsize,
    // Std mutexes: a few lines each, one for the pools that take turns, one for failed connects.
    round_robin: Mutex<RoundRobin>,
    ejecting: Mutex<()>,
}

impl Pool {
    /// A pool of these servers.
    #[must_use]
    pub fn new(name: Arc<str>, rules: PoolRules, servers: Vec<Member>) -> Self {
        Self {
            name,
            rules,
            members: ArcSwap::from_pointee(servers),
            was_resolved: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            round_robin: Mutex::new(RoundRobin::default()),
            ejecting: Mutex::new(()),
        }
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
        let keys: Vec<u64> = servers.iter().map(|server| server.key()).collect();
        self.members.store(Arc::new(servers));
        self.turns().keep_only(keys.into_iter());
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
        let servers = self.members.load();
        let up = servers.iter().filter(|server| server.standing(now) == Standing::Up);
        up.map(|server| server.priority()).min()
    }

    /// Whether so few servers of the best tier are well that all of them are used.
    #[must_use]
    pub fn is_panicking(&self, now: Instant) -> bool {
        candidates::tier_in_panic(&self.members.load(), &self.rules, now).is_some()
    }

    /// Whether so few are well that this one is used whether it is well or not.
    #[must_use]
    pub fn uses_in_panic(&self, server: &Member, now: Instant) -> bool {
        let tier = candidates::tier_in_panic(&self.members.load(), &self.rules, now);
        tier == Some(server.priority()) && server.is_fit()
    }

    /// A place on the server the policy chooses for this client, none of `tried` (those this session has failed on).
    ///
    /// Two picks at the same instant may see the same counts; the error is at most the number of picks in flight, and
    /// the turning tie-break spreads it.
    #[must_use]
    pub fn pick(&self, client: ClientAddr, tried: &[ServerId], now: Instant) -> Option<Lease> {
        let servers = self.members.load();
        let mut lost: Vec<ServerId> = Vec::new();
        // Bounded: each turn either returns or loses one more server.
        loop {
            let passed_over = |id| tried.contains(&id) || lost.contains(&id);
            let Choice { candidates, in_panic } = candidates::candidates(&servers, &self.rules, now, passed_over);
            let server = &servers[self.choose(&candidates, client.ip())?];
            if let Some(terms) = server.admit(now, self.rules.connect_timeout, in_panic) {
                return Some(Lease::take(server, terms));
            }
            lost.push(server.id());
        }
    }

    /// The servers that may be picked now: the best tier first, and within it the best first where the policy has an
    /// order that does not change by use (source-hash), else as written.
    #[must_use]
    pub fn in_order(&self, client: Option<IpAddr>, now: Instant) -> Vec<Member> {
        let servers = self.members.load();
        let mut order: Vec<usize> = Vec::with_capacity(servers.len());
        loop {
            let passed_over = |id| order.iter().any(|index| servers[*index].id() == id);
            let next = candidates::candidates(&servers, &self.rules, now, passed_over).candidates;
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

    fn choose(&self, candidates: &[Candidate<'_>], client: IpAddr) -> Option<usize> {
        match self.rules.policy {
            Policy::LeastConn => least_conn::choose(candidates, |equals| self.turn.fetch_add(1, Relaxed) % equals),
            Policy::SourceHash => source_hash::choose(candidates, client),
            Policy::RoundRobin => self.turns().choose(candidates),
            Policy::RandomTwo => random_two::choose(candidates, |bound| fastrand::usize(..bound)),
        }
    }

    fn turns(&self) -> MutexGuard<'_, RoundRobin> {
        self.round_robin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has connected to a server of this pool; whether that ended an ejection.
    pub fn connected(&self, lease: &Lease) -> bool {
        lease.server().connected()
    }

    /// A connect to a server of this pool has failed, by the server's fault; the back-off, if that takes it out.
    ///
    /// The last usable server is never taken out, nor more than the permitted share of the pool's servers; those that
    /// carry nothing (of weight 0, drained, disabled) do not count.
    pub fn connect_failed(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        // One at a time, so that two workers do not each take out one of the last two.
        let _turn = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = self.members.load();
        let others = || {
            servers
                .iter()
                .filter(|server| server.id() != lease.server().id() && server.is_enlisted())
        };
        let others_usable = others().any(|server| matches!(server.standing(now), Standing::Up | Standing::Unchecked));
        let out = 1 + others().filter(|server| server.is_ejected()).count();
        let permitted = others_usable && out * 100 <= (1 + others().count()) * self.rules.eject.percent_max as usize;
        lease
            .server()
            .connect_failed(now, self.rules.eject, permitted, lease.terms())
    }
}

#[cfg(test)]
mod tests;
