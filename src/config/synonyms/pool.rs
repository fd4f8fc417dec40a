//! For pools, their servers and checks.

use super::Synonyms;
use super::words::{
    CONNECT_TIMEOUT, HALF_CLOSE_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_SWITCH, PROXY_HEADER, RETRIES, USER_TIMEOUT,
};

pub(super) const POOL_SYNONYMS: Synonyms = &[
    (
        &[
            "server",
            "upstream",
            "upstreams",
            "backend",
            "backends",
            "endpoint",
            "endpoints",
            "loadassignment",
            "targets",
            "members",
            "hosts",
            "addresses",
        ],
        "`servers`",
    ),
    (
        &[
            "algorithm",
            "lbpolicy",
            "loadbalancer",
            "loadbalancing",
            "method",
            "policy",
            "strategy",
        ],
        "`balance`",
    ),
    (CONNECT_TIMEOUT, "`connect_timeout`"),
    (RETRIES, "`retries`"),
    (&["sendproxy"], "`proxy_protocol = \"v1\"`"),
    (&["sendproxyv2"], "`proxy_protocol = \"v2\"`"),
    (
        &["healthcheck", "healthchecks", "check", "checks", "outlierdetection"],
        "`[pools.NAME.health]`",
    ),
    (&["dnsrefreshrate", "dnsinterval"], "`resolve_interval`"),
    (&["resolver", "resolvers"], "`resolve_interval`"),
    (&["dnslookupfamily", "resolveprefer"], "`resolve`"),
    (KEEPALIVE_SWITCH, "`keepalive`"),
    (USER_TIMEOUT, "`user_timeout`"),
    (IDLE_TIMEOUT, "`idle_timeout` in `[listeners.NAME]` or `[defaults]`"),
    (
        HALF_CLOSE_TIMEOUT,
        "`half_close_timeout` in `[listeners.NAME]` or `[defaults]`",
    ),
    (&["hash", "hashon"], "`balance = \"source-hash\"`"),
    (
        &["onmarkeddown", "closeconnectionsonhosthealthfailure"],
        "`on_down = \"close\"`",
    ),
    (&["slowstartconfig", "slowstartwindow"], "`slow_start`"),
    (
        &["panicthreshold", "healthypanicthreshold"],
        "`panic_threshold` in `[pools.NAME.health]`",
    ),
];

pub(super) const SERVER_SYNONYMS: Synonyms = &[
    (
        &["addr", "host", "ip", "url", "server", "target", "socketaddress"],
        "`address`",
    ),
    (&["port"], "`address`, as in \"10.0.0.11:5432\""),
    (&["backup"], "`priority = 1`"),
    (&["down", "disabled", "drain"], "`weight = 0`"),
    (&["loadbalancingweight"], "`weight`"),
    (&["id", "label", "hostname"], "`name`"),
    (
        &["check", "health", "healthcheck", "inter", "rise", "fall"],
        "`[pools.NAME.health]`, which applies to all servers of the pool",
    ),
    (&["maxfails"], "`eject_after` in `[pools.NAME.health]`"),
    (&["failtimeout"], "`eject_for` in `[pools.NAME.health]`"),
    (PROXY_HEADER, "`proxy_protocol` in `[pools.NAME]`"),
];

pub(super) const HEALTH_SYNONYMS: Synonyms = &[
    (&["type", "kind", "mode", "protocol"], "`check`"),
    (&["inter", "every", "period"], "`interval`"),
    (&["downinter", "fastinter", "unhealthyinterval"], "`interval_down`"),
    (&["healthythreshold", "passes", "successes"], "`rise`"),
    (&["unhealthythreshold", "fails", "failures"], "`fall`"),
    (
        &[
            "maxfails",
            "consecutive5xx",
            "consecutivelocaloriginfailure",
            "errorlimit",
        ],
        "`eject_after`",
    ),
    (&["failtimeout", "baseejectiontime"], "`eject_for`"),
    (&["maxejectiontime"], "`eject_max_for`"),
    (&["maxejectionpercent"], "`eject_max_percent`"),
    (&["healthypanicthreshold"], "`panic_threshold`"),
    (&["checksni", "servername"], "`sni`"),
    (&["password"], "`password_file`: a file that contains it"),
    (&["mastername", "servicename", "sentinelmaster"], "`master`"),
    (&["sentinel", "sentinelnodes"], "`sentinels`"),
    (&["dbname"], "`database`"),
    (&["enabled", "disabled"], "`check`; \"off\" disables checks"),
];
