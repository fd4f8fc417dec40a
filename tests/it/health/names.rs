//! Servers given by name are resolved, and a name that does not resolve stops nobody.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client::{Client, ask, who};
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, found};
use tempfile::TempDir;

const UNRESOLVED: &str = "cannot resolve, keeping the last answer";

fn config(servers: &[String]) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = {servers:?}\nbalance = \"round-robin\"\nresolve_interval = \"100ms\"\nhealth = {{ interval = \"200ms\" }}"
    )
}

#[test]
fn each_address_of_a_name_is_a_server_labelled_with_both() {
    let server = Server::echo();
    let name = format!("localhost:{}", server.address.port());
    let proxy = Proxy::start(&config(std::slice::from_ref(&name)));
    let label = format!("{name}@127.0.0.1");
    // Ready is: resolved and checked. Another address of the name, such as ::1, is a server of its own.
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_server_up", &[("pool", "p"), ("server", &label)]),
        1.0
    );
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert_eq!(proxy.access_line()["server"], label);
}

/// A proxy that sees this file as /etc/hosts.
fn seeing(hosts: &Path, config: &str) -> Proxy {
    let see = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", hosts.display());
    let under = ["unshare", "--map-root-user", "--mount", "sh", "-c", &see, "sh"];
    Proxy::setup(config).under(&under).launch()
}

/// Two servers on one port, and the file of names that says where.
struct Site {
    first: Server,
    second: Server,
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let (first, second) = found("a port that both addresses have", || {
            let first = TcpListener::bind("127.0.0.2:0").unwrap();
            let second = TcpListener::bind(("127.0.0.3", first.local_addr().unwrap().port())).ok()?;
            Some((Server::named_on(first, "s2"), Server::named_on(second, "s3")))
        });
        Self {
            first,
            second,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// From now on `pool.test` is at these addresses.
    fn is_at(&self, addresses: &[&str]) {
        let lines: String = addresses
            .iter()
            .map(|address| format!("{address} pool.test\n"))
            .collect();
        std::fs::write(self.folder.path().join("hosts"), lines).unwrap();
    }

    fn label(&self, address: &str) -> String {
        format!("pool.test:{}@{address}", self.first.address.port())
    }

    /// A proxy that sees this file of names.
    fn proxy(&self) -> Proxy {
        let proxy = seeing(
            &self.folder.path().join("hosts"),
            &config(&[format!("pool.test:{}", self.second.address.port())]),
        );
        self.eventually_up(&proxy, &["127.0.0.2", "127.0.0.3"]);
        proxy
    }

    /// Waits until exactly these are up, and no other has a series that says so.
    fn eventually_up(&self, proxy: &Proxy, addresses: &[&str]) {
        let wanted: BTreeSet<_> = addresses.iter().map(|address| self.label(address)).collect();
        eventually("these are in use", || {
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
fn an_address_that_leaves_its_name_gets_no_new_session_and_takes_its_gauges_along() {
    let site = Site::new();
    site.is_at(&["127.0.0.2", "127.0.0.3"]);
    let proxy = site.proxy();
    let mut stays = found("a session on the one that will leave", || {
        let mut client = Client::connect(proxy.at("l"));
        (client.hear() == "s2").then_some(client)
    });
    site.is_at(&["127.0.0.3"]);
    // Taking turns, of four sessions each of two servers has some.
    eventually("it is out of use", || (0..4).all(|_| who(proxy.at("l")) == "s3"));
    assert!((0..20).all(|_| who(proxy.at("l")) == "s3"));
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
    assert_eq!(active, 1.0, "its session goes on");
    assert_eq!(stays.finish().read_all(), b"");
    eventually("its gauges are gone", || series_of(&gone, "gauge") == 0);
    assert!(series_of(&gone, "counter") > 2, "its counters stay for a while");
    let other = site.label("127.0.0.3");
    assert!(series_of(&other, "gauge") >= 2 && series_of(&other, "histogram") > 10);
    site.is_at(&["127.0.0.2", "127.0.0.3"]);
    site.eventually_up(&proxy, &["127.0.0.2", "127.0.0.3"]);
}

#[test]
fn an_address_that_returns_to_its_name_is_the_server_its_sessions_are_on() {
    let site = Site::new();
    site.is_at(&["127.0.0.2", "127.0.0.3"]);
    let proxy = site.proxy();
    let stays = found("a session on the one that will leave", || {
        let mut client = Client::connect(proxy.at("l"));
        (client.hear() == "s2").then_some(client)
    });
    site.is_at(&["127.0.0.3"]);
    eventually("it is out of use", || (0..4).all(|_| who(proxy.at("l")) == "s3"));
    site.is_at(&["127.0.0.2", "127.0.0.3"]);
    eventually("it is in use again", || (0..4).any(|_| who(proxy.at("l")) == "s2"));
    let label = site.label("127.0.0.2");
    let metrics = proxy.metrics();
    let of_it = |name| metrics.series(name, &[("server", &label)]);
    assert_eq!(
        of_it("acequia_connect_duration_seconds_count").len(),
        1,
        "no series twice"
    );
    eventually("only that session is left", || {
        proxy
            .metrics()
            .sum("acequia_server_sessions_active", &[("server", &label)])
            == 1.0
    });
    drop(stays);
}

#[test]
fn a_name_that_never_resolved_is_shown() {
    let site = Site::new();
    site.is_at(&[]);
    let servers = [format!("pool.test:{}", site.first.address.port())];
    let proxy = seeing(&site.folder.path().join("hosts"), &config(&servers));
    for command in ["status", "servers"] {
        let shown = proxy.command(&[command]);
        let notes: Vec<_> = shown
            .stdout
            .lines()
            .filter(|line| line.ends_with("not resolved yet"))
            .collect();
        assert!(matches!(notes[..], [note] if note.starts_with("p/")), "{shown:#?}");
    }
    site.is_at(&["127.0.0.2"]);
    eventually("it is shown no more", || {
        !proxy.command(&["servers"]).stdout.contains("not resolved")
    });
}

#[test]
fn a_name_that_no_longer_resolves_keeps_its_last_answer_and_that_is_said_once() {
    let site = Site::new();
    site.is_at(&["127.0.0.2", "127.0.0.3"]);
    let proxy = site.proxy();
    site.is_at(&[]);
    let said = || {
        proxy
            .log()
            .iter()
            .filter(|line| line["message"] == UNRESOLVED && line["kept"] == 2)
            .count()
    };
    eventually("it is said", || said() > 0);
    let checks = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "pass")])
    };
    let before = checks();
    eventually(
        "a few more times it was asked for, for checks are no more frequent",
        || checks() >= before + 4.0,
    );
    assert_eq!(said(), 1, "{:#?}", proxy.log());
    site.eventually_up(&proxy, &["127.0.0.2", "127.0.0.3"]);
    site.is_at(&["127.0.0.2"]);
    site.eventually_up(&proxy, &["127.0.0.2"]);
}

#[test]
fn a_name_that_is_unknown_at_the_start_is_used_as_soon_as_it_is_known() {
    let site = Site::new();
    site.is_at(&[]);
    let entry = format!("pool.test:{}", site.second.address.port());
    let proxy = seeing(&site.folder.path().join("hosts"), &config(&[entry]));
    eventually("it has been asked for", || proxy.get("/ready").0 == 200);
    assert_eq!(ask(proxy.at("l"), b""), b"");
    site.is_at(&["127.0.0.3"]);
    site.eventually_up(&proxy, &["127.0.0.3"]);
    assert_eq!(who(proxy.at("l")), "s3");
}

#[test]
fn a_reload_begins_with_what_is_known_of_names_and_what_is_said_of_new_ones() {
    let site = Site::new();
    site.is_at(&["127.0.0.2"]);
    let port = site.first.address.port();
    let text = |pool: &str, servers: &str| {
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n\
             [pools.{pool}]\nservers = [{servers}]\nresolve_interval = \"1h\""
        )
    };
    let (name, named) = (
        format!("\"pool.test:{port}\""),
        format!("{{ address = \"pool.test:{port}\", name = \"shop\" }}"),
    );
    let proxy = seeing(&site.folder.path().join("hosts"), &text("p", &name));
    site.eventually_up(&proxy, &["127.0.0.2"]);
    for (pool, servers, added) in [
        ("p", &named, "p/shop@127.0.0.2".to_owned()),
        ("p", &name, format!("p/pool.test:{port}@127.0.0.2")),
        ("q", &named, "q/shop@127.0.0.2".to_owned()),
    ] {
        proxy.rewrite(&text(pool, servers));
        let changes = proxy.answer(&["reload"]);
        assert_eq!(changes["servers"]["added"], serde_json::json!([added]));
        assert_eq!(who(proxy.at("l")), "s2");
    }
}

/// A proxy whose resolver hangs until somebody opens this file for writing; and then it fails.
fn asking_in_vain(server: &Server) -> (Proxy, TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    must(Command::new("mkfifo").arg(&hosts));
    let proxy = seeing(
        &hosts,
        &config(&["pool.test:5432".to_owned(), server.address.to_string()]),
    );
    eventually("the other server is checked", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    (proxy, folder, hosts)
}

#[test]
fn a_resolver_that_hangs_delays_readiness_and_no_session() {
    let server = Server::echo();
    let (proxy, _folder, hosts) = asking_in_vain(&server);
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert_eq!(proxy.get("/ready").0, 503);
    File::options().write(true).open(&hosts).unwrap();
    eventually("there is no answer to wait for", || proxy.get("/ready").0 == 200);
}

#[test]
fn a_resolver_that_hangs_does_not_keep_the_process_from_ending() {
    let server = Server::echo();
    let (proxy, _folder, _hosts) = asking_in_vain(&server);
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn a_name_that_does_not_resolve_is_said_and_the_others_serve() {
    let server = Server::echo();
    let mut proxy = Proxy::start(&config(&[
        "nowhere.invalid:5432".to_owned(),
        server.address.to_string(),
    ]));
    let says = |line: &serde_json::Value| {
        line["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("cannot resolve"))
            && line["name"] == "nowhere.invalid:5432"
    };
    eventually("it is said", || proxy.log().iter().any(says));
    eventually("the other is up", || {
        proxy.metrics().sum("acequia_server_up", &[]) == 1.0
    });
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    assert!(proxy.is_running());
}

#[test]
fn a_pool_of_unknown_names_has_no_server_yet() {
    let proxy = Proxy::setup(&config(&["nowhere.invalid:5432".to_owned()])).launch();
    assert_eq!(ask(proxy.at("l"), b""), b"");
    assert_eq!(proxy.access_line()["ending"], "no_server");
    assert_eq!(proxy.get("/live").0, 200);
}
