//! `redirect` of a listener.

use std::collections::HashMap;
use std::sync::Arc;

use super::list::entries;
use super::{Problems, Section, value};
use crate::config::file::{KeyValue, Value};
use crate::config::report::Position;
use crate::config::{keys, suggest};
use crate::name::NamePattern;
use crate::plan::ListenerPlan;
use crate::redirect::{Redirect, RedirectStatus};

/// Keys of a listener that have no effect if it redirects.
const UNUSED_KEYS: [&str; 8] = [
    "pool",
    "routes",
    "protocol",
    "tls",
    "hello_timeout",
    "hello_max",
    "idle_timeout",
    "half_close_timeout",
];

/// A redirect whose target listener is not looked up yet, because it may come later in the file.
pub(super) struct UnresolvedRedirect<'a> {
    redirect: Redirect,
    /// The position of `to`, for errors.
    position: &'a Position,
}

/// Converts the table `redirect` of a listener, if it has one.
pub(super) fn redirect<'a>(listener: &Section<'a>, problems: &mut Problems<'_>) -> Option<UnresolvedRedirect<'a>> {
    let (position, node) = listener.entry("redirect")?;
    // A PROXY header is read within `hello_timeout`, whatever follows it.
    let reads_header = listener.entry("accept_proxy").is_some();
    for key in UNUSED_KEYS {
        if reads_header && key == "hello_timeout" {
            continue;
        }
        if let Some((position, _)) = listener.entry(key) {
            problems.error(
                position,
                format!("`{key}` has no effect: this listener redirects"),
                format!("remove `{key}` or `redirect`"),
            );
        }
    }
    let section = Section::open(node, position, &keys::REDIRECT, problems)?;
    let to = section.required("to", r#"to = "NAME", the listener to redirect to"#, problems)?;
    let name = value::string(to, "write the name of a listener: [listeners.NAME]", problems)?;
    let port = section.port("port", problems);
    let status = section.get("code").and_then(|node| {
        let is_written = |status: &RedirectStatus| match node.value {
            Value::Integer(code) => code == i128::from(status.code()),
            _ => false,
        };
        let status = RedirectStatus::ALL.into_iter().find(is_written);
        if status.is_none() {
            let message = "this is not the status of a redirect";
            problems.error(&node.position, message, "write 301, 302, 307 or 308");
        }
        status
    });
    let hosts = entries(&section, "hosts", problems, |text| {
        NamePattern::from_config(text).map_err(|error| {
            let hint = r#"write a name, "*.SUFFIX" or "*""#;
            (
                format!("`{}` is not a host name: {error}", text.escape_debug()),
                hint.to_owned(),
            )
        })
    });
    Some(UnresolvedRedirect {
        redirect: Redirect {
            to: name.into(),
            port,
            status: status.unwrap_or(RedirectStatus::Permanent),
            hosts,
        },
        position: &to.position,
    })
}

/// Checks the listeners that the redirects name, and puts each redirect into its own listener. A redirect without a
/// `port` gets the first port of the listener it names, unless that is 0. `unresolved` has each redirect with the index
/// of its own listener; `entries` has all listeners, also those that could not be converted.
pub(super) fn resolve(
    listeners: &mut [ListenerPlan],
    unresolved: Vec<(usize, UnresolvedRedirect<'_>)>,
    entries: &[KeyValue],
    problems: &mut Problems<'_>,
) {
    let redirecting: Vec<Arc<str>> = unresolved
        .iter()
        .map(|(index, _)| Arc::clone(&listeners[*index].name))
        .collect();
    // The first port of each listener; `None`: it has only Unix sockets, or no valid address.
    let ports: HashMap<Arc<str>, Option<u16>> = listeners
        .iter()
        .map(|listener| {
            (
                Arc::clone(&listener.name),
                listener.bind.iter().find_map(|bind| bind.port()),
            )
        })
        .collect();
    for (index, UnresolvedRedirect { mut redirect, position }) in unresolved {
        let to = &redirect.to;
        match ports.get(to) {
            _ if redirecting.contains(to) => {
                problems.error(
                    position,
                    format!("listener `{to}` redirects as well"),
                    "name a listener that serves",
                );
            }
            None if entries.iter().any(|entry| *entry.key == **to) => {} // an error in that listener was reported
            None => {
                let names = listeners.iter().map(|listener| &listener.name);
                let serving: Vec<&str> = names
                    .filter(|name| !redirecting.contains(name))
                    .map(|name| &**name)
                    .collect();
                let hint = suggest::unknown_name(to, "listeners", &serving);
                problems.error(position, format!("unknown listener `{to}`"), hint);
            }
            Some(None) if redirect.port.is_none() && has_valid_address(to, listeners) => {
                let hint = "add `port`, at which clients reach it";
                problems.error(
                    position,
                    format!("listener `{to}` has no port, only Unix sockets"),
                    hint,
                );
            }
            Some(port) => {
                // Port 0 means another port at each start, which is not known yet.
                let bound = port.filter(|port| *port != 0);
                redirect.port = redirect.port.or(bound);
            }
        }
        listeners[index].redirect = Some(redirect);
    }
}

/// Whether a listener has a valid address.
fn has_valid_address(name: &str, listeners: &[ListenerPlan]) -> bool {
    listeners
        .iter()
        .any(|listener| *listener.name == *name && !listener.bind.is_empty())
}
