//! Single values: their type, their unit, their bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Mistakes;
use crate::config::file::{Node, Table, Value};
use crate::config::keys;
use crate::units;

/// Says that a value is of another type than it should be.
fn mistyped<T>(node: &Node, wanted: &str, label: impl Into<String>, m: &mut Mistakes<'_>) -> Option<T> {
    m.say(
        &node.place,
        format!("expected {wanted}, found {}", node.value.kind()),
        label,
    );
    None
}

/// Text.
pub(super) fn text<'a>(node: &'a Node, m: &mut Mistakes<'_>) -> Option<&'a str> {
    match &node.value {
        Value::Text(text) => Some(text),
        Value::Whole(number) => mistyped(node, "text", format!("write \"{number}\""), m),
        _ => mistyped(node, "text", "", m),
    }
}

/// The path of a file.
pub(super) fn path(node: &Node, m: &mut Mistakes<'_>) -> Option<PathBuf> {
    let text = text(node, m)?;
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        m.say(&node.place, "this is not a file's path", "");
        return None;
    }
    Some(text.into())
}

/// A table.
pub(super) fn table<'a>(node: &'a Node, m: &mut Mistakes<'_>) -> Option<&'a Table> {
    match &node.value {
        Value::Table(table) => Some(table),
        _ => mistyped(node, "a table", "", m),
    }
}

/// A list.
pub(super) fn list<'a>(node: &'a Node, m: &mut Mistakes<'_>) -> Option<&'a [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        Value::Table(_) => mistyped(node, "a list", "put it in [ ], or in TOML write [[ ]] above it", m),
        _ => mistyped(node, "a list", "put it in [ ]", m),
    }
}

/// One value, or a list of at least one.
pub(super) fn one_or_many<'a>(node: &'a Node, m: &mut Mistakes<'_>) -> &'a [Node] {
    match &node.value {
        Value::List(items) => {
            if items.is_empty() {
                m.say(
                    &node.place,
                    "this list is empty",
                    "put something in, or leave the key out",
                );
            }
            items
        }
        _ => std::slice::from_ref(node),
    }
}

/// `true` or `false`.
pub(super) fn truth(node: &Node, m: &mut Mistakes<'_>) -> Option<bool> {
    match &node.value {
        Value::Truth(truth) => Some(*truth),
        Value::Text(text) if text == "true" || text == "false" => {
            mistyped(node, "true or false", format!("write {text} without quotes"), m)
        }
        _ => mistyped(node, "true or false", "", m),
    }
}

/// A whole number within bounds.
pub(super) fn whole(node: &Node, bounds: RangeInclusive<u32>, m: &mut Mistakes<'_>) -> Option<u32> {
    let number = match &node.value {
        Value::Whole(number) => *number,
        Value::Text(text) if text.parse::<u32>().is_ok() => {
            return mistyped(node, "a whole number", format!("write {text} without quotes"), m);
        }
        _ => return mistyped(node, "a whole number", "", m),
    };
    let Ok(number) = u32::try_from(number) else {
        let bound = if number < 0 {
            at_least(bounds.start())
        } else {
            at_most(bounds.end())
        };
        m.say(&node.place, "this number is out of bounds", bound);
        return None;
    };
    within(node, &number.to_string(), number, &bounds, u32::to_string, m)
}

/// Whether it says `"off"`.
pub(super) fn is_off(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if text == "off")
}

/// A duration within bounds.
pub(super) fn duration(node: &Node, bounds: RangeInclusive<Duration>, m: &mut Mistakes<'_>) -> Option<Duration> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Whole(number) => {
            let label = u64::try_from(*number).map_or(String::new(), |n| format!("write {}", units::bare_duration(n)));
            m.say(&node.place, "a duration needs a unit", label);
            return None;
        }
        _ => return mistyped(node, "a duration", r#"write "5s""#, m),
    };
    match units::duration(text) {
        Ok(duration) => within(node, text, duration, &bounds, |d| units::show_duration(*d), m),
        Err(_) if text == "off" => {
            m.say(&node.place, "this cannot be off", r#"write a duration, as in "5s""#);
            None
        }
        Err(label) => {
            m.say(&node.place, format!("`{text}` is not a duration"), label);
            None
        }
    }
}

/// A number of bytes within bounds.
pub(super) fn size(node: &Node, bounds: RangeInclusive<u64>, m: &mut Mistakes<'_>) -> Option<u64> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Whole(number) => {
            let label = u64::try_from(*number).map_or(String::new(), |n| format!("write {}", units::bare_size(n)));
            m.say(&node.place, "a size needs a unit", label);
            return None;
        }
        _ => return mistyped(node, "a size", r#"write "64KiB""#, m),
    };
    match units::size(text) {
        Ok(bytes) => within(node, text, bytes, &bounds, |bytes| units::show_size(*bytes), m),
        Err(label) => {
            m.say(&node.place, format!("`{text}` is not a size"), label);
            None
        }
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(node: &Node, words: &[(&'static str, T)], m: &mut Mistakes<'_>) -> Option<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let all = || format!("write \"{}\"", known.join("\" or \""));
    let Value::Text(text) = &node.value else {
        return mistyped(node, "text", all(), m);
    };
    if let Some((_, meant)) = words.iter().find(|(word, _)| word == text) {
        return Some(*meant);
    }
    let label = keys::near(text, &known).map_or_else(all, |near| format!("did you mean \"{near}\"?"));
    m.say(&node.place, format!("`{text}` is not known here"), label);
    None
}

/// The value, if it is within bounds.
fn within<T: PartialOrd>(
    node: &Node,
    written: &str,
    value: T,
    bounds: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
    m: &mut Mistakes<'_>,
) -> Option<T> {
    let label = if value < *bounds.start() {
        at_least(show(bounds.start()))
    } else if value > *bounds.end() {
        at_most(show(bounds.end()))
    } else {
        return Some(value);
    };
    m.say(&node.place, format!("{written} is out of bounds"), label);
    None
}

fn at_least(bound: impl std::fmt::Display) -> String {
    format!("at least {bound}")
}

fn at_most(bound: impl std::fmt::Display) -> String {
    format!("at most {bound}")
}
