//! What is remembered of the primary of a pool: over reloads and, in a file, over restarts.

use serde::{Deserialize, Serialize};

/// The primary of a pool, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPrimary {
    /// Its label.
    pub server: Box<str>,
    /// The identity of the data; `None`: not known.
    pub system_identifier: Option<u64>,
    /// Its timeline; `None`: the kind of server has none, or does not tell it.
    pub timeline: Option<u32>,
    /// The highest timeline that an operator has decided against, by trusting a server on a lower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<u32>,
}

impl KnownPrimary {
    /// A server on a higher timeline than this one is the primary.
    pub(crate) fn highest_timeline(&self) -> Option<u32> {
        self.timeline.max(self.overruled)
    }
}
