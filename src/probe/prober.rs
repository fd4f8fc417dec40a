//! One server and how it is checked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::postgres::PostgresProbe;
use super::tcp;
use super::tls::TlsProbe;
use crate::account::{CheckResult, ServerSeries};
use crate::addr::ServerAddr;
use crate::dial::{ConnectFailure, ConnectOptions};
use crate::plan::{CheckKind, HealthPlan, PoolPlan};
use crate::pool::Server;
use crate::pool::health::{Checked, Verdict};

/// Why a check is not good.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be made, or not to its end.
    Io(io::Error),
    /// The server is well, and not what is wanted.
    Unfit(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A check that cannot be made for what is wrong with a file of ours. Shortages of ours stay what they are.
pub(super) fn of_file(key: &str, error: io::Error) -> io::Error {
    if ConnectFailure::of(&error).is_our_shortage() {
        return error;
    }
    io::Error::new(error.kind(), format!("{key}: {error}"))
}

/// What is done, ready to be done.
enum Probe {
    Tcp,
    Tls(TlsProbe),
    Postgres(Box<PostgresProbe>),
}

/// What the checks of a pool go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckPlan {
    pub(super) health: HealthPlan,
    /// As for sessions: what these meet first, a check must meet too.
    pub(super) connect: ConnectOptions,
}

impl CheckPlan {
    pub(super) fn of(pool: &PoolPlan) -> Self {
        Self {
            health: pool.health.clone(),
            connect: pool.dial.connect,
        }
    }
}

/// Checks one server.
pub(super) struct Prober {
    probe: Probe,
    target: ServerAddr,
    plan: CheckPlan,
    pub(super) server: Arc<Server>,
    series: Arc<ServerSeries>,
}

impl Prober {
    pub(super) fn new(kind: CheckKind, plan: CheckPlan, server: Arc<Server>, series: Arc<ServerSeries>) -> Self {
        let own = server.spec().address;
        let CheckPlan { health, .. } = &plan;
        let target = health
            .address
            .unwrap_or(own)
            .with_port(health.port.unwrap_or(own.port()));
        let host = server.spec().resolved_from.as_deref();
        let host = host.and_then(|written| written.rsplit_once(':')).map(|(host, _)| host);
        Self {
            probe: match kind {
                CheckKind::Tcp => Probe::Tcp,
                CheckKind::Tls(check) => Probe::Tls(TlsProbe::new(check, host, target)),
                CheckKind::Postgres(check) => Probe::Postgres(Box::new(PostgresProbe::new(check))),
            },
            target,
            plan,
            server,
            series,
        }
    }

    /// A server whose role matters is not known to have it before a check has said so.
    pub(super) fn doubt(&self) {
        if let Probe::Postgres(probe) = &self.probe
            && probe.check.wants_a_role()
        {
            self.server.doubt();
        }
    }

    /// Between the starts of two checks, as things stand.
    pub(super) fn interval(&self) -> Duration {
        if self.server.checked() == Checked::Down {
            self.plan.health.interval_down
        } else {
            self.plan.health.interval
        }
    }

    /// Checks once, within its time.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let (target, connect) = (self.target, &self.plan.connect);
        let checked = timeout(self.plan.health.timeout, async {
            match &self.probe {
                Probe::Tcp => Ok(tcp::check(target, connect).await?),
                Probe::Tls(probe) => {
                    if let Some(end) = probe.check(target, connect).await? {
                        self.series.publish_certificate_expiry(end);
                    }
                    Ok(())
                }
                Probe::Postgres(probe) => probe.check(target, connect).await,
            }
        });
        checked
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    /// Tells the server, the metrics and, if that changes something, the log.
    pub(super) fn take_in(&self, pool: &str, checked: Result<(), Failure>) {
        let (result, verdict) = match checked {
            Ok(()) => (CheckResult::Pass, Verdict::Pass),
            Err(Failure::Unfit(reason)) => (CheckResult::Fail, Verdict::Unfit(reason.into())),
            Err(Failure::Io(error)) => {
                let is_late = error.kind() == io::ErrorKind::TimedOut;
                let result = if is_late {
                    CheckResult::Timeout
                } else {
                    CheckResult::Fail
                };
                (result, Verdict::Fail(error.to_string().into()))
            }
        };
        self.series.record_check(result);
        let was_ejected = self.server.is_ejected();
        let changed = self.server.record_check(&verdict, self.plan.health.thresholds);
        let server = &self.server.spec().label;
        if was_ejected && !self.server.is_ejected() {
            tracing::info!(pool, %server, "server is back");
        }
        let Some(state) = changed else { return };
        self.series.record_transition(state == Checked::Up);
        match verdict {
            Verdict::Pass => tracing::info!(pool, %server, "server is up"),
            Verdict::Fail(reason) | Verdict::Unfit(reason) => {
                tracing::warn!(pool, %server, %reason, "server is down");
            }
        }
    }
}
