//! Whether a condition of a route holds, and by which of its entries.

use crate::glob::Glob;

/// How one condition of a route turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match<E> {
    /// The route has no such condition.
    Unconditional,
    /// It holds by this entry.
    By(E),
    /// None of its entries holds.
    Unmet,
}

impl<E> Match<E> {
    /// The result for a condition with these entries. `matching`: the entry that matches, if any.
    pub(super) fn new<T>(entries: &[T], matching: Option<E>) -> Self {
        match matching {
            _ if entries.is_empty() => Self::Unconditional,
            Some(entry) => Self::By(entry),
            None => Self::Unmet,
        }
    }

    pub(super) fn holds(&self) -> bool {
        !matches!(self, Self::Unmet)
    }

    pub(super) fn entry(self) -> Option<E> {
        match self {
            Self::By(entry) => Some(entry),
            Self::Unconditional | Self::Unmet => None,
        }
    }
}

/// The result for a condition with these patterns: the first one that matches counts. Without a text, none matches.
pub(super) fn text_entry<'a>(patterns: &'a [Glob], text: Option<&[u8]>) -> Match<&'a Glob> {
    let entry = text.and_then(|text| patterns.iter().find(|pattern| pattern.matches(text)));
    Match::new(patterns, entry)
}
