//! Routes that containers of a real Docker engine announce.

use std::io::Write;
use std::net::Shutdown;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::api;
use crate::support::client::Client;
use crate::support::counts::log_lines;
use crate::support::docker::{Docker, PORT};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const KEPT: &str = "cannot take the announced routes, keeping the last ones";
const ACCEPT: &str = "announce = { from = \"docker\", names = [\"*.apps.test\"] }";

/// `accept`: [`ACCEPT`], or nothing for a listener that accepts no announcements.
fn config(docker: &Docker, web: &Server, accept: &str) -> String {
    let (socket, state) = (docker.socket(), docker.socket().with_file_name("state"));
    format!(
        "[runtime]\nstate_dir = {state:?}\n[providers.docker]\nsocket = {socket:?}\n[listeners.tls]\nbind = \"127.0.0.1:0\"\n{accept}\n\
         [[listeners.tls.routes]]\nsni = \"own.apps.test\"\npool = \"web\"\n\
         [pools.web]\nservers = [\"{}\"]\n",
        web.address
    )
}

/// What the metrics of announced routes show: whether their source is up, how many are in force, and how many are
/// refused because of each of two reasons.
fn measured(proxy: &Proxy) -> [(&'static str, f64); 4] {
    let metrics = proxy.metrics();
    let refused = |reason| metrics.sum("acequia_announcements_refused", &[("reason", reason)]);
    [
        ("up", metrics.sum("acequia_announce_up", &[])),
        (
            "routes",
            metrics.sum("acequia_announced_routes", &[("listener", "tls")]),
        ),
        ("taken", refused("taken")),
        ("not_allowed", refused("not_allowed")),
    ]
}

/// Starts a container that announces these server names, separated by commas, and has these further labels.
fn start_announcing(docker: &Docker, container: &str, sni: &str, labels: &[&str]) {
    let (sni, port) = (format!("acequia.sni={sni}"), format!("acequia.port={PORT}"));
    let mut options = vec![
        "--network",
        "app",
        "--label",
        "acequia.listener=tls",
        "--label",
        &sni,
        "--label",
        &port,
    ];
    labels.iter().for_each(|label| options.extend(["--label", label]));
    docker.start_server(container, &options);
}

/// What a client that asks for this server name gets: the name of the container or server, or `alert` for a TLS alert.
fn reached(proxy: &Proxy, sni: &str) -> String {
    let mut client = Client::connect(proxy.at("tls"));
    let _ = client.0.write_all(&Hello::named(sni).bytes()); // the connection may be closed already
    let _ = client.0.shutdown(Shutdown::Write);
    match client.try_read_all() {
        Ok(alert) if alert.first() == Some(&0x15) => "alert".to_owned(),
        Ok(name) => String::from_utf8(name).unwrap(),
        Err(error) => error.to_string(), // the server may be stopping
    }
}

fn wait_until_reached(proxy: &Proxy, sni: &str, expected: &str) {
    eventually(&format!("{sni} leads to {expected}"), || {
        reached(proxy, sni) == expected
    });
}

fn announced(proxy: &Proxy) -> Value {
    let (_, state) = api::unix(proxy, "GET", "/api/v1/state", "");
    state["announced"].clone()
}

/// The refused announcements: container and server name of each.
fn refused(proxy: &Proxy) -> Vec<String> {
    let announced = announced(proxy);
    let entries = announced["refused"].as_array().unwrap().iter();
    entries
        .map(|entry| format!("{} {}", entry["from"], entry["sni"]).replace('"', ""))
        .collect()
}

#[test]
fn containers_announce_and_withdraw_their_routes() {
    let Some(docker) = Docker::start() else { return };
    docker.run(&["network", "create", "--subnet", "10.97.1.0/24", "app"]);
    let web = Server::named("web");
    start_announcing(&docker, "shop", "shop.apps.test,store.apps.test", &[]);
    let proxy = Proxy::start(&config(&docker, &web, ACCEPT));
    assert_eq!(
        reached(&proxy, "shop.apps.test"),
        "shop",
        "the proxy is ready only once it has the first list"
    );
    assert_eq!(reached(&proxy, "store.apps.test"), "shop");
    assert_eq!(reached(&proxy, "own.apps.test"), "web");
    assert_eq!(reached(&proxy, "blog.apps.test"), "alert");

    let mut session = Client::connect(proxy.at("tls"));
    session.send(&Hello::named("shop.apps.test").bytes());
    assert_eq!(session.read(4), b"shop");
    start_announcing(&docker, "next", "shop.apps.test", &[]);
    wait_until_reached(&proxy, "shop.apps.test", "next");
    let server = proxy.server("tls:shop.apps.test", "next");
    assert_eq!(server["address"], format!("10.97.1.3:{PORT}"));
    assert!(
        proxy.reload(&(config(&docker, &web, ACCEPT) + "max_sessions = 7\n")),
        "the reload is accepted"
    );
    wait_until_reached(&proxy, "shop.apps.test", "next");
    assert_eq!(session.finish().try_read_all().unwrap(), b"", "the session has gone on");

    docker.run(&["kill", "shop", "next"]);
    wait_until_reached(&proxy, "shop.apps.test", "alert");
    assert!(announced(&proxy)["refused"].as_array().unwrap().is_empty());
    docker.run(&["start", "next"]);
    wait_until_reached(&proxy, "shop.apps.test", "next");
    assert!(proxy.reload(&config(&docker, &web, "")));
    assert_eq!(
        reached(&proxy, "shop.apps.test"),
        "alert",
        "the listener accepts no announcements now"
    );
    assert!(announced(&proxy).is_null());
}

#[test]
fn refused_announcements_are_reported_also_while_docker_is_away() {
    let Some(mut docker) = Docker::start() else { return };
    docker.run(&["network", "create", "--subnet", "10.97.1.0/24", "app"]);
    let web = Server::named("web");
    let proxy = Proxy::start(&config(&docker, &web, ACCEPT));
    start_announcing(&docker, "old", "a.apps.test", &["acequia.pool=shop"]);
    wait_until_reached(&proxy, "a.apps.test", "old");
    start_announcing(&docker, "young", "a.apps.test", &["acequia.pool=blog"]);
    start_announcing(&docker, "zed", "own.apps.test,bank.test", &[]);
    eventually("three of four announcements are refused", || {
        refused(&proxy) == ["young a.apps.test", "zed own.apps.test", "zed bank.test"]
    });
    assert_eq!(reached(&proxy, "own.apps.test"), "web");
    assert_eq!(reached(&proxy, "bank.test"), "alert");
    assert!((0..4).all(|_| reached(&proxy, "a.apps.test") == "old"));
    let line = &log_lines(&proxy, "an announced route is refused", 3)[0];
    let reason = "`old`, which is older, announces the name with another `acequia.pool`";
    assert_eq!((&line["container"], &line["reason"]), (&"young".into(), &reason.into()));
    let status = proxy.command(&["status"]).stdout;
    let expected = "tls: `bank.test`, which docker container zed announces, is refused: `announce` of the listener";
    assert!(status.contains(expected), "{status}");

    assert_eq!(
        measured(&proxy),
        [("up", 1.0), ("routes", 1.0), ("taken", 2.0), ("not_allowed", 1.0)]
    );

    docker.stop_engine();
    log_lines(&proxy, KEPT, 1);
    assert_eq!(reached(&proxy, "a.apps.test"), "old");
    assert_eq!(
        measured(&proxy),
        [("up", 0.0), ("routes", 1.0), ("taken", 2.0), ("not_allowed", 1.0)]
    );
    proxy.signal(Signal::TERM);
    proxy.wait();
    let proxy = Proxy::start(&config(&docker, &web, ACCEPT));
    assert_eq!(reached(&proxy, "a.apps.test"), "old", "Docker is away");
    log_lines(&proxy, KEPT, 1);
    assert_eq!(
        measured(&proxy),
        [("up", 0.0), ("routes", 1.0), ("taken", 2.0), ("not_allowed", 1.0)]
    );
    log_lines(&proxy, "an announced route is refused", 3);
    docker.start_engine();
    docker.run(&["rm", "-f", "old", "zed"]);
    wait_until_reached(&proxy, "a.apps.test", "young");
    eventually("nothing is refused any more", || refused(&proxy).is_empty());
    assert_eq!(
        measured(&proxy),
        [("up", 1.0), ("routes", 1.0), ("taken", 0.0), ("not_allowed", 0.0)]
    );
}
