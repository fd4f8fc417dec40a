//! The keys of some sections of a pool: servers, discovery, queue and scaling.

use super::SectionKeys;

/// An entry of a pool's `servers`.
pub static SERVER: SectionKeys = SectionKeys {
    title: "a server",
    keys: &["address", "weight", "name", "priority", "max_sessions"],
};

/// `discover` of a pool.
pub static DISCOVER: SectionKeys = SectionKeys {
    title: "`discover`",
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
    keys: &["max", "timeout"],
};

/// `[pools.NAME.scale]`
pub static SCALE: SectionKeys = SectionKeys {
    title: "`[pools.NAME.scale]`",
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
    keys: &["image", "port", "env", "network"],
};

/// `hook` of `[pools.NAME.scale]`
pub static SCALE_HOOK: SectionKeys = SectionKeys {
    title: "`hook`",
    keys: &["start", "stop"],
};
