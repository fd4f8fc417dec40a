//! The ALPN protocols that a client offers.

use std::fmt;

use super::cursor::Cursor;

/// A `ProtocolNameList` (RFC 7301, section 3.1): names of 1 to 255 bytes, in the client's order.
///
/// It keeps the bytes of the wire format, in which each name has a length prefix of one byte. They are validated once,
/// when the list is created; the names are then read in place, so that 30,000 names need no memory but their bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProtocolList(Box<[u8]>);

impl ProtocolList {
    /// A list from its wire format without the length of the whole list; `None` if a name is empty or truncated.
    pub(super) fn from_wire(list: &[u8]) -> Option<Self> {
        let mut names = Cursor::new(list);
        while !names.is_empty() {
            let name = names.vector8()?;
            if name.is_empty() {
                return None;
            }
        }
        Some(Self(list.into()))
    }

    /// A list of these names. A name that is empty or longer than 255 bytes is left out, because no client can offer
    /// it.
    pub fn new<N: AsRef<[u8]>>(names: impl IntoIterator<Item = N>) -> Self {
        let mut list = Vec::new();
        for name in names {
            let name = name.as_ref();
            if let Ok(length @ 1..) = u8::try_from(name.len()) {
                list.push(length);
                list.extend_from_slice(name);
            }
        }
        Self(list.into())
    }

    /// The names, in the client's order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut names = Cursor::new(&self.0);
        std::iter::from_fn(move || names.vector8().map(Cursor::rest))
    }

    /// Whether it has no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The size of the wire format in bytes, without the length of the whole list. A name takes at least 2
    /// bytes.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.0.len()
    }
}

/// The names, escaped.
impl fmt::Debug for ProtocolList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|name| name.escape_ascii().to_string()))
            .finish()
    }
}
