//! Server names and the patterns that match them.
//!
//! Names are folded (case, one trailing dot, punycode) and checked once, in their constructors; ever after they are
//! compared byte by byte.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Longest name in bytes: RFC 1035, section 2.3.4, less the length byte and the root label.
pub const NAME_BYTES_MAX: usize = 253;

/// Longest label in bytes: RFC 1035, section 2.3.4.
pub const LABEL_BYTES_MAX: usize = 63;

/// A valid, folded server name: lower case, no trailing dot, never an IP literal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(Arc<str>);

/// Why a text is no server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or only a dot.
    #[error("a server name must not be empty")]
    Empty,
    /// Over [`NAME_BYTES_MAX`].
    #[error("a server name has at most 253 bytes")]
    TooLong,
    /// A label that is empty or over [`LABEL_BYTES_MAX`].
    #[error("each label of a server name has 1 to 63 bytes")]
    LabelLength,
    /// Something besides letters, digits, `-`, `_` and dots.
    #[error("a server name is made of letters, digits, `-`, `_` and dots")]
    Character,
    /// An IP address: RFC 6066, section 3, does not permit them as server names.
    #[error("an IP address is not a server name (clients do not send one)")]
    IpLiteral,
}

impl ServerName {
    /// The name a client sent: bytes as they stand in the `server_name` extension (RFC 6066, section 3).
    ///
    /// # Errors
    /// What makes it invalid; such a name counts as no name.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| NameError::Character)?;
        Self::folded(text)
    }

    /// The name an operator wrote: internationalised names become punycode (UTS 46).
    ///
    /// # Errors
    /// What makes it invalid.
    pub fn from_config(text: &str) -> Result<Self, NameError> {
        if text.is_ascii() {
            return Self::folded(text);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| NameError::Character)?;
        Self::folded(&ascii)
    }

    fn folded(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > LABEL_BYTES_MAX {
                return Err(NameError::LabelLength);
            }
            if !label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                return Err(NameError::Character);
            }
        }
        if name.parse::<Ipv4Addr>().is_ok() {
            return Err(NameError::IpLiteral); // an IPv6 literal has already failed by its colons
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The folded name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folded name, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// How many labels it has; at least one.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.0.split('.').count()
    }

    /// The names above this one, nearest first: of `a.b.c` these are `b.c` and `c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(self.0.split_once('.'), |(_, rest)| rest.split_once('.')).map(|(_, rest)| rest)
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

/// What an `sni` condition says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// This name and no other.
    Exact(ServerName),
    /// `*.suffix`: one or more labels before the suffix, never the suffix itself.
    Suffix(ServerName),
    /// `*`: any name at all, but a name.
    Any,
}

impl NamePattern {
    /// Reads a pattern as an operator writes it.
    ///
    /// # Errors
    /// What is wrong with the name in it; a `*` anywhere but as the whole first label is a wrong character.
    pub fn from_config(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_prefix("*.") {
            Some(suffix) => ServerName::from_config(suffix).map(Self::Suffix),
            None => ServerName::from_config(text).map(Self::Exact),
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

/// How well the name condition of a route fits; declared from weakest to strongest, so that `derive` is the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The route has no name condition.
    Unconditional,
    /// `*`.
    Any,
    /// `*.suffix`; more labels fit better.
    Suffix {
        /// Labels of the suffix.
        labels: usize,
    },
    /// The very name.
    Exact,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_case_and_one_trailing_dot() {
        let name = ServerName::from_wire(b"Shop.Example.COM.").unwrap();
        assert_eq!(name.as_str(), "shop.example.com");
        assert_eq!(ServerName::from_wire(b"a..").unwrap_err(), NameError::LabelLength);
    }

    #[test]
    fn internationalised_names_become_punycode_in_the_file_only() {
        assert_eq!(
            ServerName::from_config("bücher.example").unwrap().as_str(),
            "xn--bcher-kva.example"
        );
        assert_eq!(
            ServerName::from_wire("bücher.example".as_bytes()),
            Err(NameError::Character)
        );
    }

    #[test]
    fn each_bound_is_exact() {
        let label = "a".repeat(63);
        assert!(ServerName::from_wire(label.as_bytes()).is_ok());
        assert_eq!(
            ServerName::from_wire("a".repeat(64).as_bytes()),
            Err(NameError::LabelLength)
        );
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(ServerName::from_wire(longest.as_bytes()).is_ok());
        assert!(ServerName::from_wire(format!("{longest}.").as_bytes()).is_ok());
        assert_eq!(
            ServerName::from_wire(format!("{longest}b").as_bytes()),
            Err(NameError::TooLong)
        );
    }

    #[test]
    fn what_is_no_name() {
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("10.0.0.1", NameError::IpLiteral),
            ("::1", NameError::Character),
            ("[::1]", NameError::Character),
            ("a b", NameError::Character),
            ("a\0b", NameError::Character),
            (".a", NameError::LabelLength),
            ("*.a", NameError::Character),
        ] {
            assert_eq!(ServerName::from_wire(text.as_bytes()), Err(error), "{text:?}");
        }
        for text in ["a", "_dmarc.a", "-a-.b_", "1.2.3", "xn--a.b"] {
            assert!(ServerName::from_wire(text.as_bytes()).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn parents_are_nearest_first() {
        let name = ServerName::from_wire(b"a.b.c").unwrap();
        assert_eq!(name.parents().collect::<Vec<_>>(), ["b.c", "c"]);
        assert_eq!(ServerName::from_wire(b"a").unwrap().parents().count(), 0);
    }

    #[test]
    fn patterns() {
        assert_eq!(NamePattern::from_config("*").unwrap(), NamePattern::Any);
        assert_eq!(
            NamePattern::from_config("*.Example.com").unwrap().to_string(),
            "*.example.com"
        );
        assert!(NamePattern::from_config("a.*.b").is_err());
        assert!(NamePattern::from_config("*.").is_err());
        assert!(Rank::Exact > Rank::Suffix { labels: 9 });
        assert!(Rank::Suffix { labels: 3 } > Rank::Suffix { labels: 2 });
        assert!(Rank::Suffix { labels: 1 } > Rank::Any && Rank::Any > Rank::Unconditional);
    }
}
