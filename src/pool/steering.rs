//! What an operator has said of one server. It holds until it is taken back, reloads included.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

/// Whether a server takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// As configured.
    #[default]
    Enabled,
    /// It gets no new session, and is still checked.
    Draining,
    /// It gets no new session, and is not checked.
    Disabled,
}

impl Use {
    /// The word used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// What is wanted of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// It takes part again.
    Enable,
    /// No new session; those it has end by themselves, or are cut over that time.
    Drain {
        /// `None`: they are never cut.
        close_over: Option<Duration>,
    },
    /// The same, and it is no longer checked.
    Disable {
        /// `None`: they are never cut.
        close_over: Option<Duration>,
    },
    /// Another share than the configured one, 0 to 256; `None`: the configured one again.
    Weight(Option<u16>),
}

/// In words, for the log.
impl fmt::Display for Steer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, close_over) = match self {
            Self::Enable => ("enabled", None),
            Self::Drain { close_over } => ("draining", *close_over),
            Self::Disable { close_over } => ("disabled", *close_over),
            Self::Weight(Some(weight)) => return write!(f, "weight {weight}"),
            Self::Weight(None) => ("the configured weight", None),
        };
        f.write_str(word)?;
        close_over.map_or(Ok(()), |over| write!(f, ", its sessions cut over {over:?}"))
    }
}

/// All that holds of it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Whether it takes part.
    pub usage: Use,
    /// Over what time its sessions are cut, if it does not.
    pub close_over: Option<Duration>,
    /// Its share, if that is not the configured one.
    pub weight: Option<u16>,
    /// Who said so last, and when; `None`: nobody ever did.
    pub by: Option<(Arc<str>, SystemTime)>,
}

impl Steering {
    /// Whether all is as configured, so that there is nothing to keep.
    #[must_use]
    pub(super) fn is_as_configured(&self) -> bool {
        self.usage == Use::Enabled && self.weight.is_none()
    }

    /// This order given now.
    #[must_use]
    pub(super) fn with(self, order: Steer, by: Arc<str>, at: SystemTime) -> Self {
        let (usage, close_over) = match order {
            Steer::Enable => (Use::Enabled, None),
            Steer::Drain { close_over } => (Use::Draining, close_over),
            Steer::Disable { close_over } => (Use::Disabled, close_over),
            Steer::Weight(_) => (self.usage, self.close_over),
        };
        let weight = match order {
            Steer::Weight(weight) => weight,
            _ => self.weight,
        };
        Self {
            usage,
            close_over,
            weight,
            by: Some((by, at)),
        }
    }
}
