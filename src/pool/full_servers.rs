//! The servers that are found full while the clients in a pool's queue get their turns, one after another.

use std::collections::HashSet;

use super::ServerId;
use super::candidates::Candidate;

/// Servers that count as full until all clients in the queue have had their turns, even if a place becomes free.
#[derive(Debug, Default)]
pub(super) struct FullServers {
    ids: HashSet<ServerId>,
    /// If the client whose turn it is waits for one server only: that server. `None`: the client waits for any server,
    /// or does not wait.
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

    /// Whether all these candidates are full.
    pub(super) fn contains_all(&self, candidates: &[Candidate]) -> bool {
        self.ids.len() >= candidates.len() && candidates.iter().all(|candidate| self.contains(candidate.server.id()))
    }
}
