//! The ALPN protocols of one client, for many lookups.

use std::cell::OnceCell;
use std::collections::HashSet;

use crate::sniff::hello::ProtocolList;

/// A list of at most this many bytes is scanned at each lookup. Usual lists have 3 to 15 bytes.
const SCANNED_BYTES_MAX: usize = 256;

/// The protocols that a client offers.
///
/// A client may offer 30,000, and many routes may each look for a few: a long list is converted to a set at the first
/// lookup, so that the work is linear in the bytes that the client has sent.
pub(super) struct Offered<'a> {
    list: &'a ProtocolList,
    set: OnceCell<HashSet<&'a [u8]>>,
}

impl<'a> Offered<'a> {
    pub(super) fn new(list: &'a ProtocolList) -> Self {
        Self {
            list,
            set: OnceCell::new(),
        }
    }

    /// Whether the client offers this protocol.
    pub(super) fn has(&self, protocol: &[u8]) -> bool {
        if self.list.wire_bytes() <= SCANNED_BYTES_MAX {
            return self.list.iter().any(|offered| offered == protocol);
        }
        self.set.get_or_init(|| self.list.iter().collect()).contains(protocol)
    }
}
