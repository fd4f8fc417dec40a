//! The state of a server according to its active checks.
//!
//! [`RiseFall`] is a pure state machine over check results. Only the server's health monitor writes it.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::text::Reason;

/// Whether a server may be picked at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// It is up.
    Up,
    /// It has no check result yet.
    Unchecked,
    /// It is ejected and its back-off is over: one session may try it.
    TrialDue,
    /// It is down, ejected, of weight 0, drained or disabled.
    Unavailable,
}

/// The state of a server according to its active checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// No result yet. The server is used only when no server that is up is left.
    Unchecked,
    /// In use.
    Up,
    /// Out of use.
    Down,
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
        /// Whether it gets new sessions all the same: then this counts as a pass.
        accepts_sessions: bool,
    },
    /// The server works but has the wrong role, and which. One such result takes the server out, and one pass after it
    /// brings the server back.
    Unfit(Reason),
    /// The server works but is, or may be, too far behind its primary. Counts as a failure, but its sessions go on.
    Behind(Reason),
}

impl CheckOutcome {
    /// Why the check did not pass; `None`: it passed.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Pass => None,
            Self::Fail(reason) | Self::Refused { reason, .. } | Self::Unfit(reason) | Self::Behind(reason) => {
                Some(reason)
            }
        }
    }
}

/// Whether the latest check of a server was refused, and what that means for new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedCheck {
    /// It was not refused.
    None,
    /// It was refused; new sessions go on.
    Tolerated,
    /// It was refused, and the server gets no new sessions: it says that it accepts none, or its role is not known any
    /// more.
    Suspended,
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
    /// Checks in a row that failed.
    failures: u32,
    latest: LatestResult,
    /// The latest check that could read the role found the wrong one; or the role is required and not known yet.
    unfit: bool,
    /// The server is down only because it is behind.
    behind: bool,
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
    Unfit,
    Behind,
}

impl LatestResult {
    /// Whether both count for the same streak.
    fn is_like(self, other: Self) -> bool {
        let does_not_pass = |result| matches!(result, Self::Fail | Self::Unfit | Self::Behind);
        self == other || does_not_pass(self) && does_not_pass(other)
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
            unfit: false,
            behind: false,
        }
    }

    /// A server without checks. Its state is always [`CheckState::Up`].
    #[must_use]
    pub(super) const fn disabled() -> Self {
        Self {
            state: CheckState::Up,
            streak: 0,
            failures: 0,
            latest: LatestResult::Disabled,
            unfit: false,
            behind: false,
        }
    }

    /// Records one result. Returns the new state if it changed. The first result alone decides the first state.
    pub(super) fn record(&mut self, outcome: &CheckOutcome, thresholds: Thresholds) -> Option<CheckState> {
        let before = self.latest;
        let (latest, unfit) = match outcome {
            CheckOutcome::Pass => (LatestResult::Pass, false),
            // Such a check does not tell the role.
            CheckOutcome::Fail(_) => (LatestResult::Fail, self.unfit),
            CheckOutcome::Refused { accepts_sessions, .. } => {
                let accepts_sessions = *accepts_sessions;
                (LatestResult::Refused { accepts_sessions }, self.unfit)
            }
            CheckOutcome::Unfit(_) => (LatestResult::Unfit, true),
            CheckOutcome::Behind(_) => (LatestResult::Behind, false),
        };
        self.unfit = unfit;
        self.streak = if latest.is_like(before) {
            self.streak.saturating_add(1)
        } else {
            1
        };
        self.failures = if latest == LatestResult::Fail {
            self.failures.saturating_add(1)
        } else {
            0
        };
        self.latest = latest;
        let accepts_sessions = match latest {
            LatestResult::Pass => true,
            LatestResult::Refused { accepts_sessions } => accepts_sessions && !unfit && !self.behind,
            _ => false,
        };
        let next = match (self.state, latest) {
            (CheckState::Unchecked, _) if accepts_sessions => CheckState::Up,
            (CheckState::Unchecked, _) | (_, LatestResult::Unfit) => CheckState::Down,
            (CheckState::Up, LatestResult::Fail | LatestResult::Behind) if self.streak >= thresholds.fall => {
                CheckState::Down
            }
            (CheckState::Down, _) if accepts_sessions && self.streak >= thresholds.rise => CheckState::Up,
            // The server was reachable all the time, only its role was wrong.
            (CheckState::Down, LatestResult::Pass) if before == LatestResult::Unfit => CheckState::Up,
            (same, _) => same,
        };
        self.behind = next == CheckState::Down
            && match latest {
                LatestResult::Behind => true,
                LatestResult::Unfit => false,
                _ => self.behind && self.failures < thresholds.fall,
            };
        (next != self.state).then(|| {
            self.state = next;
            next
        })
    }

    /// The current state.
    #[must_use]
    pub(super) const fn state(&self) -> CheckState {
        self.state
    }

    /// Whether the server is checked at all.
    #[must_use]
    pub(super) fn is_enabled(&self) -> bool {
        self.latest != LatestResult::Disabled
    }

    /// Whether the latest check did not pass, whatever the state.
    #[must_use]
    pub(super) const fn is_failing(&self) -> bool {
        matches!(
            self.latest,
            LatestResult::Fail | LatestResult::Unfit | LatestResult::Behind
        )
    }

    /// Whether the latest check was refused.
    #[must_use]
    pub(super) const fn refusal(&self) -> RefusedCheck {
        match self.latest {
            LatestResult::Refused { accepts_sessions: true } => RefusedCheck::Tolerated,
            LatestResult::Refused {
                accepts_sessions: false,
            } => RefusedCheck::Suspended,
            _ => RefusedCheck::None,
        }
    }

    /// Whether the server is known to have the wrong role, is down because it is behind, or is required to have a role that
    /// is not known yet. A server that cannot be reached keeps the role it was last seen with.
    #[must_use]
    pub(super) const fn is_unfit(&self) -> bool {
        self.unfit || self.behind
    }

    /// Whether the server is down only because it is behind its primary.
    #[must_use]
    pub(super) const fn is_behind(&self) -> bool {
        self.behind
    }

    /// Treats the role as wrong until the next check that passes.
    pub(super) const fn assume_unfit(&mut self) {
        self.unfit = true;
    }
}

/// The state machine of a server's checks, with the reason and time of its state.
#[derive(Debug)]
pub(super) struct CheckRecord {
    pub(super) rise_fall: RiseFall,
    /// Why the latest check did not pass; `None`: it passed, or there was none.
    pub(super) reason: Option<Reason>,
    /// When the state last changed, or checks began or ceased to be refused.
    pub(super) since: SystemTime,
    /// When a check last passed; `None`: never, or it has had the wrong role since.
    pub(super) passed_at: Option<Instant>,
}

impl CheckRecord {
    pub(super) fn new(is_checked: bool) -> Self {
        Self {
            rise_fall: if is_checked {
                RiseFall::unchecked()
            } else {
                RiseFall::disabled()
            },
            reason: None,
            since: SystemTime::now(),
            passed_at: None,
        }
    }
}

/// The health of a server as the API and the commands show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state according to its checks.
    pub state: CheckState,
    /// Whether the latest check was refused.
    pub refusal: RefusedCheck,
    /// Why the latest check did not pass; `None`: it passed, or there was none.
    pub reason: Option<Reason>,
    /// When the state last changed, or checks began or ceased to be refused.
    pub since: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_THREE: Thresholds = Thresholds { rise: 2, fall: 3 };

    fn outcome(sign: char) -> CheckOutcome {
        match sign {
            '+' => CheckOutcome::Pass,
            '-' => CheckOutcome::Fail("gone".into()),
            '<' => CheckOutcome::Behind("7s".into()),
            '!' | '|' => CheckOutcome::Refused {
                reason: "too many clients".into(),
                accepts_sessions: sign == '!',
            },
            _ => CheckOutcome::Unfit("a replica".into()),
        }
    }

    fn run(machine: &mut RiseFall, results: &str) -> Vec<Option<CheckState>> {
        results
            .chars()
            .map(|c| machine.record(&outcome(c), TWO_THREE))
            .collect()
    }

    #[test]
    fn one_unfit_result_takes_a_server_out_and_one_pass_brings_it_back() {
        use CheckState::{Down, Up};
        assert_eq!(
            run(&mut RiseFall::unchecked(), "+?+?"),
            [Some(Up), Some(Down), Some(Up), Some(Down)]
        );
        assert_eq!(run(&mut RiseFall::unchecked(), "?+"), [Some(Down), Some(Up)]);
        // A failed check in between requires `rise` passes again.
        assert_eq!(
            run(&mut RiseFall::unchecked(), "+?-++"),
            [Some(Up), Some(Down), None, None, Some(Up)]
        );
        assert_eq!(
            run(&mut RiseFall::unchecked(), "+-?+"),
            [Some(Up), None, Some(Down), Some(Up)]
        );
    }

    #[test]
    fn a_server_that_is_behind_obeys_rise_and_fall_and_stays_so_until_it_fails_by_itself() {
        use CheckState::{Down, Up};
        let mut machine = RiseFall::unchecked();
        assert_eq!(run(&mut machine, "+<<"), [Some(Up), None, None]);
        assert!(!machine.is_behind(), "it is still up");
        assert_eq!(run(&mut machine, "+<-<"), [None, None, None, Some(Down)]);
        assert!(machine.is_behind());
        assert_eq!(run(&mut machine, "--"), [None, None]);
        assert!(machine.is_behind());
        run(&mut machine, "-");
        assert!(!machine.is_behind(), "it has failed `fall` times");
        run(&mut machine, "<");
        assert!(machine.is_behind(), "it works again");
        assert_eq!(run(&mut machine, "+<++"), [None, None, None, Some(Up)]);
        assert!(!machine.is_behind());
        run(&mut machine, "<<<?");
        assert!(!machine.is_behind(), "its role is wrong");
    }

    #[test]
    fn a_refused_check_takes_no_server_out_and_brings_one_back_if_sessions_are_accepted() {
        use CheckState::{Down, Up};
        assert_eq!(run(&mut RiseFall::unchecked(), "!"), [Some(Up)]);
        assert_eq!(run(&mut RiseFall::unchecked(), "|"), [Some(Down)]);
        let mut machine = RiseFall::unchecked();
        assert_eq!(run(&mut machine, "+!!!!||||"), [&[Some(Up)][..], &[None; 8]].concat());
        assert_eq!(machine.refusal(), RefusedCheck::Suspended);
        // It proves that the server lives: failures before it do not count.
        assert_eq!(run(&mut machine, "--!--"), [None; 5]);
        assert_eq!(run(&mut machine, "-||"), [Some(Down), None, None]);
        assert_eq!(run(&mut machine, "!!"), [None, Some(Up)]);
        // But it does not tell the role.
        assert_eq!(run(&mut machine, "?!!!"), [Some(Down), None, None, None]);
    }

    #[test]
    fn the_first_result_alone_decides_the_state() {
        assert_eq!(run(&mut RiseFall::unchecked(), "+"), [Some(CheckState::Up)]);
        assert_eq!(run(&mut RiseFall::unchecked(), "-"), [Some(CheckState::Down)]);
    }

    #[test]
    fn fall_and_rise_count_results_in_a_row() {
        let mut machine = RiseFall::unchecked();
        assert_eq!(
            run(&mut machine, "+--+--"),
            [Some(CheckState::Up), None, None, None, None, None]
        );
        assert_eq!(run(&mut machine, "-"), [Some(CheckState::Down)]);
        assert_eq!(run(&mut machine, "+-+"), [None, None, None]);
        assert_eq!(run(&mut machine, "+"), [Some(CheckState::Up)]);
    }
}
