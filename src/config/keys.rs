//! The keys of each section of a configuration.
//!
//! This table is complete: the parser reads no other key, and a test compares `conf/full.toml` with it.

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
    keys: &["runtime", "admin", "log", "defaults", "listeners", "pools"],
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
pub static ROUTE: SectionKeys = SectionKeys {
    title: "`[[listeners.NAME.routes]]`",
    keys: &["name", "sni", "alpn", "from", "pool", "refuse"],
};

/// `[pools.NAME]`
pub static POOL: SectionKeys = SectionKeys {
    title: "`[pools.NAME]`",
    keys: &[
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
        "role",
        "max_lag",
    ],
};

/// An entry of a pool's `servers`.
pub static SERVER: SectionKeys = SectionKeys {
    title: "a server",
    keys: &["address", "weight", "name", "priority"],
};

/// `[pools.NAME.health]`
pub static HEALTH: SectionKeys = SectionKeys {
    title: "`[pools.NAME.health]`",
    keys: &[
        "check",
        "interval",
        "interval_down",
        "timeout",
        "rise",
        "fall",
        "address",
        "port",
        "concurrency",
        "sni",
        "alpn",
        "verify",
        "ca_file",
        "user",
        "password_file",
        "database",
        "eject_after",
        "eject_for",
        "eject_max_for",
        "eject_max_percent",
        "eject_on_reset",
        "panic_threshold",
    ],
};

/// `keepalive`
pub static KEEPALIVE: SectionKeys = SectionKeys {
    title: "`keepalive`",
    keys: &["idle", "interval", "probes"],
};

/// All sections.
pub static ALL: [&SectionKeys; 11] = [
    &FILE, &RUNTIME, &ADMIN, &LOG, &DEFAULTS, &LISTENER, &ROUTE, &POOL, &SERVER, &HEALTH, &KEEPALIVE,
];
