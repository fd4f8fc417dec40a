//! `[[listeners.NAME.routes]]`.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Pools, Problems, Section, address, tls, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::config::report::Position;
use crate::name::NamePattern;
use crate::plan::PoolId;
use crate::route::{Route, Target};

/// The longest protocol name: RFC 7301, section 3.1.
const ALPN_BYTES_MAX: usize = 255;

/// Converts a route, with `default_name` unless it has `name`. `None` if it is not a table. `terminates`: whether its
/// listener has certificates.
pub(super) fn route(
    default_name: &str,
    node: &Node,
    terminates: bool,
    pools: &mut Pools<'_>,
    problems: &mut Problems<'_>,
) -> Option<Route<PoolId>> {
    let section = Section::open(node, &node.position, &keys::ROUTE, problems)?;
    Some(Route {
        name: section.name("name", problems).unwrap_or(default_name).into(),
        sni: entries(&section, "sni", problems, pattern),
        alpn: entries(&section, "alpn", problems, protocol),
        from: entries(&section, "from", problems, address::network),
        tls: tls::route_mode(&section, terminates, problems),
        // A missing target has been reported, so that this one is never used.
        to: target(&section, pools, problems).unwrap_or(Target::Refuse),
    })
}

/// The entries of one condition. Duplicates are reported.
pub(super) fn entries<T: Clone + Eq + Hash>(
    section: &Section<'_>,
    key: &str,
    problems: &mut Problems<'_>,
    parse: impl Fn(&str) -> Result<T, address::InvalidValue>,
) -> Vec<T> {
    let nodes = section
        .get(key)
        .map_or(&[][..], |node| value::one_or_many(node, problems));
    let mut seen: HashMap<T, &Position> = HashMap::new();
    let mut entries = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(text) = value::string(node, problems) else {
            continue;
        };
        match parse(text) {
            Err((message, hint)) => problems.error(&node.position, message, hint),
            Ok(entry) => {
                if let Some(first) = seen.get(&entry) {
                    let hint = format!("first on {}", problems.describe_position(first));
                    problems.error(&node.position, format!("duplicate entry `{text}`"), hint);
                } else {
                    seen.insert(entry.clone(), &node.position);
                    entries.push(entry);
                }
            }
        }
    }
    entries
}

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

pub(super) fn protocol(text: &str) -> Result<Box<[u8]>, address::InvalidValue> {
    if text.is_empty() || text.len() > ALPN_BYTES_MAX {
        let hint = format!("write 1 to {ALPN_BYTES_MAX} bytes, as in \"h2\"");
        return Err((String::from("invalid protocol name"), hint));
    }
    Ok(text.as_bytes().into())
}

/// Exactly one of `pool` and `refuse = true`.
fn target(section: &Section<'_>, pools: &mut Pools<'_>, problems: &mut Problems<'_>) -> Option<Target<PoolId>> {
    let refuse = section.entry("refuse");
    let refuses = refuse.and_then(|(_, node)| value::boolean(node, problems));
    match (section.get("pool"), refuse, refuses) {
        (Some(pool), Some((position, _)), Some(true)) => {
            problems.error(
                position,
                "this route has both `pool` and `refuse`",
                "remove one of them",
            );
            pools.find(pool, problems).map(Target::Pool)
        }
        (Some(pool), ..) => pools.find(pool, problems).map(Target::Pool),
        (None, _, Some(true)) => Some(Target::Refuse),
        (None, Some((position, _)), Some(false)) => {
            problems.error(
                position,
                "this route has no target",
                r#"write refuse = true, or pool = "NAME""#,
            );
            None
        }
        (None, Some(_), None) => None, // not a boolean, which has been reported
        (None, None, _) => {
            if !section.is_missing("pool") || !section.is_missing("refuse") {
                return None; // under a wrong key, which has been reported
            }
            problems.error(
                section.position(),
                "this route has no target",
                r#"add pool = "NAME" or refuse = true"#,
            );
            None
        }
    }
}
