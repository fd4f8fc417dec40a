//! `conf/acequia.schema.json`, with which editors complete, describe and check a configuration. It is generated here:
//! the keys come from the parser's own tables, the descriptions from the comments of `conf/full.toml` and
//! `conf/bootstrap.toml`.
//!
//! `BLESS=1` writes the file again.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use acequia::config;
use acequia::config::keys::{self, SectionKeys};
use serde_json::{Map, Value, json};

use crate::support::process::finished;

const SCHEMA: &str = "conf/acequia.schema.json";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A kind of value.
enum Kind {
    Text,
    /// One text, or a list of texts.
    Texts,
    Boolean,
    Integer(u32, u32),
    Duration,
    /// A duration, or `"off"`.
    DurationOrOff,
    Size,
    /// New sessions per second, minute or hour.
    Rate,
    /// Bytes per second.
    Bandwidth,
    /// One of these words.
    Words(&'static [&'static str]),
    Section(&'static SectionKeys),
    SectionOrOff(&'static SectionKeys),
    /// Sections by name.
    Named(&'static SectionKeys),
    /// A list of sections.
    List(&'static SectionKeys),
    /// A section, or a list of sections.
    OneOrMany(&'static SectionKeys),
    /// Any other schema.
    Other(Value),
}

/// The kind of a key. Panics if no arm names the key: then the schema cannot be generated.
fn kind(section: &SectionKeys, key: &str) -> Kind {
    use Kind::*;
    const ON_OFF: &[&str] = &["on", "off"];
    const SEVER: &[&str] = &["keep", "close"];
    let is_in = |other: &SectionKeys| std::ptr::eq(section.keys, other.keys);
    match key {
        "runtime" => Section(&keys::RUNTIME),
        "admin" => Section(&keys::ADMIN),
        "log" => Section(&keys::LOG),
        "defaults" => Section(&keys::DEFAULTS),
        "acme" if is_in(&keys::FILE) => Named(&keys::ACME),
        "guards" if is_in(&keys::FILE) => Named(&keys::GUARD),
        "listeners" => Named(&keys::LISTENER),
        "pools" => Named(&keys::POOL),
        "tls" if is_in(&keys::ADMIN) => Section(&keys::ADMIN_TLS),
        "tls" if is_in(&keys::LISTENER) => Section(&keys::LISTENER_TLS),
        "tls" if is_in(&keys::POOL) => Section(&keys::POOL_TLS),
        "tls" if is_in(&keys::ROUTE) => Words(&["pass", "terminate"]),
        "tls" | "watch" | "require" | "verify" | "report_only" | "tls_required" | "single" | "eject_on_reset"
        | "allow_empty" => Boolean,
        "refuse" => Other(json!({ "const": true })),
        "eab" => Section(&keys::EAB),
        "redirect" => Section(&keys::REDIRECT),
        "announce" => Section(&keys::ANNOUNCE),
        "from" if is_in(&keys::ANNOUNCE) => Words(&["docker"]),
        "accept_proxy" => Section(&keys::ACCEPT_PROXY),
        "client_auth" => Section(&keys::CLIENT_AUTH),
        "by" => Section(&keys::GUARD_BY),
        "health" => Section(&keys::HEALTH),
        "discover" => Section(&keys::DISCOVER),
        "providers" => Section(&keys::PROVIDERS),
        "remote" => Section(&keys::REMOTE),
        "from" if is_in(&keys::REMOTE) => Other(text_like("^etcd:.*[^/]$")),
        "etcd" if is_in(&keys::PROVIDERS) => Section(&keys::ETCD),
        "docker" if is_in(&keys::PROVIDERS) => Section(&keys::DOCKER),
        "kubernetes" if is_in(&keys::PROVIDERS) => Section(&keys::KUBERNETES),
        "scale" => Section(&keys::SCALE),
        "docker" if is_in(&keys::SCALE) => Section(&keys::SCALE_DOCKER),
        "hook" => Section(&keys::SCALE_HOOK),
        "start" | "stop" => Texts,
        "env" => Other(json!({ "type": "object", "additionalProperties": { "type": "string" } })),
        "min" => Integer(0, 256),
        "max" if is_in(&keys::SCALE) => Integer(1, 256),
        "sessions_per_server" => Integer(1, 1_000_000),
        "queue" => SectionOrOff(&keys::QUEUE),
        "keepalive" => SectionOrOff(&keys::KEEPALIVE),
        "routes" => List(&keys::ROUTE),
        "certificates" => OneOrMany(&keys::CERTIFICATE),
        "steps" => OneOrMany(&keys::CHECK_STEP),
        "servers" => Other(json!({
            "type": "array",
            "items": { "anyOf": [{ "type": "string" }, reference(&keys::SERVER)] },
        })),
        "workers" => Other(json!({ "anyOf": [integer(1, 1024), { "const": "auto" }] })),
        "panic_threshold" => Other(json!({ "anyOf": [integer(1, 100), { "const": "off" }] })),
        "code" => Other(json!({ "enum": [301, 302, 307, 308] })),
        "headers" => Other(json!({ "type": "object", "additionalProperties": { "type": "string" } })),
        "expect" | "wrong_role" if is_in(&keys::HEALTH) => {
            let status = json!({ "anyOf": [{ "type": "string" }, integer(100, 599)] });
            Other(json!({ "anyOf": [{ "type": "string" }, integer(100, 599), { "type": "array", "items": status }] }))
        }
        "max_connections" => Integer(1, 1 << 30),
        "max_sessions" => Integer(1, 1_000_000),
        "sessions" | "sessions_per_source" => Integer(1, 1 << 30),
        "burst" => Integer(1, 1_000_000),
        "sources_max" => Integer(1, 10_000_000),
        "ipv4" => Integer(0, 32),
        "ipv6" => Integer(0, 128),
        "backlog" => Integer(1, i32::MAX as u32),
        "retries" => Integer(0, 100),
        "weight" => Integer(0, 256),
        "priority" => Integer(0, 255),
        "rise" | "fall" | "eject_after" => Integer(1, 1_000),
        "eject_max_percent" => Integer(0, 100),
        "concurrency" => Integer(1, 1024),
        "port" if is_in(&keys::DISCOVER) => Other(json!({ "anyOf": [integer(1, 65_535), { "type": "string" }] })),
        "port" => Integer(1, 65_535),
        "probes" => Integer(1, 127),
        "max" => Integer(1, 1_000_000),
        "hello_timeout" | "connect_timeout" | "half_close_timeout" | "drain_timeout" | "drain_delay" | "timeout"
        | "idle" | "interval" | "interval_down" | "eject_for" | "eject_max_for" | "close_over" | "idle_for"
        | "role_trust" | "resolve_interval" | "settle" | "up_after" | "down_after" | "cooldown" | "start_timeout"
        | "drain" | "replace_after" => Duration,
        "idle_timeout" | "user_timeout" | "max_session_age" | "rebalance" | "slow_start" | "max_lag" => DurationOrOff,
        "hello_memory" | "hello_max" => Size,
        "rate" | "rate_per_source" => Rate,
        "bandwidth" | "bandwidth_per_session" => Bandwidth,
        "bind" if is_in(&keys::LISTENER) => Texts,
        "hosts" | "contact" | "allow" | "deny" | "guards" | "from" | "sni" | "alpn" | "database" | "user" | "names"
        | "sentinels" | "endpoints" | "command" | "bind_source"
            if !is_single_text(section, key) =>
        {
            Texts
        }
        "format" => Words(&["json", "text"]),
        "level" => Words(&["trace", "debug", "info", "warn", "error"]),
        "challenge" => Words(&["tls-alpn-01", "http-01"]),
        "resolve" => Words(&["both", "ipv4", "ipv6"]),
        "protocol" => Words(&["tcp", "postgres", "mysql", "redis"]),
        "cancel_unplaced" => Words(&["drop", "fanout"]),
        "others" => Words(&["serve", "refuse"]),
        "refuse_with" => Words(&["reset", "close"]),
        "min_version" => Words(&["1.2", "1.3"]),
        "mode" => Words(&["require", "request"]),
        "balance" => Words(&["least-conn", "source-hash", "round-robin", "random-two"]),
        "proxy_protocol" => Words(&["off", "v1", "v2"]),
        "on_leave" => Words(&["drain", "close"]),
        "on_down" | "on_recover" | "on_lag" => Words(SEVER),
        "failback" => Words(&["auto", "manual"]),
        "direct" => Words(ON_OFF),
        "donor" => Words(&["use", "avoid"]),
        "role" => Words(&["any", "primary", "replica"]),
        "check" => Words(&[
            "tcp",
            "tls",
            "http",
            "send-expect",
            "exec",
            "agent",
            "postgres",
            "mysql",
            "redis",
            "off",
        ]),
        "state_dir"
        | "bind"
        | "token_file"
        | "socket"
        | "cert"
        | "key"
        | "access"
        | "directory"
        | "ca_file"
        | "key_id"
        | "key_file"
        | "cert_file"
        | "instance"
        | "unix_mode"
        | "ports"
        | "pool"
        | "to"
        | "name"
        | "acme"
        | "tickets"
        | "crl_file"
        | "allow_file"
        | "deny_file"
        | "fallback"
        | "file"
        | "http"
        | "etcd"
        | "docker"
        | "network"
        | "image"
        | "kubernetes"
        | "kubeconfig"
        | "zone"
        | "dns_srv"
        | "dns"
        | "resolver"
        | "address"
        | "sni"
        | "method"
        | "path"
        | "host"
        | "body"
        | "wrong_role_body"
        | "send"
        | "expect"
        | "user"
        | "password_file"
        | "database"
        | "master"
        | "sentinel_user"
        | "sentinel_password_file" => Text,
        _ => panic!(
            "`{key}` of {} has no kind in the generator of the schema",
            section.title
        ),
    }
}

/// Whether the key is a text in this section, although it is a list in others.
fn is_single_text(section: &SectionKeys, key: &str) -> bool {
    let is_in = |other: &SectionKeys| std::ptr::eq(section.keys, other.keys);
    (is_in(&keys::SCALE) || is_in(&keys::ETCD)) && key == "user"
        || is_in(&keys::HEALTH) && matches!(key, "sni" | "database" | "user")
        || is_in(&keys::POOL_TLS) && key == "sni"
}

fn integer(least: u32, most: u32) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

fn text_like(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

const DURATION: &str = "^[0-9]+(ms|s|m|h)$";

impl Kind {
    fn schema(self) -> Value {
        let off = || json!({ "const": "off" });
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Texts => {
                json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
            }
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Integer(least, most) => integer(least, most),
            Self::Duration => text_like(DURATION),
            Self::DurationOrOff => json!({ "anyOf": [text_like(DURATION), off()] }),
            Self::Size => text_like("^[0-9]+(B|KiB|MiB|GiB)$"),
            Self::Rate => text_like("^[0-9]+/(s|m|h)$"),
            Self::Bandwidth => text_like("^[0-9]+(B|KiB|MiB|GiB)/s$"),
            Self::Words(words) => json!({ "enum": words }),
            Self::Section(section) => reference(section),
            Self::SectionOrOff(section) => json!({ "anyOf": [reference(section), off()] }),
            Self::Named(section) => json!({ "type": "object", "additionalProperties": reference(section) }),
            Self::List(section) => json!({ "type": "array", "items": reference(section) }),
            Self::OneOrMany(section) => json!({ "anyOf": [reference(section), Self::List(section).schema()] }),
            Self::Other(schema) => schema,
        }
    }
}

/// The sections, each with its name among the definitions and its place in `full.toml` or `bootstrap.toml`. The place
/// is `""` for the top level, and for a section whose keys have no description and are not compared with the parser.
fn sections() -> [(&'static SectionKeys, &'static str, &'static str); 34] {
    [
        (&keys::FILE, "file", ""),
        (&keys::RUNTIME, "runtime", "runtime"),
        (&keys::ADMIN, "admin", "admin"),
        (&keys::ADMIN_TLS, "admin_tls", ""),
        (&keys::LOG, "log", "log"),
        (&keys::ACME, "acme", "acme.NAME"),
        (&keys::EAB, "eab", "acme.NAME.eab"),
        (&keys::DEFAULTS, "defaults", "defaults"),
        (&keys::ACCEPT_PROXY, "accept_proxy", ""),
        (&keys::GUARD, "guard", "guards.NAME"),
        (&keys::GUARD_BY, "guard_by", "guards.NAME.by"),
        (&keys::LISTENER, "listener", "listeners.NAME"),
        (&keys::REDIRECT, "redirect", "listeners.NAME.redirect"),
        (&keys::ANNOUNCE, "announce", ""),
        (&keys::ROUTE, "route", "listeners.NAME.routes"),
        (&keys::LISTENER_TLS, "listener_tls", "listeners.NAME.tls"),
        (&keys::CERTIFICATE, "certificate", ""),
        (&keys::CLIENT_AUTH, "client_auth", "listeners.NAME.tls.client_auth"),
        (&keys::POOL, "pool", "pools.NAME"),
        (&keys::POOL_TLS, "pool_tls", "pools.NAME.tls"),
        (&keys::SERVER, "server", ""),
        (&keys::DISCOVER, "discover", "pools.NAME.discover"),
        (&keys::QUEUE, "queue", ""),
        (&keys::SCALE, "scale", "pools.NAME.scale"),
        (&keys::SCALE_DOCKER, "scale_docker", "pools.NAME.scale.docker"),
        (&keys::SCALE_HOOK, "scale_hook", ""),
        (&keys::HEALTH, "health", "pools.NAME.health"),
        (&keys::CHECK_STEP, "check_step", ""),
        (&keys::KEEPALIVE, "keepalive", "defaults.keepalive"),
        (&keys::PROVIDERS, "providers", "providers"),
        (&keys::ETCD, "etcd", "providers.etcd"),
        (&keys::DOCKER, "docker", "providers.docker"),
        (&keys::KUBERNETES, "kubernetes", "providers.kubernetes"),
        (&keys::REMOTE, "remote", "remote"),
    ]
}

fn reference(section: &SectionKeys) -> Value {
    let (_, name, _) = sections()
        .into_iter()
        .find(|(known, ..)| std::ptr::eq(*known, section))
        .unwrap();
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The description of each key: the comment that follows the key in `full.toml` or `bootstrap.toml`, on its line and on
/// the indented lines below. The map's key is the place of the section and the name of the configuration key.
fn descriptions() -> HashMap<(String, String), String> {
    let mut descriptions = HashMap::new();
    let mut section = String::new();
    let mut entry: Option<((String, String), String)> = None;
    let text = ["conf/full.toml", "conf/bootstrap.toml"].map(|file| fs::read_to_string(path(file)).unwrap());
    let text = text.concat();
    // Each description is kept when the next key or section begins; `[end]` does that for the last one.
    for line in text.lines().chain(["[end]"]) {
        // A key that is commented out begins its line: `#key = …`.
        let (code, comment) = match line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        {
            Some(rest) => rest
                .split_once("  # ")
                .or_else(|| rest.split_once(" # "))
                .unwrap_or((rest, "")),
            None => line.split_once("# ").unwrap_or((line, "")),
        };
        let code = code.trim();
        // No key or section begins here. A comment that is indented continues the description.
        if code.is_empty() || code.starts_with(['{', '"', ']']) {
            if let Some((_, description)) = entry.as_mut().filter(|_| !comment.is_empty() && line.starts_with(' ')) {
                *description = format!("{description} {}", comment.trim()).trim().to_owned();
            }
            continue;
        }
        // A section may occur more than once, such as two pools: the first description of a key counts.
        if let Some((key, description)) = entry.take().filter(|(_, description)| !description.is_empty()) {
            descriptions.entry(key).or_insert(description);
        }
        if let Some(header) = code.strip_prefix('[') {
            let mut parts: Vec<&str> = header.trim_matches(['[', ']']).split('.').collect();
            if let ["acme" | "guards" | "listeners" | "pools", name, ..] = parts.as_mut_slice() {
                *name = "NAME";
            }
            section = parts.join(".");
        } else if let Some((key, _)) = code.split_once(" = ") {
            let (section, key) = match key.split_once('.') {
                Some((child, key)) => (format!("{section}.{child}"), key),
                None => (section.clone(), key),
            };
            entry = Some(((section, key.to_owned()), comment.trim().to_owned()));
        }
    }
    descriptions
}

/// The description of a key. What listeners and pools inherit is described in `[defaults]`; where `full.toml` repeats
/// such keys, it has only a comment such as "This and the next six keys: as in [defaults]".
fn description(descriptions: &HashMap<(String, String), String>, place: &str, key: &str) -> Option<String> {
    let description = |place: &str| descriptions.get(&(place.to_owned(), key.to_owned()));
    let own = description(place).filter(|text| !text.starts_with("This and the next"));
    own.or_else(|| description("defaults").filter(|_| place.ends_with(".NAME")))
        .cloned()
}

fn schema() -> Value {
    let descriptions = descriptions();
    let mut definitions = Map::new();
    for (section, name, place) in sections() {
        let mut properties = Map::new();
        for key in section.keys {
            let mut property = kind(section, key).schema();
            if let Some(text) = description(&descriptions, place, key) {
                property["description"] = text.into();
            }
            properties.insert((*key).to_owned(), property);
        }
        let definition = json!({ "type": "object", "additionalProperties": false, "properties": properties });
        definitions.insert(name.to_owned(), definition);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of acequia",
        "$ref": "#/$defs/file",
        "$defs": definitions,
    })
}

#[test]
fn the_schema_is_current() {
    let expected = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("BLESS").is_some() {
        fs::write(path(SCHEMA), &expected).unwrap();
    }
    let shipped = fs::read_to_string(path(SCHEMA)).unwrap_or_default();
    assert!(
        shipped == expected,
        "{SCHEMA} is not current: run this test with BLESS=1"
    );
}

#[test]
fn the_schema_has_every_section_and_describes_most_keys() {
    let all: Vec<_> = sections().iter().map(|(section, ..)| section.title).collect();
    assert_eq!(all.len(), keys::ALL.len());
    assert!(keys::ALL.iter().all(|section| all.contains(&section.title)));
    let schema = schema();
    let properties = |name: &str| schema["$defs"][name]["properties"].as_object().unwrap().clone();
    for name in ["runtime", "guard", "listener", "pool", "health"] {
        let described = properties(name)
            .values()
            .filter(|key| key["description"].is_string())
            .count();
        assert!(
            described * 3 >= properties(name).len() * 2,
            "{name}: {described} descriptions"
        );
    }
}

/// The parser's error about a wrong word names all words that the key can have.
#[test]
fn the_schema_has_the_words_of_the_parser() {
    let full: toml::Table = fs::read_to_string(path("conf/full.toml")).unwrap().parse().unwrap();
    let mut compared = 0;
    for (section, _, place) in sections().into_iter().filter(|(_, _, place)| !place.is_empty()) {
        for key in section.keys {
            let Kind::Words(words) = kind(section, key) else {
                continue;
            };
            let mut config = serde_json::to_value(&full).unwrap();
            let Some(value) = find(&mut config, &place.split('.').collect::<Vec<_>>(), key) else {
                continue;
            };
            *value = "zzzzzzzzzzzzzzzz".into();
            let report = config::read("full.json", &config.to_string()).unwrap_err().to_string();
            let (_, suggested) = report
                .split_once("write \"")
                .unwrap_or_else(|| panic!("{key}: {report}"));
            let suggested: Vec<_> = suggested.lines().next().unwrap().split('"').collect();
            let suggested: BTreeSet<_> = suggested
                .into_iter()
                .filter(|word| !matches!(*word, "" | " or "))
                .collect();
            assert_eq!(suggested, words.iter().copied().collect(), "{key}: {report}");
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared}");
}

/// The bounds of the integers that a schema allows.
fn bounds(schema: &Value) -> Option<[u64; 2]> {
    let alternatives = schema["anyOf"].as_array();
    let mut parts = alternatives.map_or(std::slice::from_ref(schema), Vec::as_slice).iter();
    parts.find_map(|part| Some([part["minimum"].as_u64()?, part["maximum"].as_u64()?]))
}

/// The bounds of a key's integers, from the errors of the parser. `read` reads the file with a value for the key, and
/// returns the errors.
fn parser_bounds(read: impl Fn(i64) -> String) -> Option<[u64; 2]> {
    let bound = |value: i64, words: &str| {
        let report = read(value);
        let (_, rest) = report.split_once("out of range")?.1.split_once(words)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
        digits?.parse().ok()
    };
    Some([bound(-1, "at least ")?, bound(1 << 40, "at most ")?])
}

/// An editor accepts the numbers that the parser takes, and no others.
#[test]
fn the_schema_has_the_bounds_of_the_parser() {
    let full: toml::Table = fs::read_to_string(path("conf/full.toml")).unwrap().parse().unwrap();
    let full = serde_json::to_value(&full).unwrap();
    let (mut compared, mut differences) = (0, Vec::new());
    for (section, _, place) in sections().into_iter().filter(|(_, _, place)| !place.is_empty()) {
        let place: Vec<&str> = place.split('.').collect();
        for key in section.keys {
            if find(&mut full.clone(), &place, key).is_none_or(|value| value.is_array()) {
                continue;
            }
            let read = |value: i64| {
                let mut config = full.clone();
                *find(&mut config, &place, key).unwrap() = value.into();
                let result = config::read("full.json", &config.to_string());
                result.err().map(|report| report.to_string()).unwrap_or_default()
            };
            let schema = kind(section, key).schema();
            let (ours, parsed) = (bounds(&schema), parser_bounds(read));
            // Two differences are allowed: an `enum` lists the integers instead of their bounds, and the parser may
            // report no bounds for a key that is not always an integer.
            let is_always_integer = matches!(kind(section, key), Kind::Integer(..));
            let is_allowed = !schema["enum"].is_null() || (parsed.is_none() && !is_always_integer);
            if ours != parsed && !is_allowed {
                differences.push(format!(
                    "{} {key}: {ours:?} in the schema, {parsed:?} in the parser",
                    section.title
                ));
            }
            compared += usize::from(parsed.is_some());
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(compared >= 20, "{compared}");
}

/// The first value of this key in a section at this place.
fn find<'v>(value: &'v mut Value, place: &[&str], key: &str) -> Option<&'v mut Value> {
    match (value, place) {
        (Value::Array(entries), _) => entries.iter_mut().find_map(|entry| find(entry, place, key)),
        (Value::Object(table), []) => table.get_mut(key),
        (Value::Object(table), ["NAME", rest @ ..]) => table.values_mut().find_map(|child| find(child, rest, key)),
        (Value::Object(table), [name, rest @ ..]) => find(table.get_mut(*name)?, rest, key),
        _ => None,
    }
}

/// Validates TOML texts with the schema; returns the message about each, empty where it is valid.
fn validated(texts: &[String]) -> Vec<String> {
    const PROGRAM: &str = "import json, sys, tomllib, jsonschema\n\
         schema = json.load(open(sys.argv[1]))\n\
         jsonschema.Draft202012Validator.check_schema(schema)\n\
         validator = jsonschema.Draft202012Validator(schema)\n\
         found = [validator.iter_errors(tomllib.load(open(file, 'rb'))) for file in sys.argv[2:]]\n\
         print(json.dumps(['; '.join(f'{e.json_path}: {e.message}' for e in errors) for errors in found]))";
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", PROGRAM]).arg(path(SCHEMA));
    for (index, text) in texts.iter().enumerate() {
        let file = directory.path().join(index.to_string());
        fs::write(&file, text).unwrap();
        command.arg(file);
    }
    let done = finished(&mut command);
    assert_eq!(done.code, Some(0), "{done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

#[test]
fn the_configurations_of_the_repository_are_valid() {
    let mut texts: Vec<_> = [
        "conf/full.toml",
        "conf/minimal.toml",
        "conf/bootstrap.toml",
        "conf/debian/acequia.toml",
    ]
    .map(|name| fs::read_to_string(path(name)).unwrap())
    .into();
    texts.extend(
        super::readme::configurations()
            .into_iter()
            .map(|(_, text)| text.to_owned()),
    );
    // The parser accepts the files `warn-*.toml`, with a warning.
    let data = fs::read_dir(path("tests/data/config")).unwrap();
    let names = data.map(|entry| entry.unwrap().path());
    let warned = names.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("warn-") && name.ends_with(".toml")
    });
    texts.extend(warned.map(|path| fs::read_to_string(path).unwrap()));
    assert!(texts.len() > 25, "{}", texts.len());
    let messages = validated(&texts);
    assert!(messages.iter().all(String::is_empty), "{messages:#?}");
}

#[test]
fn the_schema_rejects_mistakes() {
    let wrong = [
        "runtme = {}",
        "[listeners.a]\nbind = \"127.0.0.1:1\"\npol = \"b\"",
        "[pools.p]\nservers = [{ adress = \"a:1\" }]",
        "[pools.p]\nservers = [\"a:1\"]\nbalance = \"ip_hash\"",
        "[defaults]\nretries = \"2\"",
        "[defaults]\nhello_timeout = 5",
        "[defaults]\nhello_timeout = \"5\"",
        "[defaults]\nhello_max = \"64K\"",
        "[guards.g]\nrate = \"20 per second\"",
        "[[listeners.a.routes]]\nfrom = 7",
        "[pools.p.health]\ncheck = \"ping\"",
    ];
    let messages = validated(&wrong.map(String::from));
    for (text, message) in wrong.iter().zip(messages) {
        assert!(!message.is_empty(), "{text}");
    }
}
