//! Regular expressions that are matched with the bytes that servers send.

use regex::bytes::{Regex, RegexBuilder};

/// The largest compiled expression, and the largest cache of a search, in bytes. The time of a search is linear in the bytes
/// searched; this bounds the factor.
const COMPILED_BYTES_MAX: usize = 1 << 18;

/// A regular expression over bytes. Case and classes are those of ASCII. Patterns are equal if they are written alike.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It is not valid, or too large.
    pub fn new(expression: &str) -> Result<Self, String> {
        let mut builder = RegexBuilder::new(expression);
        builder.unicode(false);
        let compiled = builder
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .build();
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            error => last_line(&error.to_string()),
        })
    }

    /// The expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The end of the first match; `None`: there is none.
    pub(crate) fn find_end(&self, bytes: &[u8]) -> Option<usize> {
        self.0.find(bytes).map(|found| found.end())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// The last line of an error. One in the syntax has several lines: the expression, a mark, and what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_bytes_that_are_not_utf_8() {
        let pattern = Pattern::new(r"(?i)ok\xff.").unwrap();
        assert_eq!(pattern.find_end(b"\xfeOK\xff\x80rest"), Some(5));
        assert_eq!(pattern.find_end(b"ok"), None);
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(Pattern::new("a(b").unwrap_err(), "unclosed group");
        assert_eq!(Pattern::new("(a{1000}){1000}").unwrap_err(), "it is too large");
    }
}
