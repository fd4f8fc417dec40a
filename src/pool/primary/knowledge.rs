//! What checks have found out about one server, from one check to the next.

use crate::pool::facts::Numbering;

/// What the latest check has seen of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) enum Observation {
    /// It calls itself primary.
    Primary {
        /// The identity of its data.
        system_identifier: Option<u64>,
        /// What it reports about its history.
        claim: Claim,
    },
    /// It does not call itself primary, or its cluster has several primaries by design.
    Replica {
        /// The identity of its data.
        system_identifier: Option<u64>,
    },
    /// It refused the check or did not report its role, or this host prevented the check: its role was not seen.
    Refused {
        /// Whether it still gets new sessions: it takes them, and its last known role still counts (`role_trust`).
        accepts_sessions: bool,
    },
    /// The check failed.
    Failed {
        /// Whether so many checks have failed that the server is down. It stays down until it reports its role, even if
        /// a later failure says otherwise.
        is_down: bool,
    },
}

/// The claim of a server to be the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::pool) struct Claim {
    /// Its timeline, or the configuration epoch of its Sentinels.
    pub(in crate::pool) timeline: Option<u32>,
    /// Which kind of number `timeline` is.
    pub(in crate::pool) numbering: Numbering,
}

/// What checks have found out about a server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Knowledge {
    /// There was no check yet, or none since an operator enabled it again.
    #[default]
    Unchecked,
    /// Its checks were refused, or failed but not so often that it is down. Its role is not known.
    Silent,
    /// Its role is known, or it is down.
    Seen(Seen),
    /// An operator has disabled it: it is not checked, and what was seen of it does not count. No decision waits for
    /// it.
    Disabled,
}

/// A server whose role is known, or that is down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// As last reported, even while the server fails.
    pub(super) system_identifier: Option<u64>,
    /// `None`: it did not call itself primary, or its claim was forgotten when Sentinels were set up anew.
    pub(super) claim: Option<Claim>,
    /// It is down. Its last claim is kept: if its next claim has a higher timeline, it was promoted again, and is no
    /// longer `Standing::Rejected`.
    pub(super) is_down: bool,
    /// Its latest check failed, or was refused: it may have been restarted.
    has_failed: bool,
    /// The latest period in which it called itself primary, without another role in between.
    pub(super) claimed: ClaimPeriod,
}

/// The first and the latest check at which a server has called itself primary, as numbers of [`ClaimNumbers`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClaimPeriod {
    pub(super) first: u64,
    pub(super) latest: u64,
}

/// Gives numbers to the checks at which a server of the pool calls itself primary, in the order of their results.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimNumbers(u64);

impl Knowledge {
    pub(super) fn seen(&self) -> Option<Seen> {
        match self {
            Self::Seen(seen) => Some(*seen),
            Self::Unchecked | Self::Silent | Self::Disabled => None,
        }
    }

    /// What is known after a further check.
    pub(super) fn after(self, observation: Observation, numbers: &mut ClaimNumbers) -> Self {
        match (self, observation) {
            (Self::Disabled, _) => Self::Disabled,
            (Self::Seen(seen), _) => Self::Seen(seen.after(observation, numbers)),
            (_, Observation::Refused { .. } | Observation::Failed { is_down: false }) => Self::Silent,
            _ => Self::Seen(Seen::default().after(observation, numbers)),
        }
    }
}

impl Seen {
    fn after(self, observation: Observation, numbers: &mut ClaimNumbers) -> Self {
        let claimed = match self.is_claim(observation) {
            true => numbers.extend_period(self),
            false => self.claimed,
        };
        match observation {
            Observation::Primary {
                system_identifier,
                claim,
            } => Self {
                system_identifier: system_identifier.or(self.system_identifier),
                claim: Some(self.with_known_timeline(claim)),
                is_down: false,
                has_failed: false,
                claimed,
            },
            Observation::Replica { system_identifier } => Self {
                system_identifier: system_identifier.or(self.system_identifier),
                claim: None,
                is_down: false,
                has_failed: false,
                claimed,
            },
            Observation::Refused { .. } => Self {
                has_failed: true,
                claimed,
                ..self
            },
            Observation::Failed { is_down } => Self {
                is_down: is_down || self.is_down,
                has_failed: true,
                claimed,
                ..self
            },
        }
    }

    /// Whether the server calls itself primary at this check. A server that refuses a check but accepts sessions
    /// still has its role, unless it was down: then it may have been restarted.
    fn is_claim(&self, observation: Observation) -> bool {
        match observation {
            Observation::Primary { .. } => true,
            Observation::Refused { accepts_sessions } => accepts_sessions && self.claim.is_some() && !self.is_down,
            Observation::Replica { .. } | Observation::Failed { .. } => false,
        }
    }

    /// This claim. If it should have a timeline ([`Numbering::Timeline`]) and has none, it gets that of the previous
    /// claim, unless a check has failed or was refused in between: a server keeps its timeline until a restart, during
    /// which a check would fail.
    fn with_known_timeline(&self, claim: Claim) -> Claim {
        let is_timeline = claim.numbering == Numbering::Timeline;
        let known = self.claim.filter(|_| is_timeline && !self.has_failed);
        Claim {
            timeline: claim.timeline.or_else(|| known?.timeline),
            ..claim
        }
    }
}

impl ClaimNumbers {
    /// Numbers a check. Returns the server's period with this check added. A new period begins if the server did not
    /// call itself primary before.
    fn extend_period(&mut self, before: Seen) -> ClaimPeriod {
        self.0 += 1;
        ClaimPeriod {
            first: before.claim.map_or(self.0, |_| before.claimed.first),
            latest: self.0,
        }
    }
}
