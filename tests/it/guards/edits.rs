//! `acequia guard`: shows a guard, denies networks while the process runs, and undoes that.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::client::{Client, served_client};
use crate::support::configs;
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

fn config(server: &Server, keys: &str) -> String {
    [
        format!("[guards.g]\n{keys}\n[guards.other]\nsessions = 5000\n"),
        configs::listener("l", "p", "guards = [\"g\", \"other\"]"),
        configs::listener("m", "p", "guards = \"other\""),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ]
    .concat()
}

fn is_denied(proxy: &Proxy) -> bool {
    let Ok(mut client) = Client::try_connect(proxy.at("l")) else {
        return true; // the reset may come before connect(2) returns
    };
    let sent = client.0.write_all(b"ping");
    sent.and_then(|()| client.0.read_exact(&mut [0; 4])).is_err()
}

#[test]
fn a_denied_network_is_refused_across_reloads_until_undone() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 5000"));
    let (mut open, began) = (served_client(proxy.at("l")), SystemTime::now());
    let answer = proxy.answer(&["guard", "deny", "g", "127.0.0.0/8"]);
    assert_eq!(
        answer,
        json!({ "denied": "127.0.0.0/8", "closed": 0, "report_only": false })
    );
    assert!(is_denied(&proxy));
    served_client(proxy.at("m")); // another guard
    open.send(b"ping");
    assert_eq!(open.read(4), b"ping", "an open session goes on");
    assert!(proxy.reload(&config(&server, "sessions = 4000")));
    assert!(is_denied(&proxy));
    // While the guard is not configured, nothing is denied. When it is configured again, it has its edits. Both changes
    // cause a warning.
    let without = config(&server, "sessions = 4000").replace("[guards.g]\nsessions = 4000\n", "");
    let without = without.replace("\"g\", ", "");
    proxy.rewrite(&without);
    let reloaded = proxy.command(&["reload"]);
    assert!(
        reloaded.stdout.contains("guards: 0 added, 1 removed, 1 kept\n  - g\n"),
        "{reloaded:?}"
    );
    let warning = "guards.g is not configured any more: what `acequia guard deny` added to it (1 network) is not denied until a guard has this name again; `acequia guard undo` removes these denials";
    assert!(reloaded.stdout.contains(warning), "{reloaded:?}");
    assert!(!is_denied(&proxy));
    assert!(proxy.reload(&without)); // the edits outlive further reloads
    proxy.rewrite(&config(&server, "sessions = 4000"));
    let reloaded = proxy.command(&["reload"]);
    let warning = "guards.g is configured again: what `acequia guard deny` had added to it (1 network) applies again";
    assert!(reloaded.stdout.contains(warning), "{reloaded:?}");
    assert!(is_denied(&proxy));
    let shown = proxy.answer(&["guard", "g"]);
    assert_eq!(shown["guard"]["refusals"]["deny"], 3);
    assert_eq!(shown["top_sessions"], json!([{ "source": "127.0.0.1", "count": 1 }]));
    assert_eq!(shown["top_refused"][0]["source"], "127.0.0.1");
    assert_eq!(shown["denied"][0]["network"], "127.0.0.0/8");
    assert!(
        shown["denied"][0]["set_by"].as_str().unwrap().starts_with("uid "),
        "{shown}"
    );
    let set_at = humantime::parse_rfc3339(shown["denied"][0]["set_at"].as_str().unwrap()).unwrap();
    // It may be rounded down to a second.
    assert!(
        set_at + Duration::from_secs(1) > began && set_at <= SystemTime::now(),
        "{shown}"
    );
    let text = proxy.command(&["guard", "g"]);
    assert!(
        text.stdout.contains("127.0.0.0/8") && text.stdout.contains(" ago"),
        "{text:?}"
    );
    let undo_of_a_part = proxy.command(&["guard", "undo", "g", "127.0.0.1"]);
    assert_eq!(undo_of_a_part.code, Some(1), "{undo_of_a_part:?}");
    assert_eq!(
        proxy.answer(&["guard", "undo", "g", "127.0.0.0/8"]),
        json!({ "undone": "127.0.0.0/8" })
    );
    assert!(!is_denied(&proxy));
    let state = proxy.answer(&["status"]);
    assert_eq!(
        (&state["guards"][0]["name"], &state["guards"][0]["edits"]),
        (&"g".into(), &0.into())
    );
    assert_eq!(state["listeners"][0]["guards"], json!(["g", "other"]));
}

#[test]
fn edits_of_a_guard_that_is_not_configured_can_be_seen_and_undone() {
    let server = Server::echo();
    let with = config(&server, "sessions = 5000");
    let without = with.replace("[guards.g]\nsessions = 5000\n", "").replace("\"g\", ", "");
    let proxy = Proxy::start(&with);
    for network in ["127.0.0.0/8", "192.0.2.0/24"] {
        proxy.answer(&["guard", "deny", "g", network]);
    }
    assert!(proxy.reload(&without));
    let guards = &proxy.answer(&["status"])["guards"];
    let row = |index: usize| {
        let guard = &guards[index];
        json!([guard["name"], guard["absent"], guard["edits"]])
    };
    assert_eq!(row(0), json!(["other", false, 0]));
    assert_eq!(row(1), json!(["g", true, 2]));
    let shown = proxy.command(&["guard", "g"]).stdout;
    assert!(
        shown.contains("g (not configured)") && shown.contains("127.0.0.0/8"),
        "{shown}"
    );
    let new_edit = proxy.command(&["guard", "deny", "g", "198.51.100.1"]);
    assert_eq!(new_edit.code, Some(1), "{new_edit:?}");
    assert_eq!(proxy.command(&["guard", "undo", "g", "127.0.0.0/8"]).code, Some(0));
    assert!(proxy.reload(&with));
    assert!(!is_denied(&proxy));
    assert_eq!(proxy.answer(&["guard", "g"])["denied"][0]["network"], "192.0.2.0/24");
    assert!(proxy.reload(&without));
    assert_eq!(proxy.command(&["guard", "undo", "g", "192.0.2.0/24"]).code, Some(0));
    assert_eq!(proxy.command(&["guard", "g"]).code, Some(1), "nothing is kept for it");
}

#[test]
fn deny_with_close_resets_only_sessions_of_the_guard_and_network() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 5000"));
    let mut denied_client = Client::connect_from("127.0.0.7", proxy.at("l"));
    let mut other_guard = Client::connect_from("127.0.0.7", proxy.at("m"));
    let mut other_network = served_client(proxy.at("l"));
    for client in [&mut denied_client, &mut other_guard] {
        client.send(b"ping").read(4);
    }
    let done = proxy.command(&["guard", "deny", "g", "127.0.0.7", "--close"]);
    assert_eq!(
        done.stdout, "guard g denies 127.0.0.7/32; 1 open session was reset\n",
        "{done:?}"
    );
    denied_client.must_be_reset();
    wait_for_ended_sessions(&proxy, "denied", 1);
    for client in [&mut other_guard, &mut other_network] {
        client.send(b"ping");
        assert_eq!(client.read(4), b"ping");
    }
    let line = proxy.access_line();
    assert_eq!((&line["guard"], &line["guard_reason"]), (&"g".into(), &"deny".into()));
    drop((other_guard, other_network));
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn a_report_only_guard_says_that_denied_clients_still_pass() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 5000\nreport_only = true"));
    let mut open = served_client(proxy.at("l"));
    let done = proxy.command(&["guard", "deny", "g", "127.0.0.1", "--close"]);
    assert_eq!(
        done.stdout,
        "guard g has report_only: it only counts clients from 127.0.0.1/32; 1 open session was reset\n"
    );
    open.must_be_reset();
    served_client(proxy.at("l"));
    let reported = proxy.answer(&["guard", "g"])["guard"]["reports"]["deny"].clone();
    assert_eq!(reported, 1);
    let (_, explained) = proxy.get("/api/v1/route?listener=l&from=127.0.0.1");
    let explained: Value = serde_json::from_str(&explained).unwrap();
    assert_eq!(
        explained["guards"][0],
        json!({ "guard": "g", "refuses": "deny", "report_only": true })
    );
}

#[test]
fn an_edit_ends_after_its_time() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 5000"));
    let done = proxy.command(&["guard", "deny", "g", "127.0.0.1", "--for", "1s"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(is_denied(&proxy));
    eventually("the edit has ended", || !is_denied(&proxy));
    assert_eq!(proxy.answer(&["guard", "g"])["denied"], json!([]));
}

#[test]
fn invalid_edits_are_rejected() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "sessions = 5000"));
    for (arguments, code, expected) in [
        (&["guard", "deny", "g", "10.0.0.1/8"][..], 2, "write \"10.0.0.0/8\""),
        (&["guard", "deny", "g", "10.0.0.1", "--for", "0s"], 2, "`for` must be"),
        (
            &["guard", "deny", "nobody", "10.0.0.1"],
            1,
            "there is no guard `nobody`",
        ),
        (&["guard", "nobody"], 1, "there is no guard `nobody`"),
    ] {
        let done = proxy.command(arguments);
        assert_eq!(done.code, Some(code), "{arguments:?}");
        assert!(done.stderr.contains(expected), "{arguments:?}: {}", done.stderr);
    }
}
