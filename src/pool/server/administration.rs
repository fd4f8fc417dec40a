//! What the overrides of a server and its agent set.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::{DISABLED, NOT_ENABLED, NOT_SET, Server};
use crate::pool::agent::{AgentRecord, AgentSettings};
use crate::pool::ejection::Ejection;
use crate::pool::health::CheckRecord;
use crate::pool::overrides::{AdminState, Overrides};

/// What API and commands show as `set_by` if the agent of the server has set what is shown.
const BY_AGENT: &str = "agent";

impl Server {
    /// Puts new overrides in force. Disabling a server clears its health, so that it starts anew when it is enabled.
    pub(in crate::pool) fn set_overrides(&self, new: Overrides) {
        let mut overrides = self.overrides.lock();
        let before = std::mem::replace(&mut *overrides, new).admin_state;
        let admin_state = overrides.admin_state;
        self.weight_override.store(overrides.weight.unwrap_or(NOT_SET), Relaxed);
        self.subscribers.notify();
        if admin_state == before {
            return;
        }
        self.publish_enabled(admin_state, self.agent.lock().settings);
        self.set_flag(DISABLED, admin_state == AdminState::Disabled);
        if admin_state == AdminState::Disabled {
            let mut checks = self.checks.lock();
            *checks = CheckRecord::new(checks.active);
            self.publish_checks(&checks);
            let mut ejection = self.ejection.lock();
            *ejection = Ejection::default();
            self.publish_ejection(&ejection);
        }
        if admin_state == AdminState::Enabled {
            self.begin_slow_start();
        }
        self.admin_state_changed.notify_waiters();
    }

    /// The overrides in force.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        self.overrides.lock().clone()
    }

    /// Whether an operator has disabled it: no new sessions and no checks.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.has(DISABLED)
    }

    /// Waits for the next change of its administrative state by an override; what its agent sets does not count. A
    /// change after this call, even before the first poll, counts.
    pub fn admin_state_changed(&self) -> impl Future<Output = ()> {
        self.admin_state_changed.notified()
    }

    /// Puts the settings of its agent in force. Returns whether they differ from the earlier ones.
    pub fn set_agent(&self, settings: AgentSettings) -> bool {
        let overrides = self.overrides.lock();
        let mut agent = self.agent.lock();
        if agent.settings == settings {
            return false;
        }
        let comes_back =
            agent.settings.admin_state != AdminState::Enabled && settings.admin_state == AdminState::Enabled;
        *agent = AgentRecord {
            settings,
            since: SystemTime::now(),
        };
        self.weight_percent
            .store(settings.weight_percent.unwrap_or(NOT_SET), Relaxed);
        self.publish_enabled(overrides.admin_state, settings);
        self.subscribers.notify();
        if comes_back {
            self.begin_slow_start();
        }
        true
    }

    /// Its overrides as API and commands show them: those in force and, for values that none of them sets, those of its
    /// agent. `configured`: its configured weight.
    pub(in crate::pool) fn shown_overrides(&self, configured: u16) -> Overrides {
        let mut shown = self.overrides();
        let AgentRecord { settings, since } = *self.agent.lock();
        let agent_sets_state = shown.admin_state == AdminState::Enabled && settings.admin_state != AdminState::Enabled;
        let weight = self.weight_by_agent(configured).filter(|_| shown.weight.is_none());
        let operator_changed_later =
            !shown.is_as_configured() && shown.set_by.as_ref().is_some_and(|(_, at)| *at > since);
        if (agent_sets_state || weight.is_some()) && !operator_changed_later {
            shown.set_by = Some((BY_AGENT.into(), since));
        }
        if agent_sets_state {
            shown.admin_state = settings.admin_state;
        }
        shown.weight = shown.weight.or(weight);
        shown
    }

    /// Publishes whether it gets new sessions, as far as these settings decide it.
    fn publish_enabled(&self, by_operator: AdminState, by_agent: AgentSettings) {
        let is_enabled = [by_operator, by_agent.admin_state] == [AdminState::Enabled; 2];
        self.set_flag(NOT_ENABLED, !is_enabled);
    }

    /// The weight that its agent makes of the configured one; `None`: the agent sets none. Rounded up, so that only a
    /// percentage of 0 makes a positive weight 0.
    pub(in crate::pool) fn weight_by_agent(&self, configured: u16) -> Option<u16> {
        const WEIGHT_MAX: u32 = 256; // the largest weight that can be configured
        let percent = Some(self.weight_percent.load(Relaxed)).filter(|percent| *percent != NOT_SET)?;
        let weight = (u32::from(configured) * u32::from(percent))
            .div_ceil(100)
            .min(WEIGHT_MAX);
        u16::try_from(weight).ok()
    }
}
