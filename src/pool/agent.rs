//! The settings that the agent of a server makes. An agent is an operator's program on the server's host.

use std::fmt;
use std::time::SystemTime;

use super::overrides::AdminState;

/// What an agent currently sets for its server. A state or weight that an operator sets has precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentSettings {
    /// Enabled, draining or disabled. An agent that has disabled its server is still asked.
    pub admin_state: AdminState,
    /// The percentage of the configured weight; `None`: all of it.
    pub weight_percent: Option<u16>,
}

/// The settings of an agent, and since when they are in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentRecord {
    pub(super) settings: AgentSettings,
    pub(super) since: SystemTime,
}

impl Default for AgentRecord {
    fn default() -> Self {
        Self {
            settings: AgentSettings::default(),
            since: SystemTime::UNIX_EPOCH, // not shown while the agent sets nothing
        }
    }
}

/// For the log.
impl fmt::Display for AgentSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.weight_percent.unwrap_or(100);
        write!(f, "{}, {percent} % of its weight", self.admin_state.as_str())
    }
}
