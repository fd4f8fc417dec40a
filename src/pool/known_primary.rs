//! The remembered primary of a pool: it outlives reloads and, in a file, restarts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The primary of a pool, as it is remembered. Fields that a later version has added are ignored, so that a downgrade
/// forgets only those.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPrimary {
    /// Its label.
    pub server: Box<str>,
    /// The identity of the data; `None`: not known.
    pub system_identifier: Option<u64>,
    /// Its timeline; `None`: the kind of server has none, or does not report it.
    pub timeline: Option<u32>,
    /// The highest timeline that an operator has decided against, by trusting a server on a lower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<u32>,
    /// The other servers of the pool, by label. A server that is missing here was not seen as a replica, and the
    /// primary has not answered since this server joined the pool; or what was seen was forgotten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<Box<str>, Standing>,
    /// The addresses of servers whose labels do not contain them, by label: so a server is still known when it gets
    /// another name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<Box<str>, Box<str>>,
}

impl KnownPrimary {
    /// The highest timeline that is known or overruled. If servers of the same database call themselves primary on
    /// higher ones, and only one of them is on the highest, that server is the primary.
    pub(crate) fn highest_timeline(&self) -> Option<u32> {
        self.timeline.max(self.overruled)
    }
}

/// What has been seen of another server. It is kept when another server becomes the primary. The order is that of
/// severity: the greater the value, the more is needed before the server may become primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It was seen as a replica, and has not called itself primary since.
    Replica,
    /// It was seen as a replica, and has called itself primary since; the primary has not been seen alive after that.
    Promoted,
    /// When a primary was found or answered, or an operator decided, it called itself primary or was not known to be a
    /// replica; or it was one of several candidates. It may be an old primary: before it is used as the primary, it
    /// needs a higher timeline or an operator's decision, or must be seen as a replica.
    Rejected,
}
