//! Key names of other proxies (HAProxy, Envoy, nginx, Traefik, PgBouncer and others), each with the equivalent
//! key of acequia.

mod words;
mod tls;
mod pool;

use super::keys::{
    ACME, ADMIN, CERTIFICATE, CLIENT_AUTH, DEFAULTS, FILE, GUARD, HEALTH, KEEPALIVE, LISTENER, LISTENER_TLS, LOG, POOL,
    POOL_TLS, REDIRECT, ROUTE, RUNTIME, SERVER, SectionKeys,
};
use pool::{HEALTH_SYNONYMS, POOL_SYNONYMS, SERVER_SYNONYMS};
use tls::{
    ACME_RESOLVER, ACME_SYNONYMS, CERTIFICATE_SYNONYMS, CLIENT_AUTH_SYNONYMS, HTTPS_REDIRECT, LISTENER_CERTIFICATE,
    LISTENER_TLS_SYNONYMS, POOL_TLS_SYNONYMS, REDIRECT_SYNONYMS,
};
use words::{
    BANDWIDTH, CONNECT_TIMEOUT, HALF_CLOSE_TIMEOUT, HELLO_MAX, HELLO_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_SWITCH, RETRIES,
    USER_TIMEOUT,
};

/// Synonyms of keys or of values. An entry has normalized words of other proxies, and the text with which a hint names
/// their equivalent here.
pub(super) type Synonyms = &'static [(&'static [&'static str], &'static str)];

/// Lower case, letters and digits only: `connectTimeout`, `connect-timeout` and `connect_timeout` become equal.
pub(super) fn normalize(word: &str) -> String {
    word.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// The text that names the equivalent of another proxy's key. `normalized` is the normalized name of that key. A text
/// that begins with `none: ` says why no equivalent is needed.
pub(super) fn equivalent(section: &SectionKeys, normalized: &str) -> Option<&'static str> {
    let (_, groups) = SYNONYMS.iter().find(|(of, _)| std::ptr::eq(*of, section))?;
    meant(groups, normalized)
}

/// The equivalent of a normalized word. An `option` in front of the word is ignored: HAProxy has `option tcpka`.
pub(super) fn meant(synonyms: Synonyms, normalized: &str) -> Option<&'static str> {
    let without_option = normalized.strip_prefix("option").unwrap_or(normalized);
    let has_word = |words: &[&str]| words.contains(&normalized) || words.contains(&without_option);
    let (_, equivalent) = synonyms.iter().find(|(words, _)| has_word(words))?;
    Some(equivalent)
}

static SYNONYMS: [(&SectionKeys, Synonyms); 18] = [
    (&FILE, FILE_SYNONYMS),
    (&RUNTIME, RUNTIME_SYNONYMS),
    (&ADMIN, ADMIN_SYNONYMS),
    (&LOG, LOG_SYNONYMS),
    (&DEFAULTS, DEFAULTS_SYNONYMS),
    (&GUARD, GUARD_SYNONYMS),
    (&LISTENER, LISTENER_SYNONYMS),
    (&ROUTE, ROUTE_SYNONYMS),
    (&POOL, POOL_SYNONYMS),
    (&SERVER, SERVER_SYNONYMS),
    (&HEALTH, HEALTH_SYNONYMS),
    (&KEEPALIVE, KEEPALIVE_SYNONYMS),
    (&LISTENER_TLS, LISTENER_TLS_SYNONYMS),
    (&CERTIFICATE, CERTIFICATE_SYNONYMS),
    (&CLIENT_AUTH, CLIENT_AUTH_SYNONYMS),
    (&POOL_TLS, POOL_TLS_SYNONYMS),
    (&ACME, ACME_SYNONYMS),
    (&REDIRECT, REDIRECT_SYNONYMS),
];

const FILE_SYNONYMS: Synonyms = &[
    (
        &["listener", "frontend", "frontends", "entrypoint", "entrypoints"],
        "`[listeners.NAME]`",
    ),
    (
        &["server", "servers", "bind", "listen"],
        "`[listeners.NAME]` for the address that clients connect to, and `[pools.NAME]` for the servers",
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
    (
        &["middleware", "middlewares", "acl", "sticktable", "limitconnzone"],
        "`[guards.NAME]`",
    ),
    (ACME_RESOLVER, "`[acme.NAME]`"),
    (&["global", "process"], "`[runtime]`"),
    (&["api", "metrics", "prometheus", "ping", "stats"], "`[admin]`"),
    (&["accesslog"], "`access` in `[log]`"),
    (&["logs", "logging"], "`[log]`"),
];

const RUNTIME_SYNONYMS: Synonyms = &[
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

const ADMIN_SYNONYMS: Synonyms = &[
    (&["address", "addr", "listen", "port"], "`bind`"),
    (&["token", "password"], "`token_file`: a file that contains it"),
    (&["statssocket", "unix"], "`socket`"),
];

const LOG_SYNONYMS: Synonyms = &[
    (
        &["accesslog", "path", "file", "filepath", "output", "target"],
        "`access`",
    ),
    (&["loglevel", "severity"], "`level`"),
    (&["logformat"], "`format`"),
];

const DEFAULTS_SYNONYMS: Synonyms = &[
    (CONNECT_TIMEOUT, "`connect_timeout`"),
    (RETRIES, "`retries`"),
    (IDLE_TIMEOUT, "`idle_timeout`"),
    (HALF_CLOSE_TIMEOUT, "`half_close_timeout`"),
    (HELLO_TIMEOUT, "`hello_timeout`"),
    (HELLO_MAX, "`hello_max`"),
    (KEEPALIVE_SWITCH, "`keepalive`"),
    (USER_TIMEOUT, "`user_timeout`"),
    (&["maxconn"], "`max_connections` in `[runtime]` or `[listeners.NAME]`"),
    (&["healthcheck"], "`[pools.NAME.health]`"),
];

const LISTENER_SYNONYMS: Synonyms = &[
    (
        &[
            "listen",
            "address",
            "addr",
            "addresses",
            "port",
            "listenaddr",
            "listenport",
        ],
        "`bind`",
    ),
    (&["postgresproxy"], "`protocol = \"postgres\"`"),
    (&["mysqlproxy"], "`protocol = \"mysql\"`"),
    (&["redisproxy"], "`protocol = \"redis\"`"),
    (
        &["requiressl", "sslrequired", "clienttlssslmode", "downstreamssl"],
        "`tls_required`",
    ),
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
    (&["maxconn", "connectionlimit", "maxclientconn"], "`max_connections`"),
    (
        &["limitconn", "inflightconn"],
        "`sessions_per_source` in `[guards.NAME]`, and `guards = [\"NAME\"]` here",
    ),
    (
        &["ratelimit", "ratelimitsessions", "sticktable", "connrate"],
        "`rate` and `rate_per_source` in `[guards.NAME]`, and `guards = [\"NAME\"]` here",
    ),
    (
        &[
            "ipallowlist",
            "ipwhitelist",
            "allow",
            "deny",
            "tcprequest",
            "tcprequestconnection",
        ],
        "`allow` and `deny` in `[guards.NAME]`, and `guards = [\"NAME\"]` here",
    ),
    (&["middleware", "middlewares"], "`guards`"),
    (
        BANDWIDTH,
        "`bandwidth` or `bandwidth_per_session` in `[guards.NAME]`, and `guards = [\"NAME\"]` here",
    ),
    (&["proxybind", "usesrc"], "`bind_source` in `[pools.NAME]`"),
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
    (&["server", "servers"], "`servers` in `[pools.NAME]`"),
    (IDLE_TIMEOUT, "`idle_timeout`"),
    (HALF_CLOSE_TIMEOUT, "`half_close_timeout`"),
    (HELLO_TIMEOUT, "`hello_timeout`"),
    (HELLO_MAX, "`hello_max`"),
    (KEEPALIVE_SWITCH, "`keepalive`"),
    (USER_TIMEOUT, "`user_timeout`"),
    (CONNECT_TIMEOUT, "`connect_timeout` in `[pools.NAME]` or `[defaults]`"),
    (
        &["proxyprotocol", "acceptproxyprotocol", "trustedips", "setrealipfrom"],
        "`accept_proxy`, or `proxy_protocol` in `[pools.NAME]` to send a header to servers",
    ),
    (&["sendproxy", "sendproxyv2"], "`proxy_protocol` in `[pools.NAME]`"),
    (LISTENER_CERTIFICATE, "`certificates` in `[listeners.NAME.tls]`"),
    (
        ACME_RESOLVER,
        "`certificates = [{ acme = \"NAME\", names = [\"shop.example.com\"] }]` in `[listeners.NAME.tls]`",
    ),
    (HTTPS_REDIRECT, "`redirect = { to = \"NAME\" }`: the name of a listener"),
];

const GUARD_SYNONYMS: Synonyms = &[
    (
        &["ipallowlist", "ipwhitelist", "sourcerange", "whitelist", "allowlist"],
        "`allow`",
    ),
    (&["blacklist", "blocklist", "denylist", "reject"], "`deny`"),
    (&["maxconn", "maxconnections", "limitconntotal"], "`sessions`"),
    (
        &[
            "limitconn",
            "inflightconn",
            "amount",
            "conncur",
            "maxconnectionspersource",
        ],
        "`sessions_per_source`",
    ),
    (
        &["ratelimit", "ratelimitsessions", "sessrate", "connectionrate"],
        "`rate`",
    ),
    (&["connrate", "average", "limitreq"], "`rate_per_source`"),
    (&["sticktable", "size", "zone"], "`sources_max`"),
    (BANDWIDTH, "`bandwidth_per_session`"),
    (&["dryrun", "limitconndryrun", "shadow"], "`report_only`"),
    (&["sourcecriterion", "ipmask", "ipstrategy"], "`by`"),
];

const ROUTE_SYNONYMS: Synonyms = &[
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
    (&["dbname", "datname", "databases"], "`database`"),
    (&["username", "usename", "users"], "`user`"),
    (&["deny", "reject", "drop"], "`refuse = true`"),
    (&["rule", "match", "if", "acl"], "`sni`, `alpn` and `from`"),
    (&["middleware", "middlewares", "ipallowlist", "ipwhitelist"], "`guards`"),
    (
        &["priority"],
        "none: an exact name wins over `*.suffix`, a longer suffix over a shorter one, then more kinds of conditions over fewer, then the first route",
    ),
];

const KEEPALIVE_SYNONYMS: Synonyms = &[
    (&["time", "keepalivetime", "keepidle"], "`idle`"),
    (&["intvl", "keepintvl", "keepaliveinterval"], "`interval`"),
    (&["count", "cnt", "keepcnt", "keepaliveprobes", "retries"], "`probes`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synonyms_are_unique_and_never_keys_of_their_section() {
        for (section, groups) in &SYNONYMS {
            let mut seen = std::collections::HashSet::new();
            for name in groups.iter().flat_map(|(names, _)| *names) {
                assert_eq!(normalize(name), *name);
                assert!(seen.insert(name), "{name} twice in {}", section.title);
                assert!(!section.keys.contains(name), "{name} is a key of {}", section.title);
            }
        }
    }
}
