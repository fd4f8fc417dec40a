//! No client can stall others, use more than its share of resources, or stop the process.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::support::client::{Client, ask, served_client};
use crate::support::configs::{listener, pool, tls_listener};
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::hello::Hello;
use crate::support::limits::raise_descriptor_limit;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::{cpu_time_over, descriptors, descriptors_fall_to, tcp_sockets};
use crate::support::{eventually, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

/// A listener `tls` that reads the ClientHello, with these keys, and a listener `plain` that reads nothing.
fn config(server: &Server, keys: &str) -> String {
    [
        tls_listener("tls", keys, &[("good.example", "pool = \"echo\"")]),
        listener("plain", "echo", ""),
        pool("echo", &[server.address], ""),
    ]
    .concat()
}

/// Asserts that a client with a routed name is served: the server echoes its hello.
fn assert_good_client_is_served(proxy: &Proxy) {
    let hello = Hello::named("good.example").bytes();
    assert!(ask(proxy.at("tls"), &hello) == hello);
}

/// The bytes of a record with this fatal alert.
const fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

const UNEXPECTED_MESSAGE: [u8; 7] = alert(10);
const RECORD_OVERFLOW: [u8; 7] = alert(22);
const ILLEGAL_PARAMETER: [u8; 7] = alert(47);
const USER_CANCELED: [u8; 7] = alert(90);

#[test]
fn a_thousand_stalled_hellos_are_closed_at_hello_timeout_and_block_nobody() {
    const CLIENTS: usize = 1_000;
    const TIMEOUT: Duration = Duration::from_secs(6);
    raise_descriptor_limit();
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, r#"hello_timeout = "6s""#));
    let baseline = descriptors(&proxy);
    let clients = (0..CLIENTS).map(|_| {
        let mut client = Client::connect(proxy.at("tls"));
        client.send(&[0x16, 3, 1]);
        (Instant::now(), client)
    });
    let clients: Vec<_> = clients.collect();
    wait_for_active_sessions(&proxy, CLIENTS);
    assert_good_client_is_served(&proxy);
    let used = cpu_time_over(&proxy, Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(100),
        "expected less than 100 ms of CPU time for silent clients, used {used:?}"
    );
    assert_good_client_is_served(&proxy);
    for (began, mut client) in clients {
        assert_eq!(
            client.read_all(),
            USER_CANCELED,
            "expected an alert: the client began a TLS record"
        );
        assert!(began.elapsed() > TIMEOUT - Duration::from_millis(100));
    }
    wait_for_ended_sessions(&proxy, "hello_timeout", CLIENTS);
    descriptors_fall_to(&proxy, baseline);
    for line in proxy.access_lines(CLIENTS + 2) {
        if line["ending"] == "hello_timeout" {
            let duration = line["duration_ms"].as_f64().unwrap();
            assert!((6_000.0..12_000.0).contains(&duration), "{line}");
            assert_eq!(line["bytes_up"], 3);
        }
    }
}

#[test]
fn a_client_that_drips_its_hello_is_closed_at_hello_timeout_after_accept() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, r#"hello_timeout = "1s""#));
    let mut client = Client::connect(proxy.at("tls"));
    let began = Instant::now();
    let hello = Hello::named("good.example").padded(10_000).bytes();
    let mut sent = 0;
    // No pause between two bytes is as long as the timeout; the whole hello would take hours.
    for byte in hello {
        if client.0.write_all(&[byte]).is_err() {
            break;
        }
        sent += 1;
        sleep(Duration::from_millis(if sent < 5 { 50 } else { 800 }));
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "expected a close after about 1 s"
        );
    }
    let line = proxy.access_line();
    assert_eq!(line["ending"], "hello_timeout");
    let duration = line["duration_ms"].as_f64().unwrap();
    assert!((1_000.0..3_000.0).contains(&duration), "{line}");
    assert!(line["server"].is_null(), "expected no server to be tried: {line}");
}

#[test]
fn bytes_that_cannot_become_a_hello_are_refused_at_once() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, r#"hello_timeout = "1h""#));
    let hopeless: [(&[u8], [u8; 7]); 6] = [
        (&[0x16, 3, 1, 0xff, 0xff], RECORD_OVERFLOW), // a record longer than allowed
        (&[0x16, 3, 1, 0x40, 0x01, 1], RECORD_OVERFLOW), // a record one byte longer than allowed
        (&[0x16, 3, 1, 0, 0], UNEXPECTED_MESSAGE),    // an empty record
        (&[0x16, 3, 1, 0, 5, 2, 0, 0, 1, 0], UNEXPECTED_MESSAGE), // a ServerHello
        (
            b"\x16\x03garbage that is anything but a client's hello", // its length field is too large
            RECORD_OVERFLOW,
        ),
        (&[0x16, 3, 3, 0, 4, 1, 0xff, 0xff, 0xff], ILLEGAL_PARAMETER), // a message of 16 MB
    ];
    for (bytes, alert) in hopeless {
        let mut client = Client::connect(proxy.at("tls"));
        // The client does not half-close; it is still answered.
        client.send(bytes);
        assert_eq!(client.read_all(), alert, "{bytes:x?}");
    }
    let endings: Vec<_> = proxy
        .access_lines(hopeless.len())
        .iter()
        .map(|line| line["ending"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        endings
            .iter()
            .all(|ending| ending == "hello_invalid" || ending == "hello_too_long"),
        "{endings:?}"
    );
    assert_good_client_is_served(&proxy);
}

#[test]
fn a_hello_may_have_hello_max_bytes_and_not_one_more() {
    let server = Server::echo();
    let largest = Hello::named("good.example").padded(2_000).bytes();
    let proxy = Proxy::start(&config(&server, &format!(r#"hello_max = "{}B""#, largest.len())));
    assert!(ask(proxy.at("tls"), &largest) == largest);
    let larger = Hello::named("good.example").padded(2_001).bytes();
    assert_eq!(larger.len(), largest.len() + 1);
    let mut client = Client::connect(proxy.at("tls"));
    client.send(&larger);
    assert_eq!(client.read_all(), ILLEGAL_PARAMETER);
    let lines = proxy.access_lines(2);
    let of_larger: Vec<_> = lines.iter().filter(|line| line["server"].is_null()).collect();
    assert_eq!(of_larger.len(), 1, "{lines:#?}");
    assert_eq!(of_larger[0]["ending"], "hello_too_long");
}

#[test]
fn a_client_with_an_oversized_hello_gets_an_alert_and_no_reset() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, r#"hello_max = "16KiB""#));
    // The client sends the whole hello before it reads the answer. A reset would make `read_all` fail.
    let hello = Hello::named("good.example").padded(65_000).in_records(&[16_000; 4]);
    let mut client = Client::connect(proxy.at("tls"));
    client.send(&hello).finish();
    assert_eq!(client.read_all(), ILLEGAL_PARAMETER);
    assert_eq!(proxy.access_line()["ending"], "hello_too_long");
}

#[test]
fn the_largest_extensions_and_hundreds_of_protocols_pass_by_default() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, ""));
    let records = [16_000; 4];
    // The padding, supported_versions and server_name are together 65,535 bytes of extensions: the most that their
    // length field can hold.
    let largest = Hello::named("good.example").padded(65_501).in_records(&records);
    assert!(ask(proxy.at("tls"), &largest) == largest);
    let protocols: Vec<String> = (0..400).map(|number| format!("p{number}")).collect();
    let protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
    let many = Hello::named("good.example").alpn(&protocols).bytes();
    assert!(ask(proxy.at("tls"), &many) == many);
    let lines = proxy.access_lines(2);
    let shown = lines.iter().find_map(|line| line["alpn"].as_str()).unwrap();
    assert!(shown.starts_with("p0,p1,") && shown.ends_with(",…"), "{shown}");
}

#[test]
fn a_hello_may_be_split_anywhere() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, r#"hello_timeout = "1h""#));
    let hello = [Hello::named("good.example").in_records(&[1, 3, 50]), vec![7; 9]].concat();
    let clients = (1..hello.len()).map(|cut| {
        let mut client = Client::connect(proxy.at("tls"));
        client.send(&hello[..cut]);
        (cut, client)
    });
    let clients: Vec<_> = clients.collect();
    eventually("the first pieces are read", || {
        let filter = format!("sport = :{}", proxy.at("tls").port());
        let open = tcp_sockets(&filter).into_iter().filter(|(state, _)| state == "ESTAB");
        let unread: Vec<_> = open.map(|(_, unread)| unread).collect();
        unread.len() == clients.len() && unread.iter().all(|unread| *unread == 0)
    });
    for (cut, mut client) in clients {
        client.send(&hello[cut..]).finish();
        assert!(client.read_all() == hello, "cut at {cut}");
    }
}

#[test]
fn a_connection_without_tls_is_closed_or_goes_to_the_listeners_pool_at_once() {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
    let server = Server::echo();
    let without_pool = Proxy::start(&config(&server, r#"hello_timeout = "1h""#));
    let mut client = Client::connect(without_pool.at("tls"));
    client.send(&SSL_REQUEST);
    assert_eq!(client.read_all(), b"", "a plain close, and at once");
    let line = without_pool.access_line();
    assert_eq!(
        (&line["ending"], &line["detail"]),
        (&"no_route".into(), &"postgres_ssl_request".into())
    );
    let with_pool = Proxy::start(&config(&server, "pool = \"echo\"\nhello_timeout = \"1h\""));
    let mut client = Client::connect(with_pool.at("tls"));
    client.send(&SSL_REQUEST);
    assert_eq!(client.read(8), SSL_REQUEST, "unchanged, without waiting for more");
    assert!(ask(with_pool.at("tls"), &SSL_REQUEST) == SSL_REQUEST);
    assert_eq!(with_pool.access_line()["detail"], "postgres_ssl_request");
    assert!(ask(without_pool.at("tls"), &GSSENC_REQUEST).is_empty());
    let detail = &without_pool.access_lines(2)[1]["detail"];
    assert_eq!(detail, "postgres_gssenc_request");
    assert_good_client_is_served(&with_pool);
    let is_hint = |line: &Value| line["reason"] == "postgres_ssl_request";
    let line = wait_for("the hint is logged", || with_pool.log().into_iter().find(is_hint));
    assert_eq!(line["listener"], "tls");
    let hints = with_pool.log().into_iter().filter(is_hint).count();
    assert_eq!(hints, 1, "expected one hint per listener");
}

#[test]
fn silent_clients_do_not_delay_others() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, r#"hello_timeout = "1h""#));
    let _silent = [Client::connect(proxy.at("tls")), Client::connect(proxy.at("plain"))];
    wait_for_active_sessions(&proxy, 2);
    let began = Instant::now();
    (0..100).for_each(|_| assert_good_client_is_served(&proxy));
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn clients_that_reset_before_accept_leave_no_session_and_no_warning() {
    let server = Server::echo();
    let mut proxy = Proxy::start(&config(&server, ""));
    proxy.signal(Signal::STOP);
    for _ in 0..500 {
        Client::connect(proxy.at("plain")).reset();
    }
    proxy.signal(Signal::CONT);
    served_client(proxy.at("plain"));
    assert!(proxy.is_running());
    wait_for_active_sessions(&proxy, 0);
    let warnings: Vec<_> = proxy.log().into_iter().filter(|line| line["level"] != "INFO").collect();
    assert!(
        warnings.is_empty(),
        "expected no warning because of a client: {warnings:#?}"
    );
}

#[test]
fn clients_that_die_during_a_transfer_leave_no_descriptors() {
    const BYTES: usize = 16 << 20;
    let server = Server::run(|mut stream| {
        let mut reads = stream.try_clone().unwrap();
        let upload = spawn(move || std::io::copy(&mut reads, &mut std::io::sink()));
        let _ = stream.write_all(&vec![1; BYTES]);
        let _ = stream.shutdown(Shutdown::Both);
        let _ = upload.join();
    });
    let mut proxy = Proxy::start(&format!("[runtime]\nworkers = 1\n{}", config(&server, "")));
    let baseline = descriptors(&proxy);
    for round in 0..10 {
        let mut client = Client::connect(proxy.at("plain"));
        client.send(&[2; 60_000]);
        client.0.read_exact(&mut vec![0; BYTES / 16 * (1 + round)]).unwrap();
        if round % 2 == 0 {
            client.reset();
        } else {
            drop(client); // closes with unread bytes, as a killed client does
        }
        wait_for_active_sessions(&proxy, 0);
    }
    // The worker keeps pipes for later sessions: at most one per direction, with two descriptors each. The other four
    // are a margin.
    descriptors_fall_to(&proxy, baseline + 8);
    assert!(proxy.is_running());
    assert_eq!(
        Client::connect(proxy.at("plain")).read(1),
        [1],
        "a new client is served"
    );
}
