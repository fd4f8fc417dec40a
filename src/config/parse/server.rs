//! `servers` of a pool.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Problems, Section, address, value};
use crate::addr::ServerLocation;
use crate::config::file::{Node, Value};
use crate::config::keys;
use crate::config::report::Position;
use crate::plan::{ServerEntry, WEIGHT_MAX};
use crate::pool::MemberConfig;
use crate::text::parse_digits;

const WEIGHT: RangeInclusive<u32> = 0..=WEIGHT_MAX as u32;

/// More priorities than any pool needs.
const PRIORITY: RangeInclusive<u32> = 0..=255;

/// Sessions of one server at once.
const SESSIONS: RangeInclusive<u32> = 1..=1_000_000;

/// The settings of a pool for servers that have none of their own.
pub(super) fn member_defaults(pool: &Section<'_>, problems: &mut Problems<'_>) -> MemberConfig {
    MemberConfig {
        sessions_max: sessions_max(pool, problems),
        ..MemberConfig::default()
    }
}

/// `max_sessions` of a pool, or of one of its servers.
fn sessions_max(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<NonZeroU32> {
    NonZeroU32::new(section.integer("max_sessions", SESSIONS, problems)?)
}

/// Converts `servers` of the pool with this name. Servers must differ in their label: their name, or else their
/// address. A pool that has neither clones nor `discover` needs at least one server, and at least one with a weight
/// above 0. Returns an empty list if the pool has `discover`.
pub(super) fn servers(
    pool_name: &str,
    pool: &Section<'_>,
    defaults: MemberConfig,
    problems: &mut Problems<'_>,
) -> Vec<ServerEntry> {
    let is_discovered = !pool.is_missing("discover");
    let has_clones = !pool.is_missing("scale");
    let Some((key_position, node)) = pool.entry("servers") else {
        if pool.is_missing("servers") && !is_discovered && !has_clones {
            problems.error(
                pool.position(),
                "this pool has no servers",
                r#"add servers = ["host:port"], `discover` or `scale`"#,
            );
        }
        return Vec::new();
    };
    if is_discovered {
        problems.error(
            key_position,
            "this pool has both `servers` and `discover`",
            "remove one of them: the servers of a pool come from one place",
        );
        return Vec::new();
    }
    let Some(items) = value::list(node, r#"["host:port"]"#, problems) else {
        return Vec::new();
    };
    if items.is_empty() && !has_clones {
        problems.error(&node.position, "this pool has no servers", r#"write ["host:port"]"#);
    }
    let mut positions = ServerPositions::default();
    let mut entries = Vec::with_capacity(items.len());
    for node in items {
        if let Some(entry) = server(node, defaults, problems) {
            if has_clones && is_name_of_clone(&entry, pool_name) {
                let message = format!("`{}` may become the name of a clone", entry.label());
                let hint = format!("write another `name`: the clones of this pool are {pool_name}-1, {pool_name}-2, …");
                problems.error(&node.position, message, hint);
            }
            positions.add(&entry, node, problems);
            entries.push(entry);
        }
    }
    if !has_clones
        && !entries.is_empty()
        && entries.len() == items.len()
        && entries.iter().all(|entry| entry.member_config.weight == 0)
    {
        problems.error(
            key_position,
            "all servers of this pool have weight 0",
            "give at least one server a weight above 0",
        );
    }
    entries
}

/// Whether the name of this server is `POOL-NUMBER`, the form of the names of clones.
fn is_name_of_clone(server: &ServerEntry, pool_name: &str) -> bool {
    let number = server
        .label()
        .strip_prefix(pool_name)
        .and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| parse_digits::<u32>(number).is_some())
}

fn server(node: &Node, defaults: MemberConfig, problems: &mut Problems<'_>) -> Option<ServerEntry> {
    if let Value::String(_) = node.value {
        let (written, location) = location(node, problems)?;
        return Some(ServerEntry {
            name: None,
            written,
            location,
            member_config: defaults,
        });
    }
    if !matches!(node.value, Value::Table(_)) {
        let message = format!("expected a server, found {}", node.value.kind());
        problems.error(
            &node.position,
            message,
            r#"write "host:port" or { address = "host:port", weight = 3 }"#,
        );
        return None;
    }
    let section = Section::open(node, &node.position, &keys::SERVER, problems)?;
    let address = section
        .required("address", r#"address = "host:port""#, problems)
        .and_then(|node| location(node, problems));
    let name = section.name("name", problems);
    if let (Some(name), Some(node)) = (name, section.get("name"))
        && name.contains(['/', '@'])
    {
        let hint = "write it without `/` and `@`: they separate names in `POOL/SERVER` and `NAME@ADDRESS`";
        problems.error(&node.position, "invalid name of a server", hint);
    }
    let weight = section.integer("weight", WEIGHT, problems).unwrap_or(1);
    let priority = section.integer("priority", PRIORITY, problems).unwrap_or(0);
    let sessions_max = sessions_max(&section, problems).or(defaults.sessions_max);
    let (written, location) = address?;
    Some(ServerEntry {
        name: name.map(Into::into),
        written,
        location,
        member_config: MemberConfig {
            weight: u16::try_from(weight).expect("bounded by WEIGHT"),
            priority: u8::try_from(priority).expect("bounded by PRIORITY"),
            sessions_max,
            is_draining: false,
        },
    })
}

/// The address of a server, as written and as parsed.
fn location(node: &Node, problems: &mut Problems<'_>) -> Option<(Arc<str>, ServerLocation)> {
    let parse = |text: &str| Ok((text.into(), address::server(text)?));
    let (written, location) = value::parsed(node, parse, problems)?;
    if let ServerLocation::Address(address) = location
        && let Some(socket) = address.unix()
    {
        problems.check_path(&node.position, socket.as_path());
    }
    Some((written, location))
}

/// The positions of the servers of a pool that were read so far.
#[derive(Default)]
struct ServerPositions<'a> {
    /// By label: the name, or else the address as written.
    by_label: HashMap<String, &'a Position>,
    /// The servers without a name, by address, so that two notations of one address are found to be the same.
    by_location: HashMap<ServerLocation, &'a Position>,
}

impl<'a> ServerPositions<'a> {
    fn add(&mut self, entry: &ServerEntry, node: &'a Node, problems: &mut Problems<'_>) {
        let label = entry.label();
        let unnamed_location = entry.name.is_none().then(|| entry.location.normalized());
        let first = self.by_label.get(label.as_ref());
        let first = first.or_else(|| {
            unnamed_location
                .as_ref()
                .and_then(|location| self.by_location.get(location))
        });
        if let Some(first) = first {
            let hint = format!(
                "first on {}; give one of them another `name`",
                problems.describe_position(first)
            );
            problems.error(&node.position, format!("duplicate server `{label}`"), hint);
            return;
        }
        self.by_label.insert(label.to_string(), &node.position);
        if let Some(location) = unnamed_location {
            self.by_location.insert(location, &node.position);
        }
    }
}
