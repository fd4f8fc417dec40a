//! Servers that are containers of a real Docker engine.

use serde_json::Value;

use super::pool;
use crate::support::client::{Client, server_reached};
use crate::support::counts::{log_count, log_lines, wait_for_ended_sessions};
use crate::support::docker::{Docker, PORT};
use crate::support::eventually;
use crate::support::proxy::Proxy;

const KEPT: &str = "cannot take the list of servers, keeping the last one";

/// The options of a container that is a server of the pool, in the network of the host.
const ORDERS: [&str; 4] = ["--label", "acequia.pool=orders", "--network", "host"];

/// A listener `l`, and a pool `p` whose servers are the containers of a label. `discover` are further keys of the table
/// `discover` of the pool, and `keys` are further lines of the pool.
fn config(docker: &Docker, discover: &str, keys: &str) -> String {
    let socket = docker.socket();
    format!(
        "[providers.docker]\nsocket = {socket:?}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nbalance = \"round-robin\"\n{keys}\n\
         discover = {{ docker = \"acequia.pool=orders\", settle = \"0s\", {discover} }}"
    )
}

/// The names of the pool's servers. A server that gets no new sessions has a `-` before its name.
fn servers(proxy: &Proxy) -> Vec<String> {
    let pool = pool(proxy);
    let servers = pool["servers"].as_array().unwrap().iter();
    let shown = |server: &Value| {
        let mark = if server["use"] == "draining" { "-" } else { "" };
        format!("{mark}{}", server["name"].as_str().unwrap())
    };
    servers.map(shown).collect()
}

fn wait_for_servers(proxy: &Proxy, expected: &[&str]) {
    eventually(&format!("the servers are {expected:?}"), || servers(proxy) == expected);
}

/// The servers that six new sessions get: each once, sorted.
fn reached(proxy: &Proxy) -> Vec<String> {
    let mut reached: Vec<_> = (0..6).map(|_| server_reached(proxy.at("l"))).collect();
    reached.sort();
    reached.dedup();
    reached
}

#[test]
fn servers_follow_the_containers_of_a_label() {
    let Some(docker) = Docker::start() else { return };
    docker.run(&["network", "create", "--subnet", "10.97.1.0/24", "app"]);
    docker.run(&["network", "create", "--subnet", "10.97.2.0/24", "db"]);
    let orders = ["--label", "acequia.pool=orders", "--network", "app"];
    docker.start_server("one", &orders);
    docker.start_server("other", &["--label", "acequia.pool=others", "--network", "app"]);
    let network = format!("port = {PORT}, network = \"app\"");
    let proxy = Proxy::start(&config(&docker, &network, "on_leave = \"close\"\nclose_over = \"0s\""));
    assert_eq!(reached(&proxy), ["one"]);
    assert_eq!(pool(&proxy)["servers"][0]["address"], format!("10.97.1.2:{PORT}"));

    docker.start_server("two", &orders);
    wait_for_servers(&proxy, &["one", "two"]);
    eventually("both get sessions", || reached(&proxy) == ["one", "two"]);

    let mut session = Client::connect(proxy.at("l"));
    let server = String::from_utf8(session.read(3)).unwrap();
    let remaining = if server == "one" { "two" } else { "one" };
    docker.run(&["network", "connect", "db", &server]);
    docker.run(&["network", "disconnect", "app", &server]);
    wait_for_servers(&proxy, &[remaining]);
    wait_for_ended_sessions(&proxy, "server_drained", 1);
    let warning = pool(&proxy)["discovery"]["warning"].clone();
    assert_eq!(
        warning,
        format!("container `{server}` is not a server: it is not in network `app`")
    );
    log_lines(&proxy, "a container is not a server", 1);
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("p: docker acequia.pool=orders: container"), "{status}");

    docker.run(&["network", "connect", "app", &server]);
    wait_for_servers(&proxy, &["one", "two"]);
    docker.run(&["kill", &server]);
    wait_for_servers(&proxy, &[remaining]);
    assert!(pool(&proxy)["discovery"]["warning"].is_null());
    assert_eq!(log_count(&proxy, KEPT), 0);
}

#[test]
fn a_container_that_is_starting_unhealthy_or_paused_gets_no_new_sessions() {
    let Some(docker) = Docker::start() else { return };
    let options = [
        "--health-cmd=test -e /tmp/healthy",
        "--health-interval=100ms",
        "--health-retries=1",
        "--health-start-period=10m",
        "--tmpfs=/tmp",
        "--label=acequia.weight=3",
    ];
    docker.start_server("one", &[&ORDERS[..], &options].concat());
    let proxy = Proxy::setup(&config(&docker, &format!("port = {PORT}"), "")).launch();
    wait_for_servers(&proxy, &["-one"]);
    let server = pool(&proxy)["servers"][0].clone();
    assert_eq!(
        (&server["address"], &server["weight"]),
        (&format!("127.0.0.1:{PORT}").into(), &3.into())
    );
    let mut refused = Client::connect(proxy.at("l"));
    assert_ne!(refused.try_read_all().ok(), Some(b"one".to_vec()));

    docker.run(&["exec", "one", "touch", "/tmp/healthy"]);
    wait_for_servers(&proxy, &["one"]);
    eventually("the healthy container gets sessions", || {
        server_reached(proxy.at("l")) == "one"
    });
    let mut session = Client::connect(proxy.at("l"));
    assert_eq!(session.read(3), b"one");

    docker.run(&["exec", "one", "rm", "/tmp/healthy"]);
    wait_for_servers(&proxy, &["-one"]);
    docker.run(&["exec", "one", "touch", "/tmp/healthy"]);
    wait_for_servers(&proxy, &["one"]);
    docker.run(&["pause", "one"]);
    wait_for_servers(&proxy, &["-one"]);
    docker.run(&["unpause", "one"]);
    wait_for_servers(&proxy, &["one"]);
    let rest = session.finish().try_read_all();
    assert_eq!(
        rest.unwrap(),
        b"",
        "expected the session to last until its client ended it"
    );
}

#[test]
fn a_stopping_container_gets_no_new_sessions_and_keeps_its_open_ones() {
    let Some(docker) = Docker::start() else { return };
    docker.run(&["network", "create", "--subnet", "10.97.1.0/24", "app"]);
    let orders = ["--label", "acequia.pool=orders", "--network", "app"];
    docker.start_server("old", &orders);
    let proxy = Proxy::start(&config(&docker, &format!("port = {PORT}"), ""));
    let mut session = Client::connect(proxy.at("l"));
    assert_eq!(session.read(3), b"old");
    docker.start_server("new", &orders);
    wait_for_servers(&proxy, &["new", "old"]);

    docker.run(&["kill", "--signal=HUP", "new"]); // not one of the signals that stop a container
    let mut stop = docker.spawn(&["stop", "--time=600", "old"]);
    wait_for_servers(&proxy, &["new", "-old"]);
    assert_eq!(reached(&proxy), ["new"]);
    assert_eq!(session.finish().try_read_all().unwrap(), b"");
    docker.run(&["kill", "old"]);
    assert!(stop.wait().success());
    wait_for_servers(&proxy, &["new"]);

    docker.run(&["start", "old"]);
    wait_for_servers(&proxy, &["new", "old"]);
}

#[test]
fn an_unreachable_engine_changes_nothing_and_is_followed_again() {
    let Some(mut docker) = Docker::start() else { return };
    docker.start_server("one", &ORDERS);
    let proxy = Proxy::start(&config(&docker, &format!("port = {PORT}"), ""));
    docker.stop_engine();
    let line = &log_lines(&proxy, KEPT, 1)[0];
    assert_eq!((&line["pool"], &line["kept"]), (&"p".into(), &1.into()));
    assert_eq!(reached(&proxy), ["one"]);
    docker.start_engine();
    docker.run(&["rm", "-f", "one"]);
    docker.start_server("two", &ORDERS);
    wait_for_servers(&proxy, &["two"]);
    eventually("the new container gets the sessions", || reached(&proxy) == ["two"]);
    assert_eq!(proxy.metrics().sum("acequia_discovery_up", &[("pool", "p")]), 1.0);
}
