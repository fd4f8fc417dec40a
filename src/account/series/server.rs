//! The series of a server.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::Label;
use parking_lot::Mutex;

use super::counters::{LabelledCounters, SharedRecorder};
use crate::account::histogram::{HANDSHAKE_BOUNDS, Histogram};
use crate::account::names;
use crate::dial::ConnectFailure;
use crate::pool::{CheckVerdict, Server};

/// The result of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The server passed the check.
    Pass,
    /// The server failed the check.
    Fail,
    /// The server did not respond in time.
    Timeout,
    /// The server answered, but refused the check; or this host lacks something that the check needs.
    Refused,
    /// The server works, but it has another role than its pool requires, or is too far behind, or no pool may use it (a
    /// member that is not in sync with its cluster, for example).
    WrongRole,
}

impl CheckResult {
    /// All results, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Fail, Self::Timeout, Self::Refused, Self::WrongRole];

    /// The value of the label `result`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::WrongRole => "wrong_role",
        }
    }
}

/// The series of all servers with one label in one pool. There may be several such servers: when an address changes, a
/// new server takes over the label while the old one still has sessions.
pub struct ServerSeries {
    // This mutex and the next are blocking, locked for a statement or two: when a server is first used, when the
    // servers or the checks of its pool have changed, after a check, and at a scrape.
    servers: Mutex<Vec<Weak<Server>>>,
    /// When the certificate that the latest check read becomes valid, and when it expires, in seconds since the Unix
    /// epoch. `None`: no certificate was read yet, or no check reads certificates any more.
    certificate: Mutex<Option<[i64; 2]>>,
    /// Whether the checks log in to a service, which may refuse them.
    may_refuse_checks: AtomicBool,
    pub(in crate::account) connect_duration: Histogram,
    pub(in crate::account) check_duration: Histogram,
    connect_failures: LabelledCounters<{ ConnectFailure::ALL.len() }>,
    checks: LabelledCounters<{ CheckResult::ALL.len() }>,
    transitions: LabelledCounters<3>,
}

impl ServerSeries {
    pub(in crate::account) fn new(recorder: &SharedRecorder, labels: &[Label; 2]) -> Self {
        Self {
            servers: Mutex::default(),
            certificate: Mutex::default(),
            may_refuse_checks: AtomicBool::new(false),
            connect_duration: Histogram::new(HANDSHAKE_BOUNDS),
            check_duration: Histogram::new(HANDSHAKE_BOUNDS),
            connect_failures: LabelledCounters::new(recorder, names::CONNECT_FAILURES, labels, "reason"),
            checks: LabelledCounters::new(recorder, names::HEALTH_CHECKS, labels, "result"),
            transitions: LabelledCounters::new(recorder, names::HEALTH_TRANSITIONS, labels, "to"),
        }
    }

    /// Counts an attempt to connect: its duration if it succeeded, else the reason of the failure.
    pub fn record_attempt(&self, duration: Duration, failure: Option<ConnectFailure>) {
        match failure {
            None => self.connect_duration.record(duration),
            Some(failure) => self
                .connect_failures
                .get(failure as usize, failure.as_str())
                .increment(1),
        }
    }

    /// Failed attempts to connect, by reason. Reasons that did not occur are left out.
    pub(in crate::account) fn failed_connects(&self) -> impl Iterator<Item = (ConnectFailure, u64)> {
        let count = |failure: ConnectFailure| (failure, self.connect_failures.count(failure as usize));
        ConnectFailure::ALL
            .into_iter()
            .map(count)
            .filter(|(_, count)| *count > 0)
    }

    /// Counts the duration of a health check.
    pub fn record_check_duration(&self, duration: Duration) {
        self.check_duration.record(duration);
    }

    /// Counts a health check.
    pub fn record_check(&self, result: CheckResult) {
        self.checks.get(result as usize, result.as_str()).increment(1);
    }

    /// Sets when the server's certificate becomes valid, and when it expires, in seconds since the Unix epoch.
    pub fn publish_certificate(&self, not_before: i64, not_after: i64) {
        *self.certificate.lock() = Some([not_before, not_after]);
    }

    /// Removes the times of the certificate, because no check reads the certificate any more.
    pub fn clear_certificate(&self) {
        *self.certificate.lock() = None;
    }

    /// When the certificate becomes valid, and when it expires, in seconds since the Unix epoch, if known.
    pub(in crate::account) fn certificate(&self) -> Option<[i64; 2]> {
        *self.certificate.lock()
    }

    /// Sets whether the checks log in to a service, which may refuse them.
    pub fn publish_may_refuse_checks(&self, may_refuse: bool) {
        self.may_refuse_checks.store(may_refuse, Relaxed);
    }

    /// Whether the checks log in to a service, which may refuse them.
    pub(in crate::account) fn may_refuse_checks(&self) -> bool {
        self.may_refuse_checks.load(Relaxed)
    }

    /// Counts that the checks' verdict on the server has changed to `verdict`; a change to `Unchecked` is not counted.
    pub fn record_transition(&self, verdict: CheckVerdict) {
        let (index, word) = match verdict {
            CheckVerdict::Unchecked => return,
            CheckVerdict::Down => (0, "down"),
            CheckVerdict::Up => (1, "up"),
            CheckVerdict::WrongRole => (2, "wrong_role"),
        };
        self.transitions.get(index, word).increment(1);
    }

    /// Adds a server with this label, if it is not known yet, and forgets those that are gone.
    pub(in crate::account) fn add_server(&self, server: &Arc<Server>) {
        let mut servers = self.servers.lock();
        servers.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(server));
        servers.push(Arc::downgrade(server));
    }

    /// Whether every server with this label is gone: neither a pool nor a session holds one.
    pub(in crate::account) fn is_gone(&self) -> bool {
        self.servers.lock().iter().all(|server| server.strong_count() == 0)
    }

    /// The number of sessions on all servers with this label but `excluded`.
    pub(in crate::account) fn active_sessions(&self, excluded: Option<&Arc<Server>>) -> u32 {
        let servers = self.servers.lock();
        let existing = servers.iter().filter_map(Weak::upgrade);
        let others = existing.filter(|server| excluded.is_none_or(|excluded| excluded.id() != server.id()));
        others.map(|server| server.own_live()).sum()
    }

    /// Exports the counters.
    pub(in crate::account) fn export(&self) {
        self.connect_failures.export();
        self.checks.export();
        self.transitions.export();
    }
}
