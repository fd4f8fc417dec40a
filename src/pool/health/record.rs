//! The state machine of a server's checks, and what else its checks have found.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{CheckState, CheckVerdict, RiseFall};
use crate::text::Reason;

/// The state machine of a server's checks, and what else its checks have found.
#[derive(Debug)]
pub(in crate::pool) struct CheckRecord {
    pub(in crate::pool) rise_fall: RiseFall,
    pub(in crate::pool) active: ActiveChecks,
    /// Why the latest check did not pass; `None`: it passed, or there was none.
    pub(in crate::pool) reason: Option<Reason>,
    /// When the verdict last changed, or refusals of the checks last began or ended.
    pub(in crate::pool) since: SystemTime,
    /// When a check last passed, or found that the server is a [stand-in](crate::pool::Server::is_stand_in); `None`: no
    /// check ever did, or it was found later that the server must not be used, for example because of its role.
    pub(in crate::pool) passed_at: Option<Instant>,
    /// When a check last found that the server serves sessions; if no check has, when its checks began.
    pub(in crate::pool) seen_serving_at: Instant,
    /// How long the server was behind its primary at the latest check; `None`: it is not a replica, or that check did
    /// not find it out.
    pub(in crate::pool) lag: Option<Duration>,
}

/// Which active checks run for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveChecks {
    /// None.
    None,
    /// Those that decide whether it is up.
    Health,
    /// Those that also find its role. The server gets no session before a check has found that it has the required one,
    /// or is a [stand-in](crate::pool::Server::is_stand_in).
    HealthAndRole,
}

impl CheckRecord {
    pub(in crate::pool) fn new(active: ActiveChecks) -> Self {
        Self {
            rise_fall: match active {
                ActiveChecks::None => RiseFall::disabled(),
                ActiveChecks::Health => RiseFall::unchecked(),
                ActiveChecks::HealthAndRole => RiseFall {
                    has_wrong_role: true, // until a check has found the required role
                    ..RiseFall::unchecked()
                },
            },
            active,
            reason: None,
            since: SystemTime::now(),
            passed_at: None,
            seen_serving_at: Instant::now(),
            lag: None,
        }
    }
}

/// Whether the latest check of a server was refused, and what that means for new sessions. A check that this host has
/// prevented counts as refused by this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedCheck {
    /// It was not refused.
    None,
    /// It was refused, by the server or by this host. This keeps no new sessions away.
    Tolerated,
    /// It was refused, and the server gets no new sessions: it says that it accepts none, or its role is no longer
    /// known.
    Suspended,
}

/// The health of a server as the API and the commands show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What its checks say.
    pub verdict: CheckVerdict,
    /// Whether the latest check was refused.
    pub refusal: RefusedCheck,
    /// Why the latest check did not pass; `None`: it passed, or there was none.
    pub reason: Option<Reason>,
    /// When the verdict last changed, or refusals of the checks last began or ended.
    pub since: SystemTime,
}

/// What the result of a check has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckChange {
    /// The state before.
    pub before: CheckState,
    /// The new state, if it is another one.
    pub state: Option<CheckState>,
    /// The new verdict, if it is another one.
    pub verdict: Option<CheckVerdict>,
}
