//! The bounds of numbers, sizes, durations and lengths in the configuration are exact: a value on the bound is
//! accepted, one beyond it is rejected.

use acequia::config::{self, report::ColorChoice};

/// A key (`section:key`), its smallest and largest accepted values, and the first rejected ones beyond them.
const BOUNDS: &[(&str, &[&str], &[&str])] = &[
    ("runtime:workers", &["1", "1024"], &["0", "1025"]),
    ("runtime:max_connections", &["1", "1073741824"], &["0", "1073741825"]),
    (
        "runtime:hello_memory",
        &["1048576B", "1024GiB"],
        &["1048575B", "1099511627777B"],
    ),
    ("runtime:drain_timeout", &["0ms", "8760h"], &["31536000001ms"]),
    ("runtime:drain_delay", &["0ms", "8760h"], &["31536000001ms"]),
    ("defaults:hello_timeout", &["1ms", "8760h"], &["0ms", "31536000001ms"]),
    ("defaults:hello_max", &["512B", "1048576B"], &["511B", "1048577B"]),
    ("defaults:idle_timeout", &["1ms", "8760h"], &["0ms", "31536000001ms"]),
    (
        "defaults:half_close_timeout",
        &["1ms", "8760h"],
        &["0ms", "31536000001ms"],
    ),
    ("defaults:backlog", &["1", "2147483647"], &["0", "2147483648"]),
    ("defaults:connect_timeout", &["1ms", "8760h"], &["0ms", "31536000001ms"]),
    ("defaults:retries", &["0", "100"], &["-1", "101"]),
    ("defaults:keepalive.idle", &["1s", "32767s"], &["999ms", "32768s"]),
    ("defaults:keepalive.interval", &["1s", "32767s"], &["999ms", "32768s"]),
    ("defaults:keepalive.probes", &["1", "127"], &["0", "128"]),
    ("defaults:user_timeout", &["1ms", "596h"], &["0ms", "2145600001ms"]),
    (
        "listeners.l:max_connections",
        &["1", "1073741824"],
        &["0", "1073741825"],
    ),
    (
        "pools.p:resolve_interval",
        &["100ms", "8760h"],
        &["99ms", "31536000001ms"],
    ),
    ("pools.p:close_over", &["0ms", "8760h"], &["31536000001ms"]),
    ("pools.p:slow_start", &["1ms", "8760h"], &["0ms", "31536000001ms"]),
    ("pools.p.health:interval", &["10ms", "8760h"], &["9ms", "31536000001ms"]),
    (
        "pools.p.health:interval_down",
        &["10ms", "8760h"],
        &["9ms", "31536000001ms"],
    ),
    ("pools.p.health:timeout", &["1ms", "8760h"], &["0ms", "31536000001ms"]),
    ("pools.p.health:rise", &["1", "1000"], &["0", "1001"]),
    ("pools.p.health:fall", &["1", "1000"], &["0", "1001"]),
    ("pools.p.health:eject_after", &["1", "1000"], &["0", "1001"]),
    // `eject_for` is at most `eject_max_for`, which is 30 s by default.
    ("pools.p.health:eject_for", &["1ms", "30s"], &["0ms", "30001ms"]),
    (
        "pools.p.health:eject_max_for",
        &["1s", "8760h"],
        &["999ms", "31536000001ms"],
    ),
    ("pools.p.health:eject_max_percent", &["0", "100"], &["-1", "101"]),
    ("pools.p.health:panic_threshold", &["1", "100"], &["0", "101"]),
    ("pools.p.health:concurrency", &["1", "1024"], &["0", "1025"]),
    ("pools.p:max_session_age", &["1s", "8760h"], &["999ms", "31536000001ms"]),
    ("pools.p:rebalance", &["1s", "8760h"], &["999ms", "31536000001ms"]),
    ("pools.p:max_sessions", &["1", "1000000"], &["0", "1000001"]),
    ("pools.p.health:port", &["1", "65535"], &["0", "65536"]),
];

/// A configuration that is valid except perhaps for this value of this key (`section:key`). Integers are written
/// without quotes, all other values with quotes.
fn config_with(path: &str, value: &str) -> String {
    let (section, key) = path.split_once(':').unwrap_or_else(|| panic!("{path}"));
    let value = value
        .parse::<i64>()
        .map_or_else(|_| format!("{value:?}"), |number| number.to_string());
    ["runtime", "defaults", "listeners.l", "pools.p", "pools.p.health"]
        .map(|table| {
            let required = match table {
                "listeners.l" => "bind = \"127.0.0.1:1\"\npool = \"p\"\n",
                "pools.p" => "servers = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n",
                _ => "",
            };
            let tested = if table == section {
                format!("{key} = {value}\n")
            } else {
                String::new()
            };
            format!("[{table}]\n{required}{tested}")
        })
        .concat()
}

/// The report of the errors of a configuration; empty for a valid configuration.
fn report(text: &str) -> String {
    config::read("acequia.toml", text).map_or_else(|report| report.render(ColorChoice::Never), |_| String::new())
}

#[test]
fn numbers_and_durations_are_accepted_up_to_their_bounds() {
    for (path, accepted, rejected) in BOUNDS {
        for value in *accepted {
            assert_eq!(report(&config_with(path, value)), "", "{path} = {value}");
        }
        for value in *rejected {
            let report = report(&config_with(path, value));
            assert!(report.ends_with("\n1 error\n"), "{path} = {value}: {report}");
        }
    }
}

/// A configuration with these names of a server and of its pool, these conditions of a route, and these weights of the
/// pool's two servers.
fn named(server: &str, pool: &str, route: &str, weights: [u32; 2]) -> String {
    let [first, second] = weights;
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:1\"\n[[listeners.l.routes]]\n{route}\npool = \"{pool}\"\n\
         [pools.{pool}]\nservers = [{{ address = \"127.0.0.1:2\", name = \"{server}\", weight = {first} }}, \
         {{ address = \"127.0.0.1:3\", weight = {second}, priority = 255 }}]\n"
    )
}

#[test]
fn names_weights_and_priorities_are_accepted_up_to_their_bounds() {
    let a = |count: usize| "a".repeat(count);
    let label = a(63);
    let sni = |last: usize| format!("sni = \"{label}.{label}.{label}.{}\"", a(last));
    let alpn = |length: usize| format!("sni = \"*\"\nalpn = \"{}\"", a(length));
    let usual = "sni = \"*\"";
    for right in [
        named(&a(128), "p", usual, [256, 0]),
        named("s", &a(128), usual, [0, 256]),
        named("s", "p", &sni(61), [1, 1]), // 253 bytes
        named("s", "p", &alpn(255), [1, 1]),
    ] {
        assert_eq!(report(&right), "", "{right}");
    }
    for wrong in [
        named(&a(129), "p", usual, [1, 1]),
        named("s", &a(129), usual, [1, 1]),
        named("s", "p", &sni(62), [1, 1]),
        named("s", "p", &format!("sni = \"{}.example\"", a(64)), [1, 1]),
        named("s", "p", &alpn(256), [1, 1]),
        named("s", "p", usual, [257, 1]),
        named("s", "p", usual, [0, 0]),
        named("s", "p", usual, [1, 1]).replace("priority = 255", "priority = 256"),
    ] {
        assert!(report(&wrong).contains("error"), "{wrong}");
    }
}
