//! The servers that are full, as found while a line is served.

use std::collections::HashSet;

use super::ServerId;
use super::candidates::Candidate;

/// Servers that count as full while a line is served.
#[derive(Debug, Default)]
pub(super) struct FullServers {
    ids: HashSet<ServerId>,
    /// The only server that the client waits for, after its latest turn; `None`: it waits for any.
    pub(super) awaited: Option<ServerId>,
}

impl FullServers {
    pub(super) fn add(&mut self, server: ServerId) {
        self.ids.insert(server);
    }

    pub(super) fn add_all(&mut self, candidates: &[Candidate]) {
        self.ids
            .extend(candidates.iter().map(|candidate| candidate.server.id()));
    }

    pub(super) fn contains(&self, server: ServerId) -> bool {
        self.ids.contains(&server)
    }

    /// Whether all these are full.
    pub(super) fn contains_all(&self, candidates: &[Candidate]) -> bool {
        self.ids.len() >= candidates.len() && candidates.iter().all(|candidate| self.contains(candidate.server.id()))
    }
}
