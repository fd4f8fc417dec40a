//! Reads the PROXY header of a peer in front.

use super::preface::{Inspection, PrefaceReader, SniffFailure};
use crate::proxy_protocol::{Decoded, InvalidHeader, ProxyHeader, decode};

/// Reads a PROXY header.
#[derive(Debug)]
pub(super) struct ProxyHeaderReader {
    /// Whether a connection without a PROXY header is invalid.
    pub(super) is_required: bool,
}

impl PrefaceReader for ProxyHeaderReader {
    /// The header and how many bytes it takes; `None`: there is none.
    type Found = Option<(Box<ProxyHeader>, usize)>;

    fn inspect(&mut self, bytes: &[u8]) -> Inspection<Self::Found> {
        match decode(bytes) {
            Decoded::NeedMore => Inspection::NeedMore,
            Decoded::Header(header, length) => Inspection::Found(Some((header, length))),
            Decoded::Absent if self.is_required => {
                Inspection::Invalid(SniffFailure::ProxyHeader(InvalidHeader::Missing))
            }
            Decoded::Absent => Inspection::Found(None),
            Decoded::Invalid(invalid) => Inspection::Invalid(SniffFailure::ProxyHeader(invalid)),
        }
    }
}
