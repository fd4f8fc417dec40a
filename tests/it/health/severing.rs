//! Sessions are kept, or cut at a pace, when their server goes down or is drained, or when a better server returns. A
//! server that flaps affects only its own sessions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::scope;
use std::time::Duration;

use crate::support::client::{Client, server_reached};
use crate::support::eventually;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::stop::StopOnDrop;
use serde_json::Value;
use tokio::time::Instant;

/// A pool of servers, each with a priority. `keys` are more keys of the pool, and `health` of its checks. With `port`
/// in `health`, checks go elsewhere than sessions, so that a server can go down while its sessions stay open.
fn config(servers: &[(SocketAddr, u8)], keys: &str, health: &str) -> String {
    let servers: Vec<_> = servers
        .iter()
        .map(|(address, priority)| format!("{{ address = \"{address}\", priority = {priority} }}"))
        .collect();
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [{}]\n{keys}\n[pools.p.health]\n\
         interval = \"50ms\"\nfall = 1\nrise = 1\n{health}",
        servers.join(", ")
    )
}

fn session(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"hi").read(2);
    client
}

fn is_down(proxy: &Proxy, server: SocketAddr) -> bool {
    proxy.server("p", &server.to_string())["health"] == "down"
}

#[test]
fn sessions_of_a_server_that_goes_down_are_kept_unless_on_down_is_close() {
    let server = Server::echo();
    let check_port = Port::keep();
    let health = format!("port = {}", check_port.number());
    let listening = check_port.listen();
    let proxy = Proxy::start(&config(&[(server.address, 0)], "", &health));
    let mut stays = session(&proxy);
    drop(listening);
    eventually("the server is down", || is_down(&proxy, server.address));
    assert_eq!(stays.send(b"still").read(5), b"still");
    // The new `on_down` also applies to sessions of a server that is down already.
    assert!(proxy.reload(&config(
        &[(server.address, 0)],
        "on_down = \"close\"\nclose_over = \"0s\"",
        &health
    )));
    stays.must_be_reset();
    assert_eq!(proxy.access_line()["ending"], "server_down");
}

#[test]
fn the_log_shows_how_many_sessions_of_a_failed_server_are_cut_and_how_fast() {
    let (server, unused) = (Server::echo(), Server::echo());
    let check_port = Port::keep();
    let config = config(
        &[(server.address, 0), (unused.address, 1)],
        "on_down = \"close\"\nclose_over = \"1500ms\"",
        &format!("port = {}", check_port.number()),
    );
    let listening = check_port.listen();
    let proxy = Proxy::start(&config);
    let mut clients: Vec<_> = (0..3).map(|_| session(&proxy)).collect();
    drop(listening);
    clients.iter_mut().for_each(Client::must_be_reset);
    let log = proxy.log();
    let line_of = |server: &Server| {
        let is_it = |line: &&Value| line["message"] == "server is down" && line["server"] == server.address.to_string();
        log.iter().find(is_it).unwrap()
    };
    let line = line_of(&server);
    assert_eq!(
        (&line["sessions_cut"], &line["within"]),
        (&3.into(), &"1500ms".into()),
        "{line}"
    );
    let line = line_of(&unused);
    assert!(
        line.get("sessions_cut").is_none() && line.get("within").is_none(),
        "{line}"
    );
}

#[test]
fn on_recover_close_cuts_sessions_of_the_worse_tier() {
    let (worse, better) = (Server::echo(), Port::keep());
    let address = better.address;
    let close = "on_recover = \"close\"\nclose_over = \"1s\"";
    let proxy = Proxy::start(&config(&[(worse.address, 1), (address, 0)], close, ""));
    let mut clients: Vec<_> = (0..4).map(|_| session(&proxy)).collect();
    let recovered = Server::named_on(better.listen(), "better");
    for client in &mut clients {
        client.must_be_reset();
    }
    let lines = proxy.access_lines(4);
    assert!(lines.iter().all(|line| line["ending"] == "failed_back"), "{lines:#?}");
    assert_eq!(server_reached(proxy.at("l")), "better");
    drop(recovered);
    eventually("the better server is down", || is_down(&proxy, address));
    session(&proxy).finish().read_all(); // served by the worse server again
}

#[test]
fn a_drain_with_close_over_continues_after_a_reload_removes_the_server() {
    let (goes, stays) = (Server::echo(), Server::echo());
    let only = |server: &Server| config(&[(server.address, 0)], "", "");
    let proxy = Proxy::start(&only(&goes));
    // Sessions are cut in the order in which they were opened.
    let mut clients: Vec<_> = (0..3).map(|_| session(&proxy)).collect();
    let name = format!("p/{}", goes.address);
    let drained = proxy.command(&["server", "drain", &name, "--close-over", "3s"]);
    assert_eq!(drained.code, Some(0), "{drained:#?}");
    clients[0].must_be_reset();
    assert!(proxy.reload(&only(&stays)));
    clients[1..].iter_mut().for_each(Client::must_be_reset);
    let lines = proxy.access_lines(3);
    assert!(
        lines.iter().all(|line| line["ending"] == "server_drained"),
        "{lines:#?}"
    );
    assert_eq!(session(&proxy).send(b"on").read(2), b"on");
}

#[test]
fn a_server_that_a_reload_has_removed_can_still_be_drained_and_enabled() {
    let (goes, stays) = (Server::echo(), Server::echo());
    let only = |server: &Server| config(&[(server.address, 0)], "", "");
    let proxy = Proxy::start(&only(&goes));
    let mut clients: Vec<_> = (0..2).map(|_| session(&proxy)).collect();
    let name = format!("p/{}", goes.address);
    let command = |words: &[&str]| {
        let output = proxy.command(&[&["server"], words].concat());
        assert_eq!(output.code, Some(0), "{output:#?}");
    };
    command(&["drain", &name]);
    assert!(proxy.reload(&only(&stays)));
    command(&["drain", &name, "--close-over", "3s"]);
    clients[0].must_be_reset();
    assert_eq!(proxy.access_line()["ending"], "server_drained");
    command(&["enable", &name]);
    std::thread::sleep(Duration::from_secs(3)); // if the drain went on, the session would be cut by then
    assert_eq!(clients[1].send(b"still").read(5), b"still");
}

/// A pool of this name with these servers. Their checks connect to `port`.
fn pool_of(pool: &str, servers: &[&Server], keys: &str, port: u16) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n[pools.{pool}]\nservers = {servers:?}\n{keys}\n\
         health = {{ interval = \"50ms\", fall = 1, rise = 1, port = {port} }}"
    )
}

const CLOSE: &str = "on_down = \"close\"\nclose_over = \"0s\"";

/// The first reload sets `on_down`. The second removes the servers, renames the pool, or does both.
#[test]
fn sessions_of_a_server_that_is_down_are_cut_although_a_second_reload_follows_at_once() {
    let (one, other, elsewhere) = (Server::echo(), Server::echo(), Server::echo());
    let both = [&one, &other];
    // Pool, servers and keys of the second reload.
    let second_reloads: [(&str, &[&Server], &str); 4] = [
        ("p", &[&elsewhere], CLOSE),
        ("p", &[&elsewhere], ""),
        ("q", &both, ""),
        ("q", &[&elsewhere], ""),
    ];
    for (pool, servers, keys) in second_reloads {
        let check_port = Port::keep();
        let port = check_port.number();
        let listening = check_port.listen();
        let proxy = Proxy::start(&pool_of("p", &both, "", port));
        let mut clients: Vec<_> = (0..4).map(|_| session(&proxy)).collect();
        drop(listening);
        eventually("the servers are down", || {
            both.iter().all(|server| is_down(&proxy, server.address))
        });
        assert!(proxy.reload(&pool_of("p", &both, CLOSE, port)));
        assert!(proxy.reload(&pool_of(pool, servers, keys, port)));
        clients.iter_mut().for_each(Client::must_be_reset);
        let lines = proxy.access_lines(clients.len());
        assert!(lines.iter().all(|line| line["ending"] == "server_down"), "{lines:#?}");
    }
}

#[test]
fn sessions_of_a_renamed_pool_go_on_until_their_server_is_down() {
    let (one, other) = (Server::echo(), Server::echo());
    let check_port = Port::keep();
    let port = check_port.number();
    let listening = check_port.listen();
    let both = [&one, &other];
    let proxy = Proxy::start(&pool_of("p", &both, CLOSE, port));
    let mut clients: Vec<_> = (0..4).map(|_| session(&proxy)).collect();
    let keys = format!("{CLOSE}\non_leave = \"close\"");
    assert!(proxy.reload(&pool_of("q", &both, &keys, port)));
    for server in both {
        eventually("the pool is checked under its new name", || {
            proxy.server("q", &server.address.to_string())["health"] == "up"
        });
    }
    for client in &mut clients {
        assert_eq!(client.send(b"still").read(5), b"still");
    }
    drop(listening);
    clients.iter_mut().for_each(Client::must_be_reset);
    let lines = proxy.access_lines(clients.len());
    assert!(lines.iter().all(|line| line["ending"] == "server_down"), "{lines:#?}");
}

/// One server is up for a second and down for a second, in turn, under load. Only sessions on it fail, and the log
/// stays short.
#[test]
fn a_flapping_server_affects_only_its_own_sessions() {
    let (steady, port) = (Server::named("steady"), Port::keep());
    let flapping = port.address;
    let proxy = Proxy::start(&config(&[(steady.address, 0), (flapping, 0)], "", ""));
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let seconds: u64 = std::env::var("ACEQUIA_FLAP_SECONDS").map_or(6, |text| text.parse().unwrap());
    scope(|all| {
        let stop_on_drop = StopOnDrop(&stop);
        for _ in 0..4 {
            all.spawn(|| {
                while !stop.load(SeqCst) {
                    // A session on the flapping server may be cut short when that goes down; no session is refused.
                    let mut client = Client::connect(proxy.at("l"));
                    let answer = client.finish().try_read_all().unwrap_or_default();
                    assert!(["steady", "flapping", ""].contains(&&*String::from_utf8_lossy(&answer)));
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let socket = Port::keep_again(flapping).listen();
            let up = Server::named_on(socket, "flapping");
            std::thread::sleep(Duration::from_secs(1)); // the pace of the flapping, not a wait for an event
            drop(up);
            std::thread::sleep(Duration::from_secs(1));
        }
        drop(stop_on_drop);
    });
    let stopped = proxy.stop();
    let count = |ending: &str| stopped.access.iter().filter(|line| line["ending"] == ending).count();
    println!("{} sessions, {} lines of log", done.load(SeqCst), stopped.log.len());
    assert_eq!(
        (count("no_server"), count("connect_failed"), count("internal")),
        (0, 0, 0)
    );
    let is_of_flapping = |line: &Value| line["server"] == flapping.to_string();
    assert!(
        stopped.access.iter().any(is_of_flapping),
        "the flapping server got no session"
    );
    let cut = stopped
        .access
        .iter()
        .filter(|line| !line["ending"].as_str().unwrap().ends_with("_closed"));
    assert!(cut.clone().all(is_of_flapping), "{:#?}", cut.collect::<Vec<_>>());
    let flaps = usize::try_from(seconds / 2).unwrap() + 1;
    assert!(
        stopped.log.len() < 20 + 8 * flaps,
        "expected fewer than 20 lines plus 8 for each flap, got {} for {flaps} flaps",
        stopped.log.len()
    );
}
