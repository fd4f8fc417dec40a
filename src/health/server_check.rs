//! The checks of one server for one pool, and what follows from their results.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::account::{CheckResult, Metrics, ServerSeries};
use crate::check::{CertificateTimes, CheckFailure, CheckPass};
use crate::live::{LivePool, RecordedOutcome};
use crate::plan::HealthPlan;
use crate::pool::{AgentSettings, CheckOutcome, CheckVerdict, FailedCheck, RefusedCheck, Server, ServerFacts};
use crate::sever::closing_time;
use crate::text::Reason;
use crate::tls::error_chain;
use crate::units::format_duration;

/// The checks of one server for one pool.
pub(super) struct ServerCheck {
    pub(super) pool: Arc<str>,
    pub(super) server: Arc<Server>,
    series: Arc<ServerSeries>,
    /// A permit for each check of the pool that may be under way.
    pub(super) capacity: Arc<Semaphore>,
    /// Whether the pool requires a role, or limits the lag of replicas: then the role of the server must be known.
    needs_role: bool,
    /// Whether the server was enabled at the last call of [`Self::start_if_enabled`].
    was_enabled: AtomicBool,
}

impl ServerCheck {
    pub(super) fn new(
        pool: &LivePool,
        server: Arc<Server>,
        series: Arc<ServerSeries>,
        capacity: Arc<Semaphore>,
    ) -> Self {
        Self {
            pool: Arc::clone(pool.name()),
            server,
            series,
            capacity,
            needs_role: pool.plan().health.required.is_set(),
            was_enabled: AtomicBool::new(false),
        }
    }

    /// Returns whether the checks of the server begin now: it is enabled, and was not at the last call. When they begin
    /// for a server whose role must be known, and no check has had a result yet, the server gets no session (not even
    /// in panic mode) until a check has found that the role is right.
    pub(super) fn start_if_enabled(&self) -> bool {
        let is_enabled = !self.server.is_disabled();
        let starts = is_enabled && !self.was_enabled.load(Relaxed);
        self.was_enabled.store(is_enabled, Relaxed);
        if starts && self.needs_role {
            self.server.assume_unfit();
        }
        starts
    }

    /// Records how long a check took.
    pub(super) fn record_duration(&self, took: Duration) {
        self.series.record_check_duration(took);
    }

    /// Whether the server's role need not be known, or was found to be usable in this pool a short time ago.
    fn is_role_trusted(&self, plan: &HealthPlan) -> bool {
        !plan.required.is_set() || self.server.passed_within(plan.role_trust)
    }

    /// Logs when checks begin to be refused, when the server gets no new sessions because of that, and when checks are
    /// no longer refused. `before`: the state before this check. `is_prevented`: this host could not make the check.
    fn log_refusal(&self, pool: &LivePool, before: RefusedCheck, is_prevented: bool) {
        let health = self.server.health();
        if health.refusal == before {
            return;
        }
        let (pool, server) = (pool.name(), &self.server.spec().label);
        let reason = health.reason.as_deref().unwrap_or_default();
        match health.refusal {
            RefusedCheck::Tolerated if is_prevented => {
                tracing::warn!(%pool, %server, reason, "check refused: this host cannot make it, and the server is used as before");
            }
            RefusedCheck::Suspended if is_prevented => {
                tracing::warn!(%pool, %server, reason, "check refused: this host cannot make it, and the server gets no new sessions");
            }
            RefusedCheck::None => tracing::info!(%pool, %server, "checks are no longer refused"),
            RefusedCheck::Tolerated => {
                tracing::warn!(%pool, %server, reason, "check refused: the server lives, and is used as before");
            }
            RefusedCheck::Suspended => {
                tracing::warn!(%pool, %server, reason, "check refused: the server lives, and gets no new sessions");
            }
        }
    }

    /// Applies the settings in a result, and returns what the result means for this pool. If the role of the server
    /// must be known, but the server refuses to report it, the check counts as refused.
    fn apply_and_interpret(
        &self,
        pool: &LivePool,
        result: &Result<CheckPass, CheckFailure>,
    ) -> Result<ServerFacts, FailedCheck> {
        let plan = &pool.plan().health;
        let refused = |reason: &str, accepts_sessions: bool| {
            let outcome = CheckOutcome::Refused {
                reason: reason_given(reason),
                accepts_sessions: accepts_sessions && self.is_role_trusted(plan),
            };
            Err(outcome.into())
        };
        match result {
            Ok(pass) => {
                self.apply_settings(pool, pass);
                match &pass.role_denied {
                    Some(reason) if plan.required.is_set() => refused(reason, true),
                    _ => Ok(pass.facts),
                }
            }
            Err(CheckFailure::Refused {
                reason,
                accepts_sessions,
            }) => refused(reason, *accepts_sessions),
            Err(CheckFailure::Down { reason, agent }) => {
                self.apply_agent(pool, *agent);
                Err(CheckOutcome::Down(reason_given(reason)).into())
            }
            Err(CheckFailure::Unfit { reason, facts }) => Err(FailedCheck {
                outcome: CheckOutcome::Unfit(reason_given(reason)),
                facts: facts.clone(),
            }),
            Err(CheckFailure::Local(error)) => {
                let outcome = CheckOutcome::Prevented {
                    reason: reason_given(&error_chain(error)),
                    accepts_sessions: self.is_role_trusted(plan),
                };
                Err(outcome.into())
            }
            // A shortage does not get here: `record` returns before.
            Err(CheckFailure::Io(error) | CheckFailure::Shortage(error)) => {
                Err(CheckOutcome::Fail(reason_given(&error_chain(error))).into())
            }
        }
    }

    /// Applies what a passed check has found out besides the facts: the settings of the agent, and the certificate.
    fn apply_settings(&self, pool: &LivePool, pass: &CheckPass) {
        match &pass.agent_lost {
            None => self.apply_agent(pool, pass.agent),
            Some(error) => {
                self.server.set_agent(pass.agent);
                let (pool, server, error) = (pool.name(), &self.server.spec().label, reason_given(error));
                tracing::warn!(%pool, %server, %error, "the server's agent does not answer: what it has said no longer holds");
            }
        }
        if let Some(CertificateTimes { not_before, not_after }) = pass.certificate {
            self.series.publish_certificate(not_before, not_after);
        }
    }

    fn apply_agent(&self, pool: &LivePool, agent: AgentSettings) {
        if self.server.set_agent(agent) {
            tracing::info!(pool = %pool.name(), server = %self.server.spec().label, settings = %agent, "set by the server's agent");
        }
    }

    /// Makes the pool judge and record a result, and counts it. A shortage of this host is not a result. Returns the
    /// servers that were up, and are down now because of a failure.
    pub(super) fn record(
        &self,
        pool: &LivePool,
        metrics: &Metrics,
        result: &Result<CheckPass, CheckFailure>,
    ) -> Vec<Arc<Server>> {
        if let Err(CheckFailure::Shortage(_)) = result {
            return Vec::new();
        }
        let was_ejected = self.server.is_ejected();
        let refusal_before = self.server.health().refusal;
        let has_timed_out = matches!(result, Err(CheckFailure::Io(error)) if error.kind() == io::ErrorKind::TimedOut);
        let found = self.apply_and_interpret(pool, result);
        let was_refused = matches!(&found, Err(failed) if matches!(failed.outcome, CheckOutcome::Refused { .. } | CheckOutcome::Prevented { .. }));
        let recorded = pool.record_check(&self.server, found);
        self.series.record_check(match self.failed_outcome(&recorded) {
            _ if has_timed_out => CheckResult::Timeout,
            _ if was_refused => CheckResult::Refused,
            Some(CheckOutcome::Unfit(_) | CheckOutcome::Behind(_)) => CheckResult::WrongRole,
            Some(_) => CheckResult::Fail,
            None => CheckResult::Pass,
        });
        if was_ejected && !self.server.is_ejected() {
            tracing::info!(pool = %pool.name(), server = %self.server.spec().label, "server is back");
        }
        let is_prevented = matches!(result, Err(CheckFailure::Local(_)));
        self.log_refusal(pool, refusal_before, is_prevented);
        report_changes(pool, metrics, &recorded);
        let failed = recorded.into_iter().filter(RecordedOutcome::is_failure);
        failed.map(|recorded| recorded.server).collect()
    }

    /// The first outcome of this server that is not a pass. `recorded` may also contain outcomes of other servers,
    /// because a check of one server may change what the pool knows of the roles of all.
    fn failed_outcome<'a>(&self, recorded: &'a [RecordedOutcome]) -> Option<&'a CheckOutcome> {
        let of_server = recorded
            .iter()
            .filter(|recorded| recorded.server.id() == self.server.id());
        of_server
            .map(|recorded| &recorded.outcome)
            .find(|outcome| outcome.reason().is_some())
    }
}

/// This reason; if it is empty, a text that says that the server has given none.
fn reason_given(reason: &str) -> Reason {
    match reason.trim() {
        "" => "the server gives no reason".into(),
        _ => reason.into(),
    }
}

/// Counts and logs the changes of verdicts. The log also says how many sessions are cut because of such a change.
pub fn report_changes(pool: &LivePool, metrics: &Metrics, recorded: &[RecordedOutcome]) {
    for RecordedOutcome {
        server,
        outcome,
        change,
    } in recorded
    {
        let Some(verdict) = change.verdict else { continue };
        metrics.server(pool.name(), server).record_transition(verdict);
        let cut_within = closing_time(pool, server, Instant::now()); // `None`: no sessions are cut
        let sessions_cut = cut_within.map(|_| server.live());
        let within = cut_within.map(format_duration);
        let (pool, server) = (pool.name(), &server.spec().label);
        let reason = outcome.reason().map(|reason| &**reason).unwrap_or_default();
        match verdict {
            CheckVerdict::Down => tracing::warn!(%pool, %server, reason, sessions_cut, within, "server is down"),
            CheckVerdict::WrongRole => {
                tracing::info!(%pool, %server, reason, sessions_cut, within, "server answers, but is out of use for its role or lag");
            }
            // Also logged if the first check was refused, but the server accepts sessions.
            CheckVerdict::Up => tracing::info!(%pool, %server, "server is up"),
            CheckVerdict::Unchecked => {}
        }
    }
}
