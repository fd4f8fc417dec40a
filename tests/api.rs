//! The API answers as docs/api.md says, to those it says, and tells no secret.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use support::client::Client;
use support::eventually;
use support::hello::Hello;
use support::proxy::Proxy;
use support::server::{Server, list};

const TOKEN: &str = "a-token-nobody-guesses";

/// A listener with a route, a pool of named servers, and a token.
fn config(servers: &[&Server], admin: &str) -> String {
    format!(
        "[admin]\n{admin}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [[listeners.l.routes]]\nname = \"r\"\nsni = \"*.example\"\nalpn = [\"h2\"]\nfrom = \"127.0.0.0/8\"\npool = \"p\"\n\
         [[listeners.l.routes]]\nsni = \"closed.test\"\nrefuse = true\n\
         [pools.p]\nservers = [{}]",
        list(servers)
    )
}

fn start(servers: &[&Server], admin: &str) -> Proxy {
    Proxy::start(&config(servers, &format!("bind = \"127.0.0.1:0\"\n{admin}")))
}

/// A file with the token, which lives as long as its folder.
fn token() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let line = format!("token_file = {path:?}");
    (folder, line)
}

/// Status and body of the answer.
fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?} to {request}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let host = if headers.contains("Host:") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Over TCP.
fn tcp(proxy: &Proxy, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let stream = TcpStream::connect(proxy.admin()).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    exchange(stream, &request(method, path, headers, body))
}

/// Over the Unix socket; JSON.
fn unix(proxy: &Proxy, method: &str, path: &str, body: &str) -> (u16, Value) {
    let stream = UnixStream::connect(proxy.folder().join("acequia/admin.sock")).unwrap();
    let (status, body) = exchange(
        stream,
        &request(method, path, &["Content-Type: application/json"], body),
    );
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
}

/// A chapter of the documentation: what is asked, and the examples of JSON in it.
struct Chapter {
    method: String,
    path: String,
    examples: Vec<Value>,
}

fn chapters() -> Vec<Chapter> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    let chapter = |text: &str| {
        let (method, path) = text.lines().next().unwrap().split_once(' ').unwrap();
        let examples = text
            .split("```json\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap());
        Chapter {
            method: method.to_owned(),
            path: path.to_owned(),
            examples: examples.map(|example| serde_json::from_str(example).unwrap()).collect(),
        }
    };
    text.split("\n## ").skip(1).map(chapter).collect()
}

/// Both have the same keys, and values of the same types; null may stand for any.
fn same_shape(path: &str, told: &Value, live: &Value) {
    match (told, live) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(told), Value::Object(live)) => {
            let keys = |of: &serde_json::Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(told), keys(live), "{path}");
            told.iter()
                .for_each(|(key, told)| same_shape(&format!("{path}.{key}"), told, &live[key]));
        }
        (Value::Array(told), Value::Array(live)) => {
            if let Some(told) = told.first() {
                live.iter()
                    .for_each(|live| same_shape(&format!("{path}[]"), told, live));
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(told),
            std::mem::discriminant(live),
            "{path}: {told}, {live}"
        ),
    }
}

#[test]
fn it_answers_as_it_is_documented() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let hello = Hello::named("a.example").alpn(&["h2"]).bytes();
    let mut sessions: Vec<_> = (0..3).map(|_| Client::connect(proxy.at("l"))).collect();
    for client in &mut sessions {
        client.send(&hello).read(hello.len());
    }
    let first = unix(&proxy, "GET", "/api/v1/sessions", "").1["sessions"][0]["id"].to_string();
    let server = a.address.to_string();
    for Chapter { method, path, examples } in chapters() {
        let path = path
            .replace("{pool}", "p")
            .replace("{server}", &server)
            .replace("{id}", &first);
        let (question, body) = match path.as_str() {
            "/api/v1/route" => (
                format!("{path}?listener=l&sni=a.example&alpn=h2&from=127.0.0.1"),
                String::new(),
            ),
            "/api/v1/sessions" => (
                format!("{path}?limit=2&listener=l&route=r&sni=a.example&peer=127.0.0.1"),
                String::new(),
            ),
            _ if examples.len() == 2 => (path.clone(), examples[0].to_string()),
            _ => (path.clone(), String::new()),
        };
        let (status, answer) = unix(&proxy, &method, &question, &body);
        assert_eq!(status, 200, "{method} {question}: {answer:#}");
        same_shape(&format!("{method} {path}"), examples.last().unwrap(), &answer);
        match path.as_str() {
            "/api/v1/sessions" => assert_eq!(
                (&answer["total"], answer["sessions"].as_array().unwrap().len()),
                (&3.into(), 2)
            ),
            "/api/v1/route" => assert_eq!((&answer["route"], &answer["pool"]), (&"r".into(), &"p".into())),
            "/api/v1/state" => assert_eq!(answer["listeners"][0]["routes"][0]["sni"], json!(["*.example"])),
            _ => {}
        }
    }
}

#[test]
fn all_there_is_is_documented() {
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

#[test]
fn over_tcp_writes_need_the_token_and_browsers_of_others_have_no_say() {
    let server = Server::echo();
    let (_folder, line) = token();
    let proxy = start(&[&server], &format!("{line}\nhosts = [\"lb.example\"]"));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let status = |method: &str, path: &str, headers: &[&str]| tcp(&proxy, method, path, headers, "").0;
    let state = "/api/v1/state";
    assert_eq!(status("GET", state, &[]), 200);
    assert_eq!(status("GET", state, &["Host: lb.example:9090"]), 200);
    assert_eq!(status("GET", state, &["Host: evil.example"]), 421);
    let reload = "/api/v1/reload";
    assert_eq!(status("POST", reload, &[]), 401);
    assert_eq!(status("POST", reload, &["Authorization: Bearer wrong"]), 401);
    assert_eq!(status("POST", reload, &["Authorization: Basic YTpi"]), 401);
    assert_eq!(status("POST", reload, &[&bearer, "Origin: http://evil.example"]), 403);
    assert_eq!(status("POST", reload, &[&bearer, "Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(status("POST", reload, &[&bearer]), 200);
    assert_eq!(status("DELETE", "/api/v1/sessions/1", &[]), 401);
    assert_eq!(status("DELETE", "/api/v1/sessions/1", &[&bearer]), 404);
    // What was said of whom is told.
    assert_eq!(
        status("POST", &format!("/api/v1/servers/p/{}", server.address), &[&bearer]),
        415
    );
    let steered = tcp(
        &proxy,
        "POST",
        &format!("/api/v1/servers/p/{}", server.address),
        &[&bearer, "Content-Type: application/json"],
        r#"{"weight": 7}"#,
    );
    let server: Value = serde_json::from_str(&steered.1).unwrap();
    assert_eq!(
        (steered.0, &server["set_by"], &server["weight"]),
        (200, &"127.0.0.1".into(), &7.into())
    );
    // The token may change at any time; without its file nobody may write.
    std::fs::write(_folder.path().join("token"), "another").unwrap();
    assert_eq!(status("POST", reload, &[&bearer]), 401);
    assert_eq!(status("POST", reload, &["Authorization: Bearer another"]), 200);
    std::fs::remove_file(_folder.path().join("token")).unwrap();
    assert_eq!(status("POST", reload, &["Authorization: Bearer another"]), 503);
    assert_eq!(proxy.get("/metrics").0, 200);
    let stopped = proxy.stop();
    let log = format!("{:?}", stopped.log);
    assert!(!log.contains(TOKEN) && !log.contains("another"), "{log}");
}

#[test]
fn without_a_token_nobody_writes_and_from_elsewhere_nobody_reads() {
    let server = Server::echo();
    let local = start(&[&server], "");
    let (status, told) = tcp(&local, "POST", "/api/v1/reload", &[], "");
    assert_eq!(status, 403);
    assert!(told.contains("token_file"), "{told}");
    // What counts is where the port is bound, not by which address it is reached: a relay on this machine may stand
    // between it and anybody.
    let (_folder, line) = token();
    let wide = Proxy::start(&config(&[&server], &format!("bind = \"0.0.0.0:0\"\n{line}")));
    let ask = |headers: &[&str]| {
        let stream = TcpStream::connect(("127.0.0.1", wide.admin().port())).unwrap();
        exchange(stream, &request("GET", "/api/v1/state", headers, "")).0
    };
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&[&format!("Authorization: Bearer {TOKEN}")]), 200);
    let anybody = TcpStream::connect(("127.0.0.1", wide.admin().port())).unwrap();
    assert_eq!(exchange(anybody, &request("GET", "/metrics", &[], "")).0, 200);
}

#[test]
fn what_is_wrong_is_said_in_json() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    let path = format!("/api/v1/servers/p/{}", server.address);
    let long = format!("{{\"close_over\": \"{}\"}}", "1".repeat(17 * 1024));
    for (method, path, body, status, told) in [
        ("GET", "/api/v1/none", "", 404, "docs/api.md"),
        ("POST", "/api/v1/state", "", 405, "docs/api.md"),
        ("GET", "/api/v1/sessions?limit=0", "", 400, "1 to 1000"),
        ("GET", "/api/v1/sessions?zzz=1", "", 400, "zzz"),
        ("GET", "/api/v1/sessions?min_idle=5", "", 400, "min_idle"),
        ("DELETE", "/api/v1/sessions/x", "", 400, "x"),
        ("DELETE", "/api/v1/sessions/99", "", 404, "99"),
        ("GET", "/api/v1/route?listener=zzz", "", 404, "there is l"),
        ("GET", "/api/v1/route?listener=l&from=x", "", 400, "`from`"),
        ("POST", &path, "{", 400, "EOF"),
        ("POST", &path, "{}", 400, "say `use`"),
        ("POST", &path, r#"{"use": "gone"}"#, 422, "enabled"),
        ("POST", &path, r#"{"zzz": 1}"#, 422, "zzz"),
        ("POST", &path, r#"{"weight": 257}"#, 400, "0 to 256"),
        (
            "POST",
            &path,
            r#"{"use": "enabled", "close_over": "1s"}"#,
            400,
            "close_over",
        ),
        (
            "POST",
            &path,
            r#"{"use": "draining", "close_over": "1"}"#,
            400,
            "close_over",
        ),
        ("POST", &path, &long, 413, "length"),
        ("POST", "/api/v1/servers/p/none", r#"{"use": "enabled"}"#, 404, "none"),
    ] {
        let (got, answer) = unix(&proxy, method, path, body);
        assert_eq!(got, status, "{method} {path} {answer:#}");
        assert!(
            answer["error"].as_str().unwrap().contains(told),
            "{method} {path} {answer:#}"
        );
    }
    let state = unix(&proxy, "GET", "/api/v1/state", "").1;
    assert_eq!(
        state["pools"][0]["servers"][0]["set_by"],
        Value::Null,
        "nothing was done"
    );
}

#[test]
fn pages_of_sessions_show_each_once() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    let mut clients: Vec<_> = (0..25).map(|_| Client::connect(proxy.at("l"))).collect();
    for client in &mut clients {
        client.send(b"x").read(1);
    }
    let (mut seen, mut after) = (BTreeSet::new(), 0);
    loop {
        let page = unix(&proxy, "GET", &format!("/api/v1/sessions?limit=10&after={after}"), "").1;
        assert_eq!(page["total"], 25);
        for session in page["sessions"].as_array().unwrap() {
            assert!(seen.insert(session["id"].as_u64().unwrap()));
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen.len(), 25);
    let one = clients[7].0.local_addr().unwrap();
    let found = unix(&proxy, "GET", &format!("/api/v1/sessions?client={one}"), "").1;
    assert_eq!(
        (&found["total"], &found["sessions"][0]["peer"]),
        (&1.into(), &one.to_string().into())
    );
    drop(clients);
    eventually("they are gone", || {
        unix(&proxy, "GET", "/api/v1/sessions", "").1["total"] == 0
    });
}
