//! One server: who it is, how it is doing, how many sessions it has.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::health::{Checked, Checks, EjectLimits, Ejection, Terms, Thresholds, Verdict};
use crate::addr::ServerAddr;

/// A number no other server of this process ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u64);

impl ServerId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// Who a server is; all that is known of it before it has been used.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// What log, metrics and API call it: its name, else its address as written, else `host:port@address`.
    pub label: Arc<str>,
    /// What source-hash knows it by: its name, else its address as written; never its position.
    pub identity: Arc<str>,
    /// Where it answers.
    pub address: ServerAddr,
    /// The name that was resolved to this address, as written; `None`: the address itself is what is written.
    pub resolved_from: Option<Arc<str>>,
}

impl ServerSpec {
    /// Whether both are the same server of a pool, so that what is known of one holds for the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.label == other.label && self.address == other.address
    }
}

/// What the configuration gives a server: how much, and when. It may change while the server stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// Its share, 0 to 256; 0 takes no new session.
    pub weight: u16,
    /// Its tier, 0 the best: a worse one is used only when every better one has no usable server.
    pub priority: u8,
}

impl Default for Allotment {
    fn default() -> Self {
        Self { weight: 1, priority: 0 }
    }
}

/// One server of a pool.
#[derive(Debug)]
pub struct Server {
    id: ServerId,
    spec: ServerSpec,
    key: u64,
    weight: AtomicU16,
    priority: AtomicU8,
    live: AtomicU32,
    served: AtomicU64,
    /// The state of `checks`, to be read without its lock.
    checked: AtomicU8,
    /// Bits of [`TROUBLED`], [`EJECTED`] and [`FAILING`], to be read without a lock.
    marks: AtomicU8,
    // Std mutexes: held for a few lines, only by the prober and by sessions whose server has failed lately.
    checks: Mutex<Checks>,
    ejection: Mutex<Ejection>,
}

const TROUBLED: u8 = 1; // something is on record in `ejection`
const EJECTED: u8 = 2; // `ejection` says out
const FAILING: u8 = 4; // the latest check failed

/// Whether a server may be picked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is up.
    Up,
    /// Nothing is known of it yet.
    Unchecked,
    /// Its back-off is over: one session may try it.
    Trial,
    /// It is down, or out for a while.
    Out,
}

impl Server {
    /// A server nobody has used yet; `is_checked` tells whether active checks will look after it.
    #[must_use]
    pub fn new(spec: ServerSpec, allotment: Allotment, is_checked: bool) -> Self {
        let checks = if is_checked { Checks::new() } else { Checks::off() };
        Self {
            id: ServerId::next(),
            key: xxh3_64(spec.identity.as_bytes()),
            spec,
            weight: AtomicU16::new(allotment.weight),
            priority: AtomicU8::new(allotment.priority),
            live: AtomicU32::new(0),
            served: AtomicU64::new(0),
            checked: AtomicU8::new(checks.state() as u8),
            marks: AtomicU8::new(0),
            checks: Mutex::new(checks),
            ejection: Mutex::new(Ejection::default()),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// Who it is.
    #[must_use]
    pub fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// Gives it another share from now on.
    pub fn allot(&self, allotment: Allotment) {
        self.weight.store(allotment.weight, Relaxed);
        self.priority.store(allotment.priority, Relaxed);
    }

    /// Its share of new sessions, 0 to 256.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.weight.load(Relaxed)
    }

    /// Its tier, 0 the best.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.priority.load(Relaxed)
    }

    /// XXH3-64 of its identity, for source-hash.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Sessions on it now, those being dialled included.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// Sessions it has ever got; health checks are none.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// What its checks say.
    #[must_use]
    pub fn checked(&self) -> Checked {
        match self.checked.load(Relaxed) {
            0 => Checked::Unchecked,
            1 => Checked::Up,
            _ => Checked::Down,
        }
    }

    /// Whether failed connects have taken it out.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    /// Whether it is in use: up, and not ejected. This is the metric `acequia_server_up`.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.checked() == Checked::Up && !self.is_ejected()
    }

    /// Whether it may be picked at this moment.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        let checked = self.checked();
        if self.weight() == 0 || checked == Checked::Down {
            return Standing::Out;
        }
        if self.is_ejected() {
            // While the checks still fail, an expired back-off proves nothing.
            let due = !self.has(FAILING) && self.ejection().is_due(now);
            return if due { Standing::Trial } else { Standing::Out };
        }
        if checked == Checked::Up {
            Standing::Up
        } else {
            Standing::Unchecked
        }
    }

    /// Takes a result of its prober in; the new state if it changed. `rise` good checks in a row also end an ejection.
    pub fn record_check(&self, verdict: &Verdict, thresholds: Thresholds) -> Option<Checked> {
        let pass = *verdict == Verdict::Pass;
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = checks.record(pass, thresholds);
        self.checked.store(checks.state() as u8, Relaxed);
        self.mark(FAILING, checks.failing());
        if self.is_ejected() {
            let mut ejection = self.ejection();
            ejection.checked(pass, thresholds.rise);
            self.show(&ejection);
        }
        changed
    }

    /// A session has connected.
    pub(super) fn connected(&self) -> bool {
        self.served.fetch_add(1, Relaxed);
        if !self.has(TROUBLED) {
            return false;
        }
        let mut ejection = self.ejection();
        let was_out = ejection.succeeded();
        self.show(&ejection);
        was_out
    }

    /// A connect has failed; the back-off, if that takes it out.
    pub(super) fn connect_failed(
        &self,
        now: Instant,
        limits: EjectLimits,
        permitted: bool,
        terms: Terms,
    ) -> Option<Duration> {
        let mut ejection = self.ejection();
        let out = ejection.failed(now, limits, permitted, terms);
        self.show(&ejection);
        out
    }

    /// On what terms a session that has chosen it may have it, claiming the trial where there is one. Its standing is
    /// looked at anew: since it became a candidate another session may have claimed that trial, and then it is out.
    pub(super) fn admit(&self, now: Instant, connect_timeout: Duration) -> Option<Terms> {
        match self.standing(now) {
            Standing::Up | Standing::Unchecked => Some(Terms::Free),
            Standing::Trial => self
                .ejection()
                .claim_trial(now, connect_timeout)
                .then_some(Terms::Trial),
            Standing::Out => None,
        }
    }

    fn ejection(&self) -> std::sync::MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, ejection: &Ejection) {
        self.mark(TROUBLED, !ejection.is_clean());
        self.mark(EJECTED, ejection.is_out());
    }

    fn has(&self, mark: u8) -> bool {
        self.marks.load(Relaxed) & mark != 0
    }

    fn mark(&self, mark: u8, set: bool) {
        if set {
            self.marks.fetch_or(mark, Relaxed)
        } else {
            self.marks.fetch_and(!mark, Relaxed)
        };
    }
}

/// One session's place on a server. Dropping it gives the place back.
#[must_use = "dropping the lease gives the place back"]
#[derive(Debug)]
pub struct Lease {
    server: Arc<Server>,
    terms: Terms,
}

impl Lease {
    pub(super) fn take(server: &Arc<Server>, terms: Terms) -> Self {
        server.live.fetch_add(1, Relaxed);
        Self {
            server: Arc::clone(server),
            terms,
        }
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms
    }

    /// The server the place is on.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.live.fetch_sub(1, Relaxed);
    }
}
