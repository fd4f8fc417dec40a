//! The parsed text: a tree of keys and values with their positions, the same for TOML and JSON.
//!
//! A derived deserializer stops at the first error; with a tree, one pass finds all of them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::keys;
use super::report::{JsonPath, Position, Problem};
use crate::text::without_byte_order_mark;
use crate::toml_nesting::{LEVELS_MAX, too_deep};

/// A value and its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

/// A value of either format.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    /// Saturated: a number that does not fit is outside of every bound anyway.
    Integer(i128),
    Float,
    Boolean(bool),
    Datetime,
    Null,
    List(Vec<Node>),
    Table(Table),
}

/// Keys and values in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<KeyValue>,
}

impl Table {
    /// Moves all positions by this offset: see [`Position::shift`]. The recursion is bounded: by [`too_deep`] in TOML,
    /// by `serde_json` in JSON.
    pub(super) fn shift(&mut self, by: usize) {
        for entry in &mut self.entries {
            entry.position.shift(by);
            entry.node.shift(by);
        }
    }
}

impl Node {
    fn shift(&mut self, by: usize) {
        self.position.shift(by);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Value::Table(table) => table.shift(by),
            _ => {}
        }
    }
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) node: Node,
}

impl Value {
    /// The name of its type in messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::Null => "null",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Parses TOML.
///
/// # Errors
/// All syntax errors, duplicate keys included. The parser goes on after an error, so later errors may be consequences
/// of it. If tables and lists are nested too deep, or the text is JSON, that is the only error.
pub(super) fn toml(text: &str) -> Result<Table, Vec<Problem>> {
    if let Some(place) = too_deep(text) {
        let hint = format!("the limit is {LEVELS_MAX} levels");
        let problem = Problem::error(
            Position::Bytes(place),
            "TOML: tables and lists are nested too deep",
            hint,
        );
        return Err(vec![problem]);
    }
    if let Some((at, '{')) = first_character(text) {
        let hint = "a configuration in JSON is in a file whose name ends in .json";
        return Err(vec![Problem::error(
            Position::Bytes(at..at + 1),
            "TOML: this is JSON",
            hint,
        )]);
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table_of(root.get_ref()));
    }
    let problem = |error: toml::de::Error| {
        let position = error.span().map_or(Position::File, Position::Bytes);
        let message = error.message();
        match message.split_once(", expected ") {
            _ if message == "duplicate key" => Problem::error(position, "TOML: duplicate key", KEEP_ONE),
            Some((_, "nothing")) | None => Problem::error(position, format!("TOML: {message}"), ""),
            Some((what, wanted)) => Problem::error(position, format!("TOML: {what}"), format!("expected {wanted}")),
        }
    };
    Err(errors.into_iter().map(problem).collect())
}

/// The remedy for a duplicate key.
const KEEP_ONE: &str = "keep one";

/// The first character that is neither whitespace nor a byte order mark, with its position.
fn first_character(text: &str) -> Option<(usize, char)> {
    text.char_indices()
        .find(|(_, c)| !c.is_whitespace() && *c != '\u{feff}')
}

/// Parses TOML and ignores syntax errors; returns the value of a top-level key, if the parser recovered it.
pub(super) fn toml_recovered(text: &str, key: &str) -> Option<Value> {
    if too_deep(text).is_some() {
        return None;
    }
    let (root, _) = DeTable::parse_recoverable(text);
    root.get_ref().get(key).map(|value| node_of(value).value)
}

/// The recursion is bounded: see [`too_deep`].
fn table_of(table: &DeTable<'_>) -> Table {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        KeyValue {
            key: name.to_string(),
            position: Position::Bytes(key.span()),
            node: node_of(value),
        }
    };
    Table {
        entries: table.iter().map(entry).collect(),
    }
}

fn node_of(value: &Spanned<DeValue<'_>>) -> Node {
    Node {
        position: Position::Bytes(value.span()),
        value: match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => Value::Integer(integer_of(number)),
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(list) => Value::List(list.iter().map(node_of).collect()),
            DeValue::Table(table) => Value::Table(table_of(table)),
        },
    }
}

fn integer_of(number: &DeInteger<'_>) -> i128 {
    let saturated = if number.as_str().starts_with('-') {
        i128::MIN
    } else {
        i128::MAX
    };
    i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(saturated)
}

/// Parses JSON. Positions are paths of keys; only that of a syntax error is a range of bytes.
///
/// # Errors
/// The first syntax error, or all duplicate keys, or that the value is not a table.
pub(super) fn json(text: &str) -> Result<Table, Vec<Problem>> {
    let json = without_byte_order_mark(text);
    let offset = text.len() - json.len();
    let raw: RawJson = serde_json::from_str(json).map_err(|error| vec![json_syntax_error(json, offset, &error)])?;
    let mut assigner = PathAssigner::default();
    let root = assigner.node(&Arc::new(JsonPath::Root), raw);
    if !assigner.duplicates.is_empty() {
        return Err(assigner.duplicates);
    }
    match root.value {
        Value::Table(table) => Ok(table),
        other => {
            let message = format!("expected a table of sections, found {}", other.kind());
            Err(vec![Problem::error(
                Position::File,
                message,
                format!("write {}", keys::FILE.example),
            )])
        }
    }
}

/// `offset` is the number of bytes of the file before `json`.
fn json_syntax_error(json: &str, offset: usize, error: &serde_json::Error) -> Problem {
    let full = error.to_string();
    let message = full.split(" at line ").next().unwrap_or_default();
    let before: usize = json
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let at = offset + before + error.column().saturating_sub(1);
    let is_table = first_character(json).is_none_or(|(_, first)| first == '{');
    let hint = match is_table {
        true => json_remedy(message),
        false => "write { … }; or, if this is TOML, give it a name that ends in .toml",
    };
    Problem::error(Position::Bytes(at..at + 1), format!("JSON: {message}"), hint)
}

/// What to write instead, for a message of `serde_json` that does not say it.
fn json_remedy(message: &str) -> &'static str {
    match message {
        "trailing comma" => "remove the comma",
        "trailing characters" => "remove what follows the end of the table",
        "key must be a string" => "write the key in double quotes",
        "recursion limit exceeded" => "nest tables and lists less deeply",
        _ if message.starts_with("EOF while parsing") => "the text ends too early: write the rest",
        _ => "",
    }
}

/// JSON without positions. Unlike `serde_json::Value`, it keeps duplicate keys.
enum RawJson {
    Leaf(Value),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawJsonVisitor)
    }
}

struct RawJsonVisitor;

impl<'de> Visitor<'de> for RawJsonVisitor {
    type Value = RawJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, boolean: bool) -> Result<RawJson, E> {
        Ok(RawJson::Leaf(Value::Boolean(boolean)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<RawJson, E> {
        Ok(RawJson::Leaf(Value::Integer(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<RawJson, E> {
        Ok(RawJson::Leaf(Value::Integer(number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<RawJson, E> {
        // The parser makes a float of an integer that does not fit into 64 bits.
        let is_large_integer = number.fract() == 0.0 && number.abs() >= 2_f64.powi(63);
        Ok(RawJson::Leaf(match is_large_integer {
            true => Value::Integer(number as i128), // saturates
            false => Value::Float,
        }))
    }

    fn visit_str<E>(self, text: &str) -> Result<RawJson, E> {
        Ok(RawJson::Leaf(Value::String(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<RawJson, E> {
        Ok(RawJson::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawJson, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(RawJson::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawJson, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(RawJson::Table(table))
    }
}

/// Gives each value its path, and a number that increases through the file: the two parts of [`Position::Path`].
#[derive(Default)]
struct PathAssigner {
    order: usize,
    duplicates: Vec<Problem>,
}

impl PathAssigner {
    fn node(&mut self, path: &Arc<JsonPath>, raw: RawJson) -> Node {
        self.order += 1;
        let position = Position::Path {
            path: Arc::clone(path),
            order: self.order,
        };
        let value = match raw {
            RawJson::Leaf(value) => value,
            RawJson::List(items) => {
                let mut item = |(index, raw)| self.node(&Arc::new(JsonPath::Item(Arc::clone(path), index)), raw);
                Value::List(items.into_iter().enumerate().map(&mut item).collect())
            }
            RawJson::Table(entries) => Value::Table(self.table(path, entries)),
        };
        Node { position, value }
    }

    fn table(&mut self, path: &Arc<JsonPath>, raw: Vec<(String, RawJson)>) -> Table {
        let mut seen = HashSet::new();
        let mut entries = Vec::with_capacity(raw.len());
        for (key, raw) in raw {
            let path = Arc::new(JsonPath::Key(Arc::clone(path), key.as_str().into()));
            let node = self.node(&path, raw);
            let position = node.position.clone();
            if !seen.insert(key.clone()) {
                self.duplicates
                    .push(Problem::error(position.clone(), "duplicate key", KEEP_ONE));
            }
            entries.push(KeyValue { key, position, node });
        }
        Table { entries }
    }
}
