//! Server names and the patterns that match them.
//!
//! Constructors normalize names (case, one trailing dot, and punycode in names that do not come from clients) and check
//! them, so that names can be compared byte by byte.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The longest name in bytes: RFC 1035, section 2.3.4, without the length byte and the root label.
pub const SERVER_NAME_BYTES_MAX: usize = 253;

/// The longest label in bytes: RFC 1035, section 2.3.4.
pub const LABEL_BYTES_MAX: usize = 63;

/// A valid and normalized server name: in lower case, without a trailing dot, never an IP literal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(Arc<str>);

/// Why a text is not a server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or only a dot.
    #[error("a server name must not be empty")]
    Empty,
    /// Over [`SERVER_NAME_BYTES_MAX`].
    #[error("a server name has at most 253 bytes")]
    TooLong,
    /// A label that is empty or over [`LABEL_BYTES_MAX`].
    #[error("each label of a server name has 1 to 63 bytes")]
    LabelLength,
    /// A character other than letters, digits, `-`, `_` and dots.
    #[error("a server name is made of letters, digits, `-`, `_` and dots")]
    Character,
    /// An IP address. RFC 6066, section 3, does not permit it as a server name.
    #[error("an IP address is not a server name (clients send only host names)")]
    IpLiteral,
}

impl ServerName {
    /// Parses the bytes in the `server_name` extension of a client (RFC 6066, section 3).
    ///
    /// # Errors
    /// Why the name is invalid.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| NameError::Character)?;
        Self::normalized(text)
    }

    /// Parses a configured name. Internationalised names become punycode (UTS 46).
    ///
    /// # Errors
    /// Why the name is invalid.
    pub fn from_config(text: &str) -> Result<Self, NameError> {
        if text.is_ascii() {
            return Self::normalized(text);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| NameError::Character)?;
        Self::normalized(&ascii)
    }

    fn normalized(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > SERVER_NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut label_bytes = 0;
        for byte in name.bytes() {
            match byte {
                b'.' if label_bytes == 0 => return Err(NameError::LabelLength),
                b'.' => label_bytes = 0,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label_bytes += 1,
                _ => return Err(NameError::Character),
            }
            if label_bytes > LABEL_BYTES_MAX {
                return Err(NameError::LabelLength);
            }
        }
        if label_bytes == 0 {
            return Err(NameError::LabelLength); // it ends with two dots, of which one was stripped
        }
        if name.parse::<Ipv4Addr>().is_ok() {
            return Err(NameError::IpLiteral); // an IPv6 literal contains colons, which are rejected above
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The normalized name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The normalized name, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The number of labels; at least one.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.0.split('.').count()
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name in a client's `server_name` extension (RFC 6066, section 3), valid or not.
///
/// A missing name, an empty one and an IP literal are not represented. Any other invalid name is kept, because a server
/// may accept such a name. A route that refuses `*.suffix` must refuse it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sni {
    /// A valid name.
    Valid(ServerName),
    /// An invalid name. Only `*` and `*.suffix` match it.
    Invalid(InvalidName),
}

/// The end of an invalid name, normalized like valid names: ASCII letters in lower case, one trailing dot removed.
///
/// Only the part that can match a `*.suffix` is kept: the last [`SERVER_NAME_BYTES_MAX`] bytes and the dot before them.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidName(Box<[u8]>);

impl Sni {
    /// Parses the name that a client sent. `None` if it is empty or an IP literal.
    #[must_use]
    pub fn from_wire(sent: &[u8]) -> Option<Self> {
        Self::classify(sent, ServerName::from_wire(sent)).ok()
    }

    /// Parses a name that does not come from a ClientHello but, for example, from the command line or a certificate.
    /// Internationalised names become punycode.
    ///
    /// # Errors
    /// It is empty or an IP literal.
    pub fn from_config(text: &str) -> Result<Self, NameError> {
        Self::classify(text.as_bytes(), ServerName::from_config(text))
    }

    fn classify(sent: &[u8], name: Result<ServerName, NameError>) -> Result<Self, NameError> {
        match name {
            Ok(name) => Ok(Self::Valid(name)),
            Err(error @ (NameError::Empty | NameError::IpLiteral)) => Err(error),
            Err(_) if is_ip_literal(sent) => Err(NameError::IpLiteral),
            Err(_) => Ok(Self::Invalid(InvalidName::normalized(sent))),
        }
    }

    /// The name if it is valid.
    #[must_use]
    pub fn valid(&self) -> Option<&ServerName> {
        match self {
            Self::Valid(name) => Some(name),
            Self::Invalid(_) => None,
        }
    }

    /// The parent domains, longest first: `b.c` and `c` for `a.b.c`. A `*.suffix` matches if its suffix is one of them.
    pub fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let name = match self {
            Self::Valid(name) => name.0.as_bytes(),
            Self::Invalid(name) => &name.0,
        };
        std::iter::successors(after_dot(name), |rest| after_dot(rest))
    }
}

impl InvalidName {
    fn normalized(sent: &[u8]) -> Self {
        let name = sent.strip_suffix(b".").unwrap_or(sent);
        let kept = name.len().min(SERVER_NAME_BYTES_MAX + 1);
        Self(name[name.len() - kept..].to_ascii_lowercase().into())
    }
}

impl fmt::Debug for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

fn after_dot(name: &[u8]) -> Option<&[u8]> {
    let dot = name.iter().position(|byte| *byte == b'.')?;
    name.get(dot + 1..)
}

/// Whether an invalid name is an IP address, with or without brackets. ([`ServerName`] recognizes only an IPv4
/// address without brackets.)
fn is_ip_literal(sent: &[u8]) -> bool {
    let text = std::str::from_utf8(sent).unwrap_or_default();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>().is_ok()
}

/// A pattern for server names, as in an `sni` condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// Exactly this name.
    Exact(ServerName),
    /// `*.suffix`: one or more labels before the suffix, never the suffix itself.
    Suffix(ServerName),
    /// `*`: any name, but not a missing one.
    Any,
}

impl NamePattern {
    /// Parses a configured pattern.
    ///
    /// # Errors
    /// Why the name in it is invalid. A `*` is an invalid character except as the whole first label.
    pub fn from_config(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_prefix("*.") {
            Some(suffix) => ServerName::from_config(suffix).map(Self::Suffix),
            None => ServerName::from_config(text).map(Self::Exact),
        }
    }

    /// How exactly it matches a name; `None`: not at all.
    #[must_use]
    pub fn rank(&self, name: &Sni) -> Option<Rank> {
        match self {
            Self::Exact(exact) => (name.valid() == Some(exact)).then_some(Rank::Exact),
            Self::Suffix(suffix) => {
                let mut parents = name.parents();
                let matches = parents.any(|parent| parent == suffix.as_str().as_bytes());
                matches.then(|| Rank::Suffix {
                    labels: suffix.labels(),
                })
            }
            Self::Any => Some(Rank::Any),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Suffix(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// How exactly the name condition of a route matches. Declared from weakest to strongest, because the order is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The route has no name condition.
    Unconditional,
    /// `*`.
    Any,
    /// `*.suffix`; more labels rank higher.
    Suffix {
        /// Labels of the suffix.
        labels: usize,
    },
    /// The exact name.
    Exact,
}

#[cfg(test)]
mod tests;
