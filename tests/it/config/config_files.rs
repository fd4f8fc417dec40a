//! The shipped configurations load without a warning. `full.toml` has every key but those of `[remote]`, which are in
//! `bootstrap.toml`. The value of a key is its default, unless a comment says otherwise.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use acequia::config;
use acequia::plan::Sever;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

#[test]
fn shipped_configurations_load_without_a_warning() {
    for name in ["minimal.toml", "full.toml", "bootstrap.toml"] {
        let loaded = config::load(&shipped(name)).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

/// `full.toml` with its commented-out keys (`#key = …`, without a space) uncommented.
fn full_with_all_keys() -> String {
    let text = std::fs::read_to_string(shipped("full.toml")).unwrap();
    let is_key = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_lowercase());
    let line = |line: &str| line.strip_prefix('#').filter(is_key).unwrap_or(line).to_owned() + "\n";
    text.lines().map(line).collect()
}

/// Users copy `full.toml` without the files around it.
#[test]
fn full_toml_loads_from_any_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.toml");
    std::fs::copy(shipped("full.toml"), &path).unwrap();
    let loaded = config::load(&path).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);

    std::fs::write(&path, full_with_all_keys()).unwrap();
    let report = config::load(&path).unwrap_err();
    // The files of `allow_file` and `deny_file` do not exist yet.
    assert_eq!(report.error_count(), 2, "{report}");
    for file in ["allowed.txt", "denied.txt"] {
        std::fs::write(directory.path().join(file), "192.0.2.0/24 # one\n").unwrap();
    }
    let loaded = config::load(&path).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let office = loaded
        .plan
        .guards
        .iter()
        .find(|guard| &*guard.name == "office")
        .unwrap();
    assert_eq!(office.rules.deny.ranges(), 2, "one of `deny`, one of `deny_file`");
}

#[test]
fn full_toml_and_bootstrap_toml_have_every_key_of_every_section() {
    let file: toml::Table = full_with_all_keys().parse().unwrap();
    let listeners = || file["listeners"].as_table().unwrap().values();
    let pools = || file["pools"].as_table().unwrap().values();
    let keys = |value: &toml::Value| -> BTreeSet<String> { value.as_table().unwrap().keys().cloned().collect() };
    let keys_of_list = |values: &toml::Value| -> BTreeSet<String> {
        values
            .as_array()
            .unwrap()
            .iter()
            .filter(|v| v.is_table())
            .flat_map(keys)
            .collect()
    };
    let acme = || file["acme"].as_table().unwrap().values();
    let guards = || file["guards"].as_table().unwrap().values();
    let tls = || listeners().filter_map(|listener| listener.get("tls"));
    let scales = || pools().filter_map(|pool| pool.get("scale"));
    let queues = pools().filter_map(|pool| pool.get("queue"));
    let bootstrap: toml::Table = std::fs::read_to_string(shipped("bootstrap.toml"))
        .unwrap()
        .parse()
        .unwrap();
    // In the order of `config::keys::ALL`.
    let shown: [BTreeSet<String>; 34] = [
        file.keys().chain(bootstrap.keys()).cloned().collect(),
        keys(&file["runtime"]),
        keys(&file["admin"]),
        keys(&file["admin"]["tls"]),
        keys(&file["log"]),
        acme().flat_map(keys).collect(),
        acme().filter_map(|acme| acme.get("eab")).flat_map(keys).collect(),
        keys(&file["defaults"]),
        listeners()
            .filter_map(|listener| listener.get("accept_proxy"))
            .flat_map(keys)
            .collect(),
        guards().flat_map(keys).collect(),
        guards().filter_map(|guard| guard.get("by")).flat_map(keys).collect(),
        listeners().flat_map(keys).collect(),
        listeners()
            .filter_map(|listener| listener.get("redirect"))
            .flat_map(keys)
            .collect(),
        listeners()
            .filter_map(|listener| listener.get("announce"))
            .flat_map(keys)
            .collect(),
        listeners()
            .filter_map(|listener| listener.get("routes"))
            .flat_map(keys_of_list)
            .collect(),
        tls().flat_map(keys).collect(),
        tls().flat_map(|tls| keys_of_list(&tls["certificates"])).collect(),
        tls().filter_map(|tls| tls.get("client_auth")).flat_map(keys).collect(),
        pools().flat_map(keys).collect(),
        pools().filter_map(|pool| pool.get("tls")).flat_map(keys).collect(),
        pools()
            .filter_map(|pool| pool.get("servers"))
            .flat_map(keys_of_list)
            .collect(),
        pools().filter_map(|pool| pool.get("discover")).flat_map(keys).collect(),
        queues.filter(|queue| queue.is_table()).flat_map(keys).collect(),
        scales().flat_map(keys).collect(),
        scales()
            .filter_map(|scale| scale.get("docker"))
            .flat_map(keys)
            .collect(),
        scales().filter_map(|scale| scale.get("hook")).flat_map(keys).collect(),
        pools().filter_map(|pool| pool.get("health")).flat_map(keys).collect(),
        pools()
            .filter_map(|pool| pool.get("health")?.get("steps"))
            .flat_map(keys_of_list)
            .collect(),
        keys(&file["defaults"]["keepalive"]),
        keys(&file["providers"]),
        keys(&file["providers"]["etcd"]),
        keys(&file["providers"]["docker"]),
        keys(&file["providers"]["kubernetes"]),
        keys(&bootstrap["remote"]),
    ];
    assert_eq!(config::keys::ALL.len(), shown.len());
    for (section, shown) in config::keys::ALL.iter().zip(shown) {
        let known: BTreeSet<String> = section.keys.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(shown, known, "{}", section.title);
    }
}

/// A value that `full.toml` calls the default is the one that applies when the key is missing.
#[test]
fn full_toml_shows_the_defaults() {
    let full = config::load(&shipped("full.toml")).unwrap().plan;
    let minimal = config::load(&shipped("minimal.toml")).unwrap().plan;
    assert_eq!(full.runtime.workers, None, "`auto` is the default");
    // The value of `max_connections` in `full.toml` is not the default.
    assert_eq!(minimal.runtime.max_connections, None);
    assert_eq!(full.runtime.drain_timeout, minimal.runtime.drain_timeout);
    assert_eq!(full.runtime.drain_delay, minimal.runtime.drain_delay);
    assert_eq!(full.log, minimal.log);
    let (shown, default) = (&full.listeners[0], &minimal.listeners[0]);
    assert_eq!(
        (shown.backlog, shown.sniff, shown.relay, shown.socket),
        (default.backlog, default.sniff, default.relay, default.socket)
    );
    let shop = full.pools.iter().find(|pool| &*pool.name == "shop").unwrap();
    let (shown, default) = (shop, minimal.pools.first().unwrap());
    // The default target of checks, the server itself, cannot be written in a file.
    let mut health = shown.health.clone();
    (health.address, health.port) = (None, None);
    assert_eq!(
        (
            shown.dial.clone(),
            &health,
            shown.severing,
            shown.resolve_interval,
            shown.resolve
        ),
        (
            default.dial.clone(),
            &default.health,
            default.severing,
            default.resolve_interval,
            default.resolve
        )
    );
    assert_eq!(shown.rules, default.rules);
    let closing = full
        .pools
        .iter()
        .find(|pool| pool.severing.on_down == Sever::Close)
        .unwrap();
    assert_eq!(closing.severing.close_over, default.severing.close_over);
    assert_eq!(full.runtime.watch, minimal.runtime.watch);
    let text = "[listeners.l]\nbind = \"127.0.0.1:1\"\npool = \"p\"\nguards = \"g\"\n\
                [guards.g]\nrate_per_source = \"20/s\"\n[pools.p]\nservers = [\"127.0.0.1:2\"]";
    let with_guard = config::read("a.toml", text)
        .unwrap_or_else(|report| panic!("{report}"))
        .plan;
    let fair = full.guards.iter().find(|guard| &*guard.name == "fair").unwrap();
    let (shown, default) = (&fair.rules, &with_guard.guards[0].rules);
    assert_eq!(
        (
            shown.by,
            shown.sources_max,
            shown.report_only,
            shown.refuse_with,
            shown.rate_per_source
        ),
        (
            default.by,
            default.sources_max,
            default.report_only,
            default.refuse_with,
            default.rate_per_source
        )
    );
}

/// `cargo deb` fails where a file of the package is missing.
#[test]
fn the_files_of_the_package_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = std::fs::read_to_string(root.join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let sources = assets.iter().map(|asset| asset[0].as_str().unwrap());
    let not_built: Vec<&str> = sources.filter(|source| !source.starts_with("target/")).collect();
    assert!(not_built.len() > 5, "{not_built:?}");
    for source in not_built {
        // Of a pattern such as `docs/*.md`, only the directory is checked.
        let path = source.split_once("/*").map_or(source, |(directory, _)| directory);
        assert!(root.join(path).exists(), "{source}");
    }
}
