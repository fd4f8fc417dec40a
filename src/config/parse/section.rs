//! A table whose keys are known.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Mistakes, value};
use crate::config::file::{Entry, Node, Table};
use crate::config::keys;
use crate::config::report::Place;
use crate::text::is_unsafe;

static EMPTY: Table = Table { entries: Vec::new() };

/// The longest name of a listener, pool, route or server, in bytes: it is repeated in every log line.
const NAME_BYTES_MAX: usize = 128;

/// One section of the file; what is not there is empty.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    keys: &'static keys::Section,
    place: &'a Place,
    table: &'a Table,
}

impl<'a> Section<'a> {
    /// The file itself. Says what is unknown in it, as all of these do.
    pub(super) fn of_file(table: &'a Table, m: &mut Mistakes<'_>) -> Self {
        Self::checked(&keys::FILE, &Place::File, table, m)
    }

    /// A value that has to be a table; `place` is what to point at when something is missing in it.
    pub(super) fn open(
        node: &'a Node,
        place: &'a Place,
        keys: &'static keys::Section,
        m: &mut Mistakes<'_>,
    ) -> Option<Self> {
        let table = value::table(node, m)?;
        Some(Self::checked(keys, place, table, m))
    }

    /// The section below `key`.
    pub(super) fn child(&self, key: &str, keys: &'static keys::Section, m: &mut Mistakes<'_>) -> Self {
        let empty = Self {
            keys,
            place: self.place,
            table: &EMPTY,
        };
        let Some((place, node)) = self.entry(key) else {
            return empty;
        };
        Self::open(node, place, keys, m).unwrap_or(empty)
    }

    fn checked(keys: &'static keys::Section, place: &'a Place, table: &'a Table, m: &mut Mistakes<'_>) -> Self {
        for entry in &table.entries {
            if !keys.keys.contains(&entry.key.as_str()) {
                let (what, label) = keys.wrong(&entry.key);
                m.say(&entry.place, what, label);
            }
        }
        Self { keys, place, table }
    }

    /// Where to point when something is missing.
    pub(super) fn place(&self) -> &'a Place {
        self.place
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The place of a key, and its value.
    pub(super) fn entry(&self, key: &str) -> Option<(&'a Place, &'a Node)> {
        debug_assert!(self.keys.keys.contains(&key), "`{key}` is in no table of keys");
        let entry = self.table.entries.iter().find(|entry| entry.key == key)?;
        Some((&entry.place, &entry.node))
    }

    /// Whether a key is not there, nor one that was probably meant to be it and has been said to be wrong.
    pub(super) fn lacks(&self, key: &str) -> bool {
        let stands_for_it = |entry: &Entry| entry.key == key || self.keys.may_mean(&entry.key, key);
        !self.table.entries.iter().any(stands_for_it)
    }

    /// The value of a key that must be there.
    pub(super) fn required(&self, key: &str, example: &str, m: &mut Mistakes<'_>) -> Option<&'a Node> {
        if self.lacks(key) {
            m.say(self.place, format!("`{key}` is missing"), format!("add {example}"));
        }
        self.get(key)
    }

    /// What stands below `key`, each under a name its owner chose.
    pub(super) fn named(&self, key: &str, m: &mut Mistakes<'_>) -> &'a [Entry] {
        let Some(table) = self.get(key).and_then(|node| value::table(node, m)) else {
            return &[];
        };
        for entry in &table.entries {
            name_is_sound(&entry.key, &entry.place, m);
        }
        &table.entries
    }

    /// A whole number within bounds.
    pub(super) fn whole(&self, key: &str, bounds: RangeInclusive<u32>, m: &mut Mistakes<'_>) -> Option<u32> {
        value::whole(self.get(key)?, bounds, m)
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &self,
        key: &str,
        bounds: RangeInclusive<Duration>,
        m: &mut Mistakes<'_>,
    ) -> Option<Duration> {
        value::duration(self.get(key)?, bounds, m)
    }

    /// A duration within bounds, or `"off"`.
    pub(super) fn duration_or_off(
        &self,
        key: &str,
        bounds: RangeInclusive<Duration>,
        m: &mut Mistakes<'_>,
    ) -> Option<Option<Duration>> {
        let node = self.get(key)?;
        if value::is_off(node) {
            return Some(None);
        }
        value::duration(node, bounds, m).map(Some)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&'static str, T)], m: &mut Mistakes<'_>) -> Option<T> {
        value::word(self.get(key)?, words, m)
    }

    /// A name its owner chose.
    pub(super) fn name(&self, key: &str, m: &mut Mistakes<'_>) -> Option<&'a str> {
        let node = self.get(key)?;
        let text = value::text(node, m)?;
        name_is_sound(text, &node.place, m);
        Some(text)
    }
}

/// Names stand in log lines, labels and commands: nothing in them may be blank or invisible, or need an escape.
fn name_is_sound(name: &str, place: &Place, m: &mut Mistakes<'_>) {
    let is_odd = |c: char| c.is_whitespace() || is_unsafe(c) || matches!(c, '"' | '\\');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(is_odd) {
        let label =
            format!("write 1 to {NAME_BYTES_MAX} bytes without blanks, `\"`, `\\`, control and invisible characters");
        m.say(place, "this is not a name", label);
    }
}
