//! An operator's overrides of servers hold until they are reverted; an operator can end single sessions.

use std::io::ErrorKind;
use std::sync::mpsc::channel;

use crate::support::client::{Client, server_reached};
use crate::support::configs::one_pool;
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

fn config(servers: &[&Server], more: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.address).collect();
    one_pool(&servers, &format!("health.interval = \"50ms\"\n{more}"))
}

/// The user that runs these tests, as `set_by` of an override and `by` of a log line show it.
fn us() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

/// The server's name in commands.
fn named(server: &Server) -> String {
    format!("p/{}", server.address)
}

fn server_command(proxy: &Proxy, words: &[&str]) {
    let done = proxy.command(&[&["server"], words].concat());
    assert_eq!(done.code, Some(0), "{done:#?}");
}

/// Connects `count` clients, one after the other. Returns the names of the servers that served them, sorted, each name
/// once.
fn served(proxy: &Proxy, count: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..count).map(|_| server_reached(proxy.at("l"))).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_drained_server_gets_no_new_sessions_until_it_is_enabled() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let proxy = Proxy::start(&config(&[&a, &b], ""));
    let mut earlier_clients = [(); 2].map(|()| Client::connect(proxy.at("l")));
    earlier_clients.iter_mut().for_each(|client| drop(client.read_some()));
    server_command(&proxy, &["drain", &named(&a)]);
    assert_eq!(served(&proxy, 6), ["b"]);
    let state = proxy.server("p", &a.address.to_string());
    assert_eq!((&state["use"], &state["set_by"]), (&"draining".into(), &us().into()));
    assert!(state["set_at"].is_string() && state["health"] == "up", "{state:#}");
    // `up` means that the checks pass, not that the server gets new sessions.
    let up = proxy.metrics().sum("acequia_server_up", &[]);
    assert_eq!((up, &state["up"], &state["usable"]), (2.0, &true.into(), &false.into()));
    let totals = proxy.answer(&["status"]);
    assert_eq!(totals["totals"]["servers_up"], 2);
    assert_eq!(totals["totals"]["servers_usable"], 1);
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("2 of 2 servers up"), "{status}");
    let row = status.lines().find(|line| line.starts_with("p ")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[2..5], ["2", "2", "1"], "SERVERS, UP and USABLE: {status}");
    // The server stays drained after its sessions have ended, and after a reload.
    for client in &mut earlier_clients {
        assert_eq!(client.finish().read_all(), b"");
    }
    assert!(proxy.reload(&config(&[&b, &a], "balance = \"round-robin\"")));
    assert_eq!(served(&proxy, 6), ["b"]);
    assert_eq!(proxy.server("p", &a.address.to_string())["set_by"], us());
    server_command(&proxy, &["enable", &named(&a)]);
    assert_eq!(served(&proxy, 6), ["a", "b"]);
}

#[test]
fn a_disabled_server_is_not_checked() {
    let (sender, checks_seen) = channel();
    // Checks go to another port than sessions do, so that they can be counted.
    let check_target = Server::run(move |_stream| {
        let _ = sender.send(());
    });
    let (a, b) = (Server::named("a"), Server::named("b"));
    let proxy = Proxy::start(&config(
        &[&a, &b],
        &format!(
            "health.check = \"tls\"\nhealth.port = {}\nhealth.fall = 1",
            check_target.address.port()
        ),
    ));
    checks_seen.recv().unwrap();
    for server in [&a, &b] {
        server_command(&proxy, &["disable", &named(server)]);
    }
    let state = proxy.server("p", &a.address.to_string());
    assert_eq!(
        (&state["health"], &state["use"]),
        (&"unchecked".into(), &"disabled".into())
    );
    while checks_seen.try_recv().is_ok() {}
    let checks = || proxy.metrics().sum("acequia_health_checks_total", &[("pool", "p")]);
    let before = checks();
    assert!(
        checks_seen.recv_timeout(std::time::Duration::from_millis(500)).is_err(),
        "expected no check within ten intervals"
    );
    assert_eq!(checks(), before);
    assert_eq!(Client::connect(proxy.at("l")).read_all(), b"");
    assert_eq!(proxy.access_line()["ending"], "no_server");
    server_command(&proxy, &["enable", &named(&a)]);
    checks_seen.recv().unwrap(); // the first check comes at once
    eventually("the first check fails", || {
        proxy.server("p", &a.address.to_string())["health"] == "down"
    });
}

#[test]
fn cuts_of_sessions_of_a_drained_server_are_spread_over_the_time_of_close_over() {
    let (sender, events) = channel();
    let a = Server::run(move |mut stream| {
        let ended = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        let _ = sender.send(ended.map_err(|error| error.kind()));
    });
    let proxy = Proxy::start(&config(&[&a], ""));
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(proxy.at("l"))).collect();
    for client in &mut clients {
        client.send(b"hi").read(2);
    }
    server_command(&proxy, &["drain", &named(&a), "--close-over", "2s"]);
    for client in &mut clients {
        client.must_be_reset();
    }
    for _ in 0..10 {
        assert_eq!(events.recv().unwrap(), Err(ErrorKind::ConnectionReset));
    }
    let lines = proxy.access_lines(10);
    assert!(
        lines.iter().all(|line| line["ending"] == "server_drained"),
        "{lines:#?}"
    );
    let mut ages: Vec<_> = lines.iter().map(|line| line["duration_ms"].as_f64().unwrap()).collect();
    ages.sort_by(f64::total_cmp);
    assert!(ages[9] - ages[0] > 1000.0, "expected cuts spread over 2 s: {ages:?}");
}

#[test]
fn a_weight_override_survives_a_reload() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let text = config(&[&a, &b], "balance = \"round-robin\"");
    let proxy = Proxy::start(&text);
    server_command(&proxy, &["weight", &named(&a), "0"]);
    assert_eq!(served(&proxy, 4), ["b"]);
    assert!(proxy.reload(&text));
    assert_eq!(served(&proxy, 4), ["b"]);
    let state = proxy.server("p", &a.address.to_string());
    assert_eq!((&state["weight"], &state["weight_is_set"]), (&0.into(), &true.into()));
    let json = proxy.answer(&["server", "weight", &named(&a), "configured"]);
    assert_eq!((&json["weight"], &json["weight_is_set"]), (&1.into(), &false.into()));
    assert_eq!(served(&proxy, 4), ["a", "b"]);
}

#[test]
fn a_session_shows_its_bytes_and_can_be_killed_alone() {
    let (sender, events) = channel();
    let server = Server::run(move |mut stream| {
        let ended = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        let _ = sender.send(ended.map_err(|error| error.kind()));
    });
    let proxy = Proxy::start(&config(&[&server], ""));
    let (mut one, mut other) = (Client::connect(proxy.at("l")), Client::connect(proxy.at("l")));
    other.send(b"hi").read(2);
    let peer = one.0.local_addr().unwrap().to_string();
    let seen = || {
        let answer = proxy.answer(&["sessions", "--filter", &format!("peer={peer}")]);
        assert_eq!(
            (&answer["total"], answer["sessions"].as_array().unwrap().len()),
            (&1.into(), 1)
        );
        answer["sessions"][0].clone()
    };
    let block = vec![7; 1 << 16];
    let mut last = 0;
    for _ in 0..5 {
        one.send(&block).read(block.len());
        let now = seen()["bytes_up"].as_u64().unwrap();
        assert!(now >= last + (1 << 16), "{last}, {now}");
        last = now;
    }
    eventually("its rate is above 0", || {
        one.send(&block).read(block.len());
        seen()["rate_down"].as_u64() > Some(0)
    });
    let session = seen();
    assert_eq!((&session["listener"], &session["pool"]), (&"l".into(), &"p".into()));
    assert_eq!(session["server"], server.address.to_string());
    assert!(session["client_rtt_us"].as_u64() > Some(0), "{session:#}");
    let id = session["id"].to_string();
    let killed = proxy.command(&["sessions", "--kill", &id]);
    assert_eq!(
        (killed.code, killed.stdout),
        (Some(0), format!("session {id} is killed\n"))
    );
    one.must_be_reset();
    assert_eq!(events.recv().unwrap(), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.access_line()["ending"], "killed");
    assert_eq!(other.send(b"still").read(5), b"still");
    let line = &log_lines(&proxy, "session killed", 1)[0];
    assert_eq!(
        (line["id"].to_string(), &line["by"]),
        (id.clone(), &us().into()),
        "{line:#}"
    );
    for key in ["listener", "client", "pool", "server"] {
        assert_eq!(line[key], session[key], "{line:#}");
    }
    let again = proxy.command(&["sessions", "--kill", &id]);
    assert_eq!(again.code, Some(1), "{again:#?}");
    let line = &log_lines(&proxy, "API request failed", 1)[0];
    assert_eq!(
        (&line["method"], &line["path"], &line["status"], &line["by"]),
        (
            &"DELETE".into(),
            &format!("/api/v1/sessions/{id}").into(),
            &404.into(),
            &us().into()
        )
    );
    assert_eq!(log_lines(&proxy, "session killed", 1).len(), 1);
}

#[test]
fn a_failed_command_names_the_mistake_and_has_its_exit_code() {
    let server = Server::named("a");
    let proxy = Proxy::start(&config(&[&server], ""));
    for (words, code, expected) in [
        (&["server", "drain", "p/none"][..], 1, "pool `p` has no server `none`"),
        (&["server", "drain", "q/none"], 1, "there is no pool `q`"),
        (&["servers", "q"], 1, "there is no pool `q`"),
        (&["servers", "q", "--json"], 1, "there is no pool `q`"),
        (
            &["server", "drain", &named(&server), "--close-over", "5"],
            2,
            "write \"5s\"",
        ),
        (&["server", "drain", "none"], 2, "POOL/SERVER"),
        (&["server", "weight", &named(&server), "257"], 2, "0 to 256"),
        (&["sessions", "--filter", "zzz=1"], 2, "zzz"),
        (&["sessions", "--filter", "zzz"], 2, "KEY=VALUE"),
        (&["sessions", "--filter", "min_age=5"], 2, "`min_age` is not a duration"),
        (&["status", "--socket", "/nowhere/admin.sock"], 3, "/nowhere/admin.sock"),
        (
            &["reload", "-c", "/nowhere/a.toml"],
            3,
            "/nowhere/a.toml: No such file or directory",
        ),
        (&["check", "-c", "/nowhere/a.toml"], 3, "No such file or directory"),
        (&["run", "-c", "/nowhere/a.toml"], 3, "No such file or directory"),
    ] {
        let failed = proxy.command(words);
        assert_eq!(failed.code, Some(code), "{words:?}: {failed:#?}");
        assert!(failed.stderr.contains(expected), "{words:?}: {failed:#?}");
    }
}

/// The overrides of absent servers in the API: `pool/name`, `use` and `weight`.
fn absent_overrides(proxy: &Proxy) -> Vec<(String, String, Option<u64>)> {
    let state = proxy.answer(&["status"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let one = |absent: &serde_json::Value| {
        let name = format!("{}/{}", text(&absent["pool"]), text(&absent["name"]));
        (name, text(&absent["use"]), absent["weight"].as_u64())
    };
    state["absent"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn overrides_survive_a_configuration_without_the_server() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let round_robin = "balance = \"round-robin\"";
    let (both, without) = (config(&[&a, &b], round_robin), config(&[&b], round_robin));
    let proxy = Proxy::start(&both);
    assert_eq!(absent_overrides(&proxy), []);
    server_command(&proxy, &["drain", &named(&a), "--close-over", "30s"]);
    server_command(&proxy, &["weight", &named(&a), "7"]);
    assert_eq!(absent_overrides(&proxy), [], "the server is not absent");
    assert!(proxy.reload(&without));
    assert_eq!(absent_overrides(&proxy), [(named(&a), "draining".to_owned(), Some(7))]);
    for words in [&["status"][..], &["servers"], &["servers", "p"]] {
        let output = proxy.command(words).stdout;
        let line = format!(
            "{}: not in the pool, overrides kept: draining, its sessions cut over 30s, weight 7",
            named(&a)
        );
        assert!(output.contains(&line) && output.contains(&us()), "{words:?}: {output}");
    }
    assert!(proxy.reload(&both));
    assert_eq!(served(&proxy, 6), ["b"]);
    let state = proxy.server("p", &a.address.to_string());
    assert_eq!((&state["use"], &state["weight"]), (&"draining".into(), &7.into()));
    assert_eq!((&state["close_over"], &state["set_by"]), (&"30s".into(), &us().into()));
    assert_eq!(absent_overrides(&proxy), []);
}

#[test]
fn overrides_of_an_absent_server_can_be_changed_and_reverted() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let round_robin = "balance = \"round-robin\"";
    let (both, without) = (config(&[&a, &b], round_robin), config(&[&b], round_robin));
    let proxy = Proxy::start(&both);
    server_command(&proxy, &["disable", &named(&a)]);
    server_command(&proxy, &["weight", &named(&a), "0"]);
    assert!(proxy.reload(&without));
    server_command(&proxy, &["drain", &named(&a)]);
    assert_eq!(absent_overrides(&proxy), [(named(&a), "draining".to_owned(), Some(0))]);
    server_command(&proxy, &["enable", &named(&a)]);
    assert_eq!(absent_overrides(&proxy), [(named(&a), "enabled".to_owned(), Some(0))]);
    let output = proxy.command(&["server", "weight", &named(&a), "configured"]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    assert!(
        output.stdout.contains("not in the pool, no overrides kept"),
        "{output:#?}"
    );
    assert_eq!(absent_overrides(&proxy), []);
    let again = proxy.command(&["server", "enable", &named(&a)]);
    assert!(
        again.code == Some(1) && again.stderr.contains("has no server"),
        "{again:#?}"
    );
    assert!(proxy.reload(&both));
    eventually("the first check of the server passes", || {
        proxy.server("p", &a.address.to_string())["health"] == "up"
    });
    assert_eq!(served(&proxy, 6), ["a", "b"]);
}

#[test]
fn overrides_survive_removal_of_the_pool_and_apply_to_the_same_name_at_another_address() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let with_pool = |pool: &str, server: &Server| {
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n[pools.{pool}]\n\
             servers = [{{ address = \"{}\", name = \"s\" }}]",
            server.address
        )
    };
    let proxy = Proxy::start(&with_pool("p", &a));
    server_command(&proxy, &["drain", "p/s"]);
    assert!(proxy.reload(&with_pool("q", &a)));
    // The override of `p/s` does not apply to `q/s`.
    assert_eq!(server_reached(proxy.at("l")), "a");
    assert_eq!(
        absent_overrides(&proxy),
        [("p/s".to_owned(), "draining".to_owned(), None)]
    );
    let output = proxy.command(&["servers", "p"]);
    assert!(
        output.code == Some(0) && output.stdout.contains("p/s: not in the pool"),
        "{output:#?}"
    );
    assert!(proxy.reload(&with_pool("p", &b)));
    assert_eq!(proxy.server("p", "s")["use"], "draining");
    server_command(&proxy, &["enable", "p/s"]);
    assert_eq!(server_reached(proxy.at("l")), "b");
}
