//! `[[listeners.NAME.routes]]`.

use super::{Mistakes, Pools, Section, address, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::config::report::Place;
use crate::name::NamePattern;
use crate::plan::PoolId;
use crate::route::{Route, Target};
use std::collections::HashMap;
use std::hash::Hash;

/// The longest protocol name: RFC 7301, section 3.1.
const ALPN_BYTES_MAX: usize = 255;

/// Reads a route, called `usual` unless it has a name of its own; `None` if it is no table.
pub(super) fn route(usual: &str, node: &Node, pools: &mut Pools<'_>, m: &mut Mistakes<'_>) -> Option<Route<PoolId>> {
    let section = Section::open(node, &node.place, &keys::ROUTE, m)?;
    Some(Route {
        name: section.name("name", m).unwrap_or(usual).into(),
        sni: entries(&section, "sni", m, pattern),
        alpn: entries(&section, "alpn", m, protocol),
        from: entries(&section, "from", m, address::network),
        // A route that leads nowhere has been said to, and is never used.
        to: target(&section, pools, m).unwrap_or(Target::Refuse),
    })
}

/// The entries of one condition; each once.
pub(super) fn entries<T: Clone + Eq + Hash>(
    section: &Section<'_>,
    key: &str,
    m: &mut Mistakes<'_>,
    read: impl Fn(&str) -> Result<T, address::Wrong>,
) -> Vec<T> {
    let nodes = section.get(key).map_or(&[][..], |node| value::one_or_many(node, m));
    let mut seen: HashMap<T, &Place> = HashMap::new();
    let mut entries = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(text) = value::text(node, m) else {
            continue;
        };
        match read(text) {
            Err((what, label)) => m.say(&node.place, what, label),
            Ok(entry) => {
                if let Some(first) = seen.get(&entry) {
                    let label = format!("already on {}", m.point_to(first));
                    m.say(&node.place, format!("`{text}` is here twice"), label);
                } else {
                    seen.insert(entry.clone(), &node.place);
                    entries.push(entry);
                }
            }
        }
    }
    entries
}

fn pattern(text: &str) -> Result<NamePattern, address::Wrong> {
    NamePattern::from_config(text).map_err(|error| {
        let what = format!("`{text}` matches no server name: {error}");
        let label = if text.contains('*') {
            "a `*` stands alone, or for the first labels, as in \"*.example.com\""
        } else if text.contains(':') {
            "write the name alone, without scheme and port"
        } else {
            "write \"shop.example.com\", \"*.example.com\" or \"*\""
        };
        (what, label.to_owned())
    })
}

pub(super) fn protocol(text: &str) -> Result<Box<[u8]>, address::Wrong> {
    if text.is_empty() || text.len() > ALPN_BYTES_MAX {
        let label = format!("write 1 to {ALPN_BYTES_MAX} bytes, as in \"h2\"");
        return Err((String::from("this is not a protocol name"), label));
    }
    Ok(text.as_bytes().into())
}

/// Exactly one of `pool` and `refuse = true`.
fn target(section: &Section<'_>, pools: &mut Pools<'_>, m: &mut Mistakes<'_>) -> Option<Target<PoolId>> {
    let refuse = section.entry("refuse");
    let refuses = refuse.and_then(|(_, node)| value::truth(node, m));
    match (section.get("pool"), refuse, refuses) {
        (Some(pool), Some((place, _)), Some(true)) => {
            m.say(place, "this route has a pool and refuses", "keep one of the two");
            pools.find(pool, m).map(Target::Pool)
        }
        (Some(pool), ..) => pools.find(pool, m).map(Target::Pool),
        (None, _, Some(true)) => Some(Target::Refuse),
        (None, Some((place, _)), Some(false)) => {
            m.say(
                place,
                "this route leads nowhere",
                r#"write refuse = true, or pool = "NAME""#,
            );
            None
        }
        (None, Some(_), None) => None, // not a truth, and told so
        (None, None, _) => {
            if !section.lacks("pool") || !section.lacks("refuse") {
                return None; // under another name, and told so
            }
            m.say(
                section.place(),
                "this route leads nowhere",
                r#"add pool = "NAME" or refuse = true"#,
            );
            None
        }
    }
}
