//! The state of a server according to its active checks. [`RiseFall`] is a pure state machine over results: those of
//! the server's checks, and verdicts on its role that follow from checks of other servers or `acequia pool trust`.

mod record;

use crate::text::Reason;
pub(super) use record::CheckRecord;
pub use record::{ActiveChecks, CheckChange, Health, RefusedCheck};

/// Whether a server may be picked at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// It is up.
    Up,
    /// It has no check result yet.
    Unchecked,
    /// It is ejected and its back-off is over: one session may try it.
    TrialDue,
    /// It is down or suspended, is not known to have a required role, is ejected while no trial is due, or is out of
    /// service (weight 0, drained, disabled or awaiting failback).
    Unavailable,
}

impl Availability {
    pub(super) const fn is_up_or_unchecked(self) -> bool {
        matches!(self, Self::Up | Self::Unchecked)
    }
}

/// The state of a server according to its active checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// No result yet. The server is used only in panic, or when no server of its tier that is up is left.
    Unchecked,
    /// In use.
    Up,
    /// Out of use.
    Down,
}

/// The verdict of a server's checks: whether it is in use, and if not, whether its role or lag is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckVerdict {
    /// Nothing is known yet: no check has failed, and none has brought it up.
    Unchecked,
    /// In use.
    Up,
    /// Its checks have failed, or it has said that it does not work.
    Down,
    /// It lives (fewer than `fall` failures in a row), but has the wrong role or is too far behind its primary.
    WrongRole,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The check passed.
    Pass,
    /// The check failed, and why. [`Thresholds::fall`] failures in a row take the server out.
    Fail(Reason),
    /// The server answered, but did not let the check in: it lives. Sessions are never cut for this.
    Refused {
        /// Why.
        reason: Reason,
        /// Whether it still gets new sessions. Then this counts as a pass, unless the server is unfit.
        accepts_sessions: bool,
    },
    /// This host lacks something that the check needs. The state of the server stays as it was.
    Prevented {
        /// What is lacking.
        reason: Reason,
        /// Whether a server that is up still gets new sessions: its role is known well enough.
        accepts_sessions: bool,
    },
    /// The server says itself that it does not work. One such result takes the server out, and one pass right after it
    /// brings the server back. Such a server is not used even in panic mode (`panic_threshold`).
    Down(Reason),
    /// The server works, but it must not be used, for this reason: its role is wrong, for instance. One such result
    /// takes the server out, and one pass right after it brings the server back.
    Unfit(Reason),
    /// The server works but is, or may be, too far behind its primary. Counts towards [`Thresholds::fall`] as a failure
    /// does. If the server goes down for this, its sessions are cut only with `on_lag = "close"`.
    Behind(Reason),
}

impl CheckOutcome {
    /// Whether the result shows that the server serves the sessions that it is meant for. A server that is behind does;
    /// one with the wrong role does not.
    pub(super) const fn proves_serving(&self) -> bool {
        matches!(
            self,
            Self::Pass
                | Self::Behind(_)
                | Self::Refused {
                    accepts_sessions: true,
                    ..
                }
        )
    }

    /// Why the check did not pass; `None`: it passed.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Pass => None,
            Self::Fail(reason)
            | Self::Refused { reason, .. }
            | Self::Prevented { reason, .. }
            | Self::Down(reason)
            | Self::Unfit(reason)
            | Self::Behind(reason) => Some(reason),
        }
    }
}

/// How many equal results in a row change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed checks that bring a server back; at least 1.
    pub rise: u32,
    /// Failed checks that take a server out; at least 1.
    pub fall: u32,
}

/// The state machine of active checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct RiseFall {
    state: CheckState,
    /// Results in a row that were like the latest one.
    streak: u32,
    /// Checks in a row with the result `Fail` or `Down`. Unlike `streak`, it begins anew when the server is behind or
    /// unfit.
    failures: u32,
    latest: LatestResult,
    /// Whether a server that is up still gets new sessions although this host prevented the latest check. `latest` is
    /// then the result of the last check that was not prevented. `None`: the latest check was not prevented.
    accepts_sessions_while_prevented: Option<bool>,
    /// The role is wrong: the latest check that could read the role found this, or another server was promoted since.
    /// Also set while a required role is not known yet.
    has_wrong_role: bool,
    /// The server is down only because it is behind.
    is_down_for_lag: bool,
    /// See [`Self::is_healthy`]. After a failure, passed checks do not make the server healthy before they bring it up.
    healthy: bool,
    verdict: CheckVerdict,
}

/// The latest check result, without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LatestResult {
    /// The server is not checked.
    Disabled,
    /// No result yet.
    None,
    Pass,
    Fail,
    Refused {
        accepts_sessions: bool,
    },
    Down,
    Unfit,
    Behind,
}

impl LatestResult {
    /// Whether both count for the same streak.
    fn is_like(self, other: Self) -> bool {
        let passes = |result| matches!(result, Self::Pass | Self::Refused { accepts_sessions: true });
        let does_not_pass = |result| matches!(result, Self::Fail | Self::Down | Self::Unfit | Self::Behind);
        self == other || passes(self) && passes(other) || does_not_pass(self) && does_not_pass(other)
    }
}

impl RiseFall {
    /// A server that will be checked and has no result yet.
    #[must_use]
    pub(super) const fn unchecked() -> Self {
        Self {
            state: CheckState::Unchecked,
            streak: 0,
            failures: 0,
            latest: LatestResult::None,
            accepts_sessions_while_prevented: None,
            has_wrong_role: false,
            is_down_for_lag: false,
            healthy: false,
            verdict: CheckVerdict::Unchecked,
        }
    }

    /// A server without checks. Its state is always [`CheckState::Up`].
    #[must_use]
    pub(super) const fn disabled() -> Self {
        Self {
            state: CheckState::Up,
            latest: LatestResult::Disabled,
            healthy: true,
            verdict: CheckVerdict::Up,
            ..Self::unchecked()
        }
    }

    /// Records one result. Returns the new state if it changed. The first that is not `Prevented` sets the first state.
    pub(super) fn record(&mut self, outcome: &CheckOutcome, thresholds: Thresholds) -> Option<CheckState> {
        let before = self.latest;
        self.accepts_sessions_while_prevented = None;
        let (latest, has_wrong_role) = match outcome {
            CheckOutcome::Prevented { accepts_sessions, .. } => {
                self.accepts_sessions_while_prevented = Some(*accepts_sessions);
                return None;
            }
            CheckOutcome::Pass => (LatestResult::Pass, false),
            // The next three results say nothing about the role.
            CheckOutcome::Fail(_) => (LatestResult::Fail, self.has_wrong_role),
            CheckOutcome::Down(_) => (LatestResult::Down, self.has_wrong_role),
            CheckOutcome::Refused { accepts_sessions, .. } => {
                let accepts_sessions = *accepts_sessions;
                (LatestResult::Refused { accepts_sessions }, self.has_wrong_role)
            }
            CheckOutcome::Unfit(_) => (LatestResult::Unfit, true),
            CheckOutcome::Behind(_) => (LatestResult::Behind, false),
        };
        self.has_wrong_role = has_wrong_role;
        self.streak = if latest.is_like(before) {
            self.streak.saturating_add(1)
        } else {
            1
        };
        self.failures = if matches!(latest, LatestResult::Fail | LatestResult::Down) {
            self.failures.saturating_add(1)
        } else {
            0
        };
        self.latest = latest;
        let counts_as_pass = match latest {
            LatestResult::Pass => true,
            LatestResult::Refused { accepts_sessions } => accepts_sessions && !self.is_unfit(),
            _ => false,
        };
        let next = match (self.state, latest) {
            (CheckState::Unchecked, _) if counts_as_pass => CheckState::Up,
            (CheckState::Unchecked, _) | (_, LatestResult::Down | LatestResult::Unfit) => CheckState::Down,
            (CheckState::Up, LatestResult::Fail | LatestResult::Behind) if self.streak >= thresholds.fall => {
                CheckState::Down
            }
            (CheckState::Down, _) if counts_as_pass && self.streak >= thresholds.rise => CheckState::Up,
            // The server answered all the time: it said that it does not work, or its role was wrong.
            (CheckState::Down, LatestResult::Pass) if matches!(before, LatestResult::Down | LatestResult::Unfit) => {
                CheckState::Up
            }
            (same, _) => same,
        };
        self.conclude(next, thresholds.fall);
        (next != self.state).then(|| {
            self.state = next;
            next
        })
    }

    /// Sets everything that follows from the latest result, except the state. The caller sets the state to `next`.
    fn conclude(&mut self, next: CheckState, fall: u32) {
        self.is_down_for_lag = next == CheckState::Down
            && match self.latest {
                LatestResult::Behind => true,
                LatestResult::Down | LatestResult::Unfit => false,
                // Failures and refusals say nothing about the lag. Passed checks end this once the server is up.
                _ => self.is_down_for_lag && self.failures < fall,
            };
        self.healthy = next == CheckState::Up
            || match self.latest {
                LatestResult::Unfit | LatestResult::Behind | LatestResult::Refused { .. } => true,
                // A server that is out of use because of its role or its lag may fail fewer than `fall` checks, as a
                // server that is up may.
                LatestResult::Fail => self.healthy && self.is_unfit() && self.failures < fall,
                LatestResult::Pass => self.healthy,
                _ => false,
            };
        self.verdict = match next {
            CheckState::Up => CheckVerdict::Up,
            _ if !self.healthy => CheckVerdict::Down,
            _ if matches!(self.latest, LatestResult::Unfit | LatestResult::Behind) => CheckVerdict::WrongRole,
            // It needs more passed checks, refuses its checks, or has failed fewer than `fall` of them.
            _ => self.verdict,
        };
    }

    #[must_use]
    pub(super) const fn state(&self) -> CheckState {
        self.state
    }

    /// Whether the server is checked at all.
    #[must_use]
    pub(super) fn is_enabled(&self) -> bool {
        self.latest != LatestResult::Disabled
    }

    /// Whether the latest check that was not prevented found the server failed, down, unfit or behind.
    #[must_use]
    pub(super) const fn is_failing(&self) -> bool {
        matches!(
            self.latest,
            LatestResult::Fail | LatestResult::Down | LatestResult::Unfit | LatestResult::Behind
        )
    }

    /// Whether the server is down, and not only because its role is wrong. A server with a wrong role has failed after
    /// `fall` failures in a row.
    #[must_use]
    pub(super) fn has_failed(&self, fall: u32) -> bool {
        self.state == CheckState::Down && !(self.has_wrong_role && self.failures < fall)
    }

    /// Whether the server said, at the latest check that was not prevented, that it does not work or takes no sessions;
    /// or the role of the server was not known any more when the latest check was refused or prevented.
    #[must_use]
    pub(super) const fn is_suspended(&self) -> bool {
        matches!(self.accepts_sessions_while_prevented, Some(false))
            || matches!(
                self.latest,
                LatestResult::Down
                    | LatestResult::Refused {
                        accepts_sessions: false
                    }
            )
    }

    /// Whether the latest check was refused by the server or prevented by this host. A server that has said that it
    /// accepts no sessions stays suspended while this host prevents checks.
    #[must_use]
    pub(super) const fn refusal(&self) -> RefusedCheck {
        match (self.accepts_sessions_while_prevented, self.latest) {
            (Some(false), _)
            | (
                _,
                LatestResult::Refused {
                    accepts_sessions: false,
                },
            ) => RefusedCheck::Suspended,
            (Some(true), _) | (_, LatestResult::Refused { accepts_sessions: true }) => RefusedCheck::Tolerated,
            _ => RefusedCheck::None,
        }
    }

    /// Whether the server is known to have the wrong role, is down because it is behind, or is required to have a role
    /// that is not known yet. A server that cannot be reached keeps the role it was last seen with.
    #[must_use]
    pub(super) const fn is_unfit(&self) -> bool {
        self.has_wrong_role || self.is_down_for_lag
    }

    /// Whether the server is up, or out of use only because its role is wrong, it is behind, or it refuses its checks.
    #[must_use]
    pub(super) const fn is_healthy(&self) -> bool {
        self.healthy
    }

    #[must_use]
    pub(super) const fn verdict(&self) -> CheckVerdict {
        self.verdict
    }

    /// Whether the server is down only because it is behind its primary.
    #[must_use]
    pub(super) const fn is_down_for_lag(&self) -> bool {
        self.is_down_for_lag
    }

    /// If there is no result yet, treats the role as wrong if a role is required, else as right.
    pub(super) fn require_role(&mut self, is_required: bool) {
        if self.state == CheckState::Unchecked {
            self.has_wrong_role = is_required;
        }
    }

    /// Treats the role as wrong until a check reads it and finds it right.
    pub(super) const fn assume_unfit(&mut self) {
        self.has_wrong_role = true;
    }
}

#[cfg(test)]
mod tests;
