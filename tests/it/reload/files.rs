//! A reload applies another configuration without losing sessions, clients or server state; an invalid configuration
//! changes nothing.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{Scope, scope};

use crate::support::client::{Client, ask, server_reached};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::process::Port;
use crate::support::proxy::{Proxy, http_get};
use crate::support::server::{Server, list};
use crate::support::stop::StopOnDrop;
use crate::support::usage::descriptors;
use rustix::process::Signal;
use tokio::time::Instant;

/// A listener `l` with the further lines `listener`, and a pool `p` with the lines `pool`.
fn config(listener: &str, pool: &str) -> String {
    format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n{listener}\n[pools.p]\n{pool}")
}

fn config_of(servers: &[&Server]) -> String {
    config("", &format!("servers = [{}]", list(servers)))
}

/// Waits until the last log line about a rejected reload contains this.
fn wait_for_reload_error(proxy: &Proxy, expected: &str) {
    eventually("the rejected reload is logged with its reason", || {
        let lines = proxy.log();
        let is_reload_error = |line: &&serde_json::Value| line["message"].to_string().contains("not reloaded");
        let last = lines.iter().rfind(is_reload_error);
        last.is_some_and(|line| line["error"].to_string().contains(expected))
    });
}

#[test]
fn open_sessions_continue_and_new_ones_follow_the_new_configuration() {
    let (old, new) = (Server::echo(), Server::named("new"));
    let proxy = Proxy::start(&config_of(&[&old]));
    let mut session = Client::connect(proxy.at("l"));
    session.send(b"before").read(6);
    assert!(proxy.reload(&config_of(&[&new])));
    assert_eq!(
        server_reached(proxy.at("l")),
        "new",
        "expected the new server on the same address"
    );
    assert_eq!(
        session.send(b"after").read(5),
        b"after",
        "expected the session to continue on the removed server"
    );
    assert_eq!(session.finish().read_all(), b"");
    let lines = proxy.access_lines(2);
    assert_eq!(lines[0]["bytes_up"], 11, "{lines:#?}");
    assert_eq!(lines[0]["ending"], "client_closed", "{lines:#?}");
}

#[test]
fn an_invalid_configuration_changes_nothing_and_is_reported() {
    let server = Server::named("good");
    let proxy = Proxy::start(&config_of(&[&server]));
    let taken = Server::silent();
    let occupied = config(
        "",
        &format!(
            "servers = [{}]\n[listeners.x]\nbind = \"{}\"\npool = \"p\"",
            list(&[&server]),
            taken.address
        ),
    );
    let truncated = &config_of(&[&server])[..40];
    for (text, expected) in [
        ("", "no listener is configured"),
        (truncated, "TOML"),
        (&config("", "servers = []"), "this pool has no servers"),
        (&occupied, "Address already in use"),
    ] {
        // Written in place, as by some editors; on a full disk, that truncates the file. `rewrite` would replace it.
        std::fs::write(proxy.directory().join("acequia.toml"), text).unwrap();
        let (accepted, rejected) = proxy.reloads();
        proxy.signal(Signal::HUP);
        eventually("the rejected reload is counted", || {
            proxy.reloads() == (accepted, rejected + 1.0)
        });
        wait_for_reload_error(&proxy, expected);
        let command = proxy.command(&["reload"]);
        assert_eq!(command.code, Some(1), "{command:#?}");
        assert!(command.stderr.contains(expected), "{command:#?}");
        assert_eq!(command.stderr.lines().next().unwrap().matches("error: ").count(), 1);
        assert_eq!(server_reached(proxy.at("l")), "good");
    }
    std::fs::remove_file(proxy.directory().join("acequia.toml")).unwrap();
    assert_eq!(proxy.command(&["reload"]).code, Some(1));
    assert_eq!(server_reached(proxy.at("l")), "good");
    assert!(proxy.reload(&config_of(&[&server])));
}

#[test]
fn a_reload_keeps_the_health_of_servers() {
    let (up, refusing) = (Server::named("up"), Port::keep());
    let text = |more: &str| {
        config(
            "",
            &format!(
                "{more}\nservers = [\"{}\", \"{}\"]\nhealth.interval = \"1h\"",
                up.address, refusing.address
            ),
        )
    };
    let proxy = Proxy::start(&text(""));
    let health = |address: SocketAddr| proxy.server("p", &address.to_string())["health"].clone();
    assert_eq!(
        (health(up.address), health(refusing.address)),
        ("up".into(), "down".into())
    );
    for balance in ["round-robin", "source-hash", "least-conn"] {
        assert!(proxy.reload(&text(&format!("balance = \"{balance}\""))));
        assert_eq!(
            (health(up.address), health(refusing.address)),
            ("up".into(), "down".into())
        );
        assert_eq!(proxy.get("/ready").0, 200);
        assert_eq!(server_reached(proxy.at("l")), "up");
    }
    let checks = proxy.metrics().sum("acequia_health_checks_total", &[]);
    assert_eq!(checks, 2.0, "expected no further checks");
    assert!(proxy.access_lines(3).iter().all(|line| line["attempts"] == 1));
}

#[test]
fn clients_queued_at_a_removed_listener_are_served_before_it_closes() {
    let server = Server::named("here");
    let with = |listener: &str| {
        format!(
            "[listeners.keep]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n{listener}\n[pools.p]\nservers = [{}]",
            list(&[&server])
        )
    };
    let proxy = Proxy::start(&with(
        "[listeners.go]\nbind = \"127.0.0.1:0\"\npool = \"p\"\nmax_connections = 1",
    ));
    let mut first = Client::connect(proxy.at("go"));
    assert_eq!(first.read_some(), "here");
    let mut waiting: Vec<_> = (0..5).map(|_| Client::connect(proxy.at("go"))).collect();
    assert!(proxy.reload(&with("")));
    first.finish().read_all();
    // The listener accepts one at a time, in any order. So all half-close before the first of them is awaited.
    for client in &mut waiting {
        client.finish();
    }
    for client in &mut waiting {
        assert_eq!(client.read_all(), b"here");
    }
    eventually("the removed listener is closed", || {
        Client::try_connect(proxy.at("go")).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert_eq!(server_reached(proxy.at("keep")), "here");
    eventually("the series of the removed listener are gone", || {
        proxy
            .metrics()
            .series("acequia_sessions_active", &[("listener", "go")])
            .is_empty()
    });
}

#[test]
fn an_address_moves_between_listeners_without_a_gap() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let port = Port::keep();
    let text = |name: &str, server: &Server| {
        format!(
            "[listeners.{name}]\nbind = \"{}\"\npool = \"p\"\n[pools.p]\nservers = [{}]",
            port.address,
            list(&[server])
        )
    };
    let proxy = Proxy::start(&config_of(&[&a]));
    assert!(proxy.reload(&text("fixed", &a)));
    assert_eq!(server_reached(port.address), "a");
    // Each reload changes the name and the server of the listener. Its address must accept connections all the time.
    let stop = AtomicBool::new(false);
    scope(|threads| {
        let stop_on_drop = StopOnDrop(&stop);
        let clients = threads.spawn(|| {
            let mut names = Vec::new();
            loop {
                names.push(server_reached(port.address));
                if stop.load(SeqCst) {
                    return names;
                }
            }
        });
        for (name, server) in [("other", &b), ("fixed", &a), ("other", &b), ("third", &a)] {
            assert!(proxy.reload(&text(name, server)));
        }
        drop(stop_on_drop);
        let names = clients.join().unwrap();
        assert!(names.iter().all(|name| name == "a" || name == "b"), "{names:?}");
    });
    let state = proxy.answer(&["status"]);
    assert_eq!(state["listeners"][0]["name"], "third");
}

#[test]
fn a_wildcard_and_a_specific_address_can_be_bound_in_either_order() {
    let servers = [Server::named("every"), Server::named("one")];
    // Reserves the port on all addresses, so that no connection of another process has it as its local port.
    let port = Port::keep_on("0.0.0.0");
    let at = |ip: &str| format!("{ip}:{}", port.number());
    let [every, one] = [("every", at("0.0.0.0")), ("one", at("127.0.0.2"))]
        .map(|(name, bind)| format!("[listeners.{name}]\nbind = \"{bind}\"\npool = \"{name}\"\n"));
    let pool = |name: &str, server: &Server| format!("[pools.{name}]\nservers = [{}]\n", list(&[server]));
    let pools = pool("every", &servers[0]) + &pool("one", &servers[1]);
    let assert_served = || {
        assert_eq!(server_reached(at("127.0.0.1").parse().unwrap()), "every");
        assert_eq!(server_reached(at("127.0.0.2").parse().unwrap()), "one");
    };
    for both in [format!("{every}{one}{pools}"), format!("{one}{every}{pools}")] {
        let proxy = Proxy::setup(&both).launch();
        assert_served();
        drop(proxy);
        for before in [
            config_of(&[&servers[0]]),
            format!("{every}{pools}"),
            format!("{one}{pools}"),
        ] {
            let proxy = Proxy::setup(&before).launch();
            assert!(proxy.reload(&both), "{:#?}", proxy.log());
            assert_served();
        }
    }
}

#[test]
fn a_reload_reports_its_changes_and_what_needs_a_restart() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let proxy = Proxy::start(&config_of(&[&a]));
    let text = config_of(&[&b]) + "\n[listeners.more]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[runtime]\nworkers = 1\n";
    proxy.rewrite(&text);
    let changes = proxy.answer(&["reload"]);
    assert_eq!(changes["listeners"]["added"], serde_json::json!(["more"]));
    assert_eq!(changes["listeners"]["kept"], serde_json::json!(["l"]));
    assert_eq!(
        changes["servers"]["added"],
        serde_json::json!([format!("p/{}", b.address)])
    );
    assert_eq!(
        changes["servers"]["removed"],
        serde_json::json!([format!("p/{}", a.address)])
    );
    assert_eq!(changes["needs_restart"], serde_json::json!(["runtime.workers"]));
    proxy.rewrite(&format!("{text}[pools.spare]\nservers = [\"{}\"]", b.address));
    let reloaded = proxy.command(&["reload"]);
    for expected in [
        "\n  + spare\n",
        "runtime.workers: changed in the file, but needs a restart\n",
        "`spare` is never used",
        "1 warning\n",
    ] {
        assert!(reloaded.stdout.contains(expected), "{expected}: {reloaded:#?}");
    }
}

#[test]
fn the_process_serves_and_ends_while_a_reload_waits() {
    let server = Server::named("x");
    let proxy = Proxy::start(&config_of(&[&server]));
    let store = TcpListener::bind("127.0.0.1:0").unwrap(); // it never answers
    let address = store.local_addr().unwrap();
    proxy.rewrite(&format!(
        "[remote]\nfrom = \"etcd:/edge\"\n[providers.etcd]\nendpoints = [\"http://{address}\"]\n"
    ));
    proxy.signal(Signal::HUP);
    let waiting = store.accept().unwrap();
    assert_eq!(server_reached(proxy.at("l")), "x");
    let stopped = proxy.stop();
    assert_eq!(stopped.code, Some(0));
    let is_refused = |line: &serde_json::Value| line["message"].to_string().contains("not reloaded");
    assert!(
        !stopped.log.iter().any(is_refused),
        "the reload is abandoned: {:#?}",
        stopped.log
    );
    drop(waiting);
}

#[test]
fn a_reload_changes_max_connections_and_the_access_log() {
    let server = Server::named("x");
    let proxy = Proxy::start(&config_of(&[&server]));
    let mut held: Vec<_> = (0..3).map(|_| Client::connect(proxy.at("l"))).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.read_some(), "x"));
    let narrow = config("max_connections = 3", &format!("servers = [{}]", list(&[&server])));
    assert!(proxy.reload(&format!("[log]\naccess = \"./other.log\"\n{narrow}")));
    let mut fourth = Client::connect(proxy.at("l"));
    eventually("the fourth client waits", || {
        proxy
            .metrics()
            .sum("acequia_accept_pauses_total", &[("listener", "l"), ("reason", "limit")])
            > 0.0
    });
    assert!(proxy.reload(&format!("[log]\naccess = \"./other.log\"\n{}", config_of(&[&server]))));
    assert_eq!(
        fourth.read_some(),
        "x",
        "expected the fourth client to be served once the limit is lifted"
    );
    drop((held, fourth));
    eventually("four lines are in the new file", || {
        std::fs::read_to_string(proxy.directory().join("other.log")).is_ok_and(|text| text.lines().count() == 4)
    });
    assert_eq!(proxy.access().len(), 0);
}

/// What a process has in use.
#[derive(Debug)]
struct Usage {
    descriptors: usize,
    threads: usize,
    resident_kib: usize,
}

impl Usage {
    fn of(proxy: &Proxy) -> Self {
        let process = Path::new("/proc").join(proxy.pid().to_string());
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            descriptors: descriptors(proxy),
            threads: process.join("task").read_dir().unwrap().count(),
            resident_kib: line.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

/// Two clients of each of the listeners `tcp` and `tls`, which connect again and again until this is dropped.
struct Load<'a> {
    stop: &'a AtomicBool,
}

impl<'a> Load<'a> {
    /// Starts the clients. `done` counts their sessions.
    fn start<'scope>(
        threads: &'scope Scope<'scope, 'a>,
        proxy: &'a Proxy,
        hello: &'a [u8],
        (stop, done): (&'a AtomicBool, &'a AtomicUsize),
    ) -> Self {
        for (listener, bytes) in [("tcp", &b"hi"[..]), ("tls", hello)].repeat(2) {
            threads.spawn(move || {
                while !stop.load(SeqCst) {
                    assert_eq!(ask(proxy.at(listener), bytes), bytes);
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        Self { stop }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst); // also if the test fails, so that its threads end
    }
}

/// Clients whose sessions stay open, eight of each listener.
fn long_sessions(proxy: &Proxy, hello: &[u8]) -> Vec<Client> {
    let open = |listener: &&str| {
        let mut client = Client::connect(proxy.at(listener));
        client.send(hello).read(hello.len());
        client
    };
    ["tcp", "tls"].repeat(8).iter().map(open).collect()
}

/// Reloads two hundred times, with the texts in turn; the second and the fourth text are invalid. Checks at every tenth
/// reload that the long sessions still echo. Returns the usage midway and at the end.
fn reload_under_load(proxy: &Proxy, texts: &[String; 4], long: &mut [Client]) -> [Usage; 2] {
    let mut midway = None;
    for n in 0..200 {
        let is_accepted = proxy.reload(&texts[n % 4]);
        assert_eq!(is_accepted, n % 2 == 0, "reload {n}");
        if n % 10 == 0 {
            for client in &mut *long {
                assert_eq!(client.send(b"still").read(5), b"still");
            }
        }
        if n == 100 {
            midway = Some(Usage::of(proxy));
        }
    }
    [midway.unwrap(), Usage::of(proxy)]
}

#[test]
fn two_hundred_reloads_under_load_disturb_no_session() {
    let servers = [(); 4].map(|()| Server::echo());
    let all: Vec<_> = servers.iter().collect();
    let text = |servers: &[&Server], balance: &str| {
        format!(
            "[listeners.tcp]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[listeners.tls]\nbind = \"127.0.0.1:0\"\n\
             [[listeners.tls.routes]]\nsni = \"*.example\"\npool = \"p\"\n\
             [pools.p]\nbalance = \"{balance}\"\nservers = [{}]\nhealth.interval = \"1s\"",
            list(servers)
        )
    };
    let texts = [
        text(&all, "least-conn"),
        String::new(),
        text(&all[..2], "source-hash"),
        "[listeners".to_owned(),
    ];
    let proxy = Proxy::start(&texts[0]);
    let hello = Hello::named("a.example").bytes();
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let steady = Usage::of(&proxy);
    scope(|threads| {
        let load = Load::start(threads, &proxy, &hello, (&stop, &done));
        let mut long = long_sessions(&proxy, &hello);
        let began = Instant::now();
        let [midway, end] = reload_under_load(&proxy, &texts, &mut long);
        println!(
            "200 reloads and {} sessions in {:?}: {steady:?}, {midway:?}, {end:?}",
            done.load(SeqCst),
            began.elapsed()
        );
        drop(load);
        assert!(
            end.resident_kib < midway.resident_kib + midway.resident_kib / 5 + 2048,
            "expected at most a fifth and 2 MiB more memory in the second half: {midway:?}, {end:?}"
        );
        for client in &mut long {
            assert_eq!(client.finish().read_all(), b"");
        }
    });
    assert!(proxy.reload(&texts[0]));
    eventually("descriptors and threads are back to their number at the start", || {
        let now = Usage::of(&proxy);
        // The thread that reads files stays for a while.
        now.descriptors <= steady.descriptors && now.threads <= steady.threads + 1
    });
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_sessions_active", &[]), 0.0);
    let endings = metrics.series("acequia_sessions_total", &[]);
    assert!(
        endings
            .iter()
            .all(|series| series.labels["ending"] == "client_closed" || series.value == 0.0),
        "{endings:#?}"
    );
    assert!(http_get(proxy.admin(), "/ready").unwrap().0.contains("200"));
    // The servers that are in both valid configurations.
    for server in &all[..2] {
        let labels = [("pool", "p"), ("server", &*server.address.to_string()), ("to", "up")];
        assert_eq!(
            metrics.sum("acequia_health_transitions_total", &labels),
            1.0,
            "expected the reloads to keep the server's health"
        );
    }
}
