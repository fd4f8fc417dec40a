//! Why a guard refuses a client.

/// Why a guard refuses a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardReason {
    /// Its address is denied.
    Deny,
    /// Its address is not among those that are allowed.
    NotAllowed,
    /// There are as many sessions as there may be.
    Sessions,
    /// There are as many of its source.
    SessionsPerSource,
    /// Sessions begin as fast as they may.
    Rate,
    /// Those of its source do.
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

    /// Whether the client's address is the reason, and not what it and others have taken.
    #[must_use]
    pub const fn is_address(self) -> bool {
        matches!(self, Self::Deny | Self::NotAllowed)
    }
}
