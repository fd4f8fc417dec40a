//! Servers that a file lists.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{discovery_up, reaches_only};
use crate::support::api;
use crate::support::client::{Client, served_client, server_reached};
use crate::support::counts::{log_lines, wait_for_ended_sessions};
use crate::support::eventually;
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;

const LIST_REJECTED: &str = "cannot take the list of servers, keeping the last one";
const LISTED: &str = "servers listed";

/// A directory with a file that lists servers, and with the `state_dir`.
struct Site {
    directory: TempDir,
    file: PathBuf,
}

impl Site {
    fn new(servers: &[&Server]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site = Self {
            file: directory.path().join("servers.json"),
            directory,
        };
        site.list(servers);
        site
    }

    fn list(&self, servers: &[&Server]) {
        let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
        self.write(&serde_json::to_string(&addresses).unwrap());
    }

    /// Replaces the file by a rename, as many editors do.
    fn write(&self, text: &str) {
        let next = self.directory.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.file).unwrap();
    }

    fn config(&self, keys: &str) -> String {
        let (state, file) = (self.directory.path().join("state"), &self.file);
        format!(
            "[runtime]\nstate_dir = {state:?}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
             [pools.p]\nbalance = \"round-robin\"\ndiscover = {{ file = {file:?}, settle = \"0s\" }}\n{keys}"
        )
    }

    /// The lists that are saved in the `state_dir` for the next start; empty: none yet.
    fn saved_lists(&self) -> String {
        fs::read_to_string(self.directory.path().join("state/servers.json")).unwrap_or_default()
    }
}

#[test]
fn servers_follow_the_file_and_sessions_of_removed_servers_continue() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let site = Site::new(&[&first]);
    let proxy = Proxy::start(&site.config(""));
    let mut old = Client::connect(proxy.at("l"));
    assert_eq!(old.read(5), b"first");
    site.list(&[&second]);
    eventually("new sessions get the new server", || reaches_only(&proxy, "second"));
    assert_eq!(old.finish().try_read_all().unwrap(), b"");
    let change = &log_lines(&proxy, LISTED, 2)[1];
    assert_eq!(
        [&change["servers"], &change["added"], &change["removed"]],
        [&serde_json::json!(1); 3]
    );
    let (_, state) = api::unix(&proxy, "GET", "/api/v1/state", "");
    let pool = &state["pools"][0];
    assert_eq!(pool["servers"].as_array().unwrap().len(), 1);
    assert_eq!(pool["discovery"]["up"], true);
    let succeeded = proxy
        .metrics()
        .sum("acequia_discovery_last_success_timestamp_seconds", &[("pool", "p")]);
    assert!(succeeded > 1e9, "{succeeded}");
}

#[test]
fn the_history_counts_a_session_once_even_if_its_server_is_removed() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let site = Site::new(&[&first]);
    let proxy = Proxy::start(&site.config(""));
    let history = || api::unix(&proxy, "GET", "/api/v1/history", "").1;
    let opened = || -> u64 {
        let history = history();
        let opened = history["pools"][0]["opened"].as_array().into_iter().flatten();
        opened.map(|number| number.as_u64().unwrap()).sum()
    };
    // The next sample also covers some time before this call, the second one only time after it.
    let wait_for_two_samples = || {
        for _ in 0..2 {
            let latest = history()["at"].clone();
            eventually("a sample", || history()["at"] != latest);
        }
    };
    wait_for_two_samples();
    let mut client = Client::connect(proxy.at("l"));
    assert_eq!(client.read(5), b"first");
    eventually("the session is counted", || opened() == 1);
    site.list(&[&second]);
    log_lines(&proxy, LISTED, 2);
    wait_for_two_samples();
    assert_eq!(client.finish().try_read_all().unwrap(), b"");
    wait_for_ended_sessions(&proxy, "client_closed", 1);
    wait_for_two_samples();
    assert_eq!(opened(), 1);
}

#[test]
fn unusable_lists_in_a_row_change_nothing_and_are_logged_once() {
    let server = Server::named("first");
    let site = Site::new(&[&server]);
    let proxy = Proxy::start(&site.config(""));
    let error = || api::unix(&proxy, "GET", "/api/v1/state", "").1["pools"][0]["discovery"]["error"].clone();
    for wrong in ["[\"127.0.0.1:9", "[]", "[\"127.0.0.1\"]"] {
        let before = error();
        site.write(wrong);
        eventually("the list's error is shown", || error().is_string() && error() != before);
        assert!(reaches_only(&proxy, "first"));
    }
    eventually("the source is not up", || discovery_up(&proxy) == 0.0);
    log_lines(&proxy, LIST_REJECTED, 1);
    site.list(&[&server]);
    eventually("the source is up again", || discovery_up(&proxy) == 1.0);
}

#[test]
fn a_listed_listener_does_not_multiply_sessions() {
    let server = Server::named("first");
    let site = Site::new(&[&server]);
    let proxy = Proxy::start(&site.config("resolve = \"ipv4\"\n"));
    let own = proxy.at("l").to_string();
    let by_name = format!("localhost:{}", proxy.at("l").port());
    let expect_left_out = |server: &str, times| {
        let logged = log_lines(
            &proxy,
            "a server is left out: it is a listener that leads back to the pool, so every session would open another one",
            times,
        );
        assert_eq!(logged[times - 1]["server"], server);
        let status = proxy.command(&["status"]).stdout;
        let note = format!("p/{server}: left out, because it is listener `l`, which leads back to the pool");
        assert!(status.contains(&note), "{status}");
    };
    // A list of this listener alone changes nothing, like an empty list.
    for (times, (listed, label)) in (1..).zip([(&own, &own), (&by_name, &format!("{by_name}@127.0.0.1"))]) {
        site.write(&format!("[{listed:?}]"));
        expect_left_out(label, times);
        assert!(reaches_only(&proxy, "first"));
    }
    let added = proxy.command(&["server", "add", "p", &own]);
    assert!(
        added.code != Some(0) && added.stderr.contains("leads back to the pool: every session"),
        "{added:?}"
    );
    site.list(&[&server]);
    eventually("the list is right again", || {
        !proxy.command(&["status"]).stdout.contains("left out")
    });
    assert!(reaches_only(&proxy, "first"));
}

#[test]
fn while_no_name_of_a_list_resolves_the_pool_keeps_its_servers() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let site = Site::new(&[&first]);
    let proxy = Proxy::start(&site.config("resolve_interval = \"1s\"\n"));
    let address = first.address;
    site.write(&format!(r#"[{{"name": "db1", "address": "{address}"}}]"#));
    eventually("the server is named", || {
        discovery_up(&proxy) == 1.0 && proxy.command(&["servers"]).stdout.contains("p/db1 ")
    });
    site.write(r#"[{"name": "db1", "address": "away.invalid:1"}, "gone.invalid:1"]"#);
    let kept = log_lines(
        &proxy,
        "no listed server can be used yet, keeping the previous servers",
        1,
    );
    assert_eq!(kept[0]["kept"], 1);
    eventually("the unresolved name is shown", || {
        let status = proxy.command(&["status"]).stdout;
        status.contains("p/gone.invalid:1: not resolved yet")
    });
    assert!(reaches_only(&proxy, "first"));
    assert!(
        site.saved_lists().contains(&first.address.to_string()),
        "a restart would begin with this server"
    );
    assert!(proxy.reload(&site.config("resolve_interval = \"2s\"\n")));
    assert!(reaches_only(&proxy, "first"), "also after a reload");

    let port = second.address.port();
    site.write(&format!(r#"["away.invalid:1", "localhost:{port}"]"#));
    eventually("a name resolves", || reaches_only(&proxy, "second"));
    eventually("the new list is saved", || site.saved_lists().contains("localhost"));
}

#[test]
fn two_pools_that_list_each_others_listeners_do_not_multiply_sessions() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let (site_a, site_b) = (Site::new(&[&first]), Site::new(&[&second]));
    let of_site = |(name, site): (&str, &Site)| {
        let file = &site.file;
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n[pools.{name}]\n\
             discover = {{ file = {file:?}, settle = \"0s\" }}\n"
        )
    };
    let config = [("a", &site_a), ("b", &site_b)].map(of_site).concat();
    let proxy = Proxy::start(&config);
    let reached = |listener: &str| server_reached(proxy.at(listener));
    site_a.write(&format!(r#"["{}"]"#, proxy.at("b")));
    eventually("sessions of a go through b", || {
        let status = proxy.answer(&["status"]);
        status["pools"][0]["servers"][0]["address"] == proxy.at("b").to_string()
    });
    assert_eq!(reached("a"), "second", "a chain is allowed");
    site_b.write(&format!(r#"["{}"]"#, proxy.at("a")));
    let left_out = log_lines(
        &proxy,
        "a server is left out: it is a listener that leads back to the pool, so every session would open another one",
        1,
    );
    assert_eq!(
        (&left_out[0]["pool"], &left_out[0]["listener"]),
        (&"b".into(), &"a".into())
    );
    assert_eq!(reached("a"), "second", "b keeps its server");
    site_a.list(&[&first]);
    eventually("a no longer leads to b, so b can use it as a server", || {
        reached("b") == "first"
    });
}

#[test]
fn a_restart_without_the_source_starts_with_the_last_list() {
    let server = Server::named("first");
    let site = Site::new(&[&server]);
    let proxy = Proxy::start(&site.config(""));
    let address = server.address.to_string();
    eventually("the list is saved", || site.saved_lists().contains(&address));
    proxy.signal(Signal::TERM);
    proxy.wait();
    fs::remove_file(&site.file).unwrap();
    let proxy = Proxy::start(&site.config(""));
    assert!(reaches_only(&proxy, "first"));
    log_lines(&proxy, LIST_REJECTED, 1);
}

#[test]
fn sessions_of_a_removed_server_are_closed_if_configured() {
    let (first, second) = (Server::echo(), Server::echo());
    let site = Site::new(&[&first]);
    let proxy = Proxy::start(&site.config("on_leave = \"close\"\nclose_over = \"0s\"\n"));
    let _old = served_client(proxy.at("l"));
    site.list(&[&second]);
    wait_for_ended_sessions(&proxy, "server_drained", 1);
}

#[test]
fn a_reload_from_fixed_servers_to_a_source_leaves_no_gap() {
    let server = Server::named("first");
    let site = Site::new(&[&server]);
    fs::remove_file(&site.file).unwrap();
    let discovered = site.config("");
    let source = format!("discover = {{ file = {:?}, settle = \"0s\" }}", site.file);
    let fixed = discovered.replace(&source, &format!("servers = [\"{}\"]", server.address));
    let proxy = Proxy::start(&fixed);
    fs::write(proxy.directory().join("acequia.toml"), &discovered).unwrap();
    let (status, _) = api::unix(&proxy, "POST", "/api/v1/reload", "");
    assert_eq!(status, 200);
    assert!(reaches_only(&proxy, "first"), "the source lists nothing yet");
    log_lines(&proxy, LIST_REJECTED, 1);
}

#[test]
fn check_warns_about_an_unusable_list_and_route_shows_the_listed_servers() {
    let server = Server::echo();
    let site = Site::new(&[&server]);
    let config = site.directory.path().join("acequia.toml").display().to_string();
    fs::write(&config, site.config("")).unwrap();
    let route = finished(&mut acequia(&["route", "-c", &config, "--listener", "l"]));
    assert!(route.stdout.contains(&server.address.to_string()), "{}", route.stdout);
    site.write("[");
    let check = finished(&mut acequia(&["check", "-c", &config]));
    assert!(check.stderr.contains("pools.p.discover"), "{}", check.stderr);
}
