//! `[runtime]`, `[admin]`, `[log]`: what concerns the process.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::limits::ANY_TIME;
use super::{Bound, Mistakes, Section, address, route, value};
use crate::account::access_log::{AccessTarget, LogFormat};
use crate::config::file::{Node, Value};
use crate::config::keys;
use crate::name::{NameError, ServerName};
use crate::plan::{AdminPlan, AdminSocket, LogPlan, RuntimePlan};

/// More threads than any machine has cores would only be a slip of the pen.
const WORKERS: RangeInclusive<u32> = 1..=1024;

/// Linux hands out no more descriptors to a process than 2^30 (`fs.nr_open`).
pub(super) const CONNECTIONS: RangeInclusive<u32> = 1..=1 << 30;

/// At least what one client may be allowed. A usual ClientHello comes at once and has 200 to 1,800 bytes: this is for
/// those that come in pieces or wait for their server.
const HELLO_MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 40;

/// `sun_path` less its final zero byte: unix(7).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// `[runtime]`.
pub(super) fn runtime(section: &Section<'_>, m: &mut Mistakes<'_>) -> RuntimePlan {
    let duration = |key, usual, m: &mut Mistakes<'_>| {
        let usual = Duration::from_secs(usual);
        section.duration(key, ANY_TIME, m).unwrap_or(usual)
    };
    RuntimePlan {
        workers: section.get("workers").and_then(|node| workers(node, m)),
        max_connections: max_connections(section, m),
        hello_bytes_max: section
            .get("hello_memory")
            .and_then(|node| value::size(node, HELLO_MEMORY, m))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(256 << 20),
        drain_timeout: duration("drain_timeout", 30, m),
        drain_delay: duration("drain_delay", 0, m),
        watch: section
            .get("watch")
            .and_then(|node| value::truth(node, m))
            .unwrap_or(false),
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
    let plan = AdminPlan {
        bind: section.get("bind").and_then(|node| bound.take_admin(node, m)),
        hosts: route::entries(&section, "hosts", m, host),
        token_file: section.get("token_file").and_then(|node| value::path(node, m)),
        socket: section
            .get("socket")
            .and_then(|node| admin_socket(node, m))
            .unwrap_or_default(),
    };
    for key in ["hosts", "token_file"] {
        if let (Some((place, _)), true) = (section.entry(key), section.lacks("bind")) {
            m.warn(place, format!("`{key}` is never used"), "there is no `bind`");
        }
    }
    plan
}

/// A further name the API answers to.
fn host(text: &str) -> Result<Box<str>, address::Wrong> {
    match ServerName::from_config(text) {
        Ok(name) if name.as_str() == "localhost" => Err(always_answered(text)),
        Ok(name) => Ok(name.as_str().into()),
        Err(NameError::IpLiteral) => Err(always_answered(text)),
        Err(error) => Err((format!("`{text}` is not a host's name: {error}"), String::new())),
    }
}

fn always_answered(text: &str) -> address::Wrong {
    let label = "leave it out: addresses and `localhost` are always answered to";
    (format!("`{text}` need not be said"), label.to_owned())
}

/// A path, or `"off"`.
fn admin_socket(node: &Node, m: &mut Mistakes<'_>) -> Option<AdminSocket> {
    if value::is_off(node) {
        return Some(AdminSocket::Off);
    }
    let path = value::path(node, m)?;
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let label = format!("the kernel takes at most {SOCKET_PATH_BYTES_MAX} bytes");
        m.say(&node.place, "this path is too long for a socket", label);
        return None;
    }
    Some(AdminSocket::At(path))
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
