//! The keys of some sections of a pool: servers, discovery, queue and scaling.

use super::SectionKeys;

/// An entry of a pool's `servers`.
pub static SERVER: SectionKeys = SectionKeys {
    title: "a server",
    example: r#"{ address = "host:port", weight = 3 }"#,
    keys: &["address", "weight", "name", "priority", "max_sessions"],
};

/// `discover` of a pool.
pub static DISCOVER: SectionKeys = SectionKeys {
    title: "`discover`",
    example: r#"{ dns = "orders.internal:5432" }"#,
    keys: &[
        "file",
        "http",
        "interval",
        "ca_file",
        "etcd",
        "docker",
        "kubernetes",
        "port",
        "network",
        "dns_srv",
        "dns",
        "resolver",
        "settle",
        "allow_empty",
    ],
};

/// `queue` of a pool.
pub static QUEUE: SectionKeys = SectionKeys {
    title: "`queue`",
    example: r#"{ max = 1000, timeout = "5s" } or "off""#,
    keys: &["max", "timeout"],
};

/// `[pools.NAME.scale]`
pub static SCALE: SectionKeys = SectionKeys {
    title: "`[pools.NAME.scale]`",
    example: r#"{ max = 8, sessions_per_server = 50, command = ["/usr/local/bin/app"] }"#,
    keys: &[
        "min",
        "max",
        "sessions_per_server",
        "up_after",
        "down_after",
        "cooldown",
        "start_timeout",
        "drain",
        "replace_after",
        "command",
        "ports",
        "user",
        "env",
        "docker",
        "hook",
    ],
};

/// `docker` of `[pools.NAME.scale]`
pub static SCALE_DOCKER: SectionKeys = SectionKeys {
    title: "`docker`",
    example: r#"{ image = "registry/app:1", port = 8080 }"#,
    keys: &["image", "port", "env", "network"],
};

/// `hook` of `[pools.NAME.scale]`
pub static SCALE_HOOK: SectionKeys = SectionKeys {
    title: "`hook`",
    example: r#"{ start = ["/usr/local/bin/start-vm"], stop = ["/usr/local/bin/stop-vm"] }"#,
    keys: &["start", "stop"],
};
