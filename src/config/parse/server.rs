//! A pool's `servers`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::{Mistakes, Section, address, value};
use crate::addr::ServerPlace;
use crate::config::file::{Node, Value};
use crate::config::keys;
use crate::config::report::Place;
use crate::plan::ServerEntry;
use crate::pool::MemberConfig;

const WEIGHT: RangeInclusive<u32> = 0..=256;

/// More tiers than a pool could have use for.
const PRIORITY: RangeInclusive<u32> = 0..=255;

/// The servers of a pool: at least one, one of each identity, one that takes sessions.
pub(super) fn servers(pool: &Section<'_>, m: &mut Mistakes<'_>) -> Vec<ServerEntry> {
    let Some((key, node)) = pool.entry("servers") else {
        if pool.lacks("servers") {
            m.say(
                pool.place(),
                "this pool has no servers",
                r#"add servers = ["host:port"]"#,
            );
        }
        return Vec::new();
    };
    let Some(items) = value::list(node, m) else {
        return Vec::new();
    };
    if items.is_empty() {
        m.say(&node.place, "this pool has no servers", r#"write ["host:port"]"#);
    }
    let mut known = Known::default();
    let mut entries = Vec::with_capacity(items.len());
    for node in items {
        if let Some(entry) = server(node, m) {
            known.add(&entry, node, m);
            entries.push(entry);
        }
    }
    if !entries.is_empty()
        && entries.len() == items.len()
        && entries.iter().all(|entry| entry.member_config.weight == 0)
    {
        m.say(
            key,
            "no server of this pool takes a session: all weights are 0",
            "give one a weight",
        );
    }
    entries
}

fn server(node: &Node, m: &mut Mistakes<'_>) -> Option<ServerEntry> {
    if let Value::Text(_) = node.value {
        let (written, place) = located(node, m)?;
        return Some(ServerEntry {
            name: None,
            written: written.into(),
            place,
            member_config: MemberConfig::default(),
        });
    }
    if !matches!(node.value, Value::Table(_)) {
        let what = format!("expected a server, found {}", node.value.kind());
        m.say(
            &node.place,
            what,
            r#"write "host:port" or { address = "host:port", weight = 3 }"#,
        );
        return None;
    }
    let section = Section::open(node, &node.place, &keys::SERVER, m)?;
    let located = section
        .required("address", r#"address = "host:port""#, m)
        .and_then(|node| located(node, m));
    let name = section.name("name", m);
    if let (Some(name), Some(node)) = (name, section.get("name"))
        && name.contains(['/', '@'])
    {
        let label = "write it without `/` and `@`: they stand in `POOL/SERVER` and in what a host name resolves to";
        m.say(&node.place, "this is no name of a server", label);
    }
    let weight = section.whole("weight", WEIGHT, m).unwrap_or(1);
    let priority = section.whole("priority", PRIORITY, m).unwrap_or(0);
    let (written, place) = located?;
    Some(ServerEntry {
        name: name.map(Into::into),
        written: written.into(),
        place,
        member_config: MemberConfig {
            weight: u16::try_from(weight).expect("bounded by WEIGHT"),
            priority: u8::try_from(priority).expect("bounded by PRIORITY"),
        },
    })
}

fn located<'a>(node: &'a Node, m: &mut Mistakes<'_>) -> Option<(&'a str, ServerPlace)> {
    let text = value::text(node, m)?;
    match address::server(text) {
        Ok(place) => Some((text, place)),
        Err((what, label)) => {
            m.say(&node.place, what, label);
            None
        }
    }
}

/// The servers of a pool so far, by what tells them apart: a name, else the address however it is spelt.
#[derive(Default)]
struct Known<'a> {
    identities: HashMap<String, &'a Place>,
    nameless: HashMap<ServerPlace, &'a Place>,
}

impl<'a> Known<'a> {
    fn add(&mut self, entry: &ServerEntry, node: &'a Node, m: &mut Mistakes<'_>) {
        let identity = entry.name.as_ref().unwrap_or(&entry.written);
        let of_address = entry.name.is_none().then(|| folded(&entry.place));
        let first = self.identities.get(identity.as_ref());
        let first = first.or_else(|| of_address.as_ref().and_then(|place| self.nameless.get(place)));
        if let Some(first) = first {
            let label = format!("already on {}; give one of them a `name` of its own", m.point_to(first));
            m.say(&node.place, format!("two servers are `{identity}`"), label);
            return;
        }
        self.identities.insert(identity.to_string(), &node.place);
        if let Some(place) = of_address {
            self.nameless.insert(place, &node.place);
        }
    }
}

/// Host names are compared without case (RFC 4343).
fn folded(place: &ServerPlace) -> ServerPlace {
    match place {
        ServerPlace::Address(_) => place.clone(),
        ServerPlace::Name { host, port } => ServerPlace::Name {
            host: host.to_ascii_lowercase().into(),
            port: *port,
        },
    }
}
