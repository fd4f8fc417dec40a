//! The keys of a guard whose values differ between two plans.

use super::{Setting, differing, setting};
use crate::guard::GuardRules;
use crate::plan::GuardPlan;

impl GuardPlan {
    /// Keys whose values differ. It does not matter whether networks are in the configuration or in a file that it
    /// names.
    #[must_use]
    pub fn changed(&self, next: &Self) -> Vec<&'static str> {
        let mut keys = differing(self.settings(), &next.settings());
        if self.rules.allow != next.rules.allow {
            keys.push("allow");
        }
        if self.rules.deny != next.rules.deny {
            keys.push("deny");
        }
        keys
    }

    /// Whether it allows and denies the same networks.
    #[must_use]
    pub fn has_same_networks(&self, other: &Self) -> bool {
        (&self.rules.allow, &self.rules.deny) == (&other.rules.allow, &other.rules.deny)
    }

    fn settings(&self) -> Vec<Setting> {
        let GuardRules {
            // `changed` compares the networks as values: their texts may be very long.
            allow: _,
            deny: _,
            sessions,
            sessions_per_source,
            rate,
            rate_per_source,
            bandwidth,
            bandwidth_per_session,
            by,
            sources_max,
            report_only,
            refuse_with,
        } = &self.rules;
        vec![
            setting("sessions", sessions),
            setting("sessions_per_source", sessions_per_source),
            setting("rate", rate),
            setting("rate_per_source", rate_per_source),
            setting("bandwidth", bandwidth),
            setting("bandwidth_per_session", bandwidth_per_session),
            setting("by", by),
            setting("sources_max", sources_max),
            setting("report_only", report_only),
            setting("refuse_with", refuse_with),
        ]
    }
}
