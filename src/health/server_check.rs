//! The checks of one server, and what follows from their results.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::account::{CheckResult, Metrics, ServerSeries};
use crate::check::{Check, CheckFailure, CheckPass, CheckTarget, Probe};
use crate::dial::ConnectOptions;
use crate::error::chain;
use crate::live::{LivePool, RecordedOutcome};
use crate::plan::{HealthPlan, PoolPlan};
use crate::pool::{CheckOutcome, CheckState, RefusedCheck, Server};

/// How the servers of a pool are checked. If a reload changes this, their checks are restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckPlan {
    pub(super) health: HealthPlan,
    /// The same as for sessions: what keeps these from connecting must fail a check, too.
    connect: ConnectOptions,
}

impl CheckPlan {
    pub(super) fn of(pool: &PoolPlan) -> Self {
        Self {
            health: pool.health.clone(),
            connect: pool.dial.connect,
        }
    }
}

/// The check of one server of a pool.
pub(super) struct ServerCheck {
    probe: Box<dyn Probe>,
    plan: CheckPlan,
    pub(super) server: Arc<Server>,
    series: Arc<ServerSeries>,
}

impl ServerCheck {
    /// `check`: that of the plan.
    pub(super) fn new(check: Arc<dyn Check>, plan: CheckPlan, server: Arc<Server>, series: Arc<ServerSeries>) -> Self {
        Self {
            probe: check.probe(target(&plan, &server)),
            plan,
            server,
            series,
        }
    }

    /// If the server must have a role, a panic does not use it before a check has found that it has. As an unchecked server
    /// it is still used while no server of its pool is up.
    pub(super) fn await_role(&self) {
        if self.plan.health.required.is_set() {
            self.server.assume_unfit();
        }
    }

    /// The time between the starts of two checks, by the present state of the server.
    pub(super) fn interval(&self) -> Duration {
        if self.server.check_state() == CheckState::Down {
            self.plan.health.interval_down
        } else {
            self.plan.health.interval
        }
    }

    /// Runs the check once, for its timeout at most.
    pub(super) async fn run(&self) -> Result<CheckPass, CheckFailure> {
        let result = timeout(self.plan.health.timeout, self.probe.run()).await;
        result.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    /// Whether the server's role need not be known, or was found to be right a short time ago.
    fn is_role_trusted(&self) -> bool {
        let HealthPlan {
            required, role_trust, ..
        } = &self.plan.health;
        !required.is_set() || self.server.passed_within(*role_trust)
    }

    /// Logs when checks begin to be refused, when the server gets no new sessions for that, and when they are refused no
    /// more.
    fn log_refusal(&self, pool: &LivePool, before: RefusedCheck) {
        let health = self.server.health();
        if health.refusal == before {
            return;
        }
        let (pool, server) = (pool.name(), &self.server.spec().label);
        let reason = health.reason.as_deref().unwrap_or_default();
        match health.refusal {
            RefusedCheck::None => tracing::info!(%pool, %server, "checks are no longer refused"),
            RefusedCheck::Tolerated => {
                tracing::warn!(%pool, %server, reason, "check refused: the server lives, and is used as before");
            }
            RefusedCheck::Suspended => {
                tracing::warn!(%pool, %server, reason, "check refused: the server lives, and gets no new sessions");
            }
        }
    }

    /// Has the pool judge and record a result, and counts it. Returns the servers that were up and are down now.
    pub(super) fn record(
        &self,
        pool: &LivePool,
        metrics: &Metrics,
        result: Result<CheckPass, CheckFailure>,
    ) -> Vec<Arc<Server>> {
        let was_ejected = self.server.is_ejected();
        let refusal_before = self.server.health().refusal;
        let timed_out = matches!(&result, Err(CheckFailure::Io(error)) if error.kind() == io::ErrorKind::TimedOut);
        let found = match result {
            Ok(CheckPass {
                facts,
                certificate_ends,
            }) => {
                if let Some(end) = certificate_ends {
                    self.series.publish_certificate_expiry(end);
                }
                Ok(facts)
            }
            Err(CheckFailure::Refused {
                reason,
                accepts_sessions,
            }) => Err(CheckOutcome::Refused {
                reason: reason.into(),
                accepts_sessions: accepts_sessions && self.is_role_trusted(),
            }),
            Err(CheckFailure::Unfit(reason)) => Err(CheckOutcome::Unfit(reason.into())),
            Err(CheckFailure::Io(error)) => Err(CheckOutcome::Fail(chain(&error).into())),
        };
        let was_refused = matches!(found, Err(CheckOutcome::Refused { .. }));
        let recorded = pool.record_check(&self.server, found);
        let is_own_failure = |recorded: &RecordedOutcome| {
            recorded.server.id() == self.server.id() && recorded.outcome.reason().is_some()
        };
        self.series.record_check(match recorded.iter().any(is_own_failure) {
            _ if timed_out => CheckResult::Timeout,
            _ if was_refused => CheckResult::Refused,
            true => CheckResult::Fail,
            false => CheckResult::Pass,
        });
        if was_ejected && !self.server.is_ejected() {
            tracing::info!(pool = %pool.name(), server = %self.server.spec().label, "server is back");
        }
        self.log_refusal(pool, refusal_before);
        report_changes(pool, metrics, &recorded);
        let went_down = recorded.into_iter().filter(RecordedOutcome::took_down);
        went_down.map(|recorded| recorded.server).collect()
    }
}

/// Counts and logs which servers have changed their state.
pub fn report_changes(pool: &LivePool, metrics: &Metrics, recorded: &[RecordedOutcome]) {
    let pool = pool.name();
    for RecordedOutcome {
        server,
        outcome,
        changed,
        ..
    } in recorded
    {
        let Some(state) = *changed else { continue };
        metrics.server(pool, server).record_transition(state == CheckState::Up);
        let server = &server.spec().label;
        match outcome.reason() {
            None => tracing::info!(%pool, %server, "server is up"),
            Some(reason) => tracing::warn!(%pool, %server, %reason, "server is down"),
        }
    }
}

fn target(plan: &CheckPlan, server: &Server) -> CheckTarget {
    let spec = server.spec();
    let address = plan.health.address.unwrap_or(spec.address);
    let port = plan.health.port.unwrap_or(spec.address.port());
    let host_and_port = spec.resolved_from.as_deref().and_then(|from| from.rsplit_once(':'));
    CheckTarget {
        address: address.with_port(port),
        host: host_and_port.map(|(host, _)| host.into()),
        connect: plan.connect,
    }
}
