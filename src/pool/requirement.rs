//! What a pool requires of the role of its servers.

use std::time::Duration;

use super::facts::{Role, ServerFacts};
use super::health::CheckOutcome;
use crate::units::format_duration;

/// What a pool requires of the role of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleRequirement {
    /// The role that a server must have; `None`: any role.
    pub role: Option<Role>,
    /// A replica that has been behind its primary for longer is not used; `None`: no limit.
    pub max_lag: Option<Duration>,
    /// Whether the servers are one primary and its replicas: if several call themselves primary, at most one is used.
    pub single: bool,
}

impl Default for RoleRequirement {
    fn default() -> Self {
        Self {
            role: None,
            max_lag: None,
            single: true,
        }
    }
}

impl RoleRequirement {
    /// Whether anything is required. If so, a server gets no session before a check has passed.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.role.is_some() || self.max_lag.is_some()
    }

    /// Whether roles matter, and the servers are one primary and its replicas.
    #[must_use]
    pub fn has_primary(&self) -> bool {
        self.is_set() && self.single
    }

    /// Whether the pool sends sessions to a primary, but never to two primaries at the same time.
    #[must_use]
    pub fn uses_one_primary(&self) -> bool {
        self.has_primary() && self.role != Some(Role::Replica)
    }

    /// Judges a server by its role, and by how long it has been behind its primary; `None`: not known.
    #[must_use]
    pub(super) fn judge(&self, role: Option<Role>, lag: Option<Duration>) -> CheckOutcome {
        let unfit = |reason: &str| CheckOutcome::Unfit(reason.into());
        match (self.role, role) {
            (Some(_), None) => return unfit("it is not known whether the server is a primary or a replica"),
            (Some(Role::Primary), Some(Role::Replica)) => {
                return unfit("the server is a replica, a primary is required");
            }
            (Some(Role::Replica), Some(Role::Primary)) => {
                return unfit("the server is a primary, a replica is required");
            }
            _ => {}
        }
        let max_lag = match self.max_lag {
            Some(max_lag) if role != Some(Role::Primary) => max_lag,
            _ => return CheckOutcome::Pass,
        };
        match lag {
            Some(lag) if lag <= max_lag => CheckOutcome::Pass,
            Some(lag) => {
                let allowed = format_duration(max_lag);
                let reason = format!(
                    "the server is {:.1}s behind its primary, at most {allowed} are allowed",
                    lag.as_secs_f64()
                );
                CheckOutcome::Behind((&*reason).into())
            }
            None => CheckOutcome::Behind("it is not known how far the server is behind its primary".into()),
        }
    }

    /// If the user of the check may not call some function, the lag or the timeline is not known. Where that may be why
    /// the check has failed, the name of the function and the remedy are added to the reason.
    pub(super) fn add_denied_function(&self, outcome: &mut CheckOutcome, facts: &ServerFacts, lag: Option<Duration>) {
        let Some(function) = facts.denied else { return };
        let needs_timeline = facts.role == Some(Role::Primary) && self.uses_one_primary();
        let reason = match outcome {
            CheckOutcome::Behind(reason) if lag.is_none() => reason,
            CheckOutcome::Unfit(reason) if needs_timeline => reason,
            _ => return,
        };
        let with_remedy =
            format!("{reason}: the check may not call {function}: GRANT EXECUTE ON FUNCTION {function} TO its user");
        *reason = (&*with_remedy).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fit(required: RoleRequirement, role: Option<Role>, lag: Option<Duration>) -> bool {
        required.judge(role, lag) == CheckOutcome::Pass
    }

    #[test]
    fn a_required_role_must_be_known_and_match() {
        use Role::{Primary, Replica};
        for (required, role, fit) in [
            (None, None, true),
            (None, Some(Replica), true),
            (Some(Primary), Some(Primary), true),
            (Some(Primary), Some(Replica), false),
            (Some(Primary), None, false),
            (Some(Replica), Some(Replica), true),
            (Some(Replica), Some(Primary), false),
            (Some(Replica), None, false),
        ] {
            let required = RoleRequirement {
                role: required,
                ..RoleRequirement::default()
            };
            assert_eq!(is_fit(required, role, None), fit, "{required:?} {role:?}");
        }
    }

    #[test]
    fn a_replica_needs_a_known_lag_within_the_limit_and_a_primary_needs_none() {
        let required = RoleRequirement {
            max_lag: Some(Duration::from_secs(5)),
            ..RoleRequirement::default()
        };
        let seconds = |lag| Some(Duration::from_secs_f64(lag));
        for (lag, fit) in [
            (seconds(0.0), true),
            (seconds(5.0), true),
            (seconds(5.1), false),
            (None, false),
        ] {
            assert_eq!(is_fit(required, Some(Role::Replica), lag), fit, "{lag:?}");
        }
        assert!(is_fit(required, Some(Role::Primary), None));
    }
}
