//! The messages of the JSON gateway: bytes are in base64, and 64-bit integers are text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// A range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    begin: Vec<u8>,
    /// The first key after the range, in the order of bytes; `None`: the range has one key only.
    end: Option<Vec<u8>>,
}

impl KeyRange {
    /// One key.
    #[must_use]
    pub fn one(key: &str) -> Self {
        Self {
            begin: key.into(),
            end: None,
        }
    }

    /// The keys that begin with `prefix`, which must not be empty.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        Self {
            begin: prefix.into(),
            end: Some(prefix_range_end(prefix)),
        }
    }

    /// The keys from `first` to the last one that begins with `prefix`.
    #[must_use]
    pub fn through_prefix(first: &str, prefix: &str) -> Self {
        Self {
            begin: first.into(),
            end: Some(prefix_range_end(prefix)),
        }
    }

    /// The keys that begin with `prefix`, but not with `without`, a longer prefix that begins with `prefix`. Neither is
    /// empty.
    #[must_use]
    pub fn with_prefix_but_not(prefix: &str, without: &str) -> [Self; 2] {
        let before = Self {
            begin: prefix.into(),
            end: Some(without.into()),
        };
        let after = Self {
            begin: prefix_range_end(without),
            end: Some(prefix_range_end(prefix)),
        };
        [before, after]
    }

    pub(super) fn to_json(&self) -> Value {
        let mut range = json!({ "key": BASE64.encode(&self.begin) });
        if let Some(end) = &self.end {
            range["range_end"] = BASE64.encode(end).into();
        }
        range
    }
}

/// The first key after those that begin with a prefix: the prefix with its last byte increased. The byte cannot
/// overflow, because UTF-8 has no byte 255.
fn prefix_range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EtcdKeyValue {
    /// The key.
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    /// The value; empty if the key was deleted.
    #[serde(default, deserialize_with = "bytes")]
    pub value: Vec<u8>,
    /// The revision of its last change.
    #[serde(default, deserialize_with = "number")]
    pub mod_revision: i64,
    /// The number of its lease; empty: it has none.
    #[serde(default)]
    pub lease: Box<str>,
}

/// A change of a key.
#[derive(Clone, Debug, Deserialize)]
pub struct KeyChange {
    #[serde(default, rename = "type")]
    kind: String,
    /// The key and its new value.
    pub kv: EtcdKeyValue,
}

impl KeyChange {
    /// Whether the key was deleted; else it was put. The gateway omits the type `PUT`, because it is the default.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

/// The response to a transaction that only reads.
#[derive(Deserialize)]
pub(super) struct ReadResponse {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) responses: Vec<OperationResponse>,
}

#[derive(Deserialize)]
pub(super) struct OperationResponse {
    pub(super) response_range: RangeResponse,
}

#[derive(Deserialize)]
pub(super) struct RangeResponse {
    #[serde(default)]
    pub(super) kvs: Vec<EtcdKeyValue>,
    /// Whether the range has more keys than the limit of the request.
    #[serde(default)]
    pub(super) more: bool,
}

#[derive(Deserialize)]
pub(super) struct AuthenticateResponse {
    pub(super) token: String,
}

#[derive(Deserialize)]
pub(super) struct LeaseResponse {
    #[serde(default, rename = "ID")]
    pub(super) id: String,
}

/// A message of a stream.
#[derive(Deserialize)]
pub(super) struct StreamMessage<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct KeepAliveResponse {
    /// The time that is left, in seconds; 0 if the lease has expired.
    #[serde(default, rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: i64,
}

#[derive(Deserialize)]
pub(super) struct WatchResponse {
    #[serde(default)]
    pub(super) canceled: bool,
    /// Not 0 if the watch needs revisions that were compacted.
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: i64,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<KeyChange>,
}

fn number<'de, D: Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    let text = String::deserialize(value)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(value)?;
    BASE64.decode(text).map_err(serde::de::Error::custom)
}

pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_before_the_next_prefix() {
        // base64 of "/a/" and "/a0"
        let range = KeyRange::with_prefix("/a/").to_json();
        assert_eq!(range, json!({ "key": "L2Ev", "range_end": "L2Ew" }));
        assert_eq!(KeyRange::one("/a/").to_json(), json!({ "key": "L2Ev" }));
    }

    #[test]
    fn two_ranges_leave_a_longer_prefix_out() {
        let [before, after] = KeyRange::with_prefix_but_not("/a/", "/a/s/");
        let contains = |key: &str| {
            let is_in = |range: &KeyRange| {
                let end = range.end.as_deref().unwrap();
                *range.begin <= *key.as_bytes() && key.as_bytes() < end
            };
            is_in(&before) || is_in(&after)
        };
        for (key, is_in) in [
            ("/a", false),
            ("/a-b", false),
            ("/a/", true),
            ("/a/b", true),
            ("/a/s", true),
            ("/a/s/", false),
            ("/a/s/x", false),
            ("/a/s0", true),
            ("/a/z", true),
            ("/a0", false),
        ] {
            assert_eq!(contains(key), is_in, "{key}");
        }
    }
}
