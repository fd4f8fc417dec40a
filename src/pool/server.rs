//! One server: who it is, how it is doing, how many sessions it has.

mod picking;

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::changes::Subscribers;
use super::health::{Checked, Ejection, Health, Story, Terms, Thresholds, Verdict};
use super::ramp::Ramp;
use super::steering::{Steering, Use};
use super::{ServerId, ServerSpec};

/// One server of a pool.
#[derive(Debug)]
#[repr(C)] // the first field shares, as a rule, a cache line with the reference count, which a pick changes too
pub struct Server {
    live: AtomicU32,
    id: ServerId,
    spec: ServerSpec,
    key: u64,
    /// What its share is steered to, or [`AS_CONFIGURED`]: of `steering`, to be read without its lock.
    weight: AtomicU16,
    served: AtomicU64,
    /// The state of `checks`, to be read without its lock.
    checked: AtomicU8,
    /// Bits of [`TROUBLED`] and its neighbours, to be read without a lock.
    marks: AtomicU8,
    ramp: Ramp,
    // Std mutexes: held for a few lines, only by the prober, by sessions whose server has failed lately, by an operator
    // and by those who look.
    checks: Mutex<Story>,
    ejection: Mutex<Ejection>,
    steering: Mutex<Steering>,
    steered: Notify,
    /// The pools whose snapshots are built from what is said here.
    subscribers: Subscribers,
}

/// More than any weight: nobody has said one.
const AS_CONFIGURED: u16 = u16::MAX;

const TROUBLED: u8 = 1; // something is on record in `ejection`
const EJECTED: u8 = 2; // `ejection` says out
const FAILING: u8 = 4; // the latest check failed
const UNFIT: u8 = 8; // not known to be what is wanted, or known not to be
const LEAVING: u8 = 16; // steered to take no new session
const DISABLED: u8 = 32; // neither to be checked

impl Server {
    /// A server nobody has used yet; `is_checked` tells whether active checks will look after it.
    #[must_use]
    pub fn new(spec: ServerSpec, is_checked: bool) -> Self {
        let story = Story::new(is_checked);
        Self {
            id: ServerId::next(),
            key: xxh3_64(spec.identity.as_bytes()),
            spec,
            weight: AtomicU16::new(AS_CONFIGURED),
            live: AtomicU32::new(0),
            served: AtomicU64::new(0),
            checked: AtomicU8::new(story.machine.state() as u8),
            marks: AtomicU8::new(0),
            ramp: Ramp::new(),
            checks: Mutex::new(story),
            ejection: Mutex::new(Ejection::default()),
            steering: Mutex::new(Steering::default()),
            steered: Notify::new(),
            subscribers: Subscribers::default(),
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

    /// How it is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        let story = self.story();
        Health {
            checked: story.machine.state(),
            reason: story.reason.clone(),
            since: story.since,
        }
    }

    /// Whether failed connects have taken it out.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    /// Whether it is up: its checks say so, or it has none, and failed connects have not taken it out. This is what
    /// "up" means in metrics (`acequia_server_up`), API and commands. Whether it gets new sessions is another matter:
    /// that also depends on its weight, its tier and its use.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.checked() == Checked::Up && !self.has(EJECTED)
    }

    /// Whether an operator has taken it out of service, for new sessions at least.
    pub(super) fn is_leaving(&self) -> bool {
        self.has(LEAVING)
    }

    /// Whether it is known to be what is not wanted, or, where that matters, not known to be what is.
    pub(super) fn is_unfit(&self) -> bool {
        self.has(UNFIT)
    }

    /// Takes a result of its prober in; the new state if it changed. `rise` good checks in a row also end an ejection.
    /// Of a disabled server nothing is taken in.
    pub fn record_check(&self, verdict: &Verdict, thresholds: Thresholds) -> Option<Checked> {
        let mut story = self.story();
        if self.has(DISABLED) {
            return None;
        }
        let before = story.machine.state();
        let changed = story.machine.record(verdict, thresholds);
        story.reason = match verdict {
            Verdict::Pass => None,
            Verdict::Fail(reason) | Verdict::Unfit(reason) => Some(reason.clone()),
        };
        if changed.is_some() {
            story.since = SystemTime::now();
        }
        self.tell(&story);
        if (before, changed) == (Checked::Down, Some(Checked::Up)) {
            self.begin_slow_start();
        }
        if self.is_ejected() {
            let mut ejection = self.ejection();
            if ejection.checked(*verdict == Verdict::Pass, thresholds.rise) {
                self.begin_slow_start();
            }
            self.show(&ejection);
        }
        changed
    }

    /// Its role matters, and nothing is known of it until the next good check: no panic uses it before.
    pub fn doubt(&self) {
        let mut story = self.story();
        story.machine.doubt();
        self.tell(&story);
    }

    /// Whether active checks look after it from now on. What they have said so far goes on to hold, if they do already.
    pub fn set_checked(&self, is_checked: bool) {
        let mut story = self.story();
        if story.machine.is_on() != is_checked {
            *story = Story::new(is_checked);
            self.tell(&story);
        }
    }

    /// Does what an operator has said. A server that is disabled is forgotten, and begins anew when it is enabled.
    pub(super) fn steer(&self, to: Steering) {
        let mut steering = self.steered_by();
        let before = std::mem::replace(&mut *steering, to).usage;
        self.weight.store(steering.weight.unwrap_or(AS_CONFIGURED), Relaxed);
        self.subscribers.notify();
        if steering.usage == before {
            return;
        }
        self.mark(LEAVING, steering.usage != Use::Enabled);
        self.mark(DISABLED, steering.usage == Use::Disabled);
        if steering.usage == Use::Disabled {
            let mut story = self.story();
            *story = Story::new(story.machine.is_on());
            self.tell(&story);
            let mut ejection = self.ejection();
            *ejection = Ejection::default();
            self.show(&ejection);
        }
        if steering.usage == Use::Enabled {
            self.begin_slow_start();
        }
        self.steered.notify_waiters();
    }

    /// What an operator has said of it.
    #[must_use]
    pub fn steering(&self) -> Steering {
        self.steered_by().clone()
    }

    /// Whether an operator has taken it out of service entirely: it is not even checked.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.has(DISABLED)
    }

    /// Waits until it is steered to another use. What happens after this was called is not missed.
    pub fn steered(&self) -> impl Future<Output = ()> {
        self.steered.notified()
    }

    /// A session has connected; whether that ended an ejection.
    pub(super) fn connected(&self, terms: Terms) -> bool {
        self.served.fetch_add(1, Relaxed);
        self.is_troubled() && self.note(|ejection| ejection.succeeded(Instant::now(), terms))
    }

    /// A session that connected at this time was served; whether that ended an ejection.
    pub(super) fn has_served(&self, connected: Instant) -> bool {
        self.is_troubled() && self.note(|ejection| ejection.served(connected))
    }

    /// A session is over and proves nothing.
    pub(super) fn learnt_nothing(&self) {
        if self.is_troubled() {
            self.ejection().learnt_nothing();
        }
    }

    /// Whether sessions have anything on record against it.
    pub(super) fn is_troubled(&self) -> bool {
        self.has(TROUBLED)
    }

    /// Something good; whether it ended an ejection.
    fn note(&self, good: impl FnOnce(&mut Ejection) -> bool) -> bool {
        let mut ejection = self.ejection();
        let is_back = good(&mut ejection);
        self.show(&ejection);
        if is_back {
            self.begin_slow_start();
        }
        is_back
    }

    /// Something bad, which may take it out; the back-off, if it does.
    pub(super) fn blame(&self, bad: impl FnOnce(&mut Ejection) -> Option<Duration>) -> Option<Duration> {
        let mut ejection = self.ejection();
        let out = bad(&mut ejection);
        self.show(&ejection);
        out
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, story: &Story) {
        let state = story.machine.state() as u8;
        if self.checked.swap(state, Relaxed) != state {
            self.subscribers.notify();
        }
        self.mark(FAILING, story.machine.failing());
        self.mark(UNFIT, story.machine.unfit());
    }

    fn steered_by(&self) -> MutexGuard<'_, Steering> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, ejection: &Ejection) {
        self.mark(TROUBLED, !ejection.is_clean());
        self.mark(EJECTED, ejection.is_out());
        if ejection.is_out() {
            self.subscribers.notify(); // its back-off may be another one
        }
    }

    fn has(&self, mark: u8) -> bool {
        self.marks.load(Relaxed) & mark != 0
    }

    fn mark(&self, mark: u8, set: bool) {
        let before = if set {
            self.marks.fetch_or(mark, Relaxed)
        } else {
            self.marks.fetch_and(!mark, Relaxed)
        };
        if (before & mark != 0) != set && mark != TROUBLED {
            self.subscribers.notify();
        }
    }
}

#[cfg(test)]
impl Server {
    /// With so many sessions.
    pub(super) fn with_live(self, live: u32) -> Self {
        self.live.store(live, Relaxed);
        self
    }
}
