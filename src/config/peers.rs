//! What HAProxy, Envoy, nginx and Traefik call our keys.

use super::keys::{ADMIN, DEFAULTS, FILE, HEALTH, KEEPALIVE, LISTENER, LOG, POOL, ROUTE, RUNTIME, SERVER, Section};

/// A section's foreign words, folded, each group with what is written here.
type Words = &'static [(&'static [&'static str], &'static str)];

/// `connectTimeout`, `connect-timeout` and `connect_timeout` are one word.
pub(super) fn fold(word: &str) -> String {
    word.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// What is written here for a peer's word, which must be folded.
pub(super) fn our_word(section: &Section, folded: &str) -> Option<&'static str> {
    let (_, words) = WORDS.iter().find(|(of, _)| std::ptr::eq(*of, section))?;
    let (_, ours) = words.iter().find(|(theirs, _)| theirs.contains(&folded))?;
    Some(ours)
}

static WORDS: [(&Section, Words); 11] = [
    (&FILE, FILE_WORDS),
    (&RUNTIME, RUNTIME_WORDS),
    (&ADMIN, ADMIN_WORDS),
    (&LOG, LOG_WORDS),
    (&DEFAULTS, DEFAULTS_WORDS),
    (&LISTENER, LISTENER_WORDS),
    (&ROUTE, ROUTE_WORDS),
    (&POOL, POOL_WORDS),
    (&SERVER, SERVER_WORDS),
    (&HEALTH, HEALTH_WORDS),
    (&KEEPALIVE, KEEPALIVE_WORDS),
];

const FILE_WORDS: Words = &[
    (
        &["listener", "frontend", "frontends", "entrypoint", "entrypoints"],
        "`[listeners.NAME]`",
    ),
    (
        &["server", "servers", "bind", "listen"],
        "`[listeners.NAME]` for what clients reach and `[pools.NAME]` for what they are sent to",
    ),
    (
        &[
            "pool",
            "backend",
            "backends",
            "upstream",
            "upstreams",
            "cluster",
            "clusters",
            "service",
            "services",
        ],
        "`[pools.NAME]`",
    ),
    (
        &["router", "routers", "route", "routes", "map"],
        "`[[listeners.NAME.routes]]`",
    ),
    (&["global", "process"], "`[runtime]`"),
    (&["api", "metrics", "prometheus", "ping", "stats"], "`[admin]`"),
    (&["accesslog"], "`access` in `[log]`"),
    (&["logs", "logging"], "`[log]`"),
];

const RUNTIME_WORDS: Words = &[
    (
        &["threads", "nbthread", "workerprocesses", "concurrency", "cpus"],
        "`workers`",
    ),
    (&["maxconn", "workerconnections", "maxsessions"], "`max_connections`"),
    (
        &[
            "gracetimeout",
            "hardstopafter",
            "workershutdowntimeout",
            "draintime",
            "draintimes",
            "shutdowntimeout",
        ],
        "`drain_timeout`",
    ),
    (
        &["requestacceptgracetimeout", "grace", "shutdowndelay"],
        "`drain_delay`",
    ),
];

const ADMIN_WORDS: Words = &[
    (&["address", "addr", "listen", "port"], "`bind`"),
    (&["token", "password"], "`token_file`, which holds it"),
    (&["statssocket", "unix"], "`socket`"),
];

const LOG_WORDS: Words = &[
    (
        &["accesslog", "path", "file", "filepath", "output", "target"],
        "`access`",
    ),
    (&["loglevel", "severity"], "`level`"),
    (&["logformat"], "`format`"),
];

const DEFAULTS_WORDS: Words = &[
    (CONNECT_TIMEOUT, "`connect_timeout`"),
    (RETRIES, "`retries`"),
    (IDLE_TIMEOUT, "`idle_timeout`"),
    (HALF_CLOSE_TIMEOUT, "`half_close_timeout`"),
    (HELLO_TIMEOUT, "`hello_timeout`"),
    (HELLO_MAX, "`hello_max`"),
    (KEEPALIVE_SWITCH, "`keepalive`"),
    (USER_TIMEOUT, "`user_timeout`"),
    (&["maxconn"], "`max_connections` in `[runtime]` or `[listeners.NAME]`"),
    (&["balance", "healthcheck", "health"], "said by each `[pools.NAME]`"),
];

const LISTENER_WORDS: Words = &[
    (&["listen", "address", "addr", "addresses", "port"], "`bind`"),
    (
        &[
            "backend",
            "usebackend",
            "defaultbackend",
            "service",
            "cluster",
            "upstream",
            "proxypass",
            "defaultpool",
            "pools",
        ],
        "`pool`",
    ),
    (&["maxconn", "connectionlimit", "limitconn"], "`max_connections`"),
    (
        &[
            "rule",
            "rules",
            "router",
            "routers",
            "route",
            "filterchains",
            "acl",
            "sni",
        ],
        "`[[listeners.NAME.routes]]`",
    ),
    (&["server", "servers"], "`servers` of a `[pools.NAME]`"),
    (IDLE_TIMEOUT, "`idle_timeout`"),
    (HALF_CLOSE_TIMEOUT, "`half_close_timeout`"),
    (HELLO_TIMEOUT, "`hello_timeout`"),
    (HELLO_MAX, "`hello_max`"),
    (KEEPALIVE_SWITCH, "`keepalive`"),
    (USER_TIMEOUT, "`user_timeout`"),
    (CONNECT_TIMEOUT, "`connect_timeout` in `[pools.NAME]` or `[defaults]`"),
    (PROXY_HEADER, "`proxy_protocol` in `[pools.NAME]`"),
];

const ROUTE_WORDS: Words = &[
    (
        &[
            "host",
            "hosts",
            "hostname",
            "hostnames",
            "hostsni",
            "servername",
            "servernames",
            "domain",
            "domains",
            "reqsslsni",
            "sslfcsni",
        ],
        "`sni`",
    ),
    (
        &["applicationprotocols", "protocols", "alpnprotocols", "reqsslalpn"],
        "`alpn`",
    ),
    (
        &[
            "src",
            "source",
            "clientip",
            "sourceip",
            "sourceprefixranges",
            "sourcerange",
            "allow",
        ],
        "`from`",
    ),
    (
        &[
            "backend",
            "usebackend",
            "service",
            "cluster",
            "upstream",
            "proxypass",
            "to",
        ],
        "`pool`",
    ),
    (&["deny", "reject", "drop"], "`refuse = true`"),
    (&["rule", "match", "if", "acl"], "`sni`, `alpn` and `from`"),
    (
        &["priority"],
        "the order of ranks: an exact name before `*.suffix` before `*`, then the first written",
    ),
];

const POOL_WORDS: Words = &[
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

const SERVER_WORDS: Words = &[
    (
        &["addr", "host", "ip", "url", "server", "target", "socketaddress"],
        "`address`",
    ),
    (&["port"], "part of `address`, as in \"10.0.0.11:5432\""),
    (&["backup"], "`priority = 1`"),
    (&["down", "disabled", "drain"], "`weight = 0`"),
    (&["loadbalancingweight"], "`weight`"),
    (&["id", "label", "hostname"], "`name`"),
    (
        &["check", "health", "healthcheck", "inter", "rise", "fall"],
        "said once for the pool, in `[pools.NAME.health]`",
    ),
    (&["maxfails"], "`eject_after` in `[pools.NAME.health]`"),
    (&["failtimeout"], "`eject_for` in `[pools.NAME.health]`"),
    (PROXY_HEADER, "`proxy_protocol` in `[pools.NAME]`"),
];

const HEALTH_WORDS: Words = &[
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
    (&["password"], "`password_file`, which holds it"),
    (&["dbname"], "`database`"),
    (
        &["enabled", "disabled"],
        "`check = \"off\"` for no checks, and nothing otherwise",
    ),
];

const KEEPALIVE_WORDS: Words = &[
    (&["time", "keepalivetime", "keepidle"], "`idle`"),
    (&["intvl", "keepintvl", "keepaliveinterval"], "`interval`"),
    (&["count", "cnt", "keepcnt", "keepaliveprobes", "retries"], "`probes`"),
];

const CONNECT_TIMEOUT: &[&str] = &["timeoutconnect", "proxyconnecttimeout", "dialtimeout"];
const RETRIES: &[&str] = &[
    "maxconnectattempts",
    "proxynextupstreamtries",
    "maxretries",
    "retry",
    "attempts",
];
const IDLE_TIMEOUT: &[&str] = &[
    "timeoutclient",
    "timeoutserver",
    "timeouttunnel",
    "proxytimeout",
    "timeout",
];
const HALF_CLOSE_TIMEOUT: &[&str] = &[
    "timeoutclientfin",
    "timeoutserverfin",
    "halfclosedtimeout",
    "terminationdelay",
];
const HELLO_TIMEOUT: &[&str] = &[
    "tcprequestinspectdelay",
    "inspectdelay",
    "prereadtimeout",
    "listenerfilterstimeout",
];
const HELLO_MAX: &[&str] = &["prereadbuffersize", "maxclienthellosize"];
const KEEPALIVE_SWITCH: &[&str] = &[
    "tcpkeepalive",
    "sokeepalive",
    "proxysocketkeepalive",
    "clitcpka",
    "srvtcpka",
    "optiontcpka",
];
const USER_TIMEOUT: &[&str] = &["tcput", "tcpusertimeout"];
const PROXY_HEADER: &[&str] = &["proxyprotocol", "sendproxy", "sendproxyv2"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_folded_foreign_and_said_once() {
        for (section, words) in &WORDS {
            let mut seen = std::collections::HashSet::new();
            for word in words.iter().flat_map(|(theirs, _)| *theirs) {
                assert_eq!(fold(word), *word);
                assert!(seen.insert(word), "{word} twice in {}", section.title);
                assert!(!section.keys.contains(word), "{word} is a key of {}", section.title);
            }
        }
    }
}
