//! `[[listeners.NAME.routes]]`.

use super::list::{alpn_protocol, entries};
use super::{Names, Pools, Problems, Section, address, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::glob::Glob;
use crate::name::NamePattern;
use crate::plan::{PoolId, Protocol};
use crate::route::{Route, Target, TlsMode};
use crate::sniff::postgres;

/// The properties of a listener that decide which keys its routes may have, and which pools suit it.
#[derive(Clone, Copy)]
pub(super) struct ListenerKind {
    /// The protocol of its clients: the value of the key `protocol`. TCP if the key is missing or its value is invalid.
    pub(super) protocol: Protocol,
    /// Whether the protocol is that of PostgreSQL, or may be meant to be: the value of `protocol` is invalid or the key
    /// is misspelt, for which an error has been reported.
    pub(super) may_be_postgres: bool,
    /// Whether it has certificates (`[listeners.NAME.tls]`), and so can terminate TLS.
    pub(super) terminates: bool,
}

/// Converts a route. If it has no key `name`, its name is `default_name`. `None`: the route is not a table.
pub(super) fn route(
    default_name: &str,
    node: &Node,
    kind: ListenerKind,
    names: &mut Names<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Route<PoolId>> {
    let section = Section::open(node, &node.position, &keys::ROUTE, problems)?;
    for key in ["database", "user"] {
        if let Some((position, _)) = section.entry(key)
            && !kind.may_be_postgres
        {
            problems.error(
                position,
                format!("`{key}` is known only of clients of PostgreSQL"),
                r#"add protocol = "postgres" to the listener"#,
            );
        }
    }
    Some(Route {
        name: section.name("name", problems).unwrap_or(default_name).into(),
        sni: entries(&section, "sni", problems, pattern),
        alpn: entries(&section, "alpn", problems, alpn_protocol),
        from: entries(&section, "from", problems, address::network),
        tls: tls_mode(&section, kind.terminates, problems),
        database: entries(&section, "database", problems, glob),
        user: entries(&section, "user", problems, glob),
        guards: names.guards.find(&section, problems),
        // If there is no target, an error has been reported. The whole configuration is then rejected, so that it does
        // not matter which target stands here.
        to: target(&section, names.pools, problems).unwrap_or(Target::Refuse),
    })
}

/// Parses a pattern for server names: an entry of `sni`, or of `names` in `announce`.
pub(super) fn pattern(text: &str) -> Result<NamePattern, address::InvalidValue> {
    NamePattern::from_config(text).map_err(|error| {
        let message = format!("`{text}` is not a name pattern: {error}");
        let hint = if text.contains('*') {
            "write \"*\", or `*` as the first label, as in \"*.example.com\""
        } else if text.contains(':') {
            "write only the name, without scheme and port"
        } else {
            "write \"shop.example.com\", \"*.example.com\" or \"*\""
        };
        (message, hint.to_owned())
    })
}

/// Parses a pattern for the name of a PostgreSQL database or user: an entry of `database` or `user`. Names are cut to
/// [`postgres::NAME_BYTES_MAX`] bytes before they are compared, so a longer pattern could never match. The `*` do not
/// count, because they may stand for nothing. A NUL cannot be part of a name: on the wire, it ends the name.
fn glob(text: &str) -> Result<Glob, address::InvalidValue> {
    let literal_bytes = text.bytes().filter(|byte| *byte != b'*').count();
    let max = postgres::NAME_BYTES_MAX;
    if text.is_empty() || text.contains('\0') || literal_bytes > max {
        let hint = format!("write 1 to {max} bytes; `*` stands for any characters, as in \"orders_*\"");
        return Err((format!("`{}` is not a name pattern", text.escape_debug()), hint));
    }
    Ok(Glob::new(text))
}

/// The target of a route, which must have exactly one of `pool` and `refuse = true`. `None`: there is no valid target,
/// and an error has been reported.
fn target(section: &Section<'_>, pools: &mut Pools<'_>, problems: &mut Problems<'_>) -> Option<Target<PoolId>> {
    let refuse_entry = section.entry("refuse");
    let refuses = refuse_entry.and_then(|(_, node)| value::boolean(node, problems));
    if let Some(pool) = section.get("pool") {
        if let (Some((position, _)), Some(true)) = (refuse_entry, refuses) {
            let message = "this route has both `pool` and `refuse`";
            problems.error(position, message, "remove one of them");
        }
        return pools.find(pool, problems).map(Target::Pool);
    }
    let no_target = "this route has no target";
    match (refuse_entry, refuses) {
        (_, Some(true)) => return Some(Target::Refuse),
        (Some((position, _)), Some(false)) => {
            problems.error(position, no_target, r#"write refuse = true, or pool = "NAME""#);
        }
        (Some(_), None) => {} // not a boolean, which has been reported
        (None, _) if section.is_missing("pool") && section.is_missing("refuse") => {
            problems.error(section.position(), no_target, r#"add pool = "NAME" or refuse = true"#);
        }
        (None, _) => {} // `pool` or `refuse` is misspelt, which has been reported
    }
    None
}

/// How a route of a listener treats TLS. `terminates`: whether the listener has certificates.
fn tls_mode(route: &Section<'_>, terminates: bool, problems: &mut Problems<'_>) -> TlsMode {
    let modes = [("pass", TlsMode::Pass), ("terminate", TlsMode::Terminate)];
    let mode = route.one_of("tls", &modes, problems);
    if !terminates && let (Some((position, _)), Some(mode)) = (route.entry("tls"), mode) {
        let hint = "add [listeners.NAME.tls] with `certificates`";
        match mode {
            TlsMode::Terminate => problems.error(position, "this listener has no certificates", hint),
            TlsMode::Pass => problems.warning(
                position,
                "`tls` is never used",
                "a listener without [listeners.NAME.tls] passes all TLS on",
            ),
        }
    }
    let postgres_condition = route.entry("database").or_else(|| route.entry("user"));
    if terminates && let (Some((position, _)), Some(TlsMode::Pass)) = (postgres_condition, mode) {
        let hint = "remove tls = \"pass\", or `database` and `user`";
        let message = "`database` and `user` cannot be read: TLS that is passed on encrypts them";
        problems.error(position, message, hint);
    }
    mode.unwrap_or(if terminates { TlsMode::Terminate } else { TlsMode::Pass })
}
