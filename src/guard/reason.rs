//! Why a guard refuses a client, and how often.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a guard refuses a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardReason {
    /// The client's address is denied.
    Deny,
    /// The client's address is not among those that are allowed.
    NotAllowed,
    /// There are as many sessions as are allowed.
    Sessions,
    /// The client's source has as many sessions as one source is allowed.
    SessionsPerSource,
    /// Sessions begin as fast as is allowed.
    Rate,
    /// The sessions of the client's source begin as fast as is allowed.
    RatePerSource,
}

impl GuardReason {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::Deny,
        Self::NotAllowed,
        Self::Sessions,
        Self::SessionsPerSource,
        Self::Rate,
        Self::RatePerSource,
    ];

    /// The word for metrics, access log and API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::NotAllowed => "not_allowed",
            Self::Sessions => "sessions",
            Self::SessionsPerSource => "sessions_per_source",
            Self::Rate => "rate",
            Self::RatePerSource => "rate_per_source",
        }
    }

    /// Whether the reason is the client's address, not the number or the rate of sessions.
    #[must_use]
    pub const fn is_address(self) -> bool {
        matches!(self, Self::Deny | Self::NotAllowed)
    }
}

/// A counter for each reason.
#[derive(Debug, Default)]
pub(super) struct ReasonCounts([AtomicU64; GuardReason::ALL.len()]);

impl ReasonCounts {
    pub(super) fn add(&self, reason: GuardReason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn all(&self) -> [(GuardReason, u64); GuardReason::ALL.len()] {
        GuardReason::ALL.map(|reason| (reason, self.0[reason as usize].load(Relaxed)))
    }
}
