//! An operator steers servers and ends sessions; what was said holds until it is taken back.

use std::io::ErrorKind;
use std::sync::mpsc::channel;

use crate::support::client::{Client, who};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, list};

fn config(servers: &[&Server], more: &str) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [{}]\nhealth.interval = \"50ms\"\n{more}",
        list(servers)
    )
}

/// Who steers here.
fn us() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

/// As the commands call it.
fn named(server: &Server) -> String {
    format!("p/{}", server.address)
}

fn steer(proxy: &Proxy, words: &[&str]) {
    let said = proxy.command(&[&["server"], words].concat());
    assert_eq!(said.code, Some(0), "{said:#?}");
}

/// Who serves so many clients, one after the other.
fn served(proxy: &Proxy, count: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..count).map(|_| who(proxy.at("l"))).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_drained_server_gets_nobody_new_until_it_is_enabled() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let proxy = Proxy::start(&config(&[&a, &b], ""));
    let mut stays = [(); 2].map(|()| Client::connect(proxy.at("l")));
    stays.iter_mut().for_each(|client| drop(client.hear()));
    steer(&proxy, &["drain", &named(&a)]);
    assert_eq!(served(&proxy, 6), ["b"]);
    let told = proxy.server("p", &a.address.to_string());
    assert_eq!((&told["use"], &told["set_by"]), (&"draining".into(), &us().into()));
    assert!(told["set_at"].is_string() && told["health"] == "up", "{told:#}");
    // Up is what its checks say of it; that it gets no new session is another matter.
    let up = proxy.metrics().sum("acequia_server_up", &[]);
    assert_eq!((up, &told["up"]), (2.0, &true.into()));
    let told = proxy.answer(&["status"]);
    assert_eq!(told["totals"]["servers_up"], 2);
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("2 of 2 servers up"), "{status}");
    let row = status.lines().find(|line| line.starts_with("p ")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[2..4], ["2", "2"], "SERVERS and UP: {status}");
    // Neither the sessions nor a reload change that.
    for client in &mut stays {
        assert_eq!(client.finish().read_all(), b"");
    }
    assert!(proxy.reload(&config(&[&b, &a], "balance = \"round-robin\"")));
    assert_eq!(served(&proxy, 6), ["b"]);
    assert_eq!(proxy.server("p", &a.address.to_string())["set_by"], us());
    steer(&proxy, &["enable", &named(&a)]);
    assert_eq!(served(&proxy, 6), ["a", "b"]);
}

#[test]
fn a_disabled_server_is_not_even_checked() {
    let (checked, told) = channel();
    let a = Server::run(move |stream| drop((checked.send(()), stream)));
    // Checks elsewhere than where sessions go, so that they can be counted.
    let (b, target) = (Server::named("b"), Server::named("a"));
    let proxy = Proxy::start(&config(
        &[&target, &b],
        &format!(
            "health.check = \"tls\"\nhealth.port = {}\nhealth.fall = 1",
            a.address.port()
        ),
    ));
    told.recv().unwrap();
    for server in [&target, &b] {
        steer(&proxy, &["disable", &named(server)]);
    }
    let state = proxy.server("p", &target.address.to_string());
    assert_eq!(
        (&state["health"], &state["use"]),
        (&"unchecked".into(), &"disabled".into())
    );
    while told.try_recv().is_ok() {}
    let checks = || proxy.metrics().sum("acequia_health_checks_total", &[("pool", "p")]);
    let before = checks();
    assert!(
        told.recv_timeout(std::time::Duration::from_millis(500)).is_err(),
        "ten intervals"
    );
    assert_eq!(checks(), before);
    assert_eq!(Client::connect(proxy.at("l")).read_all(), b"");
    assert_eq!(proxy.access_line()["ending"], "no_server");
    steer(&proxy, &["enable", &named(&target)]);
    told.recv().unwrap(); // at once
    eventually("its first result decides", || {
        proxy.server("p", &target.address.to_string())["health"] == "down"
    });
}

#[test]
fn sessions_of_a_drained_server_are_cut_over_the_time_given() {
    let (tell, told) = channel();
    let a = Server::run(move |mut stream| {
        let ended = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        let _ = tell.send(ended.map_err(|error| error.kind()));
    });
    let proxy = Proxy::start(&config(&[&a], ""));
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(proxy.at("l"))).collect();
    for client in &mut clients {
        client.send(b"hi").read(2);
    }
    steer(&proxy, &["drain", &named(&a), "--close-over", "2s"]);
    for client in &mut clients {
        client.must_be_reset();
    }
    for _ in 0..10 {
        assert_eq!(told.recv().unwrap(), Err(ErrorKind::ConnectionReset));
    }
    let lines = proxy.access_lines(10);
    assert!(
        lines.iter().all(|line| line["ending"] == "server_drained"),
        "{lines:#?}"
    );
    let mut ages: Vec<_> = lines.iter().map(|line| line["duration_ms"].as_f64().unwrap()).collect();
    ages.sort_by(f64::total_cmp);
    assert!(ages[9] - ages[0] > 1000.0, "paced: {ages:?}");
}

#[test]
fn a_weight_set_by_hand_holds() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let text = config(&[&a, &b], "balance = \"round-robin\"");
    let proxy = Proxy::start(&text);
    steer(&proxy, &["weight", &named(&a), "0"]);
    assert_eq!(served(&proxy, 4), ["b"]);
    assert!(proxy.reload(&text));
    assert_eq!(served(&proxy, 4), ["b"]);
    let told = proxy.server("p", &a.address.to_string());
    assert_eq!((&told["weight"], &told["weight_is_set"]), (&0.into(), &true.into()));
    let json = proxy.answer(&["server", "weight", &named(&a), "configured"]);
    assert_eq!((&json["weight"], &json["weight_is_set"]), (&1.into(), &false.into()));
    assert_eq!(served(&proxy, 4), ["a", "b"]);
}

#[test]
fn a_session_shows_its_bytes_and_is_ended_alone() {
    let (tell, told) = channel();
    let server = Server::run(move |mut stream| {
        let ended = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        let _ = tell.send(ended.map_err(|error| error.kind()));
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
    eventually("its rate shows", || {
        seen()["rate_down"].as_u64() > Some(0) || {
            one.send(&block).read(block.len());
            false
        }
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
    assert_eq!(told.recv().unwrap(), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.access_line()["ending"], "killed");
    assert_eq!(other.send(b"still").read(5), b"still");
    let again = proxy.command(&["sessions", "--kill", &id]);
    assert_eq!(again.code, Some(1), "{again:#?}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let server = Server::named("a");
    let proxy = Proxy::start(&config(&[&server], ""));
    for (words, code, told) in [
        (&["server", "drain", "p/none"][..], 1, "pool `p` has no server `none`"),
        (&["server", "drain", "q/none"], 1, "there is no pool `q`"),
        (&["servers", "q"], 1, "there is no pool `q`"),
        (&["servers", "q", "--json"], 1, "there is no pool `q`"),
        (
            &["server", "drain", &named(&server), "--close-over", "5"],
            1,
            "`close_over` is not a duration",
        ),
        (&["server", "drain", "none"], 2, "POOL/SERVER"),
        (&["server", "weight", &named(&server), "257"], 2, "0 to 256"),
        (&["sessions", "--filter", "zzz=1"], 1, "zzz"),
        (&["sessions", "--filter", "zzz"], 2, "KEY=VALUE"),
        (&["sessions", "--filter", "min_age=5"], 1, "`min_age` is not a duration"),
        (&["status", "--socket", "/nowhere/admin.sock"], 3, "/nowhere/admin.sock"),
    ] {
        let said = proxy.command(words);
        assert_eq!(said.code, Some(code), "{words:?}: {said:#?}");
        assert!(said.stderr.contains(told), "{words:?}: {said:#?}");
    }
}
