//! Servers given by host name are resolved again and again; a name that does not resolve does not affect other servers.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client::{Client, ask, server_reached};
use crate::support::dns::NameServer;
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually, wait_for};
use tempfile::TempDir;
use tokio::time::Instant;

const UNRESOLVED: &str = "cannot resolve the name, keeping its last addresses";

fn config(servers: &[String]) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = {servers:?}\nbalance = \"round-robin\"\nresolve_interval = \"100ms\"\nhealth = {{ interval = \"200ms\" }}"
    )
}

#[test]
fn each_address_of_a_name_is_a_server_labelled_with_name_and_address() {
    let server = Server::echo();
    let name = format!("localhost:{}", server.address.port());
    let proxy = Proxy::start(&config(std::slice::from_ref(&name)));
    let label = format!("{name}@127.0.0.1");
    // `start` has waited until the name was resolved and its addresses were checked. Another address of the name, such
    // as ::1, is a server of its own.
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_server_up", &[("pool", "p"), ("server", &label)]),
        1.0
    );
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert_eq!(proxy.access_line()["server"], label);
}

/// A proxy with this file as its /etc/hosts.
fn with_hosts(hosts: &Path, config: &str) -> Proxy {
    let script = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", hosts.display());
    let under = ["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"];
    Proxy::setup(config).under(&under).launch()
}

/// The servers `s2` at 127.0.0.2 and `s3` at 127.0.0.3, which have the same port, and the directory of a hosts file.
struct Site {
    _servers: [Server; 2],
    port: u16,
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        let (servers, port) = wait_for("a port that is free at both addresses", || {
            let s2 = TcpListener::bind("127.0.0.2:0").unwrap();
            let port = s2.local_addr().unwrap().port();
            let s3 = TcpListener::bind(("127.0.0.3", port)).ok()?;
            Some(([Server::named_on(s2, "s2"), Server::named_on(s3, "s3")], port))
        });
        Self {
            _servers: servers,
            port,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Rewrites the hosts file: `pool.test` has these addresses.
    fn set_addresses(&self, addresses: &[&str]) {
        let lines: String = addresses
            .iter()
            .map(|address| format!("{address} pool.test\n"))
            .collect();
        std::fs::write(self.directory.path().join("hosts"), lines).unwrap();
    }

    /// The label of the server at this address of `pool.test`.
    fn label(&self, address: &str) -> String {
        format!("pool.test:{}@{address}", self.port)
    }

    /// A proxy with this hosts file and one server entry, `pool.test`; returned once both addresses of the name are up.
    fn proxy(&self) -> Proxy {
        let proxy = with_hosts(
            &self.directory.path().join("hosts"),
            &config(&[format!("pool.test:{}", self.port)]),
        );
        self.wait_for_up(&proxy, &["127.0.0.2", "127.0.0.3"]);
        proxy
    }

    /// Waits until exactly these addresses are up and no other has a series.
    fn wait_for_up(&self, proxy: &Proxy, addresses: &[&str]) {
        let wanted: BTreeSet<_> = addresses.iter().map(|address| self.label(address)).collect();
        eventually("exactly these addresses are up", || {
            let metrics = proxy.metrics();
            let series = metrics.series("acequia_server_up", &[]);
            series.iter().all(|sample| sample.value == 1.0)
                && series
                    .iter()
                    .map(|sample| sample.labels["server"].clone())
                    .collect::<BTreeSet<_>>()
                    == wanted
        });
    }
}

#[test]
fn an_address_removed_from_its_name_gets_no_new_sessions_and_loses_its_gauges() {
    let site = Site::new();
    site.set_addresses(&["127.0.0.2", "127.0.0.3"]);
    let proxy = site.proxy();
    let mut stays = wait_for("a session on the address to be removed", || {
        let mut client = Client::connect(proxy.at("l"));
        (client.read_some() == "s2").then_some(client)
    });
    site.set_addresses(&["127.0.0.3"]);
    // With round-robin, each of two usable servers would get some of four sessions.
    eventually("the removed address is unused", || {
        (0..4).all(|_| server_reached(proxy.at("l")) == "s3")
    });
    assert!((0..20).all(|_| server_reached(proxy.at("l")) == "s3"));
    let gone = site.label("127.0.0.2");
    let series_of = |server: &str, kind: &str| {
        let metrics = proxy.metrics();
        let families = metrics.families.values().filter(|family| family.kind == kind);
        let samples = families.flat_map(|family| &family.samples);
        samples
            .filter(|sample| sample.labels.get("server").is_some_and(|label| label == server))
            .count()
    };
    let active = proxy
        .metrics()
        .sum("acequia_server_sessions_active", &[("server", &gone)]);
    assert_eq!(active, 1.0, "expected its session to stay open");
    assert_eq!(stays.finish().read_all(), b"");
    eventually("its gauges are gone", || series_of(&gone, "gauge") == 0);
    assert!(
        series_of(&gone, "counter") > 2,
        "expected its counters to stay for a while"
    );
    let other = site.label("127.0.0.3");
    assert!(
        series_of(&other, "gauge") >= 2 && series_of(&other, "histogram") > 10,
        "expected the other server to keep its series"
    );
    site.set_addresses(&["127.0.0.2", "127.0.0.3"]);
    site.wait_for_up(&proxy, &["127.0.0.2", "127.0.0.3"]);
}

#[test]
fn an_address_that_returns_to_its_name_is_the_same_server_as_before() {
    let site = Site::new();
    site.set_addresses(&["127.0.0.2", "127.0.0.3"]);
    let proxy = site.proxy();
    let stays = wait_for("a session on the address to be removed", || {
        let mut client = Client::connect(proxy.at("l"));
        (client.read_some() == "s2").then_some(client)
    });
    site.set_addresses(&["127.0.0.3"]);
    eventually("the removed address is unused", || {
        (0..4).all(|_| server_reached(proxy.at("l")) == "s3")
    });
    site.set_addresses(&["127.0.0.2", "127.0.0.3"]);
    eventually("the address is used again", || {
        (0..4).any(|_| server_reached(proxy.at("l")) == "s2")
    });
    let label = site.label("127.0.0.2");
    let metrics = proxy.metrics();
    let series_of_server = |name| metrics.series(name, &[("server", &label)]);
    assert_eq!(
        series_of_server("acequia_connect_duration_seconds_count").len(),
        1,
        "expected one series, not two"
    );
    eventually("only the session from before the removal is left", || {
        proxy
            .metrics()
            .sum("acequia_server_sessions_active", &[("server", &label)])
            == 1.0
    });
    drop(stays);
}

#[test]
fn a_name_that_never_resolved_is_shown_by_status_and_servers() {
    let site = Site::new();
    site.set_addresses(&[]);
    let servers = [format!("pool.test:{}", site.port)];
    let proxy = with_hosts(&site.directory.path().join("hosts"), &config(&servers));
    for command in ["status", "servers"] {
        let shown = proxy.command(&[command]);
        let notes: Vec<_> = shown
            .stdout
            .lines()
            .filter(|line| line.ends_with("not resolved yet"))
            .collect();
        assert!(matches!(notes[..], [note] if note.starts_with("p/")), "{shown:#?}");
    }
    site.set_addresses(&["127.0.0.2"]);
    eventually("the note is gone", || {
        !proxy.command(&["servers"]).stdout.contains("not resolved")
    });
}

#[test]
fn a_name_that_no_longer_resolves_keeps_its_addresses_and_is_logged_once() {
    let site = Site::new();
    site.set_addresses(&["127.0.0.2", "127.0.0.3"]);
    let proxy = site.proxy();
    site.set_addresses(&[]);
    let logged = || {
        proxy
            .log()
            .iter()
            .filter(|line| line["message"] == UNRESOLVED && line["kept"] == 2)
            .count()
    };
    eventually("the failure is logged", || logged() > 0);
    let checks = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "pass")])
    };
    let before = checks();
    eventually(
        "two more checks of each server, which give time for about four lookups",
        || checks() >= before + 4.0,
    );
    assert_eq!(logged(), 1, "{:#?}", proxy.log());
    site.wait_for_up(&proxy, &["127.0.0.2", "127.0.0.3"]);
    site.set_addresses(&["127.0.0.2"]);
    site.wait_for_up(&proxy, &["127.0.0.2"]);
}

#[test]
fn a_name_is_used_as_soon_as_it_resolves() {
    let site = Site::new();
    site.set_addresses(&[]);
    let entry = format!("pool.test:{}", site.port);
    let proxy = with_hosts(&site.directory.path().join("hosts"), &config(&[entry]));
    let is_unresolved = |line: &serde_json::Value| line["message"] == UNRESOLVED;
    eventually("the failure is logged", || proxy.log().iter().any(is_unresolved));
    assert_eq!(ask(proxy.at("l"), b""), b"", "expected no server yet");
    site.set_addresses(&["127.0.0.3"]);
    site.wait_for_up(&proxy, &["127.0.0.3"]);
    assert_eq!(server_reached(proxy.at("l")), "s3");
}

#[test]
fn a_server_that_a_reload_renames_is_reported_as_added_and_has_its_address_at_once() {
    let site = Site::new();
    site.set_addresses(&["127.0.0.2"]);
    let port = site.port;
    let text = |pool: &str, servers: &str| {
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n\
             [pools.{pool}]\nservers = [{servers}]\nresolve_interval = \"1h\""
        )
    };
    // The entry of one server: without a name, and with the name `shop`. The last reload renames the pool, too.
    let (unnamed, named) = (
        format!("\"pool.test:{port}\""),
        format!("{{ address = \"pool.test:{port}\", name = \"shop\" }}"),
    );
    let proxy = with_hosts(&site.directory.path().join("hosts"), &text("p", &unnamed));
    site.wait_for_up(&proxy, &["127.0.0.2"]);
    for (pool, servers, added) in [
        ("p", &named, "p/shop@127.0.0.2".to_owned()),
        ("p", &unnamed, format!("p/pool.test:{port}@127.0.0.2")),
        ("q", &named, "q/shop@127.0.0.2".to_owned()),
    ] {
        proxy.rewrite(&text(pool, servers));
        let changes = proxy.answer(&["reload"]);
        assert_eq!(changes["servers"]["added"], serde_json::json!([added]));
        assert_eq!(server_reached(proxy.at("l")), "s2");
    }
}

/// A proxy whose resolver hangs, because its hosts file is a FIFO. Once the FIFO is opened for writing, the lookup
/// fails.
fn with_hanging_resolver(server: &Server) -> (Proxy, TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    must(Command::new("mkfifo").arg(&hosts));
    let proxy = with_hosts(
        &hosts,
        &config(&["pool.test:5432".to_owned(), server.address.to_string()]),
    );
    eventually("the server with an address is up", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    (proxy, directory, hosts)
}

#[test]
fn a_hanging_resolver_delays_readiness_but_no_session() {
    let server = Server::echo();
    let (proxy, _directory, hosts) = with_hanging_resolver(&server);
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert_eq!(proxy.get("/ready").0, 503);
    File::options().write(true).open(&hosts).unwrap();
    // The pool has another server, so it need not wait for an address of the name.
    eventually("ready, once the lookup has failed", || proxy.get("/ready").0 == 200);
}

#[test]
fn the_process_ends_even_if_the_resolver_hangs() {
    let server = Server::echo();
    let (proxy, _directory, _hosts) = with_hanging_resolver(&server);
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn an_unresolved_name_is_logged_and_the_other_servers_serve() {
    let server = Server::echo();
    let mut proxy = Proxy::start(&config(&[
        "nowhere.invalid:5432".to_owned(),
        server.address.to_string(),
    ]));
    let is_failure = |line: &serde_json::Value| {
        line["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("cannot resolve"))
            && line["name"] == "nowhere.invalid:5432"
    };
    eventually("the failure is logged", || proxy.log().iter().any(is_failure));
    eventually("the other server is up", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert!(proxy.is_running());
}

#[test]
fn a_pool_of_unresolved_names_has_no_server() {
    let proxy = Proxy::setup(&config(&["nowhere.invalid:5432".to_owned()])).launch();
    assert_eq!(ask(proxy.at("l"), b""), b"");
    assert_eq!(proxy.access_line()["ending"], "no_server");
    assert_eq!(proxy.get("/live").0, 200);
}

#[test]
fn a_pool_whose_only_name_fails_at_the_start_delays_readiness_and_the_name_is_retried_soon() {
    let site = Site::new();
    site.set_addresses(&[]);
    let entry = format!("pool.test:{}", site.port);
    let text = config(std::slice::from_ref(&entry)).replace("100ms", "1h"); // `resolve_interval`
    let proxy = with_hosts(&site.directory.path().join("hosts"), &text);
    let is_unresolved = |line: &serde_json::Value| line["message"] == UNRESOLVED;
    eventually("the failure is logged", || proxy.log().iter().any(is_unresolved));
    let waits = format!("waiting for an address of pool `p`: `{entry}` is not resolved yet\n");
    assert_eq!(proxy.get("/ready"), (503, waits));
    site.set_addresses(&["127.0.0.3"]);
    eventually("it is ready", || proxy.get("/ready").0 == 200);
    assert_eq!(server_reached(proxy.at("l")), "s3");
}

/// Twenty pools, each with a name for which the name server drops the queries, and behind them this pool, whose name it
/// answers.
fn after_dead_names(pool: &str, server: &Server) -> String {
    let dead = |number| format!("[pools.{pool}-{number}]\nservers = [\"{pool}{number}.dead.test:1\"]\n");
    let dead: String = (0..20).map(dead).collect();
    let port = server.address.port();
    format!("{dead}[pools.{pool}]\nservers = [\"{pool}.live.test:{port}\"]\n")
}

#[test]
fn twenty_names_without_an_answer_delay_no_other_name() {
    let Some(names) = NameServer::start() else { return };
    let (server, other) = (Server::named("s1"), Server::named("s2"));
    let (first, second) = (after_dead_names("first", &server), after_dead_names("second", &other));
    let listener = |pool: &str| format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n");
    let proxy = names.proxy_setup(&format!("{}{first}", listener("first"))).launch();
    eventually("the pool `first` has its server", || {
        server_reached(proxy.at("l")) == "s1"
    });
    let has_failed = proxy.log().iter().any(|line| line["message"] == UNRESOLVED);
    assert!(
        !has_failed,
        "the pool `first` had its server only after the lookup of another name had failed"
    );
    assert!(proxy.reload(&format!("{}{first}{second}", listener("second"))));
    let began = Instant::now();
    eventually("the pool `second` has its server", || {
        server_reached(proxy.at("l")) == "s2"
    });
    let took = began.elapsed();
    assert!(
        took < PATIENCE / 4,
        "{took:?}, expected less than half of the 10 s after which a lookup without an answer fails"
    );
}

#[test]
fn a_pool_that_resolves_only_ipv4_works_while_ipv6_queries_are_dropped() {
    let Some(names) = NameServer::start() else { return };
    let server = Server::named("s1");
    let pool = |name: &str, keys: &str| {
        let port = server.address.port();
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n\
             [pools.{name}]\nservers = [\"shop.ipv4.live.test:{port}\"]\n{keys}\n"
        )
    };
    let text = [pool("four", "resolve = \"ipv4\""), pool("all", "")].concat();
    let proxy = names.proxy_setup(&text).launch();
    eventually("the pool `four` has its server", || {
        server_reached(proxy.at("four")) == "s1"
    });
    assert_eq!(ask(proxy.at("all"), b""), b"", "expected `all` to still wait for IPv6");
}

#[test]
fn a_drained_server_is_still_drained_after_its_address_has_left_the_name_and_returned() {
    let site = Site::new();
    site.set_addresses(&["127.0.0.2", "127.0.0.3"]);
    let proxy = site.proxy();
    let label = site.label("127.0.0.2");
    let drained = proxy.command(&["server", "drain", &format!("p/{label}")]);
    assert_eq!(drained.code, Some(0), "{drained:#?}");
    let is_there = || {
        proxy.answer(&["status"])["pools"][0]["servers"]
            .as_array()
            .unwrap()
            .len()
            == 2
    };
    site.set_addresses(&["127.0.0.3"]);
    eventually("the address has left the name", || !is_there());
    let absent = proxy.answer(&["status"])["absent"].clone();
    assert_eq!(
        (&absent[0]["name"], &absent[0]["use"]),
        (&label.as_str().into(), &"draining".into())
    );
    site.set_addresses(&["127.0.0.2", "127.0.0.3"]);
    eventually("the address is back", is_there);
    assert_eq!(proxy.server("p", &label)["use"], "draining");
    assert!((0..6).all(|_| server_reached(proxy.at("l")) == "s3"));
}
