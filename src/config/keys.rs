//! The keys of each section of a configuration.
//!
//! This table is complete: the parser reads no other key, and a test compares `conf/full.toml` with it. The keys of certain
//! kinds of checks come from [`KINDS`].

use crate::check::KINDS;

/// The keys of one kind of section.
#[derive(Debug)]
pub struct SectionKeys {
    /// What error messages call the section.
    pub title: &'static str,
    /// The keys that are valid in it.
    pub keys: &'static [&'static str],
}

/// The top level of the file.
pub static FILE: SectionKeys = SectionKeys {
    title: "the file",
    keys: &["runtime", "admin", "log", "defaults", "guards", "listeners", "pools"],
};

/// `[runtime]`
pub static RUNTIME: SectionKeys = SectionKeys {
    title: "`[runtime]`",
    keys: &[
        "workers",
        "max_connections",
        "hello_memory",
        "drain_timeout",
        "drain_delay",
        "watch",
        "state_dir",
    ],
};

/// `[admin]`
pub static ADMIN: SectionKeys = SectionKeys {
    title: "`[admin]`",
    keys: &["bind", "hosts", "token_file", "socket"],
};

/// `[log]`
pub static LOG: SectionKeys = SectionKeys {
    title: "`[log]`",
    keys: &["format", "level", "access"],
};

/// `[defaults]`
pub static DEFAULTS: SectionKeys = SectionKeys {
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
pub static LISTENER: SectionKeys = SectionKeys {
    title: "`[listeners.NAME]`",
    keys: &[
        "bind",
        "pool",
        "protocol",
        "tls_required",
        "cancel_unplaced",
        "max_connections",
        "accept_proxy",
        "guards",
        "redirect",
        "routes",
        "tls",
        "hello_timeout",
        "hello_max",
        "idle_timeout",
        "half_close_timeout",
        "keepalive",
        "user_timeout",
        "backlog",
    ],
};

/// `redirect` of a listener.
pub static REDIRECT: SectionKeys = SectionKeys {
    title: "`[listeners.NAME.redirect]`",
    keys: &["to", "code", "port", "hosts"],
};

/// `[[listeners.NAME.routes]]`
pub static ROUTE: SectionKeys = SectionKeys {
    title: "`[[listeners.NAME.routes]]`",
    keys: &[
        "name", "sni", "alpn", "from", "database", "user", "guards", "tls", "pool", "refuse",
    ],
};

/// `[listeners.NAME.tls]`
pub static LISTENER_TLS: SectionKeys = SectionKeys {
    title: "`[listeners.NAME.tls]`",
    keys: &["certificates", "alpn", "min_version", "client_auth", "tickets"],
};

/// An entry of `certificates`.
pub static CERTIFICATE: SectionKeys = SectionKeys {
    title: "a certificate",
    keys: &["cert", "key", "directory"],
};

/// `client_auth`
pub static CLIENT_AUTH: SectionKeys = SectionKeys {
    title: "`client_auth`",
    keys: &["ca_file", "mode", "crl_file", "names"],
};

/// `[guards.NAME]`
pub static GUARD: SectionKeys = SectionKeys {
    title: "`[guards.NAME]`",
    keys: &[
        "allow",
        "allow_file",
        "deny",
        "deny_file",
        "sessions",
        "sessions_per_source",
        "rate",
        "rate_per_source",
        "burst",
        "bandwidth",
        "bandwidth_per_session",
        "by",
        "sources_max",
        "report_only",
        "refuse_with",
    ],
};

/// `accept_proxy` of a listener
pub static ACCEPT_PROXY: SectionKeys = SectionKeys {
    title: "`accept_proxy`",
    keys: &["from", "require", "others"],
};

/// `by` of a guard
pub static GUARD_BY: SectionKeys = SectionKeys {
    title: "`by`",
    keys: &["ipv4", "ipv6"],
};

/// `[pools.NAME]`
pub static POOL: SectionKeys = SectionKeys {
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
    "failback",
    "fallback",
    "slow_start",
    "direct",
])
.with_checks(CheckKeys::Pool);

/// An entry of a pool's `servers`.
pub static SERVER: SectionKeys = SectionKeys {
    title: "a server",
    keys: &["address", "weight", "name", "priority"],
};

/// `[pools.NAME.health]`
pub static HEALTH: SectionKeys = SectionKeys {
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
pub static KEEPALIVE: SectionKeys = SectionKeys {
    title: "`keepalive`",
    keys: &["idle", "interval", "probes"],
};

/// All sections.
pub static ALL: [&SectionKeys; 18] = [
    &FILE,
    &RUNTIME,
    &ADMIN,
    &LOG,
    &DEFAULTS,
    &ACCEPT_PROXY,
    &GUARD,
    &GUARD_BY,
    &LISTENER,
    &REDIRECT,
    &ROUTE,
    &LISTENER_TLS,
    &CERTIFICATE,
    &CLIENT_AUTH,
    &POOL,
    &SERVER,
    &HEALTH,
    &KEEPALIVE,
];

/// A list of keys that is built at compile time.
struct KeyList {
    keys: [&'static str; Self::KEYS_MAX],
    count: usize,
}

/// Which section's keys of checks to add.
#[derive(Clone, Copy)]
enum CheckKeys {
    Pool,
    Health,
}

impl KeyList {
    /// A longer list does not compile; then raise this.
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
