//! What clients get while the only clone of a pool starts; the groups that a clone has.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::client::Client;
use crate::support::counts::log_lines;
use crate::support::ports::PortBlock;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/clone.py");

fn config(keys: &str) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n[pools.app]\nhealth = {{ interval = \"200ms\" }}\n{keys}\n"
    )
}

/// The answer that a new client gets: "first" from the server, "0 PORT" from a clone (0 because `clone.py` has no
/// database here from which to take a number).
fn answer(proxy: &Proxy) -> String {
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"?");
    client.read_some()
}

fn scale(ports: &PortBlock, delay_seconds: &str) -> String {
    format!(
        "[pools.app.scale]\nports = \"{}\"\nmin = 1\nmax = 1\nsessions_per_server = 9\n\
         env = {{ DELAY = \"{delay_seconds}\" }}\ncommand = [\"/usr/bin/env\", \"python3\", \"{SCRIPT}\", \"{{port}}\"]",
        ports.range()
    )
}

#[test]
fn a_reload_from_servers_to_clones_refuses_no_client() {
    let server = Server::named("first");
    let ports = PortBlock::take();
    let proxy = Proxy::start(&config(&format!("servers = [\"{}\"]", server.address)));
    assert_eq!(answer(&proxy), "first");
    assert!(proxy.reload(&config(&scale(&ports, "1"))));
    assert_eq!(answer(&proxy), "first", "while the clone starts");
    eventually("the clone has taken over", || match answer(&proxy) {
        line if line == "first" => false,
        line if line.starts_with("0 ") => true,
        line => panic!("{line:?}"),
    });
    let refused = proxy
        .metrics()
        .sum("acequia_sessions_total", &[("ending", "no_server")]);
    assert_eq!(refused, 0.0);
}

#[test]
fn a_clone_has_the_groups_of_its_user() {
    let ports = PortBlock::take();
    let command = "command = [\"/bin/sh\", \"-c\", \"id -un; id -nG; sleep 1000\"]";
    let keys = format!(
        "[pools.app.scale]\nports = \"{}\"\nmax = 1\nsessions_per_server = 9\nuser = \"postgres\"\n{command}",
        ports.range()
    );
    let proxy = Proxy::setup(&config(&keys)).launch();
    let printed = log_lines(&proxy, "printed by a clone", 2);
    assert_eq!(printed[0]["line"], "postgres");
    let groups: Vec<_> = printed[1]["line"].as_str().unwrap().split(' ').collect();
    assert_eq!(groups, ["postgres", "ssl-cert"], "as Debian makes this user");
}

/// The process of the only clone, if it runs.
fn running(proxy: &Proxy) -> Option<i32> {
    let clone = &proxy.answer(&["status"])["pools"][0]["scale"]["clones"][0];
    let pid = clone["pid"].as_i64().filter(|_| clone["state"] == "running");
    pid.map(|pid| pid.try_into().unwrap())
}

#[test]
fn clients_wait_while_the_only_clone_restarts() {
    let ports = PortBlock::take();
    let proxy = Proxy::start(&config(&scale(&ports, "0.5")));
    let pid = wait_for("the clone runs", || running(&proxy));
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("the clone's end is known", || running(&proxy).is_none());
    assert!(answer(&proxy).starts_with("0 "));
    let line = proxy.access_line();
    assert!(line["queue_ms"].as_f64().unwrap() > 0.0, "{line}");
}
