//! Servers that are keys of etcd: a range of keys is read, and watched from that revision on.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::etcd_gateway::{EtcdError, EtcdKeyValue, Gateway, RangeResponse, range_of};
use super::source::{Following, ListAnswer, Reports, ServerList, ServerSource};
use crate::error::chain;
use crate::plan::{EtcdPlan, LISTED_MAX, ListedServer, ServerEntry};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// After this time without an event the keys are read again, because a connection may be dead without a sign of it.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// A failure after a watch of this time does not count as one of the failures in a row.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The longest key of a server. Their number is limited too, so this limits the memory for all.
const KEY_BYTES_MAX: usize = 1024;

/// The keys of etcd that begin with a prefix, each a server.
pub(super) struct EtcdSource {
    plan: Arc<EtcdPlan>,
    prefix: Box<str>,
    /// The number of the member that is asked next.
    member: usize,
    keys: Keys,
}

impl EtcdSource {
    pub(super) fn new(plan: Arc<EtcdPlan>, prefix: Box<str>, defaults: MemberConfig) -> Self {
        Self {
            plan,
            prefix,
            member: 0,
            keys: Keys {
                states: BTreeMap::new(),
                defaults,
            },
        }
    }

    /// Asks one member after the other, until all have failed in a row, and the first one twice: its first failure may only
    /// mean that a login has expired.
    async fn run(&mut self, reports: &Reports) -> EtcdError {
        let mut failures = 0;
        loop {
            let mut watching_since = None;
            let error = self.follow_member(reports, &mut watching_since).await;
            self.member += 1;
            // The time of a member that lists nothing says nothing: one that hangs takes longer than one that refuses.
            let was_stable = watching_since.is_some_and(|since: Instant| since.elapsed() >= STABLE_AFTER);
            failures = if was_stable { 1 } else { failures + 1 };
            if failures > self.plan.endpoints.len() {
                return error;
            }
        }
    }

    /// Follows the next member until it fails. `watching_since`: when its first watch has begun, after its first list.
    async fn follow_member(&mut self, reports: &Reports, watching_since: &mut Option<Instant>) -> EtcdError {
        let endpoints = &self.plan.endpoints;
        let endpoint = endpoints[self.member % endpoints.len()].clone();
        let gateway = match Gateway::connect(endpoint, Arc::clone(&self.plan)).await {
            Ok(gateway) => gateway,
            Err(error) => return error,
        };
        loop {
            if let Err(error) = self.list_and_watch(&gateway, reports, watching_since).await {
                return error;
            }
        }
    }

    /// Reads the keys, and watches them until they have to be read again: nothing has happened for a long time, or the watch
    /// needs revisions that are compacted.
    async fn list_and_watch(
        &mut self,
        gateway: &Gateway,
        reports: &Reports,
        watching_since: &mut Option<Instant>,
    ) -> Result<(), EtcdError> {
        let range = range_of(&self.prefix);
        let revision = self.list(gateway, range.clone()).await?;
        reports.report(self.keys.servers());
        let mut watch = gateway.watch(&range, revision + 1).await?;
        watching_since.get_or_insert_with(Instant::now);
        while let Ok(message) = timeout(QUIET_MAX, watch.next()).await {
            let response = message?;
            if response.canceled && response.compact_revision > 0 {
                return Ok(());
            }
            if response.canceled {
                return Err(format!("the watch was cancelled: {}", response.cancel_reason).into());
            }
            if response.events.is_empty() {
                continue; // the watch was created
            }
            for event in response.events {
                if event.is_delete() {
                    self.keys.states.remove(&event.kv.key);
                } else {
                    self.keys.put(event.kv);
                }
            }
            self.check_count(self.keys.states.len())?;
            reports.report(self.keys.servers());
        }
        Ok(())
    }

    /// Reads all keys. Returns their revision.
    async fn list(&mut self, gateway: &Gateway, mut request: Value) -> Result<i64, EtcdError> {
        request["limit"] = json!(LISTED_MAX + 1);
        let RangeResponse { header, kvs, more } = gateway.ask("/v3/kv/range", &request).await?;
        self.check_count(kvs.len() + usize::from(more))?;
        let present: HashSet<&[u8]> = kvs.iter().map(|kv| &*kv.key).collect();
        self.keys.states.retain(|key, _| present.contains(&**key));
        kvs.into_iter().for_each(|kv| self.keys.put(kv));
        Ok(header.revision)
    }

    fn check_count(&self, keys: usize) -> Result<(), EtcdError> {
        match keys > LISTED_MAX {
            true => Err(format!("more than {LISTED_MAX} keys begin with `{}`", self.prefix).into()),
            false => Ok(()),
        }
    }
}

impl ServerSource for EtcdSource {
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> Following<'a> {
        Box::pin(async { Reason::from(chain(&*self.run(reports).await)) })
    }
}

/// What is known of the keys.
struct Keys {
    states: BTreeMap<Vec<u8>, KeyState>,
    defaults: MemberConfig,
}

#[derive(Default)]
struct KeyState {
    /// The server of its latest valid value.
    server: Option<ServerEntry>,
    /// Why its latest value is not valid; `None`: it is.
    invalid: Option<Reason>,
}

impl Keys {
    /// Takes the value of a key. One that is not valid changes nothing; that is logged once.
    fn put(&mut self, EtcdKeyValue { key, value }: EtcdKeyValue) {
        let entry = match key.len() > KEY_BYTES_MAX {
            true => Err(Reason::new("the key is longer than 1 KiB")),
            false => server(&value, self.defaults),
        };
        let shown = Reason::from(String::from_utf8_lossy(&key).into_owned());
        let key = key[..key.len().min(KEY_BYTES_MAX + 1)].to_vec();
        let state = self.states.entry(key).or_default();
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

    /// The servers in the order of their keys. Of two with one name, else one address, the first: a server that registers
    /// under a new key may still have its old one.
    fn servers(&self) -> ListAnswer {
        let mut labels = HashSet::new();
        let servers = self.states.values().filter_map(|state| state.server.as_ref());
        let unique = servers.filter(|entry| labels.insert(Arc::clone(entry.label())));
        let invalid = |(key, state): (_, &KeyState)| Some((key, state.invalid.clone()?));
        let mut invalid: Vec<(&Vec<u8>, Reason)> = self.states.iter().filter_map(invalid).collect();
        let count = invalid.len();
        invalid.truncate(1);
        let warning = invalid.pop().map(|(key, why)| {
            let key = String::from_utf8_lossy(key);
            Reason::from(match count {
                1 => format!("the value of key `{key}` is not a server: {why}"),
                _ => format!("the values of {count} keys are not servers; the first is `{key}`: {why}"),
            })
        });
        Ok(ServerList {
            servers: unique.cloned().collect(),
            warning,
        })
    }
}

/// The server of a value: `host:port`, or JSON as in lists.
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
    use std::net::SocketAddr;

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
            });
        }
        keys
    }

    fn shown(keys: &Keys) -> Vec<String> {
        let servers = keys.servers().unwrap().servers;
        let shown = |entry: &ServerEntry| format!("{}={} {}", entry.label(), entry.written, entry.member_config.weight);
        servers.iter().map(shown).collect()
    }

    #[test]
    fn values_are_addresses_or_json_in_the_order_of_their_keys() {
        let table = r#"{"address": "10.0.0.2:1", "name": "two", "weight": 3}"#;
        let keys = keys(&[("/c", "\"10.0.0.3:1\""), ("/b", table), ("/a", "10.0.0.1:1\n")]);
        assert_eq!(
            shown(&keys),
            ["10.0.0.1:1=10.0.0.1:1 1", "two=10.0.0.2:1 3", "10.0.0.3:1=10.0.0.3:1 1"]
        );
    }

    #[test]
    fn a_value_that_is_not_valid_keeps_the_last_server_of_its_key() {
        for wrong in ["", "10.0.0.1", "{", "[]", r#"{"address": "10.0.0.1:1", "wieght": 2}"#] {
            let keys = keys(&[("/a", "10.0.0.1:1"), ("/a", wrong), ("/b", wrong)]);
            assert_eq!(shown(&keys), ["10.0.0.1:1=10.0.0.1:1 1"], "{wrong}");
            let warning = keys.servers().unwrap().warning.unwrap();
            let expected = "the values of 2 keys are not servers; the first is `/a`: ";
            assert!(warning.starts_with(expected), "{warning}");
        }
    }

    #[test]
    fn of_two_keys_with_one_server_the_first_counts() {
        let keys = keys(&[
            ("/b", "10.0.0.1:1"),
            ("/a", r#"{"address": "10.0.0.1:1", "weight": 2}"#),
        ]);
        assert_eq!(shown(&keys), ["10.0.0.1:1=10.0.0.1:1 2"]);
    }

    #[test]
    fn a_key_that_is_too_long_is_not_a_server() {
        assert!(shown(&keys(&[(&"a".repeat(KEY_BYTES_MAX + 1), "10.0.0.1:1")])).is_empty());
    }

    /// Waits for the failure that is reported of members at these addresses.
    async fn failure_of(members: &[SocketAddr]) -> Reason {
        let endpoints = members
            .iter()
            .map(|address| format!("http://{address}").parse().unwrap());
        let plan = EtcdPlan {
            endpoints: endpoints.collect(),
            login: None,
            ca_file: None,
        };
        let mut source = EtcdSource::new(Arc::new(plan), "/a/".into(), MemberConfig::default());
        let (reports, _answers) = Reports::channel();
        let failure = timeout(Duration::from_secs(100), source.follow(&reports)).await;
        failure.expect("it fails")
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_accept_and_stay_silent_are_a_failure() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listening = std::net::TcpListener::bind(any).unwrap(); // the kernel accepts
        let bound = tokio::net::TcpSocket::new_v4().unwrap();
        bound.bind(any).unwrap();
        let (silent, refused) = (listening.local_addr().unwrap(), bound.local_addr().unwrap());
        assert!(failure_of(&[silent]).await.contains("no answer within 10s"));
        for members in [[silent, refused, refused], [refused, refused, silent]] {
            failure_of(&members).await;
        }
    }

    #[test]
    fn a_range_ends_before_the_next_prefix() {
        // base64 of "/a/" and "/a0"
        assert_eq!(range_of("/a/"), json!({ "key": "L2Ev", "range_end": "L2Ew" }));
    }
}
