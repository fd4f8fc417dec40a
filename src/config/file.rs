//! The text as typed: a tree in which each key and value knows its place.
//!
//! Derived deserialisers stop at the first mistake; a tree lets one pass find all of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::report::{Notice, Place};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What both formats can say.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// Saturates: what does not fit is out of every bound we have.
    Whole(i128),
    Fraction,
    Truth(bool),
    Date,
    Null,
    List(Vec<Node>),
    Table(Table),
}

/// Keys and values in the order written.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Value {
    /// What a message calls it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Whole(_) => "a whole number",
            Self::Fraction => "a fraction",
            Self::Truth(_) => "true or false",
            Self::Date => "a date",
            Self::Null => "null",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// After a mistake of syntax the parser goes on as well as it can; what it finds much later is mostly its own doing.
const SYNTAX_MISTAKES_MAX: usize = 20;

/// Reads TOML.
///
/// # Errors
/// The first mistakes of syntax the parser can tell apart, duplicate keys among them.
pub(super) fn toml(text: &str) -> Result<Table, Vec<Notice>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table_of(root.get_ref()));
    }
    let notice = |error: &toml::de::Error| {
        let place = error.span().map_or(Place::File, Place::Bytes);
        let message = error.message();
        match message.split_once(", expected ") {
            Some((_, "nothing")) | None => Notice::mistake(place, format!("TOML: {message}"), ""),
            Some((what, wanted)) => Notice::mistake(place, format!("TOML: {what}"), format!("expected {wanted}")),
        }
    };
    let mut notices: Vec<Notice> = errors.iter().map(notice).collect();
    notices.sort_by_key(Notice::order);
    notices.truncate(SYNTAX_MISTAKES_MAX);
    Err(notices)
}

/// What can be made out of the value of a key in a TOML text, whatever is wrong with the text.
pub(super) fn rough_toml(text: &str, key: &str) -> Option<Value> {
    let (root, _) = DeTable::parse_recoverable(text);
    root.get_ref().get(key).map(|value| node_of(value).value)
}

/// Bounded recursion: the parser refuses what is nested deeper than 80.
fn table_of(table: &DeTable<'_>) -> Table {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        Entry {
            key: name.to_string(),
            place: Place::Bytes(key.span()),
            node: node_of(value),
        }
    };
    Table {
        entries: table.iter().map(entry).collect(),
    }
}

fn node_of(value: &Spanned<DeValue<'_>>) -> Node {
    Node {
        place: Place::Bytes(value.span()),
        value: match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Whole(whole_of(number)),
            DeValue::Float(_) => Value::Fraction,
            DeValue::Boolean(truth) => Value::Truth(*truth),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(list) => Value::List(list.iter().map(node_of).collect()),
            DeValue::Table(table) => Value::Table(table_of(table)),
        },
    }
}

fn whole_of(number: &DeInteger<'_>) -> i128 {
    let saturated = if number.as_str().starts_with('-') {
        i128::MIN
    } else {
        i128::MAX
    };
    i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(saturated)
}

/// Reads JSON. Its places are paths of keys.
///
/// # Errors
/// The first mistake of syntax, or every key that is written twice.
pub(super) fn json(text: &str) -> Result<Table, Vec<Notice>> {
    // As some editors write it; RFC 8259, section 8.1 lets a reader ignore it.
    let marked = text.strip_prefix('\u{feff}').map_or(0, |rest| text.len() - rest.len());
    let raw: Raw = serde_json::from_str(&text[marked..]).map_err(|error| vec![syntax_of_json(text, marked, &error)])?;
    let mut walk = Walk::default();
    let root = walk.node("", raw);
    if !walk.twice.is_empty() {
        return Err(walk.twice);
    }
    match root.value {
        Value::Table(table) => Ok(table),
        other => {
            let what = format!("expected a table of sections, found {}", other.kind());
            Err(vec![Notice::mistake(
                Place::File,
                what,
                "write { \"listeners\": { … } }",
            )])
        }
    }
}

/// `marked`: bytes before what was read.
fn syntax_of_json(text: &str, marked: usize, error: &serde_json::Error) -> Notice {
    let full = error.to_string();
    let what = full.split(" at line ").next().unwrap_or_default();
    let before: usize = text[marked..]
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let at = marked + before + error.column().saturating_sub(1);
    Notice::mistake(Place::Bytes(at..at + 1), format!("JSON: {what}"), "")
}

/// JSON without places; unlike `serde_json::Value` it keeps keys that are written twice.
enum Raw {
    Leaf(Value),
    List(Vec<Self>),
    Table(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Truth(truth)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Whole(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Whole(number.into())))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Fraction))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Text(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Raw::Table(table))
    }
}

/// Gives each value its path, and a number that tells which of two stands first.
#[derive(Default)]
struct Walk {
    order: usize,
    twice: Vec<Notice>,
}

impl Walk {
    fn node(&mut self, path: &str, raw: Raw) -> Node {
        self.order += 1;
        let place = Place::Path {
            path: path.into(),
            order: self.order,
        };
        let value = match raw {
            Raw::Leaf(value) => value,
            Raw::List(items) => {
                let numbered = items.into_iter().enumerate();
                Value::List(
                    numbered
                        .map(|(i, raw)| self.node(&format!("{path}[{i}]"), raw))
                        .collect(),
                )
            }
            Raw::Table(entries) => Value::Table(self.table(path, entries)),
        };
        Node { place, value }
    }

    fn table(&mut self, path: &str, raw: Vec<(String, Raw)>) -> Table {
        let mut seen = std::collections::HashSet::new();
        let mut entries = Vec::with_capacity(raw.len());
        for (key, raw) in raw {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let node = self.node(&path, raw);
            let place = node.place.clone();
            if !seen.insert(key.clone()) {
                self.twice
                    .push(Notice::mistake(place.clone(), "this key is written twice", "keep one"));
            }
            entries.push(Entry { key, place, node });
        }
        Table { entries }
    }
}
