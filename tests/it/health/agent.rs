//! The check `agent`, with a server that speaks the protocol of HAProxy's agent-check.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::client::server_reached;
use crate::support::configs::one_pool;
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// An agent that sends `reply`.
fn agent(reply: &Arc<Mutex<&'static str>>) -> Server {
    let reply = Arc::clone(reply);
    Server::run(move |mut stream| {
        let text = *reply.lock().unwrap();
        let _ = stream.write_all(text.as_bytes());
    })
}

/// The servers get PROXY headers; the agent must not get any.
fn config(servers: &[&Server], agent: &Server) -> String {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let health = format!(
        "[pools.p.health]\ncheck = \"agent\"\nport = {}\ninterval = \"20ms\"\ntimeout = \"400ms\"",
        agent.address.port()
    );
    one_pool(&addresses, &format!("proxy_protocol = \"v2\"\n{health}"))
}

/// The health, the use and the weight of a server, and who last set its use or weight (`None`: nobody).
fn state(proxy: &Proxy, server: &Server) -> (String, String, u64, Option<String>) {
    let body = proxy.server("p", &server.address.to_string());
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    let shown = |key| text(key).unwrap();
    (
        shown("health"),
        shown("use"),
        body["weight"].as_u64().unwrap(),
        text("set_by"),
    )
}

fn wait_for_state(proxy: &Proxy, server: &Server, expected: (&str, &str, u64, Option<&str>)) {
    let (health, usage, weight, by) = expected;
    let expected = (health.to_owned(), usage.to_owned(), weight, by.map(str::to_owned));
    eventually(&format!("{expected:?}"), || state(proxy, server) == expected);
}

#[test]
fn an_agent_sets_health_use_and_weight_until_it_is_gone() {
    let reply = Arc::new(Mutex::new("ready up 100%\n"));
    let agent = agent(&reply);
    let server = Server::named("a");
    let proxy = Proxy::start(&config(&[&server], &agent));
    let say = |text| *reply.lock().unwrap() = text;
    wait_for_state(&proxy, &server, ("up", "enabled", 1, Some("agent")));
    for (text, expected) in [
        ("drain\n", ("up", "draining", 1, Some("agent"))),
        ("maint 0%\r\n", ("up", "disabled", 0, Some("agent"))),
        ("READY, 200%\n", ("up", "enabled", 2, Some("agent"))),
        ("stopped# for an upgrade\n", ("down", "enabled", 2, Some("agent"))),
        ("up\n", ("up", "enabled", 2, Some("agent"))),
    ] {
        say(text);
        wait_for_state(&proxy, &server, expected);
        let is_used = server_reached(proxy.at("l")) == "a";
        let (health, usage, weight, _) = expected;
        assert_eq!(is_used, health == "up" && usage == "enabled" && weight > 0, "{text}");
    }
    let is_drain = |line: &Value| {
        line["message"] == "set by the server's agent" && line["settings"] == "draining, 100 % of its weight"
    };
    eventually("it is logged", || proxy.log().iter().any(is_drain));
    // What an operator sets has precedence.
    say("drain 50%\n"); // of weight 1: rounded up to 1
    wait_for_state(&proxy, &server, ("up", "draining", 1, Some("agent")));
    let name = format!("p/{}", server.address);
    let shown = |key: &str| proxy.server("p", &server.address.to_string())[key].clone();
    proxy.command(&["server", "weight", &name, "7"]);
    eventually("the weight is the operator's", || shown("weight") == 7);
    proxy.command(&["server", "disable", &name]);
    eventually("it is disabled", || shown("use") == "disabled");
    assert_ne!(shown("set_by"), "agent");
    proxy.command(&["server", "enable", &name]); // takes back the operator's `disable`
    proxy.command(&["server", "weight", &name, "configured"]);
    wait_for_state(&proxy, &server, ("up", "draining", 1, Some("agent")));
    // Without an agent, only the TCP check of the server counts.
    drop(agent);
    eventually("what the agent has set no longer holds", || {
        let (health, usage, weight, by) = state(&proxy, &server);
        (health.as_str(), usage.as_str(), weight) == ("up", "enabled", 1) && by.as_deref() != Some("agent")
    });
    let lost = log_lines(
        &proxy,
        "the server's agent does not answer: what it has said no longer holds",
        1,
    );
    assert_eq!(lost[0]["error"], "Connection refused (os error 111)");
    let is_from_agent = |line: &&Value| line["message"] == "set by the server's agent";
    let said_last = proxy.log().iter().rfind(is_from_agent).unwrap()["settings"].clone();
    assert_eq!(
        said_last, "draining, 50 % of its weight",
        "nothing more is logged as set by the agent"
    );
    assert_eq!(server_reached(proxy.at("l")), "a");
    drop(server);
    eventually("the server is down", || {
        proxy.answer(&["status"])["pools"][0]["servers"][0]["health"] == "down"
    });
}

#[test]
fn hostile_agents_change_nothing() {
    let endless: fn(TcpStream) = |mut stream| while stream.write_all(&[b'u'; 4096]).is_ok() {};
    let silent: fn(TcpStream) = |stream| drop(std::io::copy(&mut &stream, &mut std::io::sink()));
    let garbage: fn(TcpStream) = |mut stream| drop(stream.write_all(b"\xff\x1b[2J\n"));
    let unknown: fn(TcpStream) = |mut stream| drop(stream.write_all(b"idle 50.5% -1% 75\n"));
    for agent in [endless, silent, garbage, unknown].map(Server::run) {
        let server = Server::named("a");
        let proxy = Proxy::start(&config(&[&server], &agent));
        let passed = || {
            proxy
                .metrics()
                .sum("acequia_health_checks_total", &[("result", "pass")])
        };
        eventually("there were some checks", || passed() >= 5.0);
        assert_eq!(state(&proxy, &server), ("up".to_owned(), "enabled".to_owned(), 1, None));
        let body: Value = proxy.server("p", &server.address.to_string());
        assert_eq!(body["weight_is_set"], false);
    }
}

#[test]
fn a_server_whose_agent_says_down_is_not_healthy() {
    let reply = Arc::new(Mutex::new("fail#disk\n"));
    let (agent, server) = (agent(&reply), Server::named("a"));
    let proxy = Proxy::start(&config(&[&server], &agent));
    // Whether the server is healthy and whether it is up; the numbers of unhealthy and of usable servers.
    let shown = || {
        let metrics = proxy.metrics();
        let servers = |state| metrics.sum("acequia_pool_servers", &[("state", state)]);
        let healthy = ["acequia_server_healthy", "acequia_server_up"].map(|name| metrics.sum(name, &[]));
        (healthy, servers("unhealthy"), servers("usable"))
    };
    assert_eq!(shown(), ([0.0; 2], 1.0, 0.0));
    let checks = |result| {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", result)])
    };
    assert!(checks("fail") > 0.0);
    assert_eq!(checks("wrong_role"), 0.0);
    *reply.lock().unwrap() = "up\n";
    eventually("one reply brings it back", || shown() == ([1.0; 2], 0.0, 1.0));
}
