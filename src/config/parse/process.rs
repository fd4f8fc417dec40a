//! `[runtime]`, `[admin]`, `[log]`: what concerns the process.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limits::ANY_TIME;
use super::{Bound, Mistakes, Section, value};
use crate::account::access_log::{AccessTarget, LogFormat};
use crate::config::file::{Node, Value};
use crate::config::keys;
use crate::plan::{AdminPlan, LogPlan, RuntimePlan};

/// More threads than any machine has cores would only be a slip of the pen.
const WORKERS: RangeInclusive<u32> = 1..=1024;

/// Linux hands out no more descriptors to a process than 2^30 (`fs.nr_open`).
pub(super) const CONNECTIONS: RangeInclusive<u32> = 1..=1 << 30;

/// `[runtime]`.
pub(super) fn runtime(section: &Section<'_>, m: &mut Mistakes<'_>) -> RuntimePlan {
    let duration = |key, usual, m: &mut Mistakes<'_>| {
        let usual = Duration::from_secs(usual);
        section.duration(key, ANY_TIME, m).unwrap_or(usual)
    };
    RuntimePlan {
        workers: section.get("workers").and_then(|node| workers(node, m)),
        max_connections: max_connections(section, m),
        drain_timeout: duration("drain_timeout", 30, m),
        drain_delay: duration("drain_delay", 0, m),
        watch: false,
    }
}

/// `max_connections` of the process or of a listener.
pub(super) fn max_connections(section: &Section<'_>, m: &mut Mistakes<'_>) -> Option<usize> {
    section
        .whole("max_connections", CONNECTIONS, m)
        .map(|number| number as usize)
}

fn workers(node: &Node, m: &mut Mistakes<'_>) -> Option<usize> {
    if matches!(&node.value, Value::Text(text) if text == "auto") {
        return None;
    }
    value::whole(node, WORKERS, m).map(|number| number as usize)
}

/// `[admin]`, if there is one.
pub(super) fn admin(file: &Section<'_>, bound: &mut Bound, m: &mut Mistakes<'_>) -> AdminPlan {
    let section = file.child("admin", &keys::ADMIN, m);
    AdminPlan {
        bind: section.get("bind").and_then(|node| bound.take(node, m)),
        ..AdminPlan::default()
    }
}

/// `[log]`.
pub(super) fn log(section: &Section<'_>, m: &mut Mistakes<'_>) -> LogPlan {
    use tracing::Level;
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let levels = [
        ("trace", Level::TRACE),
        ("debug", Level::DEBUG),
        ("info", Level::INFO),
        ("warn", Level::WARN),
        ("error", Level::ERROR),
    ];
    LogPlan {
        format: section.word("format", &formats, m).unwrap_or(LogFormat::Json),
        level: section.word("level", &levels, m).unwrap_or(Level::INFO),
        access: section
            .get("access")
            .and_then(|node| access(node, m))
            .unwrap_or(AccessTarget::Stdout),
    }
}

/// A word, or a file. A file is known by a `/` or a `.` in it, so that a slip in a word does not make a file.
fn access(node: &Node, m: &mut Mistakes<'_>) -> Option<AccessTarget> {
    let text = value::text(node, m)?;
    match text {
        "stdout" => return Some(AccessTarget::Stdout),
        "stderr" => return Some(AccessTarget::Stderr),
        "off" => return Some(AccessTarget::Off),
        _ => {}
    }
    let is_path = text.contains(['/', '.']) && !text.ends_with('/') && !text.contains('\0');
    if is_path {
        return Some(AccessTarget::File(text.into()));
    }
    let words = ["stdout", "stderr", "off"];
    let label = keys::near(text, &words).map_or_else(
        || String::from(r#"write "stdout", "stderr", "off" or a path, as in "./access.log""#),
        |near| format!("did you mean \"{near}\"?"),
    );
    m.say(&node.place, format!("`{text}` is neither known here nor a path"), label);
    None
}
