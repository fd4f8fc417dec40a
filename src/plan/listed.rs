//! A server as sources list it in JSON or TOML: its address as text, or a table.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{DiscoverPlan, ServerEntry};
use crate::addr::ServerLocation;
use crate::addr_text;
use crate::pool::MemberConfig;
use crate::text::{NAME_BYTES_MAX, Reason, is_name};

/// The most servers of one list. More would be a mistake, or a wrong answer.
pub const LISTED_MAX: usize = 10_000;

/// The largest weight, as in HAProxy.
pub const WEIGHT_MAX: u16 = 256;

/// A server as a source lists it: `"host:port"`, or a table (in JSON: an object) with these keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedServer {
    /// `host:port`, `[ip]:port`, `host:port@ip` or `unix:/path`.
    pub address: String,
    /// Its name; absent: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// 0 to 256; absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Its tier, 0 to 255; absent: 0, the best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Whether it is to get no new sessions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// Written by hand, because the errors of serde's `untagged` do not name what is wrong.
impl<'de> Deserialize<'de> for ListedServer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ListedServerVisitor)
    }
}

struct ListedServerVisitor;

impl<'de> Visitor<'de> for ListedServerVisitor {
    type Value = ListedServer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"host:port\" or a table with `address`")
    }

    fn visit_str<E>(self, address: &str) -> Result<ListedServer, E> {
        Ok(ListedServer::at(address.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<ListedServer, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct ServerTable {
            address: String,
            name: Option<String>,
            weight: Option<u16>,
            priority: Option<u8>,
            #[serde(default)]
            draining: bool,
        }
        let ServerTable {
            address,
            name,
            weight,
            priority,
            draining,
        } = ServerTable::deserialize(MapAccessDeserializer::new(table))?;
        Ok(ListedServer {
            address,
            name,
            weight,
            priority,
            draining,
        })
    }
}

impl ListedServer {
    /// A server of which only the address is known.
    #[must_use]
    pub fn at(address: String) -> Self {
        Self {
            address,
            name: None,
            weight: None,
            priority: None,
            draining: false,
        }
    }

    /// The server as an entry of a pool. `defaults` differ from [`MemberConfig::default`] at most in `sessions_max`.
    ///
    /// # Errors
    /// A value is not valid.
    pub fn into_entry(self, defaults: MemberConfig) -> Result<ServerEntry, Reason> {
        let address = &self.address;
        let location =
            addr_text::server(address).map_err(|(message, hint)| Reason::new(&format!("{message}: {hint}")))?;
        if let Some(name) = self
            .name
            .as_ref()
            .filter(|name| !is_name(name) || name.contains(['/', '@']))
        {
            return Err(Reason::new(&format!(
                "invalid name `{name}` of server `{address}`: 1 to {NAME_BYTES_MAX} bytes without spaces, quotes, `/` and `@`"
            )));
        }
        let weight = self.weight.unwrap_or(defaults.weight);
        if weight > WEIGHT_MAX {
            return Err(Reason::new(&format!(
                "server `{address}` has weight {weight}: the largest is {WEIGHT_MAX}"
            )));
        }
        Ok(ServerEntry {
            name: self.name.map(Into::into),
            written: self.address.into(),
            location,
            member_config: MemberConfig {
                weight,
                priority: self.priority.unwrap_or(defaults.priority),
                is_draining: self.draining,
                ..defaults
            },
        })
    }
}

impl From<&ServerEntry> for ListedServer {
    fn from(entry: &ServerEntry) -> Self {
        let MemberConfig {
            weight,
            priority,
            sessions_max: _, // set by the pool, never listed
            is_draining,
        } = entry.member_config;
        Self {
            address: entry.written.to_string(),
            name: entry.name.as_deref().map(str::to_owned),
            weight: Some(weight),
            priority: Some(priority),
            draining: is_draining,
        }
    }
}

/// The servers of a list as entries of a pool.
#[derive(Default)]
pub struct ListedEntries {
    entries: Vec<ServerEntry>,
    labels: HashSet<Arc<str>>,
    /// Those of the servers without a name.
    locations: HashSet<ServerLocation>,
}

impl ListedEntries {
    /// Adds the next server of the list.
    ///
    /// # Errors
    /// The server is not valid, its label is that of another server, it has no name and its address is that of another
    /// server without a name, or the list is longer than [`LISTED_MAX`].
    pub fn add(&mut self, listed: ListedServer, defaults: MemberConfig) -> Result<(), Reason> {
        let entry = listed.into_entry(defaults)?;
        let is_new_label = self.labels.insert(Arc::clone(entry.label())); // the name, otherwise the address as written
        let is_new_location = entry.name.is_some() || self.locations.insert(entry.location.normalized());
        if !is_new_label || !is_new_location {
            return Err(Reason::new(&format!("server `{}` is listed twice", entry.label())));
        }
        if self.entries.len() == LISTED_MAX {
            return Err(Reason::new(&format!("the list has more than {LISTED_MAX} servers")));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The entries, in the order of the list.
    #[must_use]
    pub fn into_vec(self) -> Vec<ServerEntry> {
        self.entries
    }
}

/// The servers of a whole list as entries of a pool.
///
/// # Errors
/// The first error of [`ListedEntries::add`].
pub fn listed_entries(
    listed: impl IntoIterator<Item = ListedServer>,
    defaults: MemberConfig,
) -> Result<Vec<ServerEntry>, Reason> {
    let mut entries = ListedEntries::default();
    for listed in listed {
        entries.add(listed, defaults)?;
    }
    Ok(entries.into_vec())
}

impl DiscoverPlan {
    /// Checks that the source may list these servers.
    ///
    /// # Errors
    /// One of them is at a Unix socket, which this source may not list.
    pub fn check_listed(&self, servers: &[ServerEntry]) -> Result<(), Reason> {
        match servers.iter().find(|server| server.is_unix()) {
            Some(server) if !self.allow_unix => {
                let label = server.label();
                Err(Reason::from(format!(
                    "server `{label}` is a Unix socket: only a file named in this machine's configuration may list one"
                )))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<ServerEntry>, String> {
        let listed: Vec<ListedServer> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        listed_entries(listed, MemberConfig::default()).map_err(|reason| reason.to_string())
    }

    #[test]
    fn a_list_entry_is_an_address_or_a_table() {
        let text =
            r#"["10.0.0.1:1", {"address": "b.test:2", "name": "b", "weight": 3, "priority": 1, "draining": true}]"#;
        let entries = read(text).unwrap();
        assert_eq!(
            (&**entries[0].label(), entries[0].member_config),
            ("10.0.0.1:1", MemberConfig::default())
        );
        let config = MemberConfig {
            weight: 3,
            priority: 1,
            sessions_max: None,
            is_draining: true,
        };
        assert_eq!((&**entries[1].label(), entries[1].member_config), ("b", config));
    }

    #[test]
    fn written_lists_are_read_back_unchanged() {
        let entries =
            read(r#"["10.0.0.1:1", {"address": "b.test:2", "name": "b", "weight": 0, "draining": true}]"#).unwrap();
        let listed: Vec<ListedServer> = entries.iter().map(Into::into).collect();
        assert_eq!(read(&serde_json::to_string(&listed).unwrap()).unwrap(), entries);
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        for (text, error) in [
            (r#"["10.0.0.1"]"#, "`10.0.0.1` has no port"),
            (r#"["10.0.0.1:1", "10.0.0.1:1"]"#, "`10.0.0.1:1` is listed twice"),
            (
                r#"["10.0.0.1:1", {"address": "10.0.0.2:1", "name": "10.0.0.1:1"}]"#,
                "`10.0.0.1:1` is listed twice",
            ),
            (r#"["a.test:1", "A.test:1"]"#, "`A.test:1` is listed twice"),
            (r#"[{"address": "10.0.0.1:1", "name": "a/b"}]"#, "invalid name `a/b`"),
            (r#"[{"address": "10.0.0.1:1", "weight": 257}]"#, "the largest is 256"),
            (r#"[{"address": "10.0.0.1:1", "wieght": 2}]"#, "unknown field `wieght`"),
            (r#"[{"name": "a"}]"#, "missing field `address`"),
            (
                r#"[{"address": "10.0.0.1:1", "weight": 2, "weight": 0}]"#,
                "duplicate field `weight`",
            ),
            (r#"[7]"#, "expected \"host:port\" or a table with `address`"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(error), "{text}: {found}");
        }
        let many: Vec<_> = (0..=LISTED_MAX).map(|number| format!("s{number}.test:1")).collect();
        assert!(
            read(&serde_json::to_string(&many).unwrap())
                .unwrap_err()
                .contains("more than 10000")
        );
        assert!(read(&serde_json::to_string(&many[1..]).unwrap()).is_ok());
    }
}
