//! Servers that are listed in etcd, each as the value of a key. A range of keys is read, and then watched for changes
//! after the revision of that read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::source::{Findings, FollowFuture, ListAnswer, Reports, ServerList, ServerSource, SharedFindings};
use crate::error::chain;
use crate::etcd::{EtcdError, EtcdKeyValue, EtcdPlan, FollowedKeys, KeyChange, KeyFollower, KeyRange, Members};
use crate::plan::{LISTED_MAX, ListedServer, ServerEntry};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// The longest key of a server. The number of keys is limited, too, so this limits the memory for all.
const KEY_BYTES_MAX: usize = 1024;

/// The keys of etcd that begin with a prefix. The value of each is a server.
pub(super) struct EtcdSource {
    members: Members,
    followed: FollowedKeys,
    keys: SharedFindings<Keys>,
}

impl EtcdSource {
    pub(super) fn new(plan: Arc<EtcdPlan>, prefix: &str, defaults: MemberConfig) -> Self {
        let range = KeyRange::with_prefix(prefix);
        Self {
            members: Members::new(plan),
            followed: FollowedKeys {
                read: vec![range.clone()],
                watched: range,
                keys_max: LISTED_MAX,
            },
            keys: Arc::new(Mutex::new(Keys {
                states: BTreeMap::new(),
                defaults,
            })),
        }
    }
}

impl ServerSource for EtcdSource {
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> FollowFuture<'a> {
        Box::pin(async {
            let keys = &self.keys;
            let mut updates = KeyUpdates { keys, reports };
            let end = self.members.follow(&self.followed, &mut updates).await;
            Reason::from(chain(&*end.error))
        })
    }
}

/// Takes over what etcd says of the keys, and reports each change.
struct KeyUpdates<'a> {
    keys: &'a SharedFindings<Keys>,
    reports: &'a Reports,
}

impl KeyUpdates<'_> {
    fn change<T>(&self, change: impl FnOnce(&mut Keys) -> T) -> T {
        change(&mut self.keys.lock())
    }
}

impl KeyFollower for KeyUpdates<'_> {
    fn take_all(&mut self, all: Vec<EtcdKeyValue>) -> Result<(), EtcdError> {
        self.change(|keys| {
            let present: HashSet<&[u8]> = all.iter().map(|kv| cut_key(&kv.key)).collect();
            keys.states.retain(|key, _| present.contains(&**key));
            all.into_iter().for_each(|kv| keys.put(kv));
        });
        self.reports.report_change(self.keys);
        Ok(())
    }

    fn take_changes(&mut self, changes: Vec<KeyChange>) -> Result<(), EtcdError> {
        let count = self.change(|keys| {
            for change in changes {
                if change.is_delete() {
                    keys.states.remove(cut_key(&change.kv.key));
                } else {
                    keys.put(change.kv);
                }
            }
            keys.states.len()
        });
        if count > LISTED_MAX {
            return Err(format!("there are more than {LISTED_MAX} keys").into());
        }
        self.reports.report_change(self.keys);
        Ok(())
    }
}

/// A key, cut if it is too long. A cut key is still longer than any valid key, so that it is not mistaken for one.
fn cut_key(key: &[u8]) -> &[u8] {
    &key[..key.len().min(KEY_BYTES_MAX + 1)]
}

/// The state of the keys, each as [`cut_key`] returns it.
struct Keys {
    states: BTreeMap<Vec<u8>, KeyState>,
    defaults: MemberConfig,
}

#[derive(Default)]
struct KeyState {
    /// The server of the key's latest valid value.
    server: Option<ServerEntry>,
    /// Why the key's latest value is not valid; `None`: the value is valid.
    invalid: Option<Reason>,
}

impl Keys {
    /// Takes the value of a key. If the value is not valid, the key keeps its last server. Of several invalid values
    /// of a key in a row, only the first is logged.
    fn put(&mut self, EtcdKeyValue { key, value, .. }: EtcdKeyValue) {
        let entry = match key.len() > KEY_BYTES_MAX {
            true => Err(Reason::new("the key is longer than 1 KiB")),
            false => server(&value, self.defaults),
        };
        let shown = Reason::from(String::from_utf8_lossy(&key).into_owned());
        let state = self.states.entry(cut_key(&key).to_vec()).or_default();
        match entry {
            Ok(entry) => {
                state.server = Some(entry);
                state.invalid = None;
            }
            Err(error) => {
                let kept = state.server.is_some();
                if state.invalid.replace(error.clone()).is_none() {
                    tracing::warn!(key = %shown, %error, kept, "the value of a key is not a server");
                }
            }
        }
    }
}

impl Findings for Keys {
    /// The servers in the order of their keys. If two keys have the same server, the first key counts: a server that
    /// registers under a new key may still have its old one. Servers are the same if they have the same name or,
    /// without names, the same address.
    fn list(&self) -> ListAnswer {
        let mut labels = HashSet::new();
        let servers = self.states.values().filter_map(|state| state.server.as_ref());
        let unique = servers.filter(|entry| labels.insert(Arc::clone(entry.label())));
        let mut invalid = self
            .states
            .iter()
            .filter_map(|(key, state)| Some((key, state.invalid.as_ref()?)));
        let warning = invalid.next().map(|(key, why)| {
            let key = String::from_utf8_lossy(key);
            Reason::from(match 1 + invalid.count() {
                1 => format!("the value of key `{key}` is not a server: {why}"),
                count => format!("the values of {count} keys are not servers; the first is `{key}`: {why}"),
            })
        });
        Ok(ServerList {
            servers: unique.cloned().collect(),
            warning,
        })
    }
}

/// The server of a value, which is `host:port`, or JSON in the form that one element has in a list of servers.
fn server(value: &[u8], defaults: MemberConfig) -> Result<ServerEntry, Reason> {
    let text = std::str::from_utf8(value)
        .map_err(|_| Reason::new("it is not UTF-8"))?
        .trim();
    let listed: ListedServer = match text.starts_with(['{', '"']) {
        true => serde_json::from_str(text).map_err(|error| Reason::new(&error.to_string()))?,
        false => ListedServer::at(text.to_owned()),
    };
    listed.into_entry(defaults)
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;

    fn keys(puts: &[(&str, &str)]) -> Keys {
        let mut keys = Keys {
            states: BTreeMap::new(),
            defaults: MemberConfig::default(),
        };
        for (key, value) in puts {
            keys.put(EtcdKeyValue {
                key: key.as_bytes().to_vec(),
                value: value.as_bytes().to_vec(),
                mod_revision: 1,
                lease: Box::default(),
            });
        }
        keys
    }

    fn shown(keys: &Keys) -> Vec<String> {
        let servers = keys.list().unwrap().servers;
        let shown = |entry: &ServerEntry| format!("{}={} {}", entry.label(), entry.written, entry.member_config.weight);
        servers.iter().map(shown).collect()
    }

    #[test]
    fn values_are_addresses_or_json_and_servers_are_in_the_order_of_keys() {
        let object = r#"{"address": "10.0.0.2:1", "name": "two", "weight": 3}"#;
        let keys = keys(&[("/c", "\"10.0.0.3:1\""), ("/b", object), ("/a", "10.0.0.1:1\n")]);
        assert_eq!(
            shown(&keys),
            ["10.0.0.1:1=10.0.0.1:1 1", "two=10.0.0.2:1 3", "10.0.0.3:1=10.0.0.3:1 1"]
        );
    }

    #[test]
    fn an_invalid_value_keeps_the_last_server_of_its_key() {
        for wrong in ["", "10.0.0.1", "{", "[]", r#"{"address": "10.0.0.1:1", "wieght": 2}"#] {
            let keys = keys(&[("/a", "10.0.0.1:1"), ("/a", wrong), ("/b", wrong)]);
            assert_eq!(shown(&keys), ["10.0.0.1:1=10.0.0.1:1 1"], "{wrong}");
            let warning = keys.list().unwrap().warning.unwrap();
            let expected = "the values of 2 keys are not servers; the first is `/a`: ";
            assert!(warning.starts_with(expected), "{warning}");
        }
    }

    #[test]
    fn the_first_of_two_keys_with_one_server_counts() {
        let keys = keys(&[
            ("/b", "10.0.0.1:1"),
            ("/a", r#"{"address": "10.0.0.1:1", "weight": 2}"#),
        ]);
        assert_eq!(shown(&keys), ["10.0.0.1:1=10.0.0.1:1 2"]);
    }

    #[test]
    fn an_overlong_key_is_not_a_server() {
        assert!(shown(&keys(&[(&"a".repeat(KEY_BYTES_MAX + 1), "10.0.0.1:1")])).is_empty());
    }

    #[test]
    fn a_key_that_is_too_long_is_kept_until_it_is_deleted() {
        let (reports, _latest) = Reports::channel();
        let keys: SharedFindings<Keys> = Arc::new(Mutex::new(Keys {
            states: BTreeMap::new(),
            defaults: MemberConfig::default(),
        }));
        let mut updates = KeyUpdates {
            keys: &keys,
            reports: &reports,
        };
        let count = || keys.lock().states.len();
        let key = BASE64_STANDARD.encode(vec![b'k'; 2 * KEY_BYTES_MAX]);
        let read = || serde_json::from_value(serde_json::json!([{ "key": &key }])).unwrap();
        updates.take_all(read()).unwrap();
        updates.take_all(read()).unwrap();
        assert_eq!(count(), 1);
        let deleted = serde_json::json!([{ "type": "DELETE", "kv": { "key": &key } }]);
        updates.take_changes(serde_json::from_value(deleted).unwrap()).unwrap();
        assert_eq!(count(), 0);
    }
}
