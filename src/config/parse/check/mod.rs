//! The key `check` of `[pools.NAME.health]`, and the keys that belong to certain kinds of checks: a file for each kind.

mod reader;
mod role;
mod tcp;
mod tls;
mod postgres;

use std::sync::Arc;

use super::{Mistakes, Section, value};
use crate::check::tcp::TcpCheck;
use crate::check::{Check, CheckKind, KINDS};
use crate::config::file::{Node, Value};
use reader::{KindReader, Sections};

/// Every kind of check that can be configured.
static READERS: [KindReader; 3] = [tcp::READER, tls::READER, postgres::READER];

/// The kind that is used where `check` is missing.
const DEFAULT: KindReader = tcp::READER;

/// Kinds that are planned, but do not work yet.
const PLANNED: [&str; 5] = ["http", "mysql", "redis", "send-expect", "exec"];

/// Reads the check of a pool from `[pools.NAME]` and `[pools.NAME.health]`; `None`: its servers are not checked.
pub(super) fn check(pool: &Section<'_>, health: &Section<'_>, m: &mut Mistakes<'_>) -> Option<Arc<dyn Check>> {
    let reader = match health.get("check") {
        None => Some(DEFAULT),
        Some(node) => match reader(node, m) {
            Some(reader) => reader,
            None => return Some(default()), // a mistake: it is not known which keys belong to the check
        },
    };
    let kind = reader.map(|reader| reader.kind);
    misplaced_keys(kind, health, |kind| kind.health_keys, m);
    misplaced_keys(kind, pool, |kind| kind.pool_keys, m);
    reader.map(|reader| (reader.read)(&Sections { pool, health }, m))
}

/// The check of a pool that configures none.
pub(super) fn default() -> Arc<dyn Check> {
    Arc::new(TcpCheck)
}

/// What reads the kind that `check` names; `Some(None)` if it is "off".
fn reader(node: &Node, m: &mut Mistakes<'_>) -> Option<Option<KindReader>> {
    let kinds = READERS.iter().map(|reader| (reader.kind.name, Some(*reader)));
    let words: Vec<_> = kinds.chain([("off", None)]).collect();
    if let Value::Text(text) = &node.value
        && PLANNED.contains(&text.as_str())
    {
        let names: Vec<_> = READERS
            .iter()
            .map(|reader| format!("\"{}\"", reader.kind.name))
            .collect();
        let label = format!("write {} or \"off\"", names.join(", "));
        m.say(&node.place, format!("`{text}` checks do not work yet"), label);
        return None;
    }
    value::word(node, &words, m)
}

/// Reports keys of a section that belong only to other kinds of checks.
fn misplaced_keys(
    kind: Option<&CheckKind>,
    section: &Section<'_>,
    keys_of: fn(&CheckKind) -> &'static [&'static str],
    m: &mut Mistakes<'_>,
) {
    let own = kind.map_or(&[][..], keys_of);
    let mut others: Vec<&str> = KINDS.iter().flat_map(|kind| keys_of(kind)).copied().collect();
    others.retain(|key| !own.contains(key));
    for (index, key) in others.iter().enumerate() {
        let Some((place, _)) = section.entry(key).filter(|_| !others[..index].contains(key)) else {
            continue;
        };
        let owners = KINDS.iter().filter(|kind| keys_of(kind).contains(key));
        let owners: Vec<_> = owners.map(|kind| format!("\"{}\"", kind.name)).collect();
        let owners = owners.join(" or ");
        let label = format!("write check = {owners} in [pools.NAME.health], or leave it out");
        m.say(place, format!("`{key}` is for the check {owners}"), label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_configured() {
        let kinds = KINDS.map(|kind| kind.name);
        assert_eq!(READERS.map(|reader| reader.kind.name), kinds);
        assert!(!PLANNED.iter().any(|name| kinds.contains(name)));
    }
}
