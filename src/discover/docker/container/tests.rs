//! Containers as engines list them.

use serde_json::{Value, json};

use super::*;

/// A container in these networks as Docker 20.10 lists it, with some of the keys that are not read.
fn listed(networks: &Value) -> Value {
    json!({
        "Id": "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2",
        "Names": ["/web-1"],
        "Image": "registry/intranet:7",
        "Created": 1_763_000_000,
        "Ports": [{ "PrivatePort": 8080, "Type": "tcp" }],
        "Labels": { "acequia.pool": "intranet" },
        "State": "running",
        "Status": "Up 2 minutes (healthy)",
        "HostConfig": { "NetworkMode": "app" },
        "NetworkSettings": { "Networks": networks },
        "Mounts": [],
    })
}

fn network(ipv4: &str, ipv6: &str) -> Value {
    json!({ "IPAMConfig": null, "NetworkID": "7ea2", "IPAddress": ipv4, "IPPrefixLen": 16, "GlobalIPv6Address": ipv6 })
}

fn listed_in_app() -> Value {
    listed(&json!({ "app": network("172.18.0.2", "") }))
}

fn container(listed: Value) -> Container {
    serde_json::from_value(listed).unwrap()
}

/// The name, the address and the weight of the server, or why the container is not a server.
fn server(listed: Value, network: Option<&str>, port: Option<u16>) -> Result<String, String> {
    let server = container(listed).server(network, port, MemberConfig::default());
    server
        .map(|entry| format!("{} {} {}", entry.label(), entry.written, entry.member_config.weight))
        .map_err(|reason| reason.to_string())
}

#[test]
fn a_container_is_a_server_at_its_address_in_the_network() {
    let two = listed(&json!({ "app": network("172.18.0.2", ""), "db": network("172.19.0.2", "") }));
    let mut labelled = two.clone();
    labelled["Labels"]["acequia.network"] = "db".into();
    let ipv6 = listed(&json!({ "app": network("", "2001:db8::2") }));
    let host = listed(&json!({ "host": network("", "") }));
    for (listed, network, expected) in [
        (listed_in_app(), None, "web-1 172.18.0.2:80 1"),
        (listed_in_app(), Some("app"), "web-1 172.18.0.2:80 1"),
        (two, Some("db"), "web-1 172.19.0.2:80 1"),
        (ipv6, None, "web-1 [2001:db8::2]:80 1"),
        (host, None, "web-1 127.0.0.1:80 1"),
        (labelled, Some("app"), "web-1 172.19.0.2:80 1"),
    ] {
        assert_eq!(server(listed, network, Some(80)).as_deref(), Ok(expected));
    }
}

#[test]
fn a_container_whose_address_is_missing_or_ambiguous_is_not_a_server() {
    let two = listed(&json!({ "app": network("172.18.0.2", ""), "db": network("172.19.0.2", "") }));
    for (listed, network, expected) in [
        (listed_in_app(), Some("db"), "it is not in network `db`"),
        (
            two,
            None,
            "it is in several networks (`app`, `db`): set `network` or its label `acequia.network`",
        ),
        (listed(&json!({})), None, "it is in no network of its own"),
        (listed(&Value::Null), None, "it is in no network of its own"),
        (
            listed(&json!({ "none": network("", "") })),
            None,
            "it has no address in network `none`",
        ),
    ] {
        assert_eq!(server(listed, network, Some(80)), Err(expected.to_owned()));
    }
}

#[test]
fn the_port_comes_from_the_label_the_configuration_or_the_only_exposed_one() {
    let with_port = |text: &str| {
        let mut listed = listed_in_app();
        listed["Labels"]["acequia.port"] = text.into();
        listed
    };
    let exposing = |ports: Value| {
        let mut listed = listed_in_app();
        listed["Ports"] = ports;
        listed
    };
    let published = json!([
        { "IP": "0.0.0.0", "PrivatePort": 8080, "PublicPort": 80, "Type": "tcp" },
        { "IP": "::", "PrivatePort": 8080, "PublicPort": 80, "Type": "tcp" },
        { "PrivatePort": 53, "Type": "udp" },
    ]);
    let two = json!([{ "PrivatePort": 1, "Type": "tcp" }, { "PrivatePort": 2, "Type": "tcp" }]);
    for (listed, configured, expected) in [
        (listed_in_app(), Some(80), Ok(80)),
        (listed_in_app(), None, Ok(8080)),
        (with_port("90"), Some(80), Ok(90)),
        (with_port("0"), Some(80), Err("label `acequia.port`: `0` is not a port")),
        (
            with_port("http"),
            None,
            Err("label `acequia.port`: `http` is not a port"),
        ),
        (exposing(published), None, Ok(8080)),
        (
            exposing(two),
            None,
            Err("it exposes several TCP ports: set `port` or its label `acequia.port`"),
        ),
        (
            exposing(Value::Null),
            None,
            Err("it exposes no TCP port: set `port` or its label `acequia.port`"),
        ),
    ] {
        let port = container(listed).port(configured);
        assert_eq!(
            port.map_err(|reason| reason.to_string()),
            expected.map_err(str::to_owned)
        );
    }
}

#[test]
fn the_weight_comes_from_the_label() {
    let with_weight = |text: &str| {
        let mut listed = listed_in_app();
        listed["Labels"]["acequia.weight"] = text.into();
        server(listed, None, None)
    };
    assert_eq!(with_weight("3").as_deref(), Ok("web-1 172.18.0.2:8080 3"));
    assert!(with_weight("257").unwrap_err().contains("the largest is 256"));
    assert_eq!(
        with_weight("x"),
        Err("label `acequia.weight`: `x` is not a weight".to_owned())
    );
}

#[test]
fn the_name_is_never_an_alias_from_a_link_and_is_the_id_if_there_are_no_names() {
    let mut listed = listed_in_app();
    listed["Names"] = json!(["/other/alias", "/web-1"]);
    assert_eq!(container(listed.clone()).name(), "web-1");
    listed["Names"] = Value::Null;
    assert!(container(listed).name().starts_with("4fa6e0f0"));
}

#[test]
fn only_running_and_paused_containers_are_alive() {
    for (state, is_alive) in [
        ("running", true),
        ("paused", true),
        ("restarting", false),
        ("exited", false),
        ("created", false),
    ] {
        let mut listed = listed_in_app();
        listed["State"] = state.into();
        assert_eq!(container(listed).is_alive(), is_alive, "{state}");
    }
}
