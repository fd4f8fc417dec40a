//! Lists of texts without duplicates, such as the conditions of a route.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Problems, Section, address, value};
use crate::config::report::Position;

/// The longest protocol name: RFC 7301, section 3.1.
const ALPN_BYTES_MAX: usize = 255;

/// The entries of a list, each converted by `parse`; a single text is a list of one. Invalid and duplicate
/// entries are reported and left out.
pub(super) fn entries<T: Clone + Eq + Hash>(
    section: &Section<'_>,
    key: &str,
    problems: &mut Problems<'_>,
    parse: impl Fn(&str) -> Result<T, address::InvalidValue>,
) -> Vec<T> {
    let nodes = section
        .get(key)
        .map_or(&[][..], |node| value::one_or_many(node, problems));
    let mut seen: HashMap<T, &Position> = HashMap::new();
    let mut entries = Vec::with_capacity(nodes.len());
    for node in nodes {
        let parse = |text: &str| parse(text).map(|entry| (text.to_owned(), entry));
        let Some((text, entry)) = value::parsed(node, parse, problems) else {
            continue;
        };
        if let Some(first) = seen.get(&entry) {
            let hint = format!("first on {}", problems.describe_position(first));
            problems.error(&node.position, format!("duplicate entry `{text}`"), hint);
        } else {
            seen.insert(entry.clone(), &node.position);
            entries.push(entry);
        }
    }
    entries
}

/// Converts an ALPN protocol.
pub(super) fn alpn_protocol(text: &str) -> Result<Box<[u8]>, address::InvalidValue> {
    if text.is_empty() || text.len() > ALPN_BYTES_MAX {
        let hint = format!("write 1 to {ALPN_BYTES_MAX} bytes, as in \"h2\"");
        return Err((String::from("invalid protocol name"), hint));
    }
    Ok(text.as_bytes().into())
}
