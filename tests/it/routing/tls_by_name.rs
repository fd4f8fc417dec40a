//! TLS clients reach the server that their server name selects, with every byte unchanged; refused clients get an
//! alert.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::client::{Client, ask};
use crate::support::configs::{pool, tls_listener};
use crate::support::eventually;
use crate::support::hello::{Hello, captured};
use crate::support::process::{Port, Process, finished, must};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, refusing};
use crate::support::tls::tls_server;

/// A listener with routes for `shop.example`, `*.wild.example` and `closed.example`, and perhaps a default pool.
fn config(shop: SocketAddr, wild: SocketAddr, default: Option<SocketAddr>) -> String {
    let keys = if default.is_some() { "pool = \"rest\"" } else { "" };
    let routes = [
        ("shop.example", "pool = \"shop\""),
        ("*.wild.example", "pool = \"wild\""),
        ("closed.example", "refuse = true"),
    ];
    let rest = default.map(|address| pool("rest", &[address], ""));
    [
        tls_listener("l", keys, &routes),
        pool("shop", &[shop], ""),
        pool("wild", &[wild], ""),
        rest.unwrap_or_default(),
    ]
    .concat()
}

/// The output of `openssl s_client` with this server name.
fn s_client(address: SocketAddr, name: &str) -> String {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address.to_string(), "-servername", name])
        .stdin(Stdio::null());
    let finished = finished(&mut command);
    finished.stdout + &finished.stderr
}

/// `curl` of `https://name/` with this option, for example `--http2`: the page, and a line with the HTTP version.
fn curl(address: SocketAddr, name: &str, option: &str) -> String {
    let url = format!("https://{name}:{}/", address.port());
    let resolve = format!("{name}:{}:{}", address.port(), address.ip());
    let write = "%{http_version}";
    must(Command::new("curl").args([
        "-sS",
        "-k",
        option,
        "--max-time",
        "15",
        "--resolve",
        &resolve,
        "-w",
        write,
        &url,
    ]))
}

#[test]
fn openssl_gets_the_certificate_of_the_server_selected_by_name() {
    let servers = ["shop.example", "any.wild.example", "rest.example"].map(tls_server);
    let [shop, wild, rest] = servers.each_ref().map(|server| server.address);
    let proxy = Proxy::start(&config(shop, wild, Some(rest)));
    for (asked, reached) in [
        ("shop.example", "shop.example"),
        ("SHOP.example", "shop.example"),
        ("a.wild.example", "any.wild.example"),
        ("a.b.wild.example", "any.wild.example"),
        ("wild.example", "rest.example"),
        ("other.example", "rest.example"),
    ] {
        let output = s_client(proxy.at("l"), asked);
        let pem = &output[output.find("-----BEGIN").expect(&output)..];
        let file = proxy.directory().join("server.pem");
        std::fs::write(&file, pem).unwrap();
        let names = must(
            Command::new("openssl")
                .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
                .arg(&file),
        );
        assert!(names.contains(&format!("DNS:{reached}\n")), "{asked}: {names}");
    }
}

#[test]
fn curl_uses_http_1_and_2_with_the_server_selected_by_name() {
    let servers = ["shop.example", "any.wild.example"].map(tls_server);
    let [shop, wild] = servers.each_ref().map(|server| server.address);
    let proxy = Proxy::start(&config(shop, wild, None));
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        assert_eq!(
            curl(proxy.at("l"), "shop.example", option),
            format!("this is shop.example\n{version}\n")
        );
        assert_eq!(
            curl(proxy.at("l"), "x.wild.example", option),
            format!("this is any.wild.example\n{version}\n")
        );
    }
    let alpn = |line: &serde_json::Value| line["alpn"].as_str().unwrap_or_default().to_owned();
    let lines: Vec<_> = proxy.access_lines(4).iter().map(alpn).collect();
    assert_eq!(lines, ["http/1.1", "http/1.1", "h2,http/1.1", "h2,http/1.1"]);
}

#[test]
fn tls_of_openssl_s_server_is_passed_through() {
    let port = Port::keep();
    let directory = tempfile::tempdir().unwrap();
    let (key, cert) = (directory.path().join("key.pem"), directory.path().join("cert.pem"));
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    must(
        make.args(["-subj", "/CN=shop.example", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert),
    );
    let mut serve = Command::new("openssl");
    serve
        .args(["s_server", "-www", "-accept", &port.address.to_string(), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&cert);
    let _server = Process::start(&mut serve);
    eventually("s_server listens", || Client::try_connect(port.address).is_ok());
    let proxy = Proxy::start(&config(port.address, port.address, None));
    let page = curl(proxy.at("l"), "shop.example", "--http1.1");
    assert!(page.contains("s_server"), "{page}");
    assert!(s_client(proxy.at("l"), "shop.example").contains("subject=CN = shop.example"));
}

#[test]
fn openssl_gets_an_unrecognized_name_alert_without_a_route_and_from_a_refusing_route() {
    let shop = Server::keeping(b"");
    let proxy = Proxy::start(&config(shop.address, shop.address, None));
    for name in ["other.example", "closed.example"] {
        let output = s_client(proxy.at("l"), name);
        assert!(
            output.contains("unrecognized name") && output.contains("SSL alert number 112"),
            "{name}: {output}"
        );
    }
    let lines = proxy.access_lines(2);
    let endings: Vec<_> = lines.iter().map(|line| line["ending"].clone()).collect();
    assert_eq!(endings, ["no_route", "refused"]);
    assert!(lines.iter().all(|line| line.get("tls").is_none()), "{lines:#?}");
    assert_eq!(shop.sessions(), 0);
}

#[test]
fn alerts_are_exact_to_the_byte_and_followed_by_a_clean_close() {
    let shop = Server::silent();
    let proxy = Proxy::start(&config(shop.address, shop.address, None));
    let answers = |hello: &[u8]| Client::connect(proxy.at("l")).send(hello).read_all();
    for name in ["other.example", "closed.example"] {
        assert_eq!(
            answers(&Hello::named(name).bytes()),
            [21, 3, 3, 0, 2, 2, 112],
            "unrecognized_name: {name}"
        );
    }
    assert_eq!(
        answers(&Hello::nameless().bytes()),
        [21, 3, 3, 0, 2, 2, 109],
        "missing_extension"
    );
    assert_eq!(
        answers(&captured("openssl-no-name-tls12").0),
        [21, 3, 3, 0, 2, 2, 40],
        "handshake_failure"
    );
    assert_eq!(
        answers(&captured("openssl-tls10").0),
        [21, 3, 1, 0, 2, 2, 112],
        "unrecognized_name, in a record of TLS 1.0"
    );
    assert_eq!(
        answers(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"),
        [21, 3, 3, 0, 2, 2, 10],
        "unexpected_message"
    );
    assert_eq!(
        answers(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"),
        [21, 3, 3, 0, 2, 2, 50],
        "decode_error"
    );
}

#[test]
fn a_client_without_a_reachable_server_gets_an_internal_error_alert() {
    let server = refusing();
    let checked = config(server.address, server.address, None);
    let unchecked = checked.replace("[pools.shop]", "[pools.shop]\nhealth = { check = \"off\" }");
    for (config, ending) in [(checked, "no_server"), (unchecked, "connect_failed")] {
        let proxy = Proxy::start(&config);
        let hello = Hello::named("shop.example").bytes();
        assert_eq!(
            Client::connect(proxy.at("l")).send(&hello).read_all(),
            [21, 3, 3, 0, 2, 2, 80]
        );
        assert_eq!(proxy.access_line()["ending"], ending);
    }
}

#[test]
fn chromium_is_routed_by_its_large_hello() {
    let servers = ["shop.example", "any.wild.example"].map(tls_server);
    let [shop, wild] = servers.each_ref().map(|server| server.address);
    let proxy = Proxy::start(&config(shop, wild, None));
    let home = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("chromium");
    chromium.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ]);
    chromium.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    chromium.args(["--disable-dev-shm-usage", "--ignore-certificate-errors"]);
    chromium.arg(format!("--user-data-dir={}", home.path().display()));
    chromium.arg(format!("--host-resolver-rules=MAP * {}", proxy.at("l")));
    chromium
        .args(["--dump-dom", "https://x.wild.example/"])
        .env("HOME", home.path());
    let page = finished(&mut chromium);
    assert!(page.stdout.contains("this is any.wild.example"), "{page:#?}");
    // Chromium may also open connections of its own.
    proxy.wait_for_access("the page is logged", |line| {
        line["sni"] == "x.wild.example" && line["route"] == "l#2" && line["pool"] == "wild"
    });
}

#[test]
fn the_server_gets_all_bytes_unchanged_however_they_are_split() {
    let (shop, other) = (Server::keeping(b"bye"), Server::keeping(b""));
    let proxy = Proxy::start(&config(shop.address, other.address, None));
    let mut hello = Hello::named("shop.example")
        .alpn(&["h2"])
        .padded(600)
        .in_records(&[1, 3, 40, 5]);
    hello.extend(b"early data, perhaps");
    assert_eq!(ask(proxy.at("l"), &hello), b"bye");
    for length in [1, 7, 300] {
        let mut client = Client::connect(proxy.at("l"));
        client.send_in_pieces(&hello, length);
        assert_eq!(client.finish().read_all(), b"bye");
    }
    assert_eq!(shop.received(), vec![hello; 4]);
    assert_eq!(other.sessions(), 0);
}

#[test]
fn a_captured_post_quantum_hello_of_one_byte_segments_is_routed() {
    let server = Server::keeping(b"bye");
    let (hello, name) = captured("chromium");
    assert!(hello.len() > 1500, "expected more than the usual MTU of 1500 bytes");
    let proxy = Proxy::start(&config(server.address, server.address, None).replace("shop.example", &name));
    let mut client = Client::connect(proxy.at("l"));
    client.send_in_pieces(&hello, 1);
    assert_eq!(client.finish().read_all(), b"bye");
    assert_eq!(server.received(), [hello]);
}

/// The SSLRequest of PostgreSQL, which a client sends before its ClientHello.
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn a_connection_without_tls_goes_to_the_listeners_pool() {
    let (shop, rest) = (Server::keeping(b""), Server::keeping(b"plain"));
    let proxy = Proxy::start(&config(shop.address, shop.address, Some(rest.address)));
    for bytes in [SSL_REQUEST, b"GET / HTTP/1.0\r\n\r\n", b"G"] {
        assert_eq!(ask(proxy.at("l"), bytes), b"plain");
        assert_eq!(rest.received().last().map(Vec::as_slice), Some(bytes));
    }
    assert_eq!(shop.sessions(), 0);
}

#[test]
fn a_connection_without_tls_is_closed_cleanly_where_the_listener_has_no_pool() {
    let shop = Server::keeping(b"");
    let proxy = Proxy::start(&config(shop.address, shop.address, None));
    for bytes in [SSL_REQUEST, b"GET / HTTP/1.0\r\n\r\n", b"G"] {
        let answer = Client::connect(proxy.at("l")).send(bytes).read_all();
        assert_eq!(answer, b"", "{bytes:?}: expected a clean close");
    }
    let endings: Vec<_> = proxy
        .access_lines(3)
        .iter()
        .map(|line| line["ending"].clone())
        .collect();
    assert_eq!(endings, ["no_route"; 3]);
    assert_eq!(shop.sessions(), 0);
}
