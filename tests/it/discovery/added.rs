//! Servers that an operator adds by hand.

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::api;
use crate::support::client::{Client, served_client, server_reached};
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::process::Finished;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// A `state_dir`, which outlives a restart, and a configuration that uses it.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn config(&self, server: &Server) -> String {
        let state = self.directory.path();
        let address = server.address;
        format!(
            "[runtime]\nstate_dir = {state:?}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
             [pools.p]\nbalance = \"round-robin\"\nservers = [\"{address}\"]\n"
        )
    }

    /// The contents of the file of added servers; empty if there is no file.
    fn saved_servers(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("added-servers.json")).unwrap_or_default()
    }
}

/// Whether the server gets one of the next four sessions. The servers of the pool take turns, and are fewer than four.
fn is_used(proxy: &Proxy, server: &str) -> bool {
    (0..4).any(|_| server_reached(proxy.at("l")) == server)
}

/// An added server gets sessions after its first check.
fn wait_until_used(proxy: &Proxy, server: &str) {
    eventually("the server is used", || is_used(proxy, server));
}

fn added(proxy: &Proxy) -> Value {
    let (_, state) = api::unix(proxy, "GET", "/api/v1/state", "");
    state["pools"][0]["added"].clone()
}

fn add(proxy: &Proxy, body: &str) -> (u16, Value) {
    api::unix(proxy, "POST", "/api/v1/pools/p/servers", body)
}

fn output(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}

#[test]
fn an_added_server_survives_reload_and_restart_until_it_is_removed() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let site = Site::new();
    let proxy = Proxy::start(&site.config(&first));
    let address = second.address.to_string();
    let (status, answer) = add(&proxy, &format!(r#"{{"address": "{address}", "name": "extra"}}"#));
    assert_eq!((status, &answer["name"]), (200, &"extra".into()));
    wait_until_used(&proxy, "second");
    let next = site
        .config(&first)
        .replace("round-robin\"", "round-robin\"\nretries = 3");
    assert!(proxy.reload(&next));
    assert!(is_used(&proxy, "second"));
    let shown = &added(&proxy)[0];
    assert_eq!((&shown["name"], &shown["address"]), (&"extra".into(), &address.into()));
    assert!(shown["added_by"].as_str().unwrap().starts_with("uid "), "{shown}");
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("p/extra: added by uid "), "{status}");
    let servers = proxy.command(&["servers"]).stdout;
    let line = servers.lines().find(|line| line.starts_with("p/extra ")).unwrap();
    assert!(line.contains("  added "), "{servers}");

    let (status, _) = add(&proxy, r#"{"address": "127.0.0.1:9", "name": "latest", "weight": 0}"#);
    assert_eq!(status, 200);
    proxy.signal(Signal::TERM);
    proxy.wait();
    assert!(site.saved_servers().contains("extra") && site.saved_servers().contains("latest"));
    let proxy = Proxy::start(&site.config(&first));
    wait_until_used(&proxy, "second");
    assert_eq!(&added(&proxy)[0], shown);

    let mut sessions = std::iter::repeat_with(|| {
        let mut client = Client::connect(proxy.at("l"));
        (client.read(5), client) // the last byte of `second` is left to read
    });
    let (_, mut session) = sessions.find(|(name, _)| name == b"secon").unwrap();
    let removed = proxy.command(&["server", "remove", "p/extra"]);
    assert_eq!(output(&removed), "p/extra: removed\n");
    assert!(!is_used(&proxy, "second"));
    assert_eq!(session.finish().try_read_all().unwrap(), b"d", "its session goes on");
    eventually("it is forgotten", || !site.saved_servers().contains("extra"));
}

#[test]
fn an_added_server_is_dropped_with_its_pool_for_good() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let site = Site::new();
    let config = site.config(&first);
    let proxy = Proxy::start(&config);
    let address = second.address.to_string();
    assert_eq!(proxy.command(&["server", "add", "p", &address]).code, Some(0));
    eventually("the server is saved", || site.saved_servers().contains(&address));
    assert!(
        proxy.reload(
            &config
                .replace("pool = \"p\"", "pool = \"q\"")
                .replace("[pools.p]", "[pools.q]")
        )
    );
    eventually("the server is forgotten", || !site.saved_servers().contains(&address));
    assert!(proxy.reload(&config));
    assert_eq!(proxy.stop().code, Some(0));
    let proxy = Proxy::start(&config);
    assert_eq!(added(&proxy).as_array().map(Vec::len), Some(0));
}

#[test]
fn only_added_servers_can_be_removed_and_names_are_unique() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let site = Site::new();
    let proxy = Proxy::start(&site.config(&first));
    let (first_address, second_address) = (first.address.to_string(), second.address.to_string());
    let refused = |words: &[&str], why: &str| {
        let finished = proxy.command(words);
        let output = output(&finished);
        assert!(finished.code != Some(0) && output.contains(why), "{words:?}: {output}");
    };
    refused(
        &["server", "remove", &format!("p/{first_address}")],
        &format!("server `{first_address}` of pool `p` was not added by hand: change the configuration"),
    );
    refused(&["server", "remove", "p/nobody"], "pool `p` has no server nobody");
    refused(&["server", "remove", "q/nobody"], "there is no pool `q`");
    refused(&["server", "add", "q", &second_address], "there is no pool `q`");
    refused(&["server", "add", "p", "10.0.0.1"], "`10.0.0.1` has no port");
    refused(
        &["server", "add", "p", &second_address, "--weight", "257"],
        "the largest is 256",
    );
    refused(
        &["server", "add", "p", &second_address, "--for", "0s"],
        "`for` must be 1ms to 8760h",
    );
    refused(
        &["server", "add", "p", &first_address],
        &format!("the pool has a server `{first_address}`"),
    );
    assert_eq!(add(&proxy, &format!(r#"{{"address": "{first_address}"}}"#)).0, 409);
    let with_unknown_key = format!(r#"{{"address": "{second_address}", "unknown_key": 1}}"#);
    assert_eq!(add(&proxy, &with_unknown_key).0, 422);
    assert_eq!(added(&proxy).as_array().unwrap().len(), 0);
    assert!(!is_used(&proxy, "second"));
}

#[test]
fn a_configured_server_replaces_an_added_one_of_the_same_name() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let site = Site::new();
    let proxy = Proxy::start(&site.config(&first));
    let address = second.address.to_string();
    let first_address = first.address;
    assert_eq!(proxy.command(&["server", "add", "p", &address]).code, Some(0));
    // The same address in another notation.
    let padded = address.replace(':', ":0");
    let named = ["server", "add", "p", &padded, "--name", "db"];
    assert_eq!(proxy.command(&named).code, Some(0));
    let status = proxy.command(&["status"]).stdout;
    assert!(
        status.contains("p/db: added by ") && !status.contains("not in use"),
        "{status}"
    );
    let configured =
        format!("servers = [\"{first_address}\", \"{address}\", {{ address = \"{first_address}\", name = \"db\" }}]");
    let next = site
        .config(&first)
        .replace(&format!("servers = [\"{}\"]", first.address), &configured);
    assert!(proxy.reload(&next));
    let server_count = || {
        let (_, state) = api::unix(&proxy, "GET", "/api/v1/state", "");
        state["pools"][0]["servers"].as_array().unwrap().len()
    };
    assert_eq!(server_count(), 3);
    let status = proxy.command(&["status"]).stdout;
    let note = status.lines().find(|line| line.starts_with("p/db: added by ")).unwrap();
    assert!(
        note.ends_with("; not in use, because the pool has another server of this name"),
        "{status}"
    );
    assert_eq!(
        proxy.command(&["server", "remove", &format!("p/{address}")]).code,
        Some(0)
    );
    assert_eq!(server_count(), 3, "the configured server stays");
    wait_until_used(&proxy, "second");
}

#[test]
fn a_temporary_server_is_removed_when_its_time_is_over_and_its_session_continues() {
    let (first, second) = (Server::echo(), Server::echo());
    let site = Site::new();
    let proxy = Proxy::start(&site.config(&first));
    let address = second.address.to_string();
    let finished = proxy.command(&["server", "add", "p", &address, "--for", "5s"]);
    let note = format!("p/{address}: added until ");
    assert!(finished.stdout.starts_with(&note), "{}", output(&finished));
    let mut sessions = Vec::new();
    eventually("the added server has a session", || {
        sessions.push(served_client(proxy.at("l")));
        second.sessions() > 0
    });
    let line = &log_lines(&proxy, "the time of an added server is over: it is removed", 1)[0];
    assert_eq!(line["server"], *address);
    assert_eq!(added(&proxy).as_array().unwrap().len(), 0);
    for session in &mut sessions {
        session.send(b"more");
        assert_eq!(session.read(4), b"more");
    }
}
