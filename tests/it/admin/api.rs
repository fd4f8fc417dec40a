//! The API: what it tells about the latest reload, who may use it, its error answers, and the filters, order and pages
//! of the session list. Rejected requests and failed writes are logged without their secrets.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::support::api::{config, exchange, request, start, tcp, unix};
use crate::support::client::Client;
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use serde_json::Value;

pub(super) const TOKEN: &str = "a-token-nobody-guesses";

/// Writes the token to the file `token` in a new directory. Returns the directory, whose drop deletes the file, and the
/// line of `[admin]` that names the file.
pub(super) fn token() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let line = format!("token_file = {path:?}");
    (directory, line)
}

#[test]
fn state_shows_the_latest_reload_without_its_errors() {
    let server = Server::echo();
    let text = config(&[&server], "bind = \"127.0.0.1:0\"");
    let proxy = Proxy::start(&text);
    let latest = || unix(&proxy, "GET", "/api/v1/state", "").1["last_reload"].clone();
    assert_eq!(latest(), Value::Null);
    assert!(proxy.reload(&text));
    let done = latest();
    assert_eq!((&done["by"], &done["done"]), (&"SIGHUP".into(), &true.into()));
    proxy.rewrite(&text.replace("[pools.shop]", "[pools.hsop]"));
    let (status, refused) = unix(&proxy, "POST", "/api/v1/reload", "");
    assert_eq!(status, 422);
    assert!(refused["error"].as_str().unwrap().contains("unknown pool `shop`"));
    let failed = latest();
    assert_eq!(
        (&failed["by"], &failed["done"]),
        (
            &format!("uid {}", rustix::process::getuid().as_raw()).into(),
            &false.into()
        )
    );
    assert!(failed["at"].as_str() > done["at"].as_str() && failed.as_object().unwrap().len() == 3);
}

#[test]
fn rejected_requests_and_failed_writes_are_logged_without_token_and_query() {
    let server = Server::echo();
    let (_directory, line) = token();
    let proxy = start(&[&server], &line);
    let wrong = "Authorization: Bearer guessed-1";
    // A read that is allowed and fails is not logged.
    assert_eq!(tcp(&proxy, "GET", "/api/v1/servers/shop/none", &[], "").0, 404);
    assert_eq!(tcp(&proxy, "GET", "/api/v1/reload?t=guessed-2", &[wrong], "").0, 401);
    assert_eq!(unix(&proxy, "DELETE", "/api/v1/pools/shop/servers/none", "").0, 404);
    let lines = log_lines(&proxy, "API request failed", 2);
    let shown = |line: &Value| ["level", "method", "path", "status", "by"].map(|key| line[key].clone());
    let uid = format!("uid {}", rustix::process::getuid().as_raw());
    let expected: [[Value; 5]; 2] = [
        [
            "WARN".into(),
            "GET".into(),
            "/api/v1/reload".into(),
            401.into(),
            "127.0.0.1".into(),
        ],
        [
            "WARN".into(),
            "DELETE".into(),
            "/api/v1/pools/shop/servers/none".into(),
            404.into(),
            uid.into(),
        ],
    ];
    assert_eq!(lines.iter().map(shown).collect::<Vec<_>>(), expected);
    assert!(!proxy.log().iter().any(|line| line.to_string().contains("guessed")));
}

#[test]
fn over_tcp_writes_need_the_token_and_no_foreign_origin() {
    let server = Server::echo();
    let (directory, line) = token();
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
    assert_eq!(status("GET", reload, &[]), 401, "the answer quotes the configuration");
    assert_eq!(
        status("GET", "/api/v1/servers/shop/reload", &[]),
        404,
        "here `reload` is the name of a server"
    );
    assert_eq!(status("POST", reload, &[&bearer, "Origin: http://evil.example"]), 403);
    assert_eq!(status("POST", reload, &[&bearer, "Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(
        status("GET", "/api/v1/events", &["Sec-Fetch-Site: cross-site"]),
        403,
        "the number of streams is limited"
    );
    // One header with a foreign origin is enough to reject a request that also has a header with our own origin.
    let own = &format!("Origin: http://{}", proxy.admin());
    let host = &format!("Host: {}", proxy.admin());
    for foreign in [
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
    ] {
        for headers in [[own, foreign], [foreign, own], ["Sec-Fetch-Site: same-origin", foreign]] {
            let headers = [&[bearer.as_str(), host][..], &headers].concat();
            assert_eq!(status("POST", reload, &headers), 403, "{headers:?}");
        }
    }
    assert_eq!(status("POST", reload, &["Authorization: Bearer wrong", &bearer]), 401);
    assert_eq!(status("POST", reload, &[&bearer, "Authorization: Bearer wrong"]), 401);
    assert_eq!(
        status("POST", reload, &[&bearer, host, own, "Sec-Fetch-Site: same-origin"]),
        200
    );
    assert_eq!(status("POST", reload, &[&bearer]), 200);
    assert_eq!(status("DELETE", "/api/v1/sessions/1", &[]), 401);
    assert_eq!(status("DELETE", "/api/v1/sessions/1", &[&bearer]), 404);
    assert_eq!(
        status("POST", "/api/v1/servers/shop/big", &[&bearer]),
        415,
        "no Content-Type"
    );
    // The answer names who changed the server.
    let response = tcp(
        &proxy,
        "POST",
        "/api/v1/servers/shop/big",
        &[&bearer, "Content-Type: application/json"],
        r#"{"weight": 7}"#,
    );
    let changed: Value = serde_json::from_str(&response.1).unwrap();
    assert_eq!(
        (response.0, &changed["set_by"], &changed["weight"]),
        (200, &"127.0.0.1".into(), &7.into())
    );
    // The token may change at any time; without its file no write is allowed.
    std::fs::write(directory.path().join("token"), "another").unwrap();
    assert_eq!(status("POST", reload, &[&bearer]), 401);
    assert_eq!(status("POST", reload, &["Authorization: Bearer another"]), 200);
    std::fs::remove_file(directory.path().join("token")).unwrap();
    assert_eq!(status("POST", reload, &["Authorization: Bearer another"]), 503);
    assert_eq!(status("POST", reload, &["Authorization: Bearer another"]), 503);
    std::fs::write(directory.path().join("token"), "another").unwrap();
    assert_eq!(status("POST", reload, &["Authorization: Bearer another"]), 200);
    assert_eq!(proxy.get("/metrics").0, 200);
    let stopped = proxy.stop();
    let log = format!("{:?}", stopped.log);
    assert!(!log.contains(TOKEN) && !log.contains("another"), "{log}");
    for once in ["cannot read `token_file`", "`token_file` of [admin] can be read again"] {
        assert_eq!(log.matches(once).count(), 1, "{log}");
    }
}

#[test]
fn writes_need_a_configured_token_and_reads_need_it_on_a_port_beyond_loopback() {
    let server = Server::echo();
    let local = start(&[&server], "");
    let (status, answer) = tcp(&local, "POST", "/api/v1/reload", &[], "");
    assert_eq!(status, 403);
    assert!(answer.contains("token_file"), "{answer}");
    // What counts is the address that the port is bound to, not the address that the client connects to: a relay on
    // this machine may forward connections from anywhere.
    let (_directory, line) = token();
    let wide = Proxy::start(&config(&[&server], &format!("bind = \"0.0.0.0:0\"\n{line}")));
    let ask = |headers: &[&str]| {
        let stream = TcpStream::connect(("127.0.0.1", wide.admin().port())).unwrap();
        exchange(stream, &request("GET", "/api/v1/state", headers, "")).0
    };
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&[&format!("Authorization: Bearer {TOKEN}")]), 200);
    let without_token = TcpStream::connect(("127.0.0.1", wide.admin().port())).unwrap();
    assert_eq!(exchange(without_token, &request("GET", "/metrics", &[], "")).0, 200);
}

#[test]
fn api_errors_are_json_and_name_the_mistake() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    let path = "/api/v1/servers/shop/big";
    let deny = "/api/v1/guards/fair/deny";
    let long = format!("{{\"close_over\": \"{}\"}}", "1".repeat(17 * 1024));
    for (method, path, body, status, expected) in [
        ("GET", "/api/v1/none", "", 404, "docs/api.md"),
        ("POST", "/api/v1/state", "", 405, "docs/api.md"),
        ("GET", "/api/v1/sessions?limit=0", "", 400, "1 to 1000"),
        ("GET", "/api/v1/sessions?zzz=1", "", 400, "zzz"),
        (
            "GET",
            "/api/v1/sessions?sort=age",
            "",
            400,
            "`bytes`, `rate`, `idle`, `rtt`",
        ),
        (
            "GET",
            "/api/v1/sessions?sort=idle&after=1",
            "",
            400,
            "remove `after` or `sort`",
        ),
        ("GET", "/api/v1/sessions?min_idle=5", "", 400, "min_idle"),
        ("DELETE", "/api/v1/sessions/x", "", 400, "x"),
        ("DELETE", "/api/v1/sessions/99", "", 404, "99"),
        ("GET", "/api/v1/route?listener=zzz", "", 404, "known listeners: https"),
        ("GET", "/api/v1/route", "", 400, "`listener` is missing"),
        ("GET", "/api/v1/route?listener=https&from=x", "", 400, "`from`"),
        ("GET", "/api/v1/route?listener=https&peer=x", "", 400, "`peer`"),
        ("GET", "/api/v1/route?listener=https&sni=a&sni=b", "", 400, "`sni`"),
        (
            "POST",
            deny,
            r#"{"network": "10.0.0.1/8"}"#,
            400,
            "write \"10.0.0.0/8\"",
        ),
        (
            "POST",
            deny,
            r#"{"network": "10.0.0.1", "for": "0s"}"#,
            400,
            "1ms to 8760h",
        ),
        (
            "POST",
            "/api/v1/pools/shop/servers",
            r#"{"address": "x"}"#,
            400,
            "has no port",
        ),
        ("POST", path, "{", 400, "EOF"),
        ("POST", path, "{}", 400, "set `use`"),
        ("POST", path, r#"{"use": "gone"}"#, 400, "enabled"),
        ("POST", path, r#"{"use": {"enabled": null}}"#, 422, "string"),
        ("POST", path, r#"["enabled", null, 5]"#, 422, "sequence"),
        ("POST", path, r#"{"zzz": 1}"#, 400, "zzz"),
        ("POST", path, r#"{"weight": 257}"#, 400, "0 to 256"),
        (
            "POST",
            path,
            r#"{"use": "enabled", "close_over": "1s"}"#,
            400,
            "close_over",
        ),
        (
            "POST",
            path,
            r#"{"use": "draining", "close_over": "1"}"#,
            400,
            "close_over",
        ),
        ("POST", path, &long, 413, "length"),
        (
            "POST",
            "/api/v1/servers/shop/none",
            r#"{"use": "enabled"}"#,
            404,
            "none",
        ),
    ] {
        let (got, answer) = unix(&proxy, method, path, body);
        assert_eq!(got, status, "{method} {path} {answer:#}");
        assert!(
            answer["error"].as_str().unwrap().contains(expected),
            "{method} {path} {answer:#}"
        );
    }
    // A chunked body has the same limit.
    let chunk = format!("4400\r\n{}\r\n0\r\n\r\n", " ".repeat(0x4400));
    let stream = UnixStream::connect(proxy.directory().join("acequia/admin.sock")).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    let (status, answer) = exchange(stream, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}"));
    assert_eq!(status, 413, "{answer}");
    let state = unix(&proxy, "GET", "/api/v1/state", "").1;
    assert_eq!(
        state["pools"][0]["servers"][0]["set_by"],
        Value::Null,
        "nothing was done"
    );
}

#[test]
fn session_filters_match_exactly_their_sessions() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    let hello = Hello::named("shop.example.com").alpn(&["h2"]).bytes();
    let mut client = Client::connect(proxy.at("https"));
    client.send(&hello).read(hello.len());
    let total = |filter: &str| unix(&proxy, "GET", &format!("/api/v1/sessions?{filter}"), "").1["total"].clone();
    let session = unix(&proxy, "GET", "/api/v1/sessions", "").1["sessions"][0].clone();
    for key in ["id", "listener", "route", "pool", "server", "sni", "peer", "client"] {
        let value = session[key].to_string().replace('"', "");
        assert_eq!(total(&format!("{key}={value}")), 1, "{key}={value}");
        assert_eq!(total(&format!("{key}=99")), 0, "{key}");
    }
    for (passes, does_not) in [
        ("min_age=1ms", "min_age=1h"),
        ("min_idle=1ms", "min_idle=1h"),
        ("min_rtt=0ms", "min_rtt=1h"),
        ("min_bytes=1", "min_bytes=1000000"),
        ("min_rate=0", "min_rate=1000000000"),
    ] {
        eventually(passes, || total(passes) == 1);
        assert_eq!(total(does_not), 0, "{does_not}");
    }
}

#[test]
fn sorted_sessions_begin_with_the_highest_value() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    // Each client is served before the next one connects: so the ids of their sessions are 1, 2, 3, although several
    // workers accept.
    let open = |bytes: usize| {
        let mut client = Client::connect(proxy.at("https"));
        client.send(&vec![b'x'; bytes]).read(bytes);
        client
    };
    let mut clients = [10, 3000, 200].map(open);
    let first = |sort: &str| {
        let path = format!("/api/v1/sessions?limit=2&sort={sort}");
        let page = unix(&proxy, "GET", &path, "").1;
        assert_eq!((&page["total"], &page["next"]), (&3.into(), &Value::Null), "{page}");
        let sessions = page["sessions"].as_array().unwrap().clone();
        sessions
            .iter()
            .map(|session| session["id"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    eventually("the order by bytes", || first("bytes") == [2, 3]);
    for sort in ["rate", "rtt", "idle"] {
        assert_eq!(first(sort).len(), 2, "{sort}");
    }
    // Once a second, each worker checks which of its sessions have transferred bytes. Sessions that fell silent in the
    // same second may come in either order, so only session 2 stays silent here.
    eventually("the longest idle first", || {
        for active in [0, 2] {
            clients[active].send(b"x").read(1);
        }
        first("idle")[0] == 2
    });
}

#[test]
fn pages_show_each_session_once() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    let mut clients: Vec<_> = (0..25).map(|_| Client::connect(proxy.at("https"))).collect();
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
    let address = clients[7].0.local_addr().unwrap();
    let found = unix(&proxy, "GET", &format!("/api/v1/sessions?client={address}"), "").1;
    assert_eq!(
        (&found["total"], &found["sessions"][0]["peer"]),
        (&1.into(), &address.to_string().into())
    );
    drop(clients);
    eventually("all sessions are gone", || {
        unix(&proxy, "GET", "/api/v1/sessions", "").1["total"] == 0
    });
}
