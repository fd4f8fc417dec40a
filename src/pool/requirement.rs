//! What a pool requires of the role of its servers.

use std::time::Duration;

use super::facts::{Role, ServerFacts};
use super::health::CheckOutcome;

/// What a pool requires of the role of its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleRequirement {
    /// What a server must be; `None`: either.
    pub role: Option<Role>,
    /// How far a replica may be behind its primary; `None`: as far as it will.
    pub max_lag: Option<Duration>,
}

impl RoleRequirement {
    /// Whether there is one. A server then gets no session before a check has passed.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.role.is_some() || self.max_lag.is_some()
    }

    /// Judges a server by what a check that passed has found out about it.
    #[must_use]
    pub fn judge(&self, facts: &ServerFacts) -> CheckOutcome {
        match (self.role, facts.role) {
            (Some(_), None) => return unfit("it is not known whether the server is a primary or a replica"),
            (Some(Role::Primary), Some(Role::Replica)) => {
                return unfit("the server is a replica, a primary is required");
            }
            (Some(Role::Replica), Some(Role::Primary)) => {
                return unfit("the server is a primary, a replica is required");
            }
            _ => {}
        }
        let Some(max_lag) = self.max_lag.filter(|_| facts.role != Some(Role::Primary)) else {
            return CheckOutcome::Pass;
        };
        match facts.lag {
            Some(lag) if lag <= max_lag => CheckOutcome::Pass,
            Some(lag) => unfit(&format!(
                "the server is {:.1}s behind its primary, at most {max_lag:?} are allowed",
                lag.as_secs_f64()
            )),
            None => unfit("it is not known how far the server is behind its primary"),
        }
    }
}

fn unfit(reason: &str) -> CheckOutcome {
    CheckOutcome::Unfit(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fit(required: RoleRequirement, role: Option<Role>, lag: Option<Duration>) -> bool {
        let facts = ServerFacts {
            role,
            lag,
            ..ServerFacts::default()
        };
        required.judge(&facts) == CheckOutcome::Pass
    }

    #[test]
    fn a_server_of_unknown_role_is_unfit_where_a_role_is_required() {
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
                max_lag: None,
            };
            assert_eq!(is_fit(required, role, None), fit, "{required:?} {role:?}");
        }
    }

    #[test]
    fn a_replica_with_a_known_lag_within_the_limit_is_fit() {
        let required = RoleRequirement {
            role: None,
            max_lag: Some(Duration::from_secs(5)),
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
