//! Pools that grow and shrink. The clones that `command` starts are real processes.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::counts::{log_count, log_lines};
use crate::support::database::Postgres;
use crate::support::database::psql;
use crate::support::ports::PortBlock;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

pub(super) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/clone.py");

/// Ports that no other test uses. Each test has a thread of its own, so all calls in a test return the same ports.
fn ports() -> String {
    thread_local!(static PORTS: PortBlock = PortBlock::take());
    PORTS.with(PortBlock::range)
}

/// A listener `l` with a pool `app` of clones; `keys` are lines of the section `[pools.app.scale]`.
pub(super) fn config(keys: &str) -> String {
    format!(
        "[runtime]\nworkers = 2\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n[pools.app]\n\
         health = {{ interval = \"200ms\" }}\n[pools.app.scale]\nports = \"{}\"\n{keys}\n",
        ports()
    )
}

fn command() -> String {
    format!("command = [\"/usr/bin/env\", \"python3\", \"{SCRIPT}\", \"{{port}}\"]")
}

pub(super) fn clones(proxy: &Proxy) -> Vec<Value> {
    let state = proxy.answer(&["status"]);
    state["pools"][0]["scale"]["clones"].as_array().unwrap().clone()
}

pub(super) fn running(proxy: &Proxy) -> Vec<u32> {
    let clones = clones(proxy);
    let running = clones.iter().filter(|clone| clone["state"] == "running");
    running.map(|clone| clone["pid"].as_u64().unwrap() as u32).collect()
}

pub(super) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether the pool is usable: metrics, API and `/ready` must agree.
fn is_usable(proxy: &Proxy) -> bool {
    let state = proxy.answer(&["status"]);
    let is_usable = state["pools"][0]["usable"] == true;
    let metric = proxy.metrics().sum("acequia_pool_usable", &[("pool", "app")]);
    assert_eq!(metric == 1.0, is_usable);
    assert_eq!(proxy.get("/ready?pools=app").0 == 200, is_usable);
    is_usable
}

/// A client, and the answer of its server. A clone answers with the number in the database (0 without a database), and
/// with its port.
fn client(proxy: &Proxy) -> (Client, String) {
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"?");
    let answer = client.read_some();
    (client, answer)
}

fn steps(proxy: &Proxy, direction: &str) -> f64 {
    proxy
        .metrics()
        .sum("acequia_pool_scale_total", &[("pool", "app"), ("direction", direction)])
}

#[test]
fn a_pool_grows_under_load_and_shrinks_afterwards() {
    let database = Postgres::start();
    let setup = "create table orders(number int); insert into orders values (42)";
    assert!(psql(database.address(), setup).status().unwrap().success());
    let ask = psql(database.address(), "select number from orders");
    let words = std::iter::once(ask.get_program()).chain(ask.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let keys = format!(
        "min = 1\nmax = 6\nsessions_per_server = 2\nup_after = \"1s\"\ndown_after = \"2s\"\ncooldown = \"1s\"\n\
         env = {{ QUERY = \"\"\"{}\"\"\" }}\n{}",
        words.join(" "),
        command()
    );
    let proxy = Proxy::start(&config(&keys));
    let mut held = Vec::new();
    // Each time one session more than the target of the clones so far, which is 2 for each clone.
    for wanted in 2..=6 {
        while held.len() <= 2 * (wanted - 1) {
            let (client, answer) = client(&proxy);
            assert!(answer.starts_with("42 "), "{answer}");
            held.push(client);
        }
        eventually("another clone runs", || running(&proxy).len() >= wanted);
    }
    let servers = proxy.answer(&["status"])["pools"][0]["servers"]
        .as_array()
        .unwrap()
        .len();
    // The start of the first clone is a step, too.
    assert_eq!((servers, steps(&proxy, "up")), (6, 6.0));
    let more: Vec<_> = (0..6).map(|_| client(&proxy)).collect();
    let answers: std::collections::BTreeSet<_> = more.iter().map(|(_, answer)| answer.clone()).collect();
    assert!(answers.len() > 1, "expected answers of several clones: {answers:?}");
    let sessions = held.len() + more.len();
    drop((held, more));
    eventually("the pool has shrunk to one clone", || clones(&proxy).len() == 1);
    assert_eq!(
        (steps(&proxy, "up"), steps(&proxy, "down")),
        (6.0, 5.0),
        "expected only steps down after the clients have left"
    );
    let stopped = proxy.stop();
    let failed: Vec<_> = stopped
        .access
        .iter()
        .filter(|line| !["client_closed", "server_closed"].contains(&line["ending"].as_str().unwrap()))
        .collect();
    assert!(failed.is_empty() && stopped.access.len() >= sessions, "{failed:#?}");
}

#[test]
fn the_first_client_wakes_a_sleeping_pool_and_waits_for_it() {
    let keys = format!(
        "min = 0\nmax = 2\nsessions_per_server = 10\ndown_after = \"1s\"\ncooldown = \"1s\"\nenv = {{ DELAY = \"0.5\" }}\n{}",
        command()
    );
    let proxy = Proxy::start(&config(&keys)); // acequia is ready, although the pool has no server
    assert_eq!(clones(&proxy).len(), 0);
    assert!(is_usable(&proxy), "expected usable: a client would wake the pool");
    let mut all: Vec<_> = (0..3).map(|_| Client::connect(proxy.at("l"))).collect();
    for client in &mut all {
        client.send(b"?");
        assert!(client.read_some().starts_with("0 "));
    }
    assert_eq!(clones(&proxy).len(), 1);
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_pool_cold_starts_total", &[("pool", "app")]),
        1.0
    );
    drop(all);
    let lines = proxy.access_lines(3);
    // The clone sleeps for 500 ms before it listens (DELAY). A client that connects later than the first waits less.
    for line in &lines {
        let (woken, queued) = (line["woken_ms"].as_f64().unwrap(), line["queue_ms"].as_f64().unwrap());
        assert!(woken >= 400.0 && (woken - queued).abs() < 1.0, "{line}");
    }
    let started = &log_lines(&proxy, "a clone has started", 1)[0];
    assert!(started["took"].as_str().is_some(), "{started}");
    eventually("the pool sleeps again", || clones(&proxy).is_empty());
    assert!(is_usable(&proxy));
    assert_eq!(log_count(&proxy, "pool has no usable server"), 0);
    drop(client(&proxy));
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_pool_cold_starts_total", &[("pool", "app")]),
        2.0
    );
    // How much longer than the start of its clone a client has waited. Before the start, acequia must not wait for the
    // next tick of the pool (1 s), and after it, not for the next check (200 ms). The better of two starts counts,
    // because other processes share the processor.
    let started = log_lines(&proxy, "a clone has started", 2);
    let took = started.iter().map(|line| milliseconds(line["took"].as_str().unwrap()));
    let lines = proxy.access_lines(4);
    let waited = [0, 3].map(|index| lines[index]["woken_ms"].as_f64().unwrap()); // a client of each start
    let excess = took
        .zip(waited)
        .map(|(took, waited)| waited - took)
        .fold(f64::MAX, f64::min);
    assert!(excess < 100.0, "{excess} ms longer than the start");
}

/// Parses `512.5ms` or `1.5s`.
fn milliseconds(text: &str) -> f64 {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().unwrap(),
        None => text.strip_suffix('s').unwrap().parse::<f64>().unwrap() * 1000.0,
    }
}

#[test]
fn clients_of_a_pool_that_does_not_wake_time_out_after_start_timeout() {
    let keys = "min = 0\nmax = 1\nsessions_per_server = 1\nstart_timeout = \"1s\"\ncommand = \"/bin/false\"";
    let proxy = Proxy::start(&config(keys));
    assert!(Client::connect(proxy.at("l")).read_all().is_empty());
    let line = proxy.access_line();
    assert_eq!(line["ending"], "queue_timeout", "{line}");
    let log = proxy.log();
    let failed = log
        .iter()
        .find(|line| line["message"] == "a clone cannot be started")
        .unwrap();
    assert!(failed["reason"].as_str().unwrap().contains("exit status 1"), "{failed}");
    assert!(!is_usable(&proxy), "expected not usable: no client would wake the pool");
    let outage = &log_lines(&proxy, "pool has no usable server", 1)[0];
    assert!(outage["servers"].as_str().unwrap().starts_with("app-1: "), "{outage}");
}

#[test]
fn a_pool_whose_first_clone_cannot_start_has_an_outage() {
    let keys = "min = 1\nmax = 1\nsessions_per_server = 1\ncommand = \"/bin/false\"";
    let proxy = Proxy::setup(&config(keys)).launch();
    let outage = &log_lines(&proxy, "pool has no usable server", 1)[0];
    let servers = outage["servers"].as_str().unwrap();
    assert!(
        servers.starts_with("app-1: ") && servers.contains("exit status 1"),
        "{outage}"
    );
    assert!(!is_usable(&proxy));
}

#[test]
fn a_kill_of_acequia_leaves_no_clone_behind() {
    // `setsid sleep` leaves the process group of its clone, and has to be killed, too.
    let keys = format!(
        "min = 2\nmax = 2\nsessions_per_server = 10\ncommand = [\"/bin/sh\", \"-c\", \
         \"setsid sleep 10000 & echo detached $!; exec python3 {SCRIPT} {{port}}\"]"
    );
    let proxy = Proxy::start(&config(&keys));
    let mut pids = wait_for("both clones run", || {
        Some(running(&proxy)).filter(|pids| pids.len() == 2)
    });
    // Each clone prints `detached` and, in the script, its environment.
    let printed = log_lines(&proxy, "printed by a clone", 4);
    let detached = printed
        .iter()
        .filter_map(|line| line["line"].as_str()?.strip_prefix("detached "));
    pids.extend(detached.map(|pid| pid.parse::<u32>().unwrap()));
    assert!(pids.len() == 4 && pids.iter().all(|pid| exists(*pid)), "{pids:?}");
    proxy.signal(Signal::KILL);
    eventually("all four processes are gone", || !pids.iter().any(|pid| exists(*pid)));
}

#[test]
fn a_clone_inherits_nothing_stays_over_a_reload_restarts_after_a_kill_and_ends_with_acequia() {
    let keys = format!(
        "min = 1\nmax = 3\nsessions_per_server = 10\nenv = {{ DATABASE = \"{{name}}\" }}\n{}",
        command()
    );
    let mut under = vec!["/usr/bin/env", "NOTIFY_SOCKET=/nonexistent", "SECRET=1"];
    if rustix::process::geteuid().is_root() {
        under.extend(["setpriv", "--inh-caps=+net_raw"]);
    }
    let proxy = Proxy::setup(&config(&keys)).under(&under).start();
    let first = wait_for("a clone runs", || running(&proxy).first().copied());
    let printed = log_lines(&proxy, "printed by a clone", 1);
    let environment: Vec<_> = printed[0]["line"].as_str().unwrap().split(' ').collect();
    let expected = [
        "environment",
        "ACEQUIA_CLONE",
        "ACEQUIA_KEEPER",
        "ACEQUIA_POOL",
        "DATABASE",
        "LC_CTYPE", // Python sets it
        "PATH",
        "PORT",
    ];
    assert!(
        environment.iter().all(|word| expected.contains(word)),
        "{environment:?}"
    );
    let open = std::fs::read_dir(format!("/proc/{first}/fd")).unwrap().count();
    // Three standard streams, the listening socket, and perhaps a client, which is a health check.
    assert!(open <= 5, "{open} open files");
    let limits = std::fs::read_to_string(format!("/proc/{first}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(
        files.split_whitespace().nth(3),
        Some("1024"),
        "expected the usual soft limit: {files}"
    );
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let capabilities: Vec<_> = status.lines().filter(|line| line.starts_with("Cap")).collect();
    assert!(
        capabilities.iter().all(|line| line.ends_with("\t0000000000000000")),
        "expected none, even as root: {capabilities:?}"
    );

    assert!(proxy.reload(&config(&keys.replace("max = 3", "max = 2"))));
    assert_eq!(running(&proxy), [first]);

    rustix::process::kill_process(rustix::process::Pid::from_raw(first as i32).unwrap(), Signal::KILL).unwrap();
    let second = wait_for("another clone runs", || {
        running(&proxy).first().copied().filter(|pid| *pid != first)
    });
    let clone = &clones(&proxy)[0];
    assert_eq!(
        (&clone["restarts"], &clone["reason"]),
        (&1.into(), &"signal 9".into()),
        "{clone}"
    );

    let set = proxy.command(&["pool", "scale", "app", "2"]);
    assert!(set.code == Some(0) && set.stdout.contains("2 wanted by"), "{set:?}");
    let both = wait_for("two clones run", || {
        Some(running(&proxy)).filter(|pids| pids.len() == 2)
    });
    let servers = proxy.command(&["servers"]).stdout;
    assert_eq!(
        servers.lines().filter(|line| line.contains("  clone ")).count(),
        2,
        "{servers}"
    );
    let refused = proxy.command(&["pool", "scale", "app", "3"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("allows 1 to 2"),
        "{refused:?}"
    );
    assert_eq!(proxy.command(&["pool", "scale", "app", "auto"]).code, Some(0));
    assert_eq!(proxy.answer(&["status"])["pools"][0]["scale"]["wanted"], Value::Null);
    assert!(both.contains(&second));
    assert_eq!(proxy.stop().code, Some(0));
    assert!(
        !both.iter().any(|pid| exists(*pid)),
        "expected clones to end with acequia"
    );
}

#[test]
fn hooks_start_and_stop_clones_elsewhere() {
    let server = Server::echo();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let keys = format!(
        "min = 1\nmax = 2\nsessions_per_server = 10\nhook = {{ start = [\"/bin/sh\", \"-c\", \"echo start {{name}} >> {log}; echo \
         {address}\"], stop = [\"/bin/sh\", \"-c\", \"echo stop {{name}} {{address}} >> {log}\"] }}",
        log = log.display(),
        address = server.address
    );
    // `ports` is not used with `hook`.
    let text = config(&keys).replace(&format!("ports = \"{}\"\n", ports()), "");
    let proxy = Proxy::start(&text);
    eventually("the clone is a server that is up", || {
        proxy.answer(&["status"])["pools"][0]["servers"][0]["up"] == true
    });
    let mut client = Client::connect(proxy.at("l"));
    assert_eq!(client.send(b"hello").read(5), b"hello");
    drop(client);
    assert_eq!(proxy.stop().code, Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log, format!("start app-1\nstop app-1 {}\n", server.address));
}

/// A clone that leaves its pool gets SIGTERM, and SIGKILL only when `drain` is over. But if acequia ends before that,
/// the clone gets SIGKILL 10 s later at most.
#[test]
fn a_clone_that_ignores_sigterm_does_not_delay_the_end_of_acequia_until_drain_is_over() {
    let keys = format!(
        "min = 1\nmax = 2\nsessions_per_server = 10\ndrain = \"1h\"\ncommand = [\"/bin/sh\", \"-c\", \"trap '' TERM; exec \
         python3 {SCRIPT} {{port}}\"]"
    );
    let proxy = Proxy::start(&config(&keys));
    let scale = |clones| assert_eq!(proxy.command(&["pool", "scale", "app", clones]).code, Some(0));
    scale("2");
    let pids = wait_for("two clones run", || {
        Some(running(&proxy)).filter(|pids| pids.len() == 2)
    });
    scale("1");
    eventually("one clone is being stopped, and still runs", || {
        clones(&proxy).iter().any(|clone| clone["state"] == "stopping")
    });
    assert!(pids.iter().all(|pid| exists(*pid)));
    assert_eq!(proxy.stop().code, Some(0));
    assert!(!pids.iter().any(|pid| exists(*pid)));
}

#[test]
fn sigquit_kills_clones_at_once() {
    let keys = format!(
        "min = 1\nmax = 1\nsessions_per_server = 10\ncommand = [\"/bin/sh\", \"-c\", \"trap '' TERM; exec python3 {SCRIPT} \
         {{port}}\"]"
    );
    // After SIGTERM alone, a clone that ignores it is killed 10 s later.
    for signals in [&[Signal::QUIT][..], &[Signal::TERM, Signal::QUIT]] {
        let proxy = Proxy::start(&config(&keys));
        let pid = wait_for("a clone runs", || running(&proxy).first().copied());
        let began = Instant::now();
        for signal in signals {
            proxy.signal(*signal);
        }
        assert_eq!(proxy.wait().code, Some(0));
        assert!(began.elapsed() < Duration::from_secs(10), "expected SIGKILL at once");
        eventually("the clone is gone", || !exists(pid));
    }
}

/// When acequia ends, the hook `start` is killed at once, and the hook `stop` after 10 s.
#[test]
fn a_hook_that_hangs_does_not_delay_the_end_of_acequia_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let keys = format!(
        "min = 1\nmax = 1\nsessions_per_server = 10\nstart_timeout = \"1h\"\nhook = {{ start = [\"/bin/sh\", \"-c\", \"echo \
         start {{name}} >> {log}; sleep 3600\"], stop = [\"/bin/sh\", \"-c\", \"echo stop {{name}} >> {log}; sleep 3600\"] }}",
        log = log.display()
    );
    // `ports` is not used with `hook`.
    let text = config(&keys).replace(&format!("ports = \"{}\"\n", ports()), "");
    let proxy = Proxy::setup(&text).launch();
    let logged = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the hook `start` runs", || logged() == "start app-1\n");
    assert_eq!(proxy.stop().code, Some(0));
    assert_eq!(logged(), "start app-1\nstop app-1\n");
}

#[test]
fn a_pool_whose_only_fixed_server_is_drained_is_woken() {
    let server = Server::named("first");
    let keys = format!(
        "min = 0\nmax = 1\nsessions_per_server = 9\nup_after = \"1h\"\n{}",
        command()
    );
    let text = config(&keys).replace(
        "[pools.app]",
        &format!("[pools.app]\nservers = [\"{}\"]", server.address),
    );
    let proxy = Proxy::start(&text);
    assert_eq!(client(&proxy).1, "first");
    proxy.answer(&["server", "drain", &format!("app/{}", server.address)]);
    assert!(client(&proxy).1.starts_with("0 "), "expected the answer of a clone");
}
