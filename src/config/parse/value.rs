//! Single values: checks of their type, unit and bounds.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Problems;
use super::address::InvalidValue;
use crate::config::file::{Node, Table, Value};
use crate::config::synonyms::{self, Synonyms};
use crate::units::{self, DurationError, SizeError};

/// Reports that a value has the wrong type. Always returns `None`.
fn wrong_type<T>(node: &Node, expected: &str, hint: impl Into<String>, problems: &mut Problems<'_>) -> Option<T> {
    problems.error(
        &node.position,
        format!("expected {expected}, found {}", node.value.kind()),
        hint,
    );
    None
}

/// A string. `hint` says what to write if the value has another type. Unlike [`parsed`], this does not suggest to put a
/// number in quotes: the text might not be valid.
pub(super) fn string<'a>(node: &'a Node, hint: &str, problems: &mut Problems<'_>) -> Option<&'a str> {
    match &node.value {
        Value::String(text) => Some(text),
        _ => wrong_type(node, "a string", hint, problems),
    }
}

/// A string that `parse` converts. For an integer that `parse` would accept as a string, the hint is to put it in
/// quotes. For any other value that is not a string, the hint is the one that `parse` gives for an empty string.
pub(super) fn parsed<T>(
    node: &Node,
    parse: impl Fn(&str) -> Result<T, InvalidValue>,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let result = match &node.value {
        Value::String(text) => parse(text),
        Value::Integer(number) if parse(&number.to_string()).is_ok() => {
            return wrong_type(node, "a string", format!("write \"{number}\""), problems);
        }
        _ => {
            let (_, hint) = parse("").err().unwrap_or_default();
            return wrong_type(node, "a string", hint, problems);
        }
    };
    match result {
        Ok(value) => Some(value),
        Err((message, hint)) => {
            problems.error(&node.position, message, hint);
            None
        }
    }
}

/// The path of a file.
pub(super) fn path(node: &Node, problems: &mut Problems<'_>) -> Option<PathBuf> {
    let hint = "write a path, as in \"/etc/acequia/file\"";
    let text = string(node, hint, problems)?;
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        problems.error(&node.position, "invalid path of a file", hint);
        return None;
    }
    let path = PathBuf::from(text);
    problems.check_path(&node.position, &path).then_some(path)
}

/// The path of a directory; slashes at its end are dropped.
pub(super) fn directory(node: &Node, problems: &mut Problems<'_>) -> Option<PathBuf> {
    let hint = "write a path, as in \"/etc/acequia/sites\"";
    let path = |text: &str| match text.is_empty() || text.contains('\0') {
        true => Err((String::from("invalid path of a directory"), String::from(hint))),
        false => Ok(Path::new(text).components().collect()),
    };
    let path: PathBuf = parsed(node, path, problems)?;
    problems.check_path(&node.position, &path).then_some(path)
}

/// A table. `example` is one, which the hint names if the value has another type.
pub(super) fn table<'a>(node: &'a Node, example: &str, problems: &mut Problems<'_>) -> Option<&'a Table> {
    match &node.value {
        Value::Table(table) => Some(table),
        _ => wrong_type(node, "a table", format!("write {example}"), problems),
    }
}

/// A list. `example` is one, which the hint names if the value is neither a list nor a table.
pub(super) fn list<'a>(node: &'a Node, example: &str, problems: &mut Problems<'_>) -> Option<&'a [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        Value::Table(_) => wrong_type(
            node,
            "a list",
            "put it in [ ], or in TOML write [[ ]] above it",
            problems,
        ),
        _ => wrong_type(node, "a list", format!("write {example}"), problems),
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

/// A command: the absolute path of a program, and each argument by itself. If a word is missing, an error was reported.
pub(super) fn command(node: &Node, example: &str, problems: &mut Problems<'_>) -> Vec<Box<str>> {
    problems.check_may_run(&node.position, "commands");
    let nodes = one_or_many(node, problems).iter().enumerate();
    let word = |(at, node)| word(node, at == 0, example, problems);
    nodes.filter_map(word).collect()
}

fn word(node: &Node, is_program: bool, example: &str, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let text = match &node.value {
        Value::Integer(number) if !is_program => {
            return wrong_type(node, "a string", format!("write \"{number}\""), problems);
        }
        _ => string(node, &format!("write {example}"), problems)?,
    };
    if text.contains('\0') {
        problems.error(&node.position, "an argument has a zero byte", "remove it");
        return None;
    }
    if is_program && !text.starts_with('/') {
        let message = format!("`{text}` is not an absolute path");
        let hint = format!("write the path of a program, and each argument by itself, as in {example}");
        problems.error(&node.position, message, hint);
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
    integer_else(node, bounds, "", problems)
}

/// An integer within bounds. `None`: the value is this word, or is not valid.
pub(super) fn integer_or(
    node: &Node,
    word: &str,
    bounds: RangeInclusive<u32>,
    problems: &mut Problems<'_>,
) -> Option<u32> {
    if is_text(node, word) {
        return None;
    }
    integer_else(node, bounds, &format!(", or \"{word}\""), problems)
}

/// As [`integer`]. `or` ends the hints that name bounds: what else the key takes.
fn integer_else(node: &Node, bounds: RangeInclusive<u32>, or: &str, problems: &mut Problems<'_>) -> Option<u32> {
    // TOML has no leading zeros.
    let is_valid = |text: &str, number| bounds.contains(&number) && number.to_string() == text;
    let number = match &node.value {
        Value::Integer(number) => *number,
        Value::String(text) if text.parse().is_ok_and(|number| is_valid(text, number)) => {
            return wrong_type(node, "an integer", format!("write {text} without quotes"), problems);
        }
        _ => {
            let hint = format!("write a number from {} to {}{or}", bounds.start(), bounds.end());
            return wrong_type(node, "an integer", hint, problems);
        }
    };
    let Ok(number) = u32::try_from(number) else {
        let bound = if number < 0 {
            at_least(bounds.start())
        } else {
            at_most(bounds.end())
        };
        problems.error(&node.position, "the number is out of range", bound + or);
        return None;
    };
    within(node, &number.to_string(), number, &bounds, u32::to_string, or, problems)
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
    if is_off(node) {
        let hint = format!("write a duration, as in \"{}\"", example_of(&bounds));
        problems.error(&node.position, "this duration cannot be off", hint);
        return None;
    }
    duration_else(node, bounds, "", problems)
}

/// A duration within bounds, or `Some(None)` for `"off"`. `None`: the value is not valid.
pub(super) fn duration_or_off(
    node: &Node,
    bounds: RangeInclusive<Duration>,
    problems: &mut Problems<'_>,
) -> Option<Option<Duration>> {
    if is_off(node) {
        return Some(None);
    }
    duration_else(node, bounds, r#", or "off""#, problems).map(Some)
}

/// As [`duration`]. `or` ends the hints: what else the key takes.
fn duration_else(
    node: &Node,
    bounds: RangeInclusive<Duration>,
    or: &str,
    problems: &mut Problems<'_>,
) -> Option<Duration> {
    let text = match &node.value {
        Value::String(text) => text,
        Value::Integer(number) => {
            let hint = suggested_duration(u64::try_from(*number).ok(), &bounds) + or;
            problems.error(&node.position, "a duration needs a unit", hint);
            return None;
        }
        _ => return wrong_type(node, "a duration", suggested_duration(None, &bounds) + or, problems),
    };
    match units::parse_duration(text) {
        Ok(duration) => within(
            node,
            text,
            duration,
            &bounds,
            |d| units::format_duration(*d),
            or,
            problems,
        ),
        Err(error) => {
            let hint = match error {
                DurationError::MissingUnit(number) => suggested_duration(Some(number), &bounds),
                DurationError::Malformed => error.to_string(),
            };
            problems.error(&node.position, format!("`{text}` is not a duration"), hint + or);
            None
        }
    }
}

/// The hint to write this number with a unit, or an example if no such duration is within bounds.
fn suggested_duration(number: Option<u64>, bounds: &RangeInclusive<Duration>) -> String {
    let is_valid = |text: &String| units::parse_duration(text).is_ok_and(|duration| bounds.contains(&duration));
    let mut texts: Vec<String> = number.into_iter().flat_map(units::suggested_durations).collect();
    texts.retain(is_valid);
    if texts.is_empty() {
        texts.push(example_of(bounds));
    }
    format!("write \"{}\"", texts.join("\" or \""))
}

/// A duration within bounds.
fn example_of(bounds: &RangeInclusive<Duration>) -> String {
    units::format_duration(Duration::from_secs(5).clamp(*bounds.start(), *bounds.end()))
}

/// A size in bytes within bounds.
pub(super) fn size(node: &Node, bounds: RangeInclusive<u64>, problems: &mut Problems<'_>) -> Option<u64> {
    let show = |bytes: &u64| units::format_size(*bytes);
    // The hint: this number of bytes with a unit; or the bounds, if there is no number or it is out of bounds.
    let suggested = |number: Option<u64>| match number.filter(|number| bounds.contains(number)) {
        Some(number) => format!("write {}", units::suggest_size(number)),
        None => format!("write \"{}\" to \"{}\"", show(bounds.start()), show(bounds.end())),
    };
    let text = match &node.value {
        Value::String(text) => text,
        Value::Integer(number) => {
            let hint = suggested(u64::try_from(*number).ok());
            problems.error(&node.position, "a size needs a unit", hint);
            return None;
        }
        _ => return wrong_type(node, "a size", suggested(None), problems),
    };
    match units::parse_size(text) {
        Ok(bytes) => within(node, text, bytes, &bounds, show, "", problems),
        Err(error) => {
            let hint = match error {
                SizeError::MissingUnit(number) => suggested(Some(number)),
                SizeError::Malformed => error.to_string(),
            };
            problems.error(&node.position, format!("`{text}` is not a size"), hint);
            None
        }
    }
}

/// One of a set of values. The hint names all of them: the nearest one may not be the one that was meant.
pub(super) fn one_of<T: Copy>(node: &Node, values: &[(&'static str, T)], problems: &mut Problems<'_>) -> Option<T> {
    let known: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let hint = format!("write \"{}\"", known.join("\" or \""));
    let Value::String(text) = &node.value else {
        return wrong_type(node, "a string", hint, problems);
    };
    if let Some((_, value)) = values.iter().find(|(name, _)| name == text) {
        return Some(*value);
    }
    problems.error(&node.position, format!("unknown value `{text}`"), hint);
    None
}

/// As [`one_of`]; but for a word of another program, the hint names only the value that it means. Each of the
/// `synonyms` has such words, normalized, and their value.
pub(super) fn one_of_or_synonym<T: Copy>(
    node: &Node,
    values: &[(&'static str, T)],
    synonyms: Synonyms,
    problems: &mut Problems<'_>,
) -> Option<T> {
    if let Value::String(text) = &node.value
        && values.iter().all(|(name, _)| name != text)
        && let Some(meant) = synonyms::meant(synonyms, &synonyms::normalize(text))
    {
        problems.error(
            &node.position,
            format!("unknown value `{text}`"),
            format!("acequia calls it \"{meant}\""),
        );
        return None;
    }
    one_of(node, values, problems)
}

/// The value if it is within bounds; else reports an error that names the value as `written`. `or` ends the hint.
fn within<T: PartialOrd>(
    node: &Node,
    written: &str,
    value: T,
    bounds: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
    or: &str,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let hint = if value < *bounds.start() {
        at_least(show(bounds.start()))
    } else if value > *bounds.end() {
        at_most(show(bounds.end()))
    } else {
        return Some(value);
    };
    problems.error(&node.position, format!("{written} is out of range"), hint + or);
    None
}

fn at_least(bound: impl std::fmt::Display) -> String {
    format!("at least {bound}")
}

fn at_most(bound: impl std::fmt::Display) -> String {
    format!("at most {bound}")
}
