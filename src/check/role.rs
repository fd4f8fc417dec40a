//! Roles of database servers, and which of them a pool requires.

use std::time::Duration;

use super::CheckFailure;

/// The keys in `[pools.NAME]` of a kind of check that knows roles.
pub(super) const KEYS: [&str; 2] = ["role", "max_lag"];

/// The role of a database server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Either of them.
    #[default]
    Any,
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
}

/// What a pool requires of the role of its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleRequirement {
    /// What a server must be.
    pub role: Role,
    /// How far a replica may be behind its primary; `None`: as far as it will.
    pub max_lag: Option<Duration>,
}

impl RoleRequirement {
    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.role != Role::Any || self.max_lag.is_some()
    }

    /// The keys that are set, each with its value as text.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { role, max_lag } = self;
        let mut settings = Vec::new();
        settings.extend((*role != Role::Any).then(|| ("role", format!("{role:?}"))));
        settings.extend(max_lag.map(|lag| ("max_lag", format!("{lag:?}"))));
        settings
    }

    /// Compares it with what a server says of itself. `lag`: how many seconds a replica is behind; `None`: not known.
    ///
    /// # Errors
    /// [`CheckFailure::Unfit`]: it has another role, or is or may be too far behind.
    pub(super) fn judge(&self, is_replica: bool, lag: Option<f64>) -> Result<(), CheckFailure> {
        match (self.role, is_replica) {
            (Role::Primary, true) => return unfit("the server is a replica, a primary is required"),
            (Role::Replica, false) => return unfit("the server is a primary, a replica is required"),
            _ => {}
        }
        let Some(max_lag) = self.max_lag.filter(|_| is_replica) else {
            return Ok(());
        };
        // Clocks that differ make the lag negative. NaN, infinity and what no `Duration` can hold count as not known.
        let lag = lag.map(|lag| if lag < 0.0 { 0.0 } else { lag });
        match lag.and_then(|lag| Duration::try_from_secs_f64(lag).ok()) {
            Some(lag) if lag <= max_lag => Ok(()),
            Some(lag) => unfit(format!(
                "the server is {:.1}s behind its primary, at most {max_lag:?} are allowed",
                lag.as_secs_f64()
            )),
            None => unfit("it is not known how far the server is behind its primary"),
        }
    }
}

fn unfit(reason: impl Into<String>) -> Result<(), CheckFailure> {
    Err(CheckFailure::Unfit(reason.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_with_a_valid_lag_within_the_limit_is_fit() {
        let required = RoleRequirement {
            role: Role::Any,
            max_lag: Some(Duration::from_secs(5)),
        };
        for (lag, is_fit) in [
            (Some(0.0), true),
            (Some(-3.0), true),
            (Some(5.0), true),
            (Some(5.1), false),
            (Some(f64::NAN), false),
            (Some(f64::INFINITY), false),
            (Some(1e300), false),
            (None, false),
        ] {
            assert_eq!(required.judge(true, lag).is_ok(), is_fit, "{lag:?}");
        }
    }
}
