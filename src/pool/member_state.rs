//! Why a server does or does not get new sessions, in one word.
//!
//! The state combines health, role and administrative state. A server has one state at a time, so that the counts of a
//! pool's servers by state add up to all its servers.

use tokio::time::Instant;

use super::health::{Availability, CheckState};
use super::{AdminState, Member, Pool};

/// The state of a server in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It gets new sessions, if no better tier is usable.
    Usable,
    /// It has not been checked yet.
    Unchecked,
    /// It has failed its checks, or has not passed enough of them yet.
    Unhealthy,
    /// It lives (fewer than `fall` failed checks in a row), but its role is wrong or not known, or it is too
    /// far behind.
    WrongRole,
    /// Its latest check was refused, or prevented by this host, and it gets no new sessions because of that.
    CheckRefused,
    /// It is ejected because sessions on it failed, and no trial is due.
    Ejected,
    /// Its weight is 0.
    ZeroWeight,
    /// An operator, the server's agent or the source that lists it has drained it.
    Draining,
    /// It went down, and waits until an operator enables it.
    AwaitingFailback,
    /// An operator, or the server's agent, has disabled it.
    Disabled,
}

impl MemberState {
    /// All states, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::Usable,
        Self::Unchecked,
        Self::Unhealthy,
        Self::WrongRole,
        Self::CheckRefused,
        Self::Ejected,
        Self::ZeroWeight,
        Self::Draining,
        Self::AwaitingFailback,
        Self::Disabled,
    ];

    /// The word for it in metrics and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Unchecked => "unchecked",
            Self::Unhealthy => "unhealthy",
            Self::WrongRole => "wrong_role",
            Self::CheckRefused => "check_refused",
            Self::Ejected => "ejected",
            Self::ZeroWeight => "zero_weight",
            Self::Draining => "draining",
            Self::AwaitingFailback => "awaiting_failback",
            Self::Disabled => "disabled",
        }
    }
}

impl Member {
    /// Its state. If several reasons keep it from new sessions, what an operator, the server's agent or the source that
    /// lists it has set comes before the results of checks.
    #[must_use]
    pub fn state(&self, now: Instant) -> MemberState {
        match self.shown_overrides().admin_state {
            AdminState::Disabled => return MemberState::Disabled,
            AdminState::Draining => return MemberState::Draining,
            AdminState::AwaitingFailback => return MemberState::AwaitingFailback,
            AdminState::Enabled => {}
        }
        if self.weight() == 0 {
            return MemberState::ZeroWeight;
        }
        match self.check_state() {
            CheckState::Unchecked => MemberState::Unchecked,
            // A healthy server is `Down`, too, if its role is wrong, it is too far behind, or its first check was
            // refused. The next arms show that.
            CheckState::Down if !self.is_healthy() => MemberState::Unhealthy,
            _ if self.is_unfit() => MemberState::WrongRole,
            _ if self.is_suspended() => MemberState::CheckRefused,
            CheckState::Down => MemberState::Unhealthy, // too few checks have passed yet
            CheckState::Up if self.availability(now) == Availability::Unavailable => MemberState::Ejected,
            CheckState::Up => MemberState::Usable,
        }
    }
}

impl Pool {
    /// Whether this server gets new sessions, if no better tier is usable: because it is usable, or because its tier is
    /// in panic and uses it. Others do not count: neither an unchecked server, although it gets sessions when no other
    /// of its tier can be picked, nor a stand-in ([`Member::may_stand_in`]), although it gets them when no other server
    /// at all can be picked.
    #[must_use]
    pub fn uses(&self, server: &Member, now: Instant) -> bool {
        server.state(now) == MemberState::Usable || self.uses_in_panic(server, now)
    }
}
