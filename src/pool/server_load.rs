//! How many sessions a server has, and how many it should have.

use std::num::NonZeroU32;

use super::ServerId;
use super::candidates::Candidate;

/// The load of a server that may be picked.
#[derive(Clone, Copy, Debug)]
pub struct ServerLoad {
    /// The server.
    pub id: ServerId,
    /// Its weight relative to the others, at least 1.
    pub weight: u16,
    /// Its open sessions.
    pub sessions: u32,
    /// The most that it may have; `None`: any number.
    pub sessions_max: Option<NonZeroU32>,
}

impl ServerLoad {
    pub(super) fn new(candidate: &Candidate) -> Self {
        Self {
            id: candidate.server.id(),
            weight: candidate.weight,
            sessions: candidate.live(),
            sessions_max: candidate.sessions_max,
        }
    }
}
