//! A section: a table together with the keys that are valid in it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::address::InvalidValue;
use super::{Problems, value};
use crate::config::file::{KeyValue, Node, Table, Value};
use crate::config::keys;
use crate::config::report::Position;
use crate::config::suggest;
use crate::text::{NAME_BYTES_MAX, is_name};

static EMPTY: Table = Table { entries: Vec::new() };

/// A section of the file; empty if the file does not have it.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    keys: &'static keys::SectionKeys,
    position: &'a Position,
    table: &'a Table,
}

impl<'a> Section<'a> {
    /// The top level of the file. Reports unknown keys, as all constructors do.
    pub(super) fn root(table: &'a Table, problems: &mut Problems<'_>) -> Self {
        Self::with_known_keys(&keys::FILE, &Position::File, table, problems)
    }

    /// A value that must be a table. Missing keys are reported at `position`.
    pub(super) fn open(
        node: &'a Node,
        position: &'a Position,
        keys: &'static keys::SectionKeys,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let table = value::table(node, keys.example, problems)?;
        Some(Self::with_known_keys(keys, position, table, problems))
    }

    /// The section that is the value of `key`; empty if it is missing or not a table.
    pub(super) fn child(&self, key: &str, keys: &'static keys::SectionKeys, problems: &mut Problems<'_>) -> Self {
        let empty = Self {
            keys,
            position: self.position,
            table: &EMPTY,
        };
        let Some((position, node)) = self.entry(key) else {
            return empty;
        };
        Self::open(node, position, keys, problems).unwrap_or(empty)
    }

    fn with_known_keys(
        keys: &'static keys::SectionKeys,
        position: &'a Position,
        table: &'a Table,
        problems: &mut Problems<'_>,
    ) -> Self {
        for entry in &table.entries {
            if !keys.keys.contains(&entry.key.as_str()) {
                let (message, hint) = suggest::unknown_key(keys, &entry.key);
                problems.error(&entry.position, message, hint);
            }
        }
        Self { keys, position, table }
    }

    /// The position at which missing keys are reported.
    pub(super) fn position(&self) -> &'a Position {
        self.position
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The position of a key, and its value.
    pub(super) fn entry(&self, key: &str) -> Option<(&'a Position, &'a Node)> {
        debug_assert!(
            self.keys.keys.contains(&key),
            "`{key}` is not a key of {}",
            self.keys.title
        );
        let entry = self.table.entries.iter().find(|entry| entry.key == key)?;
        Some((&entry.position, &entry.node))
    }

    /// Whether a key is missing. A misspelt key is not missing: it has been reported as an unknown key.
    pub(super) fn is_missing(&self, key: &str) -> bool {
        let is_meant = |entry: &KeyValue| entry.key == key || suggest::probably_means(self.keys, &entry.key, key);
        !self.table.entries.iter().any(is_meant)
    }

    /// Whether the content of the table `key` is unknown, because the value is not a table or the key is misspelt.
    /// Either is reported as an error.
    pub(super) fn is_unknown(&self, key: &str) -> bool {
        match self.get(key) {
            Some(node) => !matches!(node.value, Value::Table(_)),
            None => !self.is_missing(key),
        }
    }

    /// The value of a required key.
    pub(super) fn required(&self, key: &str, example: &str, problems: &mut Problems<'_>) -> Option<&'a Node> {
        if self.is_missing(key) {
            problems.error(self.position, format!("`{key}` is missing"), format!("add {example}"));
        }
        self.get(key)
    }

    /// The entries of the table that is the value of `key`. Their keys are names that the operator chose.
    pub(super) fn subsections(&self, key: &str, problems: &mut Problems<'_>) -> &'a [KeyValue] {
        let example = format!("[{key}.NAME]");
        let table = self.get(key).and_then(|node| value::table(node, &example, problems));
        let Some(table) = table else { return &[] };
        for entry in &table.entries {
            check_name(&entry.key, &entry.position, problems);
        }
        &table.entries
    }

    /// An integer within bounds.
    pub(super) fn integer(&self, key: &str, bounds: RangeInclusive<u32>, problems: &mut Problems<'_>) -> Option<u32> {
        value::integer(self.get(key)?, bounds, problems)
    }

    /// The number of a port.
    pub(super) fn port(&self, key: &str, problems: &mut Problems<'_>) -> Option<u16> {
        value::port(self.get(key)?, problems)
    }

    /// A boolean.
    pub(super) fn boolean(&self, key: &str, problems: &mut Problems<'_>) -> Option<bool> {
        value::boolean(self.get(key)?, problems)
    }

    /// The path of a file.
    pub(super) fn path(&self, key: &str, problems: &mut Problems<'_>) -> Option<PathBuf> {
        value::path(self.get(key)?, problems)
    }

    /// The path of a directory.
    pub(super) fn directory(&self, key: &str, problems: &mut Problems<'_>) -> Option<PathBuf> {
        value::directory(self.get(key)?, problems)
    }

    /// A duration within bounds.
    pub(super) fn duration(
        &self,
        key: &str,
        bounds: RangeInclusive<Duration>,
        problems: &mut Problems<'_>,
    ) -> Option<Duration> {
        value::duration(self.get(key)?, bounds, problems)
    }

    /// A duration within bounds, or `Some(None)` for `"off"`. `None`: the key is missing, or its value is not valid.
    pub(super) fn duration_or_off(
        &self,
        key: &str,
        bounds: RangeInclusive<Duration>,
        problems: &mut Problems<'_>,
    ) -> Option<Option<Duration>> {
        value::duration_or_off(self.get(key)?, bounds, problems)
    }

    /// One of a set of values.
    pub(super) fn one_of<T: Copy>(
        &self,
        key: &str,
        values: &[(&'static str, T)],
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        value::one_of(self.get(key)?, values, problems)
    }

    /// A string that `parse` converts.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, InvalidValue>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        value::parsed(self.get(key)?, parse, problems)
    }

    /// A name that the operator chose.
    pub(super) fn name(&self, key: &str, problems: &mut Problems<'_>) -> Option<&'a str> {
        let node = self.get(key)?;
        let text = value::string(node, "write a name in quotes", problems)?;
        check_name(text, &node.position, problems);
        Some(text)
    }
}

/// Reports a name that [`is_name`] rejects.
fn check_name(name: &str, position: &Position, problems: &mut Problems<'_>) {
    if !is_name(name) {
        let hint = match name {
            "." | ".." => "it cannot be a part of a URL, as in the API: write another name".to_owned(),
            _ => {
                format!(
                    "write 1 to {NAME_BYTES_MAX} bytes without spaces, `\"`, `\\`, control and invisible characters"
                )
            }
        };
        problems.error(position, "invalid name", hint);
    }
}
