//! Lists of keys that are built at compile time.

use crate::check::KINDS;

pub(super) struct KeyList {
    keys: [&'static str; Self::KEYS_MAX],
    count: usize,
}

/// Which of the keys of each check are added: those of the pool, or those of its health section.
#[derive(Clone, Copy)]
pub(super) enum CheckKeys {
    Pool,
    Health,
}

impl KeyList {
    /// A longer list does not compile; then raise this.
    const KEYS_MAX: usize = 64;

    pub(super) const fn new(keys: &[&'static str]) -> Self {
        let empty = Self {
            keys: [""; Self::KEYS_MAX],
            count: 0,
        };
        empty.with(keys)
    }

    /// Adds the keys of every kind of check.
    pub(super) const fn with_checks(mut self, section: CheckKeys) -> Self {
        let mut at = 0;
        while at < KINDS.len() {
            self = self.with(match section {
                CheckKeys::Pool => KINDS[at].pool_keys,
                CheckKeys::Health => KINDS[at].health_keys,
            });
            at += 1;
        }
        self
    }

    /// Adds the keys that are not in the list yet: kinds of checks may have keys in common.
    pub(super) const fn with(mut self, keys: &[&'static str]) -> Self {
        let mut at = 0;
        while at < keys.len() {
            if !self.contains(keys[at]) {
                self.keys[self.count] = keys[at];
                self.count += 1;
            }
            at += 1;
        }
        self
    }

    const fn contains(&self, key: &str) -> bool {
        let mut at = 0;
        while at < self.count {
            if is_equal(self.keys[at].as_bytes(), key.as_bytes()) {
                return true;
            }
            at += 1;
        }
        false
    }

    pub(super) const fn as_slice(&self) -> &[&'static str] {
        self.keys.split_at(self.count).0
    }
}

/// `==` is not `const` yet.
const fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}
