//! Server names and the patterns that match them.
//!
//! Names are folded (case, one trailing dot, punycode) and checked once, in their constructors; ever after they are
//! compared byte by byte.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
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
    /// What makes it invalid; what such a name still matches is up to [`Sni`].
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
/// A client that sends nothing, an empty name or an IP literal has none of these. Any other name that is not valid is
/// kept, because a server may take it for one of its own: it must not pass by a route that refuses `*.suffix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sni {
    /// A valid name.
    Valid(ServerName),
    /// A name that is not valid; only `*` and `*.suffix` match it.
    Invalid(InvalidName),
}

/// The end of a name that is not valid, folded as valid names are: ASCII letters in lower case, without one trailing
/// dot.
///
/// Of a long one only as much is kept as a `*.suffix` can be compared with: [`NAME_BYTES_MAX`] bytes and the dot before
/// them.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidName(Box<[u8]>);

impl Sni {
    /// What a client sent; `None` if that counts as no name.
    #[must_use]
    pub fn from_wire(sent: &[u8]) -> Option<Self> {
        Self::read(sent, ServerName::from_wire(sent)).ok()
    }

    /// What an operator wrote in the place of a client's name; internationalised names become punycode.
    ///
    /// # Errors
    /// Why it counts as no name.
    pub fn from_config(text: &str) -> Result<Self, NameError> {
        Self::read(text.as_bytes(), ServerName::from_config(text))
    }

    fn read(sent: &[u8], name: Result<ServerName, NameError>) -> Result<Self, NameError> {
        match name {
            Ok(name) => Ok(Self::Valid(name)),
            Err(error @ (NameError::Empty | NameError::IpLiteral)) => Err(error),
            Err(_) if is_ip_literal(sent) => Err(NameError::IpLiteral),
            Err(_) => Ok(Self::Invalid(InvalidName::folded(sent))),
        }
    }

    /// The name, if it is valid.
    #[must_use]
    pub fn valid(&self) -> Option<&ServerName> {
        match self {
            Self::Valid(name) => Some(name),
            Self::Invalid(_) => None,
        }
    }

    /// What stands behind each dot, nearest first: of `a.b.c` these are `b.c` and `c`. A `*.suffix` matches if its
    /// suffix is one of them.
    pub fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let name = match self {
            Self::Valid(name) => name.0.as_bytes(),
            Self::Invalid(name) => &name.0,
        };
        std::iter::successors(after_dot(name), |rest| after_dot(rest))
    }
}

impl InvalidName {
    fn folded(sent: &[u8]) -> Self {
        let name = sent.strip_suffix(b".").unwrap_or(sent);
        let kept = name.len().min(NAME_BYTES_MAX + 1);
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

/// An IPv6 address, also in brackets as in a URL. IPv4 addresses are found where names are checked, for they are made
/// of the letters of names.
fn is_ip_literal(sent: &[u8]) -> bool {
    let text = std::str::from_utf8(sent).unwrap_or_default();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>().is_ok()
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
        let name = Sni::from_wire(b"a.b.c").unwrap();
        assert_eq!(name.parents().collect::<Vec<_>>(), [b"b.c".as_slice(), b"c"]);
        assert_eq!(Sni::from_wire(b"a").unwrap().parents().count(), 0);
    }

    #[test]
    fn only_nothing_an_empty_name_and_an_ip_literal_are_no_name() {
        for sent in [
            "",
            ".",
            "10.0.0.1",
            "10.0.0.1.",
            "::1",
            "[::1]",
            "2001:db8::7",
            "[10.0.0.1]",
        ] {
            assert_eq!(Sni::from_wire(sent.as_bytes()), None, "{sent:?}");
            assert!(Sni::from_config(sent).is_err(), "{sent:?}");
        }
        let long = format!("{}.example.com", "a".repeat(64));
        for sent in ["..", "x!z.example", "a b", "*.a", ".a", "10.0.0.1:443", "[::1", &long] {
            let invalid = Sni::Invalid(InvalidName::folded(sent.as_bytes()));
            assert_eq!(Sni::from_wire(sent.as_bytes()), Some(invalid.clone()), "{sent:?}");
            assert_eq!(Sni::from_config(sent), Ok(invalid), "{sent:?}");
        }
        assert!(matches!(Sni::from_wire(b"\xff\0."), Some(Sni::Invalid(_))));
    }

    #[test]
    fn an_invalid_name_is_folded_and_its_end_is_kept() {
        assert_eq!(InvalidName::folded(b"X!Z.Example.").0[..], *b"x!z.example");
        assert_eq!(InvalidName::folded(b"x!z.example..").0[..], *b"x!z.example.");
        let suffix = "b.".repeat(126) + "c";
        assert_eq!(suffix.len(), NAME_BYTES_MAX);
        let long = InvalidName::folded(format!("{}!.{suffix}", "a".repeat(60_000)).as_bytes());
        assert_eq!(long.0.len(), NAME_BYTES_MAX + 1);
        assert_eq!(Sni::Invalid(long).parents().next(), Some(suffix.as_bytes()));
    }

    proptest::proptest! {
        #[test]
        fn bytes_match_suffixes_as_valid_names_do(text in "[a-cA-C0-9_-]{1,3}(\\.[a-cA-C0-9_-]{1,3}){0,4}\\.?") {
            let Some(Sni::Valid(name)) = Sni::from_wire(text.as_bytes()) else {
                return Ok(()); // an IP literal
            };
            let bytes = Sni::Invalid(InvalidName::folded(text.as_bytes()));
            let valid = Sni::Valid(name);
            proptest::prop_assert!(bytes.parents().eq(valid.parents()));
        }
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
