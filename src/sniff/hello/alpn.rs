//! The protocols that a client offers by ALPN.

use std::fmt;

use super::cursor::Cursor;

/// A `ProtocolNameList` (RFC 7301, section 3.1): names of 1 to 255 bytes, in the client's order.
///
/// It is kept as it stands on the wire, each name behind a byte of its length. It is checked once, when it is made, and
/// read name by name afterwards: a list of 30,000 names costs no more than its bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProtocolList(Box<[u8]>);

impl ProtocolList {
    /// The list without its own length; `None` if a name is empty or cut short.
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

    /// A list of these names. A name that no client can offer, because it is empty or longer than 255 bytes, is left
    /// out.
    pub fn of<N: AsRef<[u8]>>(names: impl IntoIterator<Item = N>) -> Self {
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

    /// The names, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut names = Cursor::new(&self.0);
        std::iter::from_fn(move || names.vector8().map(Cursor::rest))
    }

    /// Whether nothing is offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes the list has on the wire, without its own length. There are at most half as many names.
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
