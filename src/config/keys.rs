//! The keys of each section of a configuration.
//!
//! These lists are complete: the parser reads no other key, and a test compares `conf/full.toml` and
//! `conf/bootstrap.toml` with them. The keys of a kind of check are listed with the kind, in [`crate::check::KINDS`],
//! and added here by `with_checks`.

mod list;
mod pool;

use list::{CheckKeys, KeyList};
pub use pool::{DISCOVER, QUEUE, SCALE, SCALE_DOCKER, SCALE_HOOK, SERVER};

/// The keys of one kind of section.
#[derive(Debug)]
pub struct SectionKeys {
    /// The name of the section in error messages.
    pub title: &'static str,
    /// What to write, in error messages about a value of another type.
    pub example: &'static str,
    /// The keys that are valid in it.
    pub keys: &'static [&'static str],
}

/// The top level of the file.
pub static FILE: SectionKeys = SectionKeys {
    title: "the file",
    example: r#"{ "listeners": { … } }"#, // JSON, because a TOML text is always a table
    keys: &[
        "runtime",
        "admin",
        "log",
        "acme",
        "defaults",
        "guards",
        "providers",
        "remote",
        "listeners",
        "pools",
    ],
};

/// `[runtime]`
pub static RUNTIME: SectionKeys = SectionKeys {
    title: "`[runtime]`",
    example: r#"{ drain_timeout = "30s" }"#,
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
    example: r#"{ bind = "127.0.0.1:9090" }"#,
    keys: &["bind", "hosts", "token_file", "tls", "socket"],
};

/// `[admin.tls]`
pub static ADMIN_TLS: SectionKeys = SectionKeys {
    title: "`[admin.tls]`",
    example: r#"{ cert = "admin.pem", key = "admin.key" }"#,
    keys: &["cert", "key"],
};

/// `[log]`
pub static LOG: SectionKeys = SectionKeys {
    title: "`[log]`",
    example: r#"{ format = "json" }"#,
    keys: &["format", "level", "access"],
};

/// `[acme.NAME]`
pub static ACME: SectionKeys = SectionKeys {
    title: "`[acme.NAME]`",
    example: r#"{ directory = "https://acme.example/directory" }"#,
    keys: &["directory", "contact", "ca_file", "eab", "challenge", "state_dir"],
};

/// `eab` of `[acme.NAME]`
pub static EAB: SectionKeys = SectionKeys {
    title: "`eab`",
    example: r#"{ key_id = "kid-1", key_file = "/etc/acequia/eab" }"#,
    keys: &["key_id", "key_file"],
};

/// `[defaults]`
pub static DEFAULTS: SectionKeys = SectionKeys {
    title: "`[defaults]`",
    example: r#"{ connect_timeout = "3s" }"#,
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
    example: r#"{ bind = "0.0.0.0:443", pool = "NAME" }"#,
    keys: &[
        "bind",
        "unix_mode",
        "pool",
        "protocol",
        "tls_required",
        "cancel_unplaced",
        "max_connections",
        "accept_proxy",
        "guards",
        "redirect",
        "routes",
        "announce",
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
    example: r#"{ to = "NAME" }"#,
    keys: &["to", "code", "port", "hosts"],
};

/// `announce` of a listener.
pub static ANNOUNCE: SectionKeys = SectionKeys {
    title: "`announce`",
    example: r#"{ from = "docker", names = ["*.apps.example.com"] }"#,
    keys: &["from", "names"],
};

/// `[[listeners.NAME.routes]]`
pub static ROUTE: SectionKeys = SectionKeys {
    title: "`[[listeners.NAME.routes]]`",
    example: r#"{ sni = "shop.example.com", pool = "NAME" }"#,
    keys: &[
        "name", "sni", "alpn", "from", "database", "user", "guards", "tls", "pool", "refuse",
    ],
};

/// `[listeners.NAME.tls]`
pub static LISTENER_TLS: SectionKeys = SectionKeys {
    title: "`[listeners.NAME.tls]`",
    example: r#"{ certificates = [{ cert = "shop.pem", key = "shop.key" }] }"#,
    keys: &["certificates", "alpn", "min_version", "client_auth", "tickets"],
};

/// An entry of `certificates`.
pub static CERTIFICATE: SectionKeys = SectionKeys {
    title: "a certificate",
    example: r#"{ cert = "shop.pem", key = "shop.key" }"#,
    keys: &["cert", "key", "directory", "acme", "names"],
};

/// `[pools.NAME.tls]`
pub static POOL_TLS: SectionKeys = SectionKeys {
    title: "`[pools.NAME.tls]`",
    example: "{ verify = true }",
    keys: &["sni", "verify", "ca_file", "cert", "key", "alpn"],
};

/// `client_auth`
pub static CLIENT_AUTH: SectionKeys = SectionKeys {
    title: "`client_auth`",
    example: r#"{ ca_file = "clients.pem" }"#,
    keys: &["ca_file", "mode", "crl_file", "names"],
};

/// `[guards.NAME]`
pub static GUARD: SectionKeys = SectionKeys {
    title: "`[guards.NAME]`",
    example: r#"{ allow = ["10.0.0.0/8"] }"#,
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
    example: r#"{ from = ["10.0.0.0/24"] }"#,
    keys: &["from", "require", "others"],
};

/// `by` of a guard
pub static GUARD_BY: SectionKeys = SectionKeys {
    title: "`by`",
    example: "{ ipv4 = 32, ipv6 = 64 }",
    keys: &["ipv4", "ipv6"],
};

/// `[pools.NAME]`
pub static POOL: SectionKeys = SectionKeys {
    title: "`[pools.NAME]`",
    example: r#"{ servers = ["host:port"] }"#,
    keys: POOL_KEYS.as_slice(),
};

static POOL_KEYS: KeyList = KeyList::new(&[
    "balance",
    "servers",
    "discover",
    "max_sessions",
    "queue",
    "scale",
    "max_session_age",
    "rebalance",
    "idle_for",
    "bind_source",
    "proxy_protocol",
    "tls",
    "resolve",
    "resolve_interval",
    "health",
    "connect_timeout",
    "retries",
    "keepalive",
    "user_timeout",
    "on_down",
    "on_recover",
    "on_leave",
    "close_over",
    "failback",
    "fallback",
    "slow_start",
    "direct",
])
.with_checks(CheckKeys::Pool);

/// `[pools.NAME.health]`
pub static HEALTH: SectionKeys = SectionKeys {
    title: "`[pools.NAME.health]`",
    example: r#"{ check = "tcp" }"#,
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

/// An entry of `steps`.
pub static CHECK_STEP: SectionKeys = SectionKeys {
    title: "a step",
    example: r#"{ send = "PING\r\n", expect = "PONG" }"#,
    keys: &["send", "expect"],
};

/// `keepalive`
pub static KEEPALIVE: SectionKeys = SectionKeys {
    title: "`keepalive`",
    example: r#"{ idle = "60s", interval = "10s", probes = 6 } or "off""#,
    keys: &["idle", "interval", "probes"],
};

/// `[providers]`
pub static PROVIDERS: SectionKeys = SectionKeys {
    title: "`[providers]`",
    example: r#"{ etcd = { endpoints = ["https://10.0.0.2:2379"] } }"#,
    keys: &["etcd", "docker", "kubernetes"],
};

/// `[providers.etcd]`
pub static ETCD: SectionKeys = SectionKeys {
    title: "`[providers.etcd]`",
    example: r#"{ endpoints = ["https://10.0.0.2:2379"] }"#,
    keys: &["endpoints", "user", "password_file", "ca_file", "cert_file", "key_file"],
};

/// `[remote]`
pub static REMOTE: SectionKeys = SectionKeys {
    title: "`[remote]`",
    example: r#"{ from = "etcd:/acequia/edge" }"#,
    keys: &["from", "instance", "allow"],
};

/// `[providers.docker]`
pub static DOCKER: SectionKeys = SectionKeys {
    title: "`[providers.docker]`",
    example: r#"{ socket = "/var/run/docker.sock" }"#,
    keys: &["socket"],
};

/// `[providers.kubernetes]`
pub static KUBERNETES: SectionKeys = SectionKeys {
    title: "`[providers.kubernetes]`",
    example: r#"{ kubeconfig = "/etc/acequia/kubeconfig" }"#,
    keys: &["kubeconfig", "zone"],
};

/// All sections.
pub static ALL: [&SectionKeys; 34] = [
    &FILE,
    &RUNTIME,
    &ADMIN,
    &ADMIN_TLS,
    &LOG,
    &ACME,
    &EAB,
    &DEFAULTS,
    &ACCEPT_PROXY,
    &GUARD,
    &GUARD_BY,
    &LISTENER,
    &REDIRECT,
    &ANNOUNCE,
    &ROUTE,
    &LISTENER_TLS,
    &CERTIFICATE,
    &CLIENT_AUTH,
    &POOL,
    &POOL_TLS,
    &SERVER,
    &DISCOVER,
    &QUEUE,
    &SCALE,
    &SCALE_DOCKER,
    &SCALE_HOOK,
    &HEALTH,
    &CHECK_STEP,
    &KEEPALIVE,
    &PROVIDERS,
    &ETCD,
    &DOCKER,
    &KUBERNETES,
    &REMOTE,
];
