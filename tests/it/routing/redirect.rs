//! Listeners that redirect HTTP requests.

use std::process::Command;

use crate::support::client::Client;
use crate::support::configs::{listener, pool};
use crate::support::process::{Port, must};
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;

/// A proxy whose listener `http` redirects; `keys` are further keys of `redirect`, each after a comma.
fn redirecting(keys: &str) -> Proxy {
    let server = Server::echo();
    Proxy::start(
        &[
            &format!("[listeners.http]\nbind = \"127.0.0.1:0\"\nredirect = {{ to = \"https\", port = 8443{keys} }}\n"),
            &listener("https", "p", ""),
            &pool("p", &[server.address], "health = { check = \"off\" }"),
        ]
        .map(String::as_str)
        .concat(),
    )
}

/// Sends the request in pieces of this length. Returns all bytes that come back.
fn response(proxy: &Proxy, request: &str, piece_length: usize) -> String {
    let mut client = Client::connect(proxy.at("http"));
    client.send_in_pieces(request.as_bytes(), piece_length);
    String::from_utf8(client.read_all()).unwrap()
}

#[test]
fn a_request_is_redirected_however_it_is_split() {
    let proxy = redirecting("");
    let request = "GET /shop?id=7 HTTP/1.1\r\nHost: Shop.Example:80\r\nUser-Agent: test\r\n\r\n";
    let expected = "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://shop.example:8443/shop?id=7\r\n\
                    Content-Length: 0\r\nConnection: close\r\n\r\n";
    for length in [1, 7, request.len()] {
        assert_eq!(response(&proxy, request, length), expected);
    }
    let lines = proxy.access_lines(3);
    assert!(lines.iter().all(|line| line["ending"] == "redirected"), "{lines:?}");
    assert_eq!(lines[0]["bytes_up"], request.len());
}

#[test]
fn invalid_requests_and_those_for_other_hosts_get_status_400() {
    let proxy = redirecting(r#", code = 302, hosts = ["shop.example", "*.shop.example"]"#);
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert!(response(&proxy, &get("shop.example"), 100).starts_with("HTTP/1.1 302 Found\r\n"));
    assert!(response(&proxy, &get("a.shop.example"), 100).starts_with("HTTP/1.1 302 Found\r\n"));
    let bad = [
        get("evil.example"),
        get("a b"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: shop.example\r\nHost: shop.example\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}".to_owned(),
    ];
    for request in &bad {
        let response = response(&proxy, request, 100);
        assert_eq!(
            response, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "{request}"
        );
    }
    let endings: Vec<_> = proxy
        .access_lines(7)
        .iter()
        .map(|line| line["ending"].clone())
        .collect();
    assert_eq!(endings.iter().filter(|ending| **ending == "redirected").count(), 2);
    assert_eq!(endings.iter().filter(|ending| **ending == "request_invalid").count(), 5);
}

#[test]
fn a_head_over_16_kib_or_100_fields_gets_status_431() {
    let proxy = redirecting("");
    let too_large = "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let long_field = format!("GET / HTTP/1.1\r\nHost: a.example\r\nA: {}", "x".repeat(16 << 10));
    assert_eq!(response(&proxy, &long_field, 4096), too_large);
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert_eq!(response(&proxy, &many_fields, 4096), too_large);
    let lines = proxy.access_lines(2);
    let endings: Vec<_> = lines.iter().map(|line| &line["ending"]).collect();
    assert_eq!(endings, ["hello_too_long", "request_invalid"]);
}

#[test]
fn an_incomplete_request_gets_status_408_and_a_silent_client_gets_no_response() {
    let proxy = redirecting("");
    let mut slow = Client::connect(proxy.at("http"));
    let mut silent = Client::connect(proxy.at("http"));
    slow.send(b"GET / HTTP/1.1\r\nHost: a.ex");
    let response = String::from_utf8(slow.read_all()).unwrap();
    assert_eq!(
        response,
        "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(silent.read_all(), b"");
    let lines = proxy.access_lines(2);
    assert!(lines.iter().all(|line| line["ending"] == "hello_timeout"), "{lines:?}");
}

#[test]
fn only_the_first_request_of_a_connection_gets_a_response() {
    let proxy = redirecting("");
    let second = "GET /second HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    for request in [
        format!("\r\nGET /first HTTP/1.1\r\nHost: a.example\r\n\r\n{second}"),
        format!(
            "POST /first HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{second}"
        ),
        format!(
            "POST /first HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{second}",
            second.len()
        ),
    ] {
        let response = response(&proxy, &request, 4096);
        assert!(
            response.starts_with("HTTP/1.1 308 ") && response.contains("https://a.example:8443/first\r\n"),
            "{response}"
        );
        assert!(
            !response.contains("second") && response.matches("HTTP/1.1").count() == 1,
            "{response}"
        );
    }
}

#[test]
fn curl_understands_the_redirect() {
    let proxy = redirecting("");
    let url = format!("http://{}/x", proxy.at("http"));
    let output = must(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url]));
    assert_eq!(output.trim_end(), "308 https://127.0.0.1:8443/x");
}

#[test]
fn commands_show_that_a_listener_redirects() {
    let proxy = redirecting("");
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("redirect to https"), "{status}");
    let file = proxy.directory().join("acequia.toml");
    let route = must(acequia(&["route", "--listener", "http", "-c"]).arg(file));
    assert!(
        route.contains("redirected to https, port 8443, of listener https (308)"),
        "{route}"
    );
}

#[test]
fn a_redirect_has_the_configured_status_and_the_port_of_the_https_listener() {
    let (port, server) = (Port::keep(), Server::echo());
    for (code, status) in [(301, "301 Moved Permanently"), (307, "307 Temporary Redirect")] {
        let proxy = Proxy::start(&format!(
            "[listeners.http]\nbind = \"127.0.0.1:0\"\nredirect = {{ to = \"https\", code = {code} }}\n\
             [listeners.https]\nbind = \"{}\"\npool = \"p\"\n{}",
            port.address,
            pool("p", &[server.address], "health = { check = \"off\" }")
        ));
        let response = response(&proxy, "GET /x HTTP/1.1\r\nHost: shop.example\r\n\r\n", 100);
        let expected = format!(
            "HTTP/1.1 {status}\r\nLocation: https://shop.example:{}/x\r\n",
            port.number()
        );
        assert!(response.starts_with(&expected), "{response}");
    }
}
