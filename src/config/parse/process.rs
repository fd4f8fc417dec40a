//! `[runtime]`, `[admin]`, `[log]`: settings of the process.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::limits::ANY_DURATION;
use super::pool_tls::host_name;
use super::{BoundAddresses, Problems, Section, address, list, tls, value};
use crate::account::access_log::{AccessTarget, LogFormat};
use crate::addr::ListenAddr;
use crate::config::file::Node;
use crate::config::keys;
use crate::name::{NameError, ServerName};
use crate::plan::{AdminPlan, AdminSocket, LogPlan, RuntimePlan};

/// The upper bound detects typing errors: hardly any machine has more cores.
const WORKERS: RangeInclusive<u32> = 1..=1024;

/// A process on Linux has fewer than 2^31 descriptors (the maximum of `fs.nr_open`), and a session needs two.
pub(super) const CONNECTIONS: RangeInclusive<u32> = 1..=1 << 30;

/// In bytes. The lower bound is the upper bound of `hello_max`. Most ClientHellos come in one packet and have 200 to
/// 1,800 bytes; the memory is for ClientHellos that come in pieces, and for clients that wait for their server.
const HELLO_MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 40;

/// The size of `sun_path` without its final zero byte: unix(7).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// `[runtime]`.
pub(super) fn runtime(section: &Section<'_>, problems: &mut Problems<'_>) -> RuntimePlan {
    let duration = |key, default_seconds, problems: &mut Problems<'_>| {
        let default = Duration::from_secs(default_seconds);
        section.duration(key, ANY_DURATION, problems).unwrap_or(default)
    };
    RuntimePlan {
        workers: section.get("workers").and_then(|node| workers(node, problems)),
        max_connections: max_connections(section, problems),
        hello_memory_bytes: section
            .get("hello_memory")
            .and_then(|node| value::size(node, HELLO_MEMORY, problems))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(256 << 20),
        drain_timeout: duration("drain_timeout", 30, problems),
        drain_delay: duration("drain_delay", 0, problems),
        watch: section.boolean("watch", problems).unwrap_or(false),
    }
}

/// `max_connections` of the process or of a listener.
pub(super) fn max_connections(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<usize> {
    section
        .integer("max_connections", CONNECTIONS, problems)
        .map(|number| number as usize)
}

fn workers(node: &Node, problems: &mut Problems<'_>) -> Option<usize> {
    value::integer_or(node, "auto", WORKERS, problems).map(|number| number as usize)
}

/// `[admin]`; without the section, there is no admin port.
pub(super) fn admin(file: &Section<'_>, bound: &mut BoundAddresses, problems: &mut Problems<'_>) -> AdminPlan {
    let section = file.child("admin", &keys::ADMIN, problems);
    let plan = AdminPlan {
        bind: section.get("bind").and_then(|node| bound.add_admin(node, problems)),
        hosts: list::entries(&section, "hosts", problems, host),
        token_file: section.path("token_file", problems),
        tls: tls::admin_tls(&section, problems),
        socket: section
            .get("socket")
            .and_then(|node| admin_socket(node, problems))
            .unwrap_or_default(),
    };
    match &plan.socket {
        AdminSocket::Path(path) => bound.reserve_admin_socket(path, "`socket` of [admin]"),
        // If `XDG_RUNTIME_DIR` is set, the socket is at another path, but the commands also try this one.
        AdminSocket::Default => {
            bound.reserve_admin_socket(Path::new(AdminSocket::SYSTEM_PATH), "the default `socket` of [admin]");
        }
        AdminSocket::Off => {}
    }
    for key in ["hosts", "token_file", "tls"] {
        if let Some((position, _)) = section.entry(key)
            && section.is_missing("bind")
        {
            problems.warning(position, format!("`{key}` is never used"), "`bind` is missing");
        }
    }
    let is_not_loopback = |address: ListenAddr| address.ip().is_some_and(|ip| !ip.is_loopback());
    // On an address that is not loopback, every request to the API needs a token.
    let network_carries_tokens = plan.token_file.is_some() && plan.bind.is_some_and(is_not_loopback);
    if let Some((position, _)) = section.entry("bind")
        && network_carries_tokens
        && plan.tls.is_none()
    {
        let hint = "add [admin.tls] with `cert` and `key`, or bind to a loopback address";
        problems.warning(
            position,
            "tokens travel in the clear: this is not a loopback address",
            hint,
        );
    }
    plan
}

/// An entry of `hosts`: a host name by which clients may request the API.
fn host(text: &str) -> Result<Box<str>, address::InvalidValue> {
    match ServerName::from_config(text) {
        Ok(name) if name.as_str() == "localhost" => Err(redundant_host(text)),
        Err(NameError::IpLiteral) => Err(redundant_host(text)),
        _ => host_name(text).map(|name| name.as_str().into()),
    }
}

fn redundant_host(text: &str) -> address::InvalidValue {
    let hint = "remove it: IP addresses and `localhost` are always accepted";
    (format!("`{text}` is redundant"), hint.to_owned())
}

/// A path, or `"off"`.
fn admin_socket(node: &Node, problems: &mut Problems<'_>) -> Option<AdminSocket> {
    if value::is_off(node) {
        return Some(AdminSocket::Off);
    }
    let path = value::path(node, problems)?;
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let hint = format!("at most {SOCKET_PATH_BYTES_MAX} bytes");
        problems.error(&node.position, "the path is too long for a socket", hint);
        return None;
    }
    Some(AdminSocket::Path(path))
}

/// `[log]`.
pub(super) fn log(section: &Section<'_>, problems: &mut Problems<'_>) -> LogPlan {
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
        format: section.one_of("format", &formats, problems).unwrap_or(LogFormat::Json),
        level: section.one_of("level", &levels, problems).unwrap_or(Level::INFO),
        access: section
            .get("access")
            .and_then(|node| access(node, problems))
            .unwrap_or(AccessTarget::Stdout),
    }
}

/// A keyword or a path. A path contains a `/` or a `.`, so that a misspelt keyword does not create a file.
fn access(node: &Node, problems: &mut Problems<'_>) -> Option<AccessTarget> {
    let hint = r#"write "stdout", "stderr", "off" or a path, as in "./access.log""#;
    let target = |text: &str| match text {
        "stdout" => Ok(AccessTarget::Stdout),
        "stderr" => Ok(AccessTarget::Stderr),
        "off" => Ok(AccessTarget::Off),
        path if path.contains(['/', '.']) && !path.ends_with('/') && !path.contains('\0') => {
            Ok(AccessTarget::File(path.into()))
        }
        _ => {
            let message = format!("`{text}` is neither a known value nor a path");
            Err((message, hint.to_owned()))
        }
    };
    value::parsed(node, target, problems)
}
