//! Regular expressions.

use super::super::value;
use super::Problems;
use crate::check::Pattern;
use crate::config::file::Node;

/// A regular expression over bytes.
pub(super) fn pattern(node: &Node, problems: &mut Problems<'_>) -> Option<Pattern> {
    let hint = "write one, as in '(?i)ready'; a literal . ( ) [ ] { } ? * + | ^ $ needs a \\ before it";
    let text = value::string(node, hint, problems)?;
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            problems.error(&node.position, format!("invalid regular expression: {error}"), hint);
            None
        }
    }
}
