//! docs/api.md is accurate: its requests work as printed and get answers like those it shows.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::api::{start, unix};
use crate::support::client::Client;
use crate::support::hello::Hello;
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use serde_json::{Value, json};

/// The path whose answer does not end.
const STREAM: &str = "/api/v1/events";

/// Suffixes of the paths whose answers are tested elsewhere: the stream, and requests that need more than the servers
/// here.
const TESTED_ELSEWHERE: [&str; 4] = [
    STREAM,   // admin/events.rs
    "/trust", // databases/primary.rs
    "/scale", // limits/scale.rs
    "/renew", // tls/acme.rs
];

/// One documented request and its answer.
struct Chapter {
    method: String,
    path: String,
    /// The shell command that makes the request.
    request: &'static str,
    /// Null: the answer is a stream of events.
    answer: Value,
}

fn chapters() -> Vec<Chapter> {
    let text = include_str!("../../../docs/api.md");
    let chapter = |text: &'static str| {
        let (method, path) = text.lines().next().unwrap().split_once(' ').unwrap();
        let block = |fence: &str| {
            let after = text.split_once(fence).unwrap_or_else(|| panic!("{path}: no {fence}"));
            after.1.split_once("```").unwrap().0
        };
        Chapter {
            method: method.to_owned(),
            path: path.to_owned(),
            request: block("```sh\n"),
            answer: match path {
                STREAM => Value::Null,
                _ => serde_json::from_str(block("```json\n")).unwrap(),
            },
        }
    };
    text.split("\n## ").skip(1).map(chapter).collect()
}

/// Asserts that both values have the same keys, and values of the same types; null stands for any type.
fn assert_same_shape(path: &str, documented: &Value, live: &Value) {
    match (documented, live) {
        (Value::Null, _) | (_, Value::Null) => {}
        // The keys are the endings that sessions have had so far, so they may differ from the documented keys.
        (Value::Object(documented), Value::Object(live)) if path.ends_with(".endings") => {
            let number = documented.values().next().unwrap();
            live.iter()
                .for_each(|(ending, live)| assert_same_shape(&format!("{path}.{ending}"), number, live));
        }
        (Value::Object(documented), Value::Object(live)) => {
            let keys = |of: &serde_json::Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(documented), keys(live), "{path}");
            for (key, documented) in documented {
                assert_same_shape(&format!("{path}.{key}"), documented, &live[key]);
            }
        }
        (Value::Array(documented), Value::Array(live)) => {
            if let Some(documented) = documented.first() {
                live.iter()
                    .for_each(|live| assert_same_shape(&format!("{path}[]"), documented, live));
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(documented),
            std::mem::discriminant(live),
            "{path}: documented {documented}, got {live}"
        ),
    }
}

/// Runs a documented command against this process and for this session. Returns the JSON that it prints.
fn run_request(proxy: &Proxy, request: &str, session: &str) -> Value {
    let socket = proxy.directory().join("acequia/admin.sock");
    let request = request
        .replace("/run/acequia/admin.sock", socket.to_str().unwrap())
        .replace("/sessions/117", &format!("/sessions/{session}"))
        .replace("curl ", "curl --silent --show-error --fail-with-body ");
    let printed = must(Command::new("sh").args(["-c", &request]));
    serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{request}: {printed}"))
}

#[test]
fn documented_requests_get_answers_of_the_documented_shape() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let hello = Hello::named("shop.example.com").alpn(&["h2"]).bytes();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(proxy.at("https"))).collect();
    for client in &mut clients {
        client.send(&hello).read(hello.len());
    }
    let page = unix(&proxy, "GET", "/api/v1/sessions", "").1;
    let (first, peer) = (&page["sessions"][0]["id"].to_string(), &page["sessions"][0]["peer"]);
    let is_first = |client: &&mut Client| *peer == client.0.local_addr().unwrap().to_string();
    let first_client = clients.iter_mut().find(is_first).unwrap();
    assert_eq!(unix(&proxy, "POST", "/api/v1/reload", "").0, 200); // so that `last_reload` is there
    for chapter in chapters() {
        let Chapter {
            method,
            path,
            request,
            answer: documented,
        } = chapter;
        if TESTED_ELSEWHERE.iter().any(|suffix| path.ends_with(suffix)) {
            continue;
        }
        let answer = run_request(&proxy, request, first);
        assert_same_shape(&format!("{method} {path}"), &documented, &answer);
        assert_content((&method, &path), &answer, &proxy, first);
        if path.starts_with("/api/v1/sessions/") {
            first_client.must_be_reset();
        }
    }
}

/// Asserts that an answer has some of the values that it must have. `session` is the id that was given to
/// [`run_request`].
fn assert_content(request: (&str, &str), answer: &Value, proxy: &Proxy, session: &str) {
    match request {
        ("GET", "/api/v1/sessions") => {
            assert_eq!(
                (&answer["total"], answer["sessions"].as_array().unwrap().len()),
                (&3.into(), 1)
            );
            assert_eq!(answer["next"].to_string(), *session);
        }
        ("GET", "/api/v1/route") => assert_eq!(
            (&answer["route"], &answer["pool"]),
            (&"insiders".into(), &"shop".into())
        ),
        ("GET", "/api/v1/process") => {
            let file = proxy.directory().join("acequia.toml");
            assert_eq!(answer["pid"], proxy.pid());
            assert_eq!(answer["configuration"], file.to_str().unwrap());
        }
        ("GET", "/api/v1/state") => {
            assert_eq!(answer["listeners"][0]["routes"][0]["sni"], json!(["shop.example.com"]));
        }
        ("POST", "/api/v1/guards/{guard}/deny") => assert_eq!(answer["denied"], "198.51.100.0/24"),
        ("GET", "/api/v1/guards/{guard}") => {
            assert_eq!(answer["guard"]["edits"], 1);
            assert_eq!(answer["top_sessions"][0]["source"], "127.0.0.1");
            assert_eq!(answer["denied"][0]["network"], "198.51.100.0/24");
        }
        ("DELETE", "/api/v1/guards/{guard}/deny/{network}") => assert_eq!(answer["undone"], "198.51.100.0/24"),
        ("POST", "/api/v1/pools/{pool}/servers") | ("DELETE", "/api/v1/pools/{pool}/servers/{server}") => {
            assert_eq!(answer["name"], "10.0.1.9:443");
        }
        ("DELETE", "/api/v1/sessions/{id}") => assert_eq!(answer["killed"].to_string(), *session),
        ("POST", "/api/v1/servers/{pool}/{server}") => assert_eq!(
            (&answer["name"], &answer["use"], &answer["close_over"]),
            (&"big".into(), &"draining".into(), &"30s".into())
        ),
        ("GET", "/api/v1/servers/{pool}/{server}") => {
            assert_eq!((&answer["name"], &answer["use"]), (&"big".into(), &"enabled".into()));
        }
        ("GET", "/api/v1/endings") => {
            let mut endings = answer.as_array().unwrap().iter();
            let no_server = endings.find(|one| one["ending"] == "no_server").unwrap();
            assert_eq!(no_server["description"], "No server of the pool could be picked.");
        }
        ("GET", "/api/v1/history") => assert!(answer["pools"].is_array()), // more in events.rs
        ("GET", "/api/v1/reload") => assert_eq!(answer["error"], Value::Null),
        ("GET", "/api/v1/certificates") => assert_eq!(answer["certificates"], json!([])), // more in tls/certificates.rs
        ("POST", "/api/v1/certificates/reload") => assert_eq!(answer["listeners"], json!([])),
        ("POST", "/api/v1/reload") => assert_eq!(answer["listeners"]["kept"], json!(["https"])),
        other => panic!("no expectation for {other:?}: add one"),
    }
}

#[test]
fn every_api_route_is_documented() {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/mod.rs")).unwrap();
    let api = source
        .split("let api = Router::new()")
        .nth(1)
        .unwrap()
        .split(".fallback")
        .next()
        .unwrap();
    let routes = api.split(".route(\"").skip(1).map(|rest| {
        let (path, rest) = rest.split_once("\", ").unwrap();
        let method = rest.split('(').next().unwrap().to_uppercase();
        format!("{method} /api/v1{path}")
    });
    let documented = chapters()
        .into_iter()
        .map(|chapter| format!("{} {}", chapter.method, chapter.path));
    assert_eq!(routes.collect::<BTreeSet<_>>(), documented.collect());
}
