//! The configured rules of a guard.

use std::net::IpAddr;

use super::client_source::SourceBits;
use super::networks::NetworkSet;
use super::rate::Rate;
use super::reason::GuardReason;

/// What a guard allows. Limits are at least 1; `None`: no such limit.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardRules {
    /// Only clients in these networks; `None`: all.
    pub allow: Option<NetworkSet>,
    /// No clients in these networks, whatever `allow` says.
    pub deny: NetworkSet,
    /// Sessions at once.
    pub sessions: Option<u32>,
    /// Sessions of one source at once.
    pub sessions_per_source: Option<u32>,
    /// New sessions over time.
    pub rate: Option<Rate>,
    /// New sessions of one source over time.
    pub rate_per_source: Option<Rate>,
    /// Bytes a second of all sessions together, for each direction.
    pub bandwidth: Option<u64>,
    /// Bytes a second of each session, for each direction.
    pub bandwidth_per_session: Option<u64>,
    /// What counts as one source.
    pub by: SourceBits,
    /// How many sources `rate_per_source` remembers.
    pub sources_max: usize,
    /// Whether it only counts what it would refuse, and limits no bandwidth.
    pub report_only: bool,
    /// How a client is refused if it gets no answer in its protocol.
    pub refuse_with: RefuseWith,
}

impl GuardRules {
    /// Why a client's address may not pass; `None`: it may. A client without an address, on a Unix socket, is in no
    /// network.
    #[must_use]
    pub fn refusal_of_address(&self, address: Option<IpAddr>) -> Option<GuardReason> {
        let is_in = |networks: &NetworkSet| address.is_some_and(|address| networks.contains(address));
        if is_in(&self.deny) {
            return Some(GuardReason::Deny);
        }
        let is_allowed = self.allow.as_ref().is_none_or(is_in);
        (!is_allowed).then_some(GuardReason::NotAllowed)
    }
}

/// How a client is refused if it gets no answer in its protocol, such as a TLS alert. Refusals that are not logged, as
/// in a flood, are always resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefuseWith {
    /// By a reset: no socket in TIME_WAIT remains.
    #[default]
    Reset,
    /// By the end of the stream (`refuse_with = "close"`).
    End,
}
