//! One server: its identity, health, operator overrides and session counts.

mod picking;

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::changes::Subscribers;
use super::ejection::{Ejection, LeaseKind};
use super::health::{CheckOutcome, CheckRecord, CheckState, Health, RefusedCheck, Thresholds};
use super::overrides::{AdminState, Overrides};
use super::slow_start::SlowStart;
use super::{ServerId, ServerSpec};

/// One server of a pool.
#[derive(Debug)]
#[repr(C)] // the first field usually shares a cache line with the reference count, which a pick writes too
pub struct Server {
    live: AtomicU32,
    id: ServerId,
    spec: ServerSpec,
    identity_hash: u64,
    /// A copy of the weight in `overrides`, or [`NO_WEIGHT`], to be read without a lock.
    weight_override: AtomicU16,
    served: AtomicU64,
    /// A copy of the state in `checks`, to be read without a lock.
    check_state: AtomicU8,
    /// Bits such as [`EJECTED`]: copies of what the locked fields say, to be read without a lock.
    flags: AtomicU8,
    slow_start: SlowStart,
    // Std mutexes: held for a few lines, and not by sessions on a server without recent failures.
    checks: Mutex<CheckRecord>,
    ejection: Mutex<Ejection>,
    overrides: Mutex<Overrides>,
    admin_state_changed: Notify,
    /// The pools whose snapshots are built from this server's state.
    subscribers: Subscribers,
}

/// The value of `weight_override` without an override; larger than any weight.
const NO_WEIGHT: u16 = u16::MAX;

const HAS_FAILURES: u8 = 1; // `ejection` is not clean
const EJECTED: u8 = 2; // `ejection` says so
const FAILING: u8 = 4; // the latest check did not pass
const UNFIT: u8 = 8; // the role is wrong, or required and not known
const NOT_ENABLED: u8 = 16; // draining or disabled
const DISABLED: u8 = 32;
const BEHIND: u8 = 64; // down only because it is behind its primary
const SUSPENDED: u8 = 128; // the latest check was refused, and it gets no new sessions

impl Server {
    /// A server without sessions; `is_checked` tells whether active checks run for it.
    #[must_use]
    pub fn new(spec: ServerSpec, is_checked: bool) -> Self {
        let checks = CheckRecord::new(is_checked);
        Self {
            id: ServerId::next(),
            identity_hash: xxh3_64(spec.identity.as_bytes()),
            spec,
            weight_override: AtomicU16::new(NO_WEIGHT),
            live: AtomicU32::new(0),
            served: AtomicU64::new(0),
            check_state: AtomicU8::new(checks.rise_fall.state() as u8),
            flags: AtomicU8::new(0),
            slow_start: SlowStart::new(),
            checks: Mutex::new(checks),
            ejection: Mutex::new(Ejection::default()),
            overrides: Mutex::new(Overrides::default()),
            admin_state_changed: Notify::new(),
            subscribers: Subscribers::default(),
        }
    }

    /// Its unique number in this process.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// Its names and address.
    #[must_use]
    pub fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// XXH3-64 of its identity, for source-hash.
    pub(super) fn identity_hash(&self) -> u64 {
        self.identity_hash
    }

    /// Open sessions, including those that are still connecting.
    #[must_use]
    #[inline]
    pub fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// Sessions that have connected since the server exists; health checks do not count.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// The state according to its checks.
    #[must_use]
    pub fn check_state(&self) -> CheckState {
        match self.check_state.load(Relaxed) {
            0 => CheckState::Unchecked,
            1 => CheckState::Up,
            _ => CheckState::Down,
        }
    }

    /// The state according to its checks, with the reason and time.
    #[must_use]
    pub fn health(&self) -> Health {
        let checks = self.lock_checks();
        Health {
            state: checks.rise_fall.state(),
            refusal: checks.rise_fall.refusal(),
            reason: checks.reason.clone(),
            since: checks.since,
        }
    }

    /// Whether failures of sessions have taken it out of use.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    /// Whether it is up: its checks say so, or it has none, and it is not ejected. This is what "up" means in metrics
    /// (`acequia_server_up`), API and commands. Whether it gets new sessions also depends on its weight, tier and
    /// administrative state.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.check_state() == CheckState::Up && !self.has(EJECTED | SUSPENDED)
    }

    /// Whether it gets no new sessions because its latest check was refused.
    pub(super) fn is_suspended(&self) -> bool {
        self.has(SUSPENDED)
    }

    /// Whether a check has passed within this time, and found no other role since.
    #[must_use]
    pub fn passed_within(&self, time: Duration) -> bool {
        self.lock_checks().passed_at.is_some_and(|at| at.elapsed() <= time)
    }

    /// Whether it is neither draining nor disabled.
    pub(super) fn is_enabled(&self) -> bool {
        !self.has(NOT_ENABLED)
    }

    /// Whether its role is wrong, or required and not known yet.
    pub(super) fn is_unfit(&self) -> bool {
        self.has(UNFIT)
    }

    /// Whether it is down only because it is behind its primary.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.has(BEHIND)
    }

    /// Records the result of a check. Returns the new state if it changed. `rise` passed checks in a row also end an
    /// ejection. Results for a disabled server are ignored.
    pub fn record_check(&self, outcome: &CheckOutcome, thresholds: Thresholds) -> Option<CheckState> {
        let mut checks = self.lock_checks();
        // A reload may have switched checks off while this one ran. No later check would correct its result.
        if self.has(DISABLED) || !checks.rise_fall.is_enabled() {
            return None;
        }
        let before = checks.rise_fall.state();
        let was_refused = checks.rise_fall.refusal() != RefusedCheck::None;
        let changed = checks.rise_fall.record(outcome, thresholds);
        checks.reason = outcome.reason().cloned();
        let is_refused = checks.rise_fall.refusal() != RefusedCheck::None;
        if changed.is_some() || was_refused != is_refused {
            checks.since = SystemTime::now();
        }
        match outcome {
            CheckOutcome::Pass => checks.passed_at = Some(Instant::now()),
            CheckOutcome::Unfit(_) => checks.passed_at = None,
            CheckOutcome::Fail(_) | CheckOutcome::Refused { .. } | CheckOutcome::Behind(_) => {}
        }
        self.publish_checks(&checks);
        if (before, changed) == (CheckState::Down, Some(CheckState::Up)) {
            self.begin_slow_start();
        }
        if self.is_ejected() {
            let mut ejection = self.lock_ejection();
            if ejection.record_check(*outcome == CheckOutcome::Pass, thresholds.rise) {
                self.begin_slow_start();
            }
            self.publish_ejection(&ejection);
        }
        changed
    }

    /// Treats its role as wrong until the next check that passes: it gets no session before its first check, and panic does
    /// not use it.
    pub fn assume_unfit(&self) {
        let mut checks = self.lock_checks();
        if checks.rise_fall.is_enabled() {
            checks.rise_fall.assume_unfit();
            self.publish_checks(&checks);
        }
    }

    /// Sets whether active checks run for it. Results so far are kept unless this changes.
    pub fn set_checked(&self, is_checked: bool) {
        let mut checks = self.lock_checks();
        if checks.rise_fall.is_enabled() != is_checked {
            *checks = CheckRecord::new(is_checked);
            self.publish_checks(&checks);
        }
    }

    /// Puts an operator's overrides in force. Disabling a server clears its health, so that it starts anew when it is
    /// enabled.
    pub(super) fn set_overrides(&self, new: Overrides) {
        let mut overrides = self.lock_overrides();
        let before = std::mem::replace(&mut *overrides, new).admin_state;
        let admin_state = overrides.admin_state;
        self.weight_override
            .store(overrides.weight.unwrap_or(NO_WEIGHT), Relaxed);
        self.subscribers.notify();
        if admin_state == before {
            return;
        }
        self.set_flag(NOT_ENABLED, admin_state != AdminState::Enabled);
        self.set_flag(DISABLED, admin_state == AdminState::Disabled);
        if admin_state == AdminState::Disabled {
            let mut checks = self.lock_checks();
            *checks = CheckRecord::new(checks.rise_fall.is_enabled());
            self.publish_checks(&checks);
            let mut ejection = self.lock_ejection();
            *ejection = Ejection::default();
            self.publish_ejection(&ejection);
        }
        if admin_state == AdminState::Enabled {
            self.begin_slow_start();
        }
        self.admin_state_changed.notify_waiters();
    }

    /// The overrides in force.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        self.lock_overrides().clone()
    }

    /// Whether an operator has disabled it: no new sessions and no checks.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.has(DISABLED)
    }

    /// Waits for the next change of its administrative state. A change after this call, even before the first poll, counts.
    pub fn admin_state_changed(&self) -> impl Future<Output = ()> {
        self.admin_state_changed.notified()
    }

    /// Records that a session has connected. Returns whether that ended an ejection.
    pub(super) fn record_connect(&self, kind: LeaseKind) -> bool {
        self.served.fetch_add(1, Relaxed);
        !self.has_clean_record() && self.record_success(|ejection| ejection.record_connect(Instant::now(), kind))
    }

    /// Records that a session that connected at this time was served. Returns whether that ended an ejection.
    pub(super) fn record_served(&self, connected_at: Instant) -> bool {
        !self.has_clean_record() && self.record_success(|ejection| ejection.record_served(connected_at))
    }

    /// Records that a session ended and proves nothing.
    pub(super) fn record_inconclusive(&self) {
        if !self.has_clean_record() {
            self.lock_ejection().record_inconclusive();
        }
    }

    /// Whether sessions have recorded nothing against it. Then the end of a session that was served changes nothing.
    #[must_use]
    pub fn has_clean_record(&self) -> bool {
        !self.has(HAS_FAILURES)
    }

    fn record_success(&self, record: impl FnOnce(&mut Ejection) -> bool) -> bool {
        let mut ejection = self.lock_ejection();
        let has_ended = record(&mut ejection);
        self.publish_ejection(&ejection);
        if has_ended {
            self.begin_slow_start();
        }
        has_ended
    }

    /// Records a failure. Returns the back-off if it ejects the server.
    pub(super) fn record_failure(&self, record: impl FnOnce(&mut Ejection) -> Option<Duration>) -> Option<Duration> {
        let mut ejection = self.lock_ejection();
        let back_off = record(&mut ejection);
        self.publish_ejection(&ejection);
        back_off
    }

    fn lock_checks(&self) -> MutexGuard<'_, CheckRecord> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_checks(&self, checks: &CheckRecord) {
        let state = checks.rise_fall.state() as u8;
        if self.check_state.swap(state, Relaxed) != state {
            self.subscribers.notify();
        }
        self.set_flag(FAILING, checks.rise_fall.is_failing());
        self.set_flag(UNFIT, checks.rise_fall.is_unfit());
        self.set_flag(BEHIND, checks.rise_fall.is_behind());
        self.set_flag(SUSPENDED, checks.rise_fall.refusal() == RefusedCheck::Suspended);
    }

    fn lock_overrides(&self) -> MutexGuard<'_, Overrides> {
        self.overrides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_ejection(&self, ejection: &Ejection) {
        self.set_flag(HAS_FAILURES, !ejection.is_clean());
        self.set_flag(EJECTED, ejection.is_ejected());
        if ejection.is_ejected() {
            self.subscribers.notify(); // the time of the trial may have changed
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    fn set_flag(&self, flag: u8, value: bool) {
        let before = if value {
            self.flags.fetch_or(flag, Relaxed)
        } else {
            self.flags.fetch_and(!flag, Relaxed)
        };
        if (before & flag != 0) != value && flag != HAS_FAILURES {
            self.subscribers.notify();
        }
    }
}

#[cfg(test)]
impl Server {
    /// This server with so many open sessions.
    pub(super) fn with_live(self, live: u32) -> Self {
        self.live.store(live, Relaxed);
        self
    }
}
