//! Every key there is, by section.
//!
//! The one table of them: the parser reads no other key, and a test holds `conf/full.toml` against it. Keys that belong to
//! certain kinds of checks come from [`KINDS`].

use crate::check::KINDS;

/// The keys of one kind of section.
#[derive(Debug)]
pub struct Section {
    /// What messages call it.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [&'static str],
}

/// The file itself.
pub static FILE: Section = Section {
    title: "the file",
    keys: &["runtime", "admin", "log", "defaults", "listeners", "pools"],
};

/// `[runtime]`
pub static RUNTIME: Section = Section {
    title: "`[runtime]`",
    keys: &[
        "workers",
        "max_connections",
        "hello_memory",
        "drain_timeout",
        "drain_delay",
        "watch",
    ],
};

/// `[admin]`
pub static ADMIN: Section = Section {
    title: "`[admin]`",
    keys: &["bind", "hosts", "token_file", "socket"],
};

/// `[log]`
pub static LOG: Section = Section {
    title: "`[log]`",
    keys: &["format", "level", "access"],
};

/// `[defaults]`
pub static DEFAULTS: Section = Section {
    title: "`[defaults]`",
    keys: &[
        "hello_timeout",
        "hello_max",
        "connect_timeout",
        "retries",
        "resolve",
        "idle_timeout",
        "half_close_timeout",
        "keepalive",
        "user_timeout",
        "backlog",
    ],
};

/// `[listeners.NAME]`
pub static LISTENER: Section = Section {
    title: "`[listeners.NAME]`",
    keys: &[
        "bind",
        "pool",
        "max_connections",
        "routes",
        "hello_timeout",
        "hello_max",
        "idle_timeout",
        "half_close_timeout",
        "keepalive",
        "user_timeout",
        "backlog",
    ],
};

/// `[[listeners.NAME.routes]]`
pub static ROUTE: Section = Section {
    title: "`[[listeners.NAME.routes]]`",
    keys: &["name", "sni", "alpn", "from", "pool", "refuse"],
};

/// `[pools.NAME]`
pub static POOL: Section = Section {
    title: "`[pools.NAME]`",
    keys: POOL_KEYS.as_slice(),
};

static POOL_KEYS: KeyList = KeyList::new(&[
    "balance",
    "servers",
    "proxy_protocol",
    "resolve",
    "resolve_interval",
    "health",
    "connect_timeout",
    "retries",
    "keepalive",
    "user_timeout",
    "on_down",
    "on_recover",
    "close_over",
    "slow_start",
])
.with_checks(CheckKeys::Pool);

/// An entry of a pool's `servers`.
pub static SERVER: Section = Section {
    title: "a server",
    keys: &["address", "weight", "name", "priority"],
};

/// `[pools.NAME.health]`
pub static HEALTH: Section = Section {
    title: "`[pools.NAME.health]`",
    keys: HEALTH_KEYS.as_slice(),
};

static HEALTH_KEYS: KeyList = KeyList::new(&[
    "check",
    "interval",
    "interval_down",
    "timeout",
    "rise",
    "fall",
    "address",
    "port",
    "concurrency",
])
.with_checks(CheckKeys::Health)
.with(&[
    "eject_after",
    "eject_for",
    "eject_max_for",
    "eject_max_percent",
    "eject_on_reset",
    "panic_threshold",
]);

/// `keepalive`
pub static KEEPALIVE: Section = Section {
    title: "`keepalive`",
    keys: &["idle", "interval", "probes"],
};

/// All of them.
pub static ALL: [&Section; 11] = [
    &FILE, &RUNTIME, &ADMIN, &LOG, &DEFAULTS, &LISTENER, &ROUTE, &POOL, &SERVER, &HEALTH, &KEEPALIVE,
];

impl Section {
    /// What is wrong with a key that is not of this section, and what to write instead.
    pub(super) fn wrong(&self, key: &str) -> (String, String) {
        let what = format!("unknown key `{key}` in {}", self.title);
        let folded = super::peers::fold(key);
        let same_but_for_spelling = |known: &&&str| super::peers::fold(known) == folded;
        if let Some(known) = self.keys.iter().find(same_but_for_spelling) {
            return (what, format!("write `{known}`"));
        }
        if let Some(ours) = super::peers::our_word(self, &folded) {
            return (what, format!("here it is {ours}"));
        }
        if let Some(known) = near(key, self.keys) {
            return (what, format!("did you mean `{known}`?"));
        }
        if let Some(homes) = homes(key) {
            return (what, format!("it belongs in {homes}"));
        }
        let known: Vec<_> = self.keys.iter().map(|known| format!("`{known}`")).collect();
        (what, format!("there are {}", known.join(", ")))
    }
}

impl Section {
    /// Whether a wrong key was probably meant to be `wanted`: then it is not missing as well.
    pub(super) fn may_mean(&self, key: &str, wanted: &str) -> bool {
        let folded = super::peers::fold(key);
        let by_a_peer =
            || super::peers::our_word(self, &folded).is_some_and(|ours| ours.contains(&format!("`{wanted}")));
        !self.keys.contains(&key)
            && (folded == super::peers::fold(wanted) || by_a_peer() || near(key, self.keys) == Some(wanted))
    }
}

/// Keys that are put together when this is compiled.
struct KeyList {
    keys: [&'static str; Self::KEYS_MAX],
    count: usize,
}

/// The section whose keys of checks are meant.
#[derive(Clone, Copy)]
enum CheckKeys {
    Pool,
    Health,
}

impl KeyList {
    /// More is an error of the compiler; then raise it.
    const KEYS_MAX: usize = 64;

    const fn new(keys: &[&'static str]) -> Self {
        let empty = Self {
            keys: [""; Self::KEYS_MAX],
            count: 0,
        };
        empty.with(keys)
    }

    /// Adds the keys of every kind of check.
    const fn with_checks(mut self, section: CheckKeys) -> Self {
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
    const fn with(mut self, keys: &[&'static str]) -> Self {
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

    const fn as_slice(&self) -> &[&'static str] {
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

/// The sections a key works in, if there are any.
fn homes(key: &str) -> Option<String> {
    let sections = ALL.iter().filter(|section| section.keys.contains(&key));
    let titles: Vec<_> = sections.map(|section| section.title).collect();
    (!titles.is_empty()).then(|| titles.join(" or "))
}

/// The known word that was probably meant: at most one slip in three letters, and something left as written.
pub(super) fn near<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let letters = word.chars().count();
    if letters > 64 {
        return None; // nobody slips into that; and the distance takes the product of both lengths
    }
    let distance = |known: &&str| strsim::damerau_levenshtein(word, known);
    let nearest = known.iter().min_by_key(|known| distance(known))?;
    (distance(nearest) <= (letters / 3).max(1).min(letters.saturating_sub(1))).then_some(*nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_told_where_to_go() {
        for (section, key, label) in [
            (&POOL, "sevrers", "did you mean `servers`?"),
            (&POOL, "connectTimeout", "write `connect_timeout`"),
            (&POOL, "timeout connect", "here it is `connect_timeout`"),
            (&POOL, "upstream", "here it is `servers`"),
            (&SERVER, "backup", "here it is `priority = 1`"),
            (
                &LISTENER,
                "connect_timeout",
                "it belongs in `[defaults]` or `[pools.NAME]`",
            ),
            (&HEALTH, "role", "it belongs in `[pools.NAME]`"),
            (&LOG, "zzzzzz", "there are `format`, `level`, `access`"),
        ] {
            assert_eq!(section.wrong(key).1, label, "{key}");
        }
    }
}
