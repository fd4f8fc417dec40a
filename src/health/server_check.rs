//! The checks of one server, and what follows from their results.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::account::{CheckResult, ServerSeries};
use crate::check::{Check, CheckFailure, CheckPass, CheckTarget, Probe};
use crate::dial::ConnectOptions;
use crate::error::chain;
use crate::plan::{HealthPlan, PoolPlan};
use crate::pool::{CheckOutcome, CheckState, RefusedCheck, Server};

/// How the servers of a pool are checked. If this changes in a reload, their checks begin anew.
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
    fn log_refusal(&self, pool: &str, before: RefusedCheck) {
        let health = self.server.health();
        if health.refusal == before {
            return;
        }
        let server = &self.server.spec().label;
        let reason = health.reason.as_deref().unwrap_or_default();
        match health.refusal {
            RefusedCheck::None => tracing::info!(pool, %server, "checks are no longer refused"),
            RefusedCheck::Tolerated => {
                tracing::warn!(pool, %server, reason, "check refused: the server lives, and is used as before");
            }
            RefusedCheck::Suspended => {
                tracing::warn!(pool, %server, reason, "check refused: the server lives, and gets no new sessions");
            }
        }
    }

    /// Records a result in the server and in the metrics. Logs if the server has changed its state. Returns whether it went
    /// down.
    pub(super) fn record(&self, pool: &str, result: Result<CheckPass, CheckFailure>) -> bool {
        let (result, outcome) = match result {
            Ok(CheckPass {
                facts,
                certificate_ends,
            }) => {
                if let Some(end) = certificate_ends {
                    self.series.publish_certificate_expiry(end);
                }
                let outcome = self.plan.health.required.judge(&facts);
                let result = match outcome {
                    CheckOutcome::Pass => CheckResult::Pass,
                    _ => CheckResult::Fail,
                };
                (result, outcome)
            }
            Err(CheckFailure::Refused {
                reason,
                accepts_sessions,
            }) => {
                let refused = CheckOutcome::Refused {
                    reason: reason.into(),
                    accepts_sessions: accepts_sessions && self.is_role_trusted(),
                };
                (CheckResult::Refused, refused)
            }
            Err(CheckFailure::Unfit(reason)) => (CheckResult::Fail, CheckOutcome::Unfit(reason.into())),
            Err(CheckFailure::Io(error)) => {
                let result = if error.kind() == io::ErrorKind::TimedOut {
                    CheckResult::Timeout
                } else {
                    CheckResult::Fail
                };
                (result, CheckOutcome::Fail(chain(&error).into()))
            }
        };
        self.series.record_check(result);
        let was_ejected = self.server.is_ejected();
        let was_up = self.server.check_state() == CheckState::Up;
        let refusal_before = self.server.health().refusal;
        let changed = self.server.record_check(&outcome, self.plan.health.thresholds);
        let server = &self.server.spec().label;
        if was_ejected && !self.server.is_ejected() {
            tracing::info!(pool, %server, "server is back");
        }
        self.log_refusal(pool, refusal_before);
        let Some(state) = changed else { return false };
        self.series.record_transition(state == CheckState::Up);
        match outcome.reason() {
            None => tracing::info!(pool, %server, "server is up"),
            Some(reason) => tracing::warn!(pool, %server, %reason, "server is down"),
        }
        was_up && state == CheckState::Down
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
