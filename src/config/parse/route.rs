//! `[[listeners.NAME.routes]]`.

use super::list::{entries, protocol};
use super::{Names, Pools, Problems, Section, address, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::name::NamePattern;
use crate::plan::PoolId;
use crate::route::{Route, Target};

/// Converts a route, with `default_name` unless it has `name`. `None` if it is not a table.
pub(super) fn route(
    default_name: &str,
    node: &Node,
    names: &mut Names<'_, '_>,
    problems: &mut Problems<'_>,
) -> Option<Route<PoolId>> {
    let section = Section::open(node, &node.position, &keys::ROUTE, problems)?;
    Some(Route {
        name: section.name("name", problems).unwrap_or(default_name).into(),
        sni: entries(&section, "sni", problems, pattern),
        alpn: entries(&section, "alpn", problems, protocol),
        from: entries(&section, "from", problems, address::network),
        guards: names.guards.find(&section, problems),
        // A missing target has been reported, so that this one is never used.
        to: target(&section, names.pools, problems).unwrap_or(Target::Refuse),
    })
}

fn pattern(text: &str) -> Result<NamePattern, address::InvalidValue> {
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
