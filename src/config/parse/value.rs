//! Single values: checks of their type, unit and bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Problems;
use crate::config::file::{Node, Table, Value};
use crate::config::suggest;
use crate::units;

/// Reports that a value has the wrong type. Always returns `None`.
fn wrong_type<T>(node: &Node, expected: &str, hint: impl Into<String>, problems: &mut Problems<'_>) -> Option<T> {
    problems.error(
        &node.position,
        format!("expected {expected}, found {}", node.value.kind()),
        hint,
    );
    None
}

/// A string.
pub(super) fn string<'a>(node: &'a Node, problems: &mut Problems<'_>) -> Option<&'a str> {
    match &node.value {
        Value::String(text) => Some(text),
        Value::Integer(number) => wrong_type(node, "a string", format!("write \"{number}\""), problems),
        _ => wrong_type(node, "a string", "", problems),
    }
}

/// The path of a file.
pub(super) fn path(node: &Node, problems: &mut Problems<'_>) -> Option<PathBuf> {
    let text = string(node, problems)?;
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        problems.error(
            &node.position,
            "invalid path of a file",
            "write a path, as in \"/etc/acequia/file\"",
        );
        return None;
    }
    let path = PathBuf::from(text);
    problems.check_path(&node.position, &path).then_some(path)
}

/// The path of a directory; slashes at its end are dropped.
pub(super) fn directory(node: &Node, problems: &mut Problems<'_>) -> Option<PathBuf> {
    let text = string(node, problems)?;
    if text.is_empty() || text.contains('\0') {
        let hint = "write a path, as in \"/etc/acequia/sites\"";
        problems.error(&node.position, "invalid path of a directory", hint);
        return None;
    }
    let path: PathBuf = PathBuf::from(text).components().collect();
    problems.check_path(&node.position, &path).then_some(path)
}

/// A table.
pub(super) fn table<'a>(node: &'a Node, problems: &mut Problems<'_>) -> Option<&'a Table> {
    match &node.value {
        Value::Table(table) => Some(table),
        _ => wrong_type(node, "a table", "", problems),
    }
}

/// A list.
pub(super) fn list<'a>(node: &'a Node, problems: &mut Problems<'_>) -> Option<&'a [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        Value::Table(_) => wrong_type(
            node,
            "a list",
            "put it in [ ], or in TOML write [[ ]] above it",
            problems,
        ),
        _ => wrong_type(node, "a list", "put it in [ ]", problems),
    }
}

/// One value, or a list of at least one value.
pub(super) fn one_or_many<'a>(node: &'a Node, problems: &mut Problems<'_>) -> &'a [Node] {
    match &node.value {
        Value::List(items) => {
            if items.is_empty() {
                problems.error(&node.position, "the list is empty", "add a value, or remove the key");
            }
            items
        }
        _ => std::slice::from_ref(node),
    }
}

/// A command: the absolute path of a program, and each argument by itself. Has at least one word unless an error was
/// reported.
pub(super) fn command(node: &Node, example: &str, problems: &mut Problems<'_>) -> Vec<Box<str>> {
    problems.check_may_run(&node.position, "commands");
    let nodes = one_or_many(node, problems);
    let words: Vec<_> = nodes.iter().filter_map(|node| word(node, problems)).collect();
    // If a word is invalid, the first of `words` may not be the program.
    if words.len() == nodes.len()
        && let (Some(first), Some(program)) = (nodes.first(), words.first())
        && !program.starts_with('/')
    {
        let message = format!("`{program}` is not an absolute path");
        let hint = format!("write the path of a program, and each argument by itself, as in {example}");
        problems.error(&first.position, message, hint);
    }
    words
}

fn word(node: &Node, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let text = string(node, problems)?;
    if text.contains('\0') {
        problems.error(&node.position, "an argument has a zero byte", "remove it");
        return None;
    }
    Some(text.into())
}

/// A boolean.
pub(super) fn boolean(node: &Node, problems: &mut Problems<'_>) -> Option<bool> {
    match &node.value {
        Value::Boolean(boolean) => Some(*boolean),
        Value::String(text) if text == "true" || text == "false" => {
            wrong_type(node, "a boolean", format!("write {text} without quotes"), problems)
        }
        _ => wrong_type(node, "a boolean", "write true or false", problems),
    }
}

/// An integer within bounds.
pub(super) fn integer(node: &Node, bounds: RangeInclusive<u32>, problems: &mut Problems<'_>) -> Option<u32> {
    let number = match &node.value {
        Value::Integer(number) => *number,
        Value::String(text) if text.parse::<u32>().is_ok() => {
            return wrong_type(node, "an integer", format!("write {text} without quotes"), problems);
        }
        _ => return wrong_type(node, "an integer", "", problems),
    };
    let Ok(number) = u32::try_from(number) else {
        let bound = if number < 0 {
            at_least(bounds.start())
        } else {
            at_most(bounds.end())
        };
        problems.error(&node.position, "the number is out of range", bound);
        return None;
    };
    within(node, &number.to_string(), number, &bounds, u32::to_string, problems)
}

/// The number of a port, not 0.
pub(super) fn port(node: &Node, problems: &mut Problems<'_>) -> Option<u16> {
    let number = integer(node, 1..=u32::from(u16::MAX), problems)?;
    u16::try_from(number).ok()
}

/// Whether the value is `"off"`.
pub(super) fn is_off(node: &Node) -> bool {
    is_text(node, "off")
}

/// Whether the value is this text.
pub(super) fn is_text(node: &Node, expected: &str) -> bool {
    matches!(&node.value, Value::String(text) if text == expected)
}

/// A duration within bounds.
pub(super) fn duration(node: &Node, bounds: RangeInclusive<Duration>, problems: &mut Problems<'_>) -> Option<Duration> {
    let text = match &node.value {
        Value::String(text) => text,
        Value::Integer(number) => {
            let hint =
                u64::try_from(*number).map_or(String::new(), |n| format!("write {}", units::suggest_duration(n)));
            problems.error(&node.position, "a duration needs a unit", hint);
            return None;
        }
        _ => return wrong_type(node, "a duration", r#"write "5s""#, problems),
    };
    match units::parse_duration(text) {
        Ok(duration) => within(node, text, duration, &bounds, |d| units::format_duration(*d), problems),
        Err(_) if text == "off" => {
            problems.error(
                &node.position,
                "this duration cannot be off",
                r#"write a duration, as in "5s""#,
            );
            None
        }
        Err(error) => {
            problems.error(&node.position, format!("`{text}` is not a duration"), error.to_string());
            None
        }
    }
}

/// A size in bytes within bounds.
pub(super) fn size(node: &Node, bounds: RangeInclusive<u64>, problems: &mut Problems<'_>) -> Option<u64> {
    let text = match &node.value {
        Value::String(text) => text,
        Value::Integer(number) => {
            let hint = u64::try_from(*number).map_or(String::new(), |n| format!("write {}", units::suggest_size(n)));
            problems.error(&node.position, "a size needs a unit", hint);
            return None;
        }
        _ => return wrong_type(node, "a size", r#"write "64KiB""#, problems),
    };
    match units::parse_size(text) {
        Ok(bytes) => within(node, text, bytes, &bounds, |bytes| units::format_size(*bytes), problems),
        Err(error) => {
            problems.error(&node.position, format!("`{text}` is not a size"), error.to_string());
            None
        }
    }
}

/// One of a set of values.
pub(super) fn one_of<T: Copy>(node: &Node, values: &[(&'static str, T)], problems: &mut Problems<'_>) -> Option<T> {
    let known: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let all = || format!("write \"{}\"", known.join("\" or \""));
    let Value::String(text) = &node.value else {
        return wrong_type(node, "a string", all(), problems);
    };
    if let Some((_, value)) = values.iter().find(|(name, _)| name == text) {
        return Some(*value);
    }
    let hint = suggest::nearest(text, &known).map_or_else(all, |nearest| format!("did you mean \"{nearest}\"?"));
    problems.error(&node.position, format!("unknown value `{text}`"), hint);
    None
}

/// The value if it is within bounds; else reports an error that names the value as `written`.
fn within<T: PartialOrd>(
    node: &Node,
    written: &str,
    value: T,
    bounds: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let hint = if value < *bounds.start() {
        at_least(show(bounds.start()))
    } else if value > *bounds.end() {
        at_most(show(bounds.end()))
    } else {
        return Some(value);
    };
    problems.error(&node.position, format!("{written} is out of range"), hint);
    None
}

fn at_least(bound: impl std::fmt::Display) -> String {
    format!("at least {bound}")
}

fn at_most(bound: impl std::fmt::Display) -> String {
    format!("at most {bound}")
}
