//! Patterns for names that are plain text, such as those of databases and users: `*` stands for any characters, or
//! none.

use std::fmt;
use std::sync::Arc;

/// A pattern. Compared byte by byte: names of databases are case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(Arc<str>);

impl Glob {
    /// A pattern. Without `*` it matches only itself.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether the pattern matches the whole text. The time is at most proportional to the product of both lengths.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut parts = self.0.as_bytes().split(|byte| *byte == b'*');
        let (Some(first), Some(last)) = (parts.next(), parts.next_back()) else {
            return self.0.as_bytes() == text; // no `*`
        };
        let Some(rest) = text.strip_prefix(first) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(last) else {
            return false;
        };
        // The first match is enough: it leaves the most text for the later parts.
        for part in parts.filter(|part| !part.is_empty()) {
            let Some(at) = rest.windows(part.len()).position(|window| window == part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        true
    }

    /// Whether it matches everything that `other` matches. Only simple cases are recognized: `false` proves nothing.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self == other || &*self.0 == "*" || (!other.0.contains('*') && self.matches(other.0.as_bytes()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_or_none() {
        for (pattern, text, matches) in [
            ("orders", "orders", true),
            ("orders", "Orders", false),
            ("orders", "orders2", false),
            ("*", "", true),
            ("orders_*", "orders_", true),
            ("orders_*", "orders", false),
            ("*_ro", "orders_ro", true),
            ("*_ro", "orders_rw", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a_b_b_c", true),
            ("a*b*c", "acb", false),
            ("**", "x", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text.as_bytes()), matches, "{pattern} {text}");
        }
    }

    /// Matches as the definition says, slowly: `*` takes each number of characters in turn.
    fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|taken| matches_by_definition(rest, &text[taken..])),
            Some((byte, rest)) => text
                .split_first()
                .is_some_and(|(first, text)| first == byte && matches_by_definition(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn globs_match_like_the_definition(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assert_eq!(Glob::new(&pattern).matches(text.as_bytes()), matches_by_definition(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn a_pattern_matches_whatever_its_covered_patterns_match(wide in "[ab*]{0,4}", narrow in "[ab*]{0,4}", text in "[ab]{0,6}") {
            let (wide, narrow) = (Glob::new(&wide), Glob::new(&narrow));
            if wide.covers(&narrow) && narrow.matches(text.as_bytes()) {
                prop_assert!(wide.matches(text.as_bytes()));
            }
        }
    }
}
