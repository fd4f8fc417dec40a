//! What an operator, or the setting `failback` of a pool, has set for one server at run time. It stays in force, across
//! reloads too, until it is revoked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::units::format_duration;
use serde::Serialize;

/// An administrative state of a server, from its [`Overrides`] or from its agent ([`super::AgentSettings`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// As configured.
    #[default]
    Enabled,
    /// No new sessions; checks continue.
    Draining,
    /// No new sessions. Checks stop if an operator has disabled it, and continue if only the server's agent has.
    Disabled,
    /// The server went down, and its pool has `failback = "manual"`: no new sessions until it is enabled; checks
    /// continue.
    #[serde(rename = "awaiting failback")]
    AwaitingFailback,
}

impl AdminState {
    /// The word that API, commands and log use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::AwaitingFailback => "awaiting failback",
        }
    }
}

/// A change that an operator asks for, or that a setting of the pool makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// Take new sessions again.
    Enable,
    /// Take no new sessions. Open ones end by themselves, or are cut one after another within a time.
    Drain {
        /// The time over which open sessions are cut; `None`: they are never cut.
        close_over: Option<Duration>,
    },
    /// Like [`Self::Drain`], and stop the checks.
    Disable {
        /// The time over which open sessions are cut; `None`: they are never cut.
        close_over: Option<Duration>,
    },
    /// Take no new sessions until [`Self::Enable`]; checks continue. Changes nothing if an operator has drained or
    /// disabled the server.
    AwaitFailback,
    /// Use this weight, 0 to 256, instead of the configured one; `None`: use the configured one again.
    Weight(Option<u16>),
}

/// For the log.
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, close_over) = match self {
            Self::Enable => ("enabled", None),
            Self::Drain { close_over } => ("draining", *close_over),
            Self::Disable { close_over } => ("disabled", *close_over),
            Self::AwaitFailback => ("awaiting failback", None),
            Self::Weight(Some(weight)) => return write!(f, "weight {weight}"),
            Self::Weight(None) => ("the configured weight", None),
        };
        f.write_str(word)?;
        close_over.map_or(Ok(()), |over| {
            write!(f, ", its sessions cut over {}", format_duration(over))
        })
    }
}

/// All overrides of one server that are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The administrative state.
    pub admin_state: AdminState,
    /// The time over which open sessions are cut, if the server is draining or disabled; `None`: they are never cut.
    pub close_over: Option<Duration>,
    /// Replaces the configured weight.
    pub weight: Option<u16>,
    /// Who made the last change, and when; `None`: there was none.
    pub set_by: Option<(Arc<str>, SystemTime)>,
}

impl Overrides {
    /// Whether they change nothing, so that the [`super::ServerRegistry`] need not keep them.
    #[must_use]
    pub(super) fn is_as_configured(&self) -> bool {
        self.admin_state == AdminState::Enabled && self.weight.is_none()
    }

    /// These overrides after one change.
    #[must_use]
    pub(super) fn with(self, change: Override, by: Arc<str>, at: SystemTime) -> Self {
        let (admin_state, close_over) = match change {
            Override::Enable => (AdminState::Enabled, None),
            Override::Drain { close_over } => (AdminState::Draining, close_over),
            Override::Disable { close_over } => (AdminState::Disabled, close_over),
            Override::AwaitFailback if self.admin_state != AdminState::Enabled => return self,
            Override::AwaitFailback => (AdminState::AwaitingFailback, None),
            Override::Weight(_) => (self.admin_state, self.close_over),
        };
        let weight = match change {
            Override::Weight(weight) => weight,
            _ => self.weight,
        };
        Self {
            admin_state,
            close_over,
            weight,
            set_by: Some((by, at)),
        }
    }
}
