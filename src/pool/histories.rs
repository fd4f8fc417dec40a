//! The remembered histories of a pool's primary in force, and of the pool's replicas. [`super::lag`] and
//! [`super::diverged`] each keep such histories, and define what a history consists of. A history here is what checks
//! have seen of a server, not the history of its data, which [`Numbering`](super::facts::Numbering) is about.

use std::collections::HashMap;
use std::sync::Arc;

/// The history of the primary in force on one timeline, and those of replicas by label.
#[derive(Clone, Debug)]
pub(super) struct Histories<P, R> {
    primary: Option<TimelineHistory<P>>,
    /// The histories of replicas, by label.
    pub(super) replicas: HashMap<Arc<str>, R>,
}

/// The history of a primary on one timeline.
#[derive(Clone, Debug)]
pub(super) struct TimelineHistory<P> {
    pub(super) label: Arc<str>,
    pub(super) timeline: Option<u32>,
    pub(super) history: P,
}

impl<P, R> Default for Histories<P, R> {
    fn default() -> Self {
        Self {
            primary: None,
            replicas: HashMap::new(),
        }
    }
}

impl<P, R> Histories<P, R> {
    /// Forgets the servers for which `is_kept` is false.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.replicas.retain(|label, _| is_kept(label));
        self.primary.take_if(|primary| !is_kept(&primary.label));
    }

    /// The history of the primary.
    pub(super) fn primary(&self) -> Option<&TimelineHistory<P>> {
        self.primary.as_ref()
    }

    /// The history of this replica, which begins as `initial` if there is none yet; and that of the primary.
    pub(super) fn replica_or(&mut self, label: &Arc<str>, initial: R) -> (&mut R, Option<&P>) {
        let replica = self.replicas.entry(Arc::clone(label)).or_insert(initial);
        (replica, self.primary.as_ref().map(|primary| &primary.history))
    }

    /// The history of this primary on this timeline, and whether it was known before. A new history begins as `initial`
    /// and replaces that of another primary or timeline, because positions of the two cannot be compared.
    pub(super) fn primary_or(&mut self, label: &Arc<str>, timeline: Option<u32>, initial: P) -> (&mut P, bool) {
        let is_same = |known: &TimelineHistory<P>| known.label == *label && known.timeline == timeline;
        let known = self.primary.take().filter(is_same);
        let is_known = known.is_some();
        let history = known.unwrap_or_else(|| TimelineHistory {
            label: Arc::clone(label),
            timeline,
            history: initial,
        });
        (&mut self.primary.insert(history).history, is_known)
    }
}
