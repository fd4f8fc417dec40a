//! One server: its identity, health, operator overrides and session counts.

mod administration;
mod findings;
mod picking;
mod published;

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::agent::{AgentRecord, AgentSettings};
use super::changes::Subscribers;
use super::ejection::{Ejection, LeaseKind};
use super::health::{
    ActiveChecks, CheckChange, CheckOutcome, CheckRecord, CheckState, Health, RefusedCheck, Thresholds,
};
use super::live_count::LiveCount;
use super::overrides::Overrides;
use super::server_observer::ServerObserver;
use super::slow_start::SlowStart;
use super::{CountId, ServerId, ServerSpec};
use crate::tls::ResumableSessions;

/// One server of a pool.
#[derive(Debug)]
// The first fields, which each pick reads, usually share a cache line with the reference count, which each pick writes.
#[repr(C)]
pub struct Server {
    /// The count that `live_count` owns. This is a copy of its pointer, so that a pick reads one cache line less.
    live: &'static AtomicU32,
    /// The number of sessions on this server alone. `None` for the first server with this `live_count`: `own_live()`
    /// computes the number.
    own_live: Option<AtomicU32>,
    /// The queue in which clients of its pool wait; `None`: no client ever waits for this server.
    queue: Option<Arc<dyn ServerObserver>>,
    id: ServerId,
    spec: ServerSpec,
    identity_hash: u64,
    /// A copy of the weight in `overrides`, or [`NOT_SET`], to be read without a lock.
    weight_override: AtomicU16,
    served: AtomicU64,
    /// A copy of the state in `checks`, to be read without a lock.
    check_state: AtomicU8,
    /// Bits such as [`EJECTED`], to be read without a lock. All but [`STAND_IN`] are copies of what locked fields say.
    flags: AtomicU16,
    slow_start: SlowStart,
    // Blocking mutexes: held for a few lines, and not by sessions on a server without recent failures.
    checks: Mutex<CheckRecord>,
    ejection: Mutex<Ejection>,
    overrides: Mutex<Overrides>,
    /// What its agent has set. Locked after `overrides`.
    agent: Mutex<AgentRecord>,
    /// A copy of the percentage in `agent`, or [`NOT_SET`], to be read without a lock.
    weight_percent: AtomicU16,
    admin_state_changed: Notify,
    /// Set when a session first uses TLS with it.
    tls_sessions: OnceLock<ResumableSessions>,
    /// The pools whose snapshots are built from this server's state.
    subscribers: Subscribers,
    /// Shared by all servers of the pool at its address, whatever their names.
    live_count: Arc<LiveCount>,
}

/// The value of `weight_override` if an operator has set no weight, and of `weight_percent` if the agent has set no
/// percentage. Larger than any weight and any percentage.
const NOT_SET: u16 = u16::MAX;

const HAS_FAILURES: u16 = 1; // see `Ejection::is_clean`
const EJECTED: u16 = 2; // see `Ejection::is_ejected`
const FAILING: u16 = 4; // see `RiseFall::is_failing`
const UNFIT: u16 = 8; // see `RiseFall::is_unfit`
const NOT_ENABLED: u16 = 16; // an override or its agent keeps new sessions away
const DISABLED: u16 = 32; // disabled by an operator
const DOWN_FOR_LAG: u16 = 64; // down only because it is behind its primary
const SUSPENDED: u16 = 128; // see `RiseFall::is_suspended`
const STAND_IN: u16 = 256; // the primary of a pool of replicas with `fallback = "primary"`

impl Server {
    /// A server without sessions; `is_checked` tells whether active checks run for it.
    #[must_use]
    pub fn new(spec: ServerSpec, is_checked: bool) -> Self {
        let checks = CheckRecord::new(match is_checked {
            true => ActiveChecks::Health,
            false => ActiveChecks::None,
        });
        let live_count = Arc::new(LiveCount::new());
        Self {
            id: ServerId::next(),
            identity_hash: xxh3_64(spec.identity.as_bytes()),
            spec,
            weight_override: AtomicU16::new(NOT_SET),
            live: live_count.get(),
            own_live: None,
            queue: None,
            served: AtomicU64::new(0),
            check_state: AtomicU8::new(checks.rise_fall.state() as u8),
            flags: AtomicU16::new(0),
            slow_start: SlowStart::new(),
            checks: Mutex::new(checks),
            ejection: Mutex::new(Ejection::default()),
            overrides: Mutex::new(Overrides::default()),
            agent: Mutex::default(),
            weight_percent: AtomicU16::new(NOT_SET),
            admin_state_changed: Notify::new(),
            tls_sessions: OnceLock::new(),
            subscribers: Subscribers::default(),
            live_count,
        }
    }

    /// Identifies its count of sessions. It is the same for all servers of one pool and address, because they share the
    /// count.
    #[must_use]
    pub fn count_id(&self) -> CountId {
        self.live_count.id()
    }

    /// This server with the queue of its pool. The end of each of its sessions serves the queue.
    #[must_use]
    pub(super) fn with_queue(self, queue: Arc<dyn ServerObserver>) -> Self {
        Self {
            queue: Some(queue),
            ..self
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

    /// The TLS sessions that can be resumed with it.
    pub fn tls_sessions(&self) -> &ResumableSessions {
        self.tls_sessions.get_or_init(ResumableSessions::default)
    }

    /// XXH3-64 of its identity, for source-hash.
    pub(super) fn identity_hash(&self) -> u64 {
        self.identity_hash
    }

    /// Open sessions, including those that are still connecting. All servers of one pool and address share one count,
    /// so that the limit of a server also holds after it has got another name.
    #[must_use]
    #[inline]
    pub fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// How many sessions have connected to it so far; health checks do not count.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// The state according to its checks; without checks, always `Up`.
    #[must_use]
    pub fn check_state(&self) -> CheckState {
        match self.check_state.load(Relaxed) {
            0 => CheckState::Unchecked,
            1 => CheckState::Up,
            _ => CheckState::Down,
        }
    }

    /// What its checks say, why, and since when.
    #[must_use]
    pub fn health(&self) -> Health {
        let checks = self.checks.lock();
        Health {
            verdict: checks.rise_fall.verdict(),
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

    /// Whether it is not ejected, and its checks, if it has any, say that it may serve sessions. Whether it gets new
    /// sessions also depends on its weight, tier and administrative state.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.check_state() == CheckState::Up && !self.has(EJECTED | SUSPENDED)
    }

    /// Whether it gets no new sessions because of its latest check. Either the server said that it does not work, or
    /// takes no sessions; or the check was refused, or prevented by this host, and the server's role is not known any
    /// more.
    pub(super) fn is_suspended(&self) -> bool {
        self.has(SUSPENDED)
    }

    /// Whether neither an override nor its agent keeps new sessions away: it is not draining, disabled or awaiting
    /// failback.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.has(NOT_ENABLED)
    }

    /// Whether it is down, and not only because its role is wrong. A server whose role is wrong counts as failed only
    /// after `fall` failures in a row.
    pub(super) fn has_failed(&self, fall: u32) -> bool {
        self.checks.lock().rise_fall.has_failed(fall)
    }

    /// Whether its role is wrong, or required and not known yet, or it is down because it is behind its primary.
    #[must_use]
    pub fn is_unfit(&self) -> bool {
        self.has(UNFIT)
    }

    /// Whether it is down only because it is behind its primary.
    #[must_use]
    pub fn is_down_for_lag(&self) -> bool {
        self.has(DOWN_FOR_LAG)
    }

    /// Records the result of a check. `rise` passed checks in a row also end an ejection, unless unserved sessions are
    /// recorded (see `Ejection`). Results for a disabled server are ignored.
    pub fn record_check(&self, outcome: &CheckOutcome, thresholds: Thresholds) -> CheckChange {
        let mut checks = self.checks.lock();
        let before = checks.rise_fall.state();
        // A reload may have switched checks off while this check ran. No later check would correct its result.
        if self.has(DISABLED) || !checks.rise_fall.is_enabled() {
            return CheckChange {
                before,
                state: None,
                verdict: None,
            };
        }
        let verdict_before = checks.rise_fall.verdict();
        let was_refused = checks.rise_fall.refusal() != RefusedCheck::None;
        let changed = checks.rise_fall.record(outcome, thresholds);
        checks.reason = outcome.reason().cloned();
        let is_refused = checks.rise_fall.refusal() != RefusedCheck::None;
        let verdict = checks.rise_fall.verdict();
        let change = CheckChange {
            before,
            state: changed,
            verdict: (verdict != verdict_before).then_some(verdict),
        };
        if change.verdict.is_some() || was_refused != is_refused {
            checks.since = SystemTime::now();
        }
        match outcome {
            CheckOutcome::Pass => checks.passed_at = Some(Instant::now()),
            CheckOutcome::Unfit(_) => checks.passed_at = None,
            _ => {}
        }
        if outcome.proves_serving() {
            checks.seen_serving_at = Instant::now();
        }
        self.publish_checks(&checks);
        if (before, changed) == (CheckState::Down, Some(CheckState::Up)) {
            self.begin_slow_start();
        }
        if self.is_ejected() {
            let mut ejection = self.ejection.lock();
            if ejection.record_check(*outcome == CheckOutcome::Pass, thresholds.rise) {
                self.begin_slow_start();
            }
            self.publish_ejection(&ejection);
        }
        change
    }

    /// If it has no check result yet, treats its role as wrong until a check finds that the role is right. Until then
    /// it gets no session, not even in panic mode.
    pub fn assume_unfit(&self) {
        let mut checks = self.checks.lock();
        if checks.rise_fall.is_enabled() && checks.rise_fall.state() == CheckState::Unchecked {
            checks.rise_fall.assume_unfit();
            self.publish_checks(&checks);
        }
    }

    /// If the server is down because it does not answer its checks or says that it does not work, treats its role as
    /// wrong until a check finds that the role is right, and returns true. The server stays down for the same reason as
    /// before.
    pub(super) fn reject_if_dead(&self) -> bool {
        let mut checks = self.checks.lock();
        let is_dead = checks.rise_fall.state() == CheckState::Down && !checks.rise_fall.is_healthy();
        if is_dead {
            checks.rise_fall.assume_unfit();
            checks.passed_at = None;
            self.publish_checks(&checks);
        }
        is_dead
    }

    /// Forgets what its checks have found if it must have a role: the server may have lost the role while it was in no
    /// pool and was not checked.
    pub fn forget_role(&self) {
        let mut checks = self.checks.lock();
        if checks.active == ActiveChecks::HealthAndRole {
            *checks = CheckRecord::new(checks.active);
            self.publish_checks(&checks);
        }
    }

    /// Sets which active checks run for it. Results so far are kept unless checks begin or end. Without checks, the
    /// settings of its agent are discarded, because only checks ask the agent.
    pub fn set_active_checks(&self, active: ActiveChecks) {
        let mut checks = self.checks.lock();
        if (checks.active == ActiveChecks::None) != (active == ActiveChecks::None) {
            *checks = CheckRecord::new(active);
            self.publish_checks(&checks);
        } else if checks.active != active {
            checks.active = active;
            checks.rise_fall.require_role(active == ActiveChecks::HealthAndRole);
            self.publish_checks(&checks);
        }
        drop(checks); // `set_agent` locks `overrides`, which is locked before `checks`
        if active == ActiveChecks::None {
            self.set_agent(AgentSettings::default());
        }
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

    /// Records the end of a session that proves neither success nor failure.
    pub(super) fn record_inconclusive(&self) {
        if !self.has_clean_record() {
            self.ejection.lock().record_inconclusive();
        }
    }

    /// Whether sessions have recorded nothing against it. If so, the end of a session that was served changes nothing.
    #[must_use]
    pub fn has_clean_record(&self) -> bool {
        !self.has(HAS_FAILURES)
    }

    fn record_success(&self, record: impl FnOnce(&mut Ejection) -> bool) -> bool {
        let mut ejection = self.ejection.lock();
        let has_ended = record(&mut ejection);
        self.publish_ejection(&ejection);
        if has_ended {
            self.begin_slow_start();
        }
        has_ended
    }

    /// Records a failure. Returns the back-off if it ejects the server.
    pub(super) fn record_failure(&self, record: impl FnOnce(&mut Ejection) -> Option<Duration>) -> Option<Duration> {
        let mut ejection = self.ejection.lock();
        let back_off = record(&mut ejection);
        self.publish_ejection(&ejection);
        back_off
    }
}
