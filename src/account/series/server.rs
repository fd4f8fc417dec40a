//! The series of a server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use metrics::Label;

use super::{Counters, Source};
use crate::account::histogram::{HANDSHAKE_BOUNDS, Histogram};
use crate::account::names;
use crate::dial::ConnectFailure;
use crate::pool::{Server, ServerId};

/// What came of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// Good.
    Pass,
    /// Bad.
    Fail,
    /// No answer in time.
    Timeout,
}

impl CheckResult {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Fail, Self::Timeout];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Timeout => "timeout",
        }
    }
}

/// The series of a server, or of all that are called so: one that was given another address is another server, while
/// sessions still go to the one before.
pub struct ServerSeries {
    // Std mutexes: for a line or two, when a server is met for the first time, at a check, when somebody looks.
    /// One; two while the one before it has sessions.
    servers: Mutex<Vec<Weak<Server>>>,
    /// When the certificate ends that it showed last, in seconds since the epoch; most servers never show one.
    certificate: Mutex<Option<i64>>,
    pub(in crate::account) connect: Histogram,
    failures: Counters<{ ConnectFailure::ALL.len() }>,
    checks: Counters<{ CheckResult::ALL.len() }>,
    transitions: Counters<2>,
}

impl ServerSeries {
    pub(in crate::account) fn new(source: &Source, labels: &[Label; 2]) -> Self {
        Self {
            servers: Mutex::default(),
            certificate: Mutex::default(),
            connect: Histogram::new(HANDSHAKE_BOUNDS),
            failures: Counters::new(source, names::CONNECT_FAILURES, labels, "reason"),
            checks: Counters::new(source, names::HEALTH_CHECKS, labels, "result"),
            transitions: Counters::new(source, names::HEALTH_TRANSITIONS, labels, "to"),
        }
    }

    /// An attempt to connect took so long, and failed or not.
    pub fn dialled(&self, took: Duration, failure: Option<ConnectFailure>) {
        match failure {
            None => self.connect.record(took),
            Some(failure) => self.failures.of(failure as usize, failure.as_str()).increment(1),
        }
    }

    /// A check has a result.
    pub fn checked(&self, result: CheckResult) {
        self.checks.of(result as usize, result.as_str()).increment(1);
    }

    /// Its certificate ends then, in seconds since the epoch.
    pub fn certificate_ends(&self, at: i64) {
        *self.certificate() = Some(at);
    }

    /// Nobody looks at its certificate any more.
    pub fn forget_certificate(&self) {
        *self.certificate() = None;
    }

    /// It went up or down.
    pub fn changed(&self, is_up: bool) {
        self.transitions
            .of(usize::from(is_up), if is_up { "up" } else { "down" })
            .increment(1);
    }

    /// From now on this server's too.
    pub(in crate::account) fn take_in(&self, server: &Arc<Server>) {
        let mut servers = self.servers();
        servers.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(server));
        servers.push(Arc::downgrade(server));
    }

    /// Whether nobody holds a server of this name any more: neither a pool nor a session.
    pub(in crate::account) fn is_over(&self) -> bool {
        self.servers().iter().all(|server| server.strong_count() == 0)
    }

    /// When the certificate ends that it showed last.
    pub(in crate::account) fn certificate_end(&self) -> Option<i64> {
        *self.certificate()
    }

    /// Sessions on servers of this name.
    pub(in crate::account) fn live(&self) -> u32 {
        self.sum_live(|_| true)
    }

    /// Sessions on servers of this name, but for those on this one.
    pub(in crate::account) fn live_but(&self, id: ServerId) -> u32 {
        self.sum_live(|server| server.id() != id)
    }

    fn sum_live(&self, is_counted: impl Fn(&Server) -> bool) -> u32 {
        let servers = self.servers();
        let there = servers.iter().filter_map(Weak::upgrade);
        there
            .filter(|server| is_counted(server))
            .map(|server| server.live())
            .sum()
    }

    fn certificate(&self) -> MutexGuard<'_, Option<i64>> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Weak<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the exporter from forgetting its counters.
    pub(in crate::account) fn touch(&self) {
        self.failures.touch();
        self.checks.touch();
        self.transitions.touch();
    }
}
