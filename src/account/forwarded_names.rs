//! What the PROXY header of a peer in front says, for the log.

use crate::proxy_protocol::ProxyHeader;

/// The longest name that is kept of a header, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// What the PROXY header of a peer in front says, as text for the log: escaped, and bounded, because it is kept as long as
/// the session.
#[derive(Clone, Debug)]
pub struct ForwardedNames {
    pub(super) authority: Option<Box<str>>,
    pub(super) unique_id: Option<Box<str>>,
}

impl ForwardedNames {
    /// The names in a header; `None`: it has none.
    #[must_use]
    pub fn of(header: &ProxyHeader) -> Option<Self> {
        let text = |value: &Option<Box<[u8]>>| {
            let value = value.as_deref()?;
            let text = value[..value.len().min(NAME_BYTES_MAX)].escape_ascii().to_string();
            Some(text.into())
        };
        let names = Self {
            authority: text(&header.authority),
            unique_id: text(&header.unique_id),
        };
        (names.authority.is_some() || names.unique_id.is_some()).then_some(names)
    }
}
