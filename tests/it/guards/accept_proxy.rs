//! Peers in front that name their client by a PROXY header.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use acequia::proxy_protocol::{Decoded, ProxyAddresses, decode};

use crate::support::client::Client;
use crate::support::configs;
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

/// Version 2: from 192.0.2.7:56324 to 198.51.100.1:443, with an authority, a unique id and an unknown value.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x1f\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb\
    \x02\x00\x08a.theirs\x05\x00\x02id\xe0\x00\x00";

/// `accept_keys` are further keys of `accept_proxy`, each after a comma.
fn config(server: &Server, accept_keys: &str, listener_keys: &str, pool_keys: &str) -> String {
    [
        "[guards.g]\ndeny = \"192.0.2.66\"\n".to_owned(),
        configs::listener(
            "l",
            "p",
            &format!("accept_proxy = {{ from = \"127.0.0.1\"{accept_keys} }}\nguards = \"g\"\n{listener_keys}"),
        ),
        configs::pool(
            "p",
            &[server.address],
            &format!("health = {{ check = \"off\" }}\n{pool_keys}"),
        ),
    ]
    .concat()
}

#[test]
fn headers_of_both_versions_are_read_however_they_are_cut() {
    let server = Server::keeping(b"answer");
    let proxy = Proxy::start(&config(&server, "", "", ""));
    for header in [V1, V2] {
        let whole = [header, b"data"].concat();
        for length in [1, 7, header.len(), whole.len()] {
            let mut client = Client::connect(proxy.at("l"));
            client.send_in_pieces(&whole, length).finish();
            assert_eq!(client.read_all(), b"answer");
        }
    }
    assert!(server.received().iter().all(|received| received == b"data"));
    let lines = proxy.access_lines(8);
    for line in &lines {
        assert_eq!(line["client"], "192.0.2.7:56324");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(line["bytes_up"], 4);
    }
    let last = &lines[7];
    assert_eq!(
        (&last["proxy_authority"], &last["proxy_unique_id"]),
        (&"a.theirs".into(), &"id".into())
    );
}

#[test]
fn the_incoming_header_is_passed_on_with_the_name_of_the_client_hello() {
    let server = Server::keeping(b"answer");
    let routes = "[[listeners.l.routes]]\nsni = \"ours.example\"\nfrom = \"192.0.2.0/24\"\npool = \"p\"";
    let proxy = Proxy::start(&config(&server, "", routes, "proxy_protocol = \"v2\""));
    let hello = Hello::named("ours.example").bytes();
    let mut client = Client::connect(proxy.at("l"));
    client.send(&[V2, &hello].concat()).finish();
    assert_eq!(client.read_all(), b"answer");
    let received = server.received().remove(0);
    let Decoded::Header(header, length) = decode(&received) else {
        panic!("{}", received.escape_ascii())
    };
    assert_eq!(&received[length..], hello);
    assert_eq!(header.authority.as_deref(), Some(&b"ours.example"[..]));
    assert_eq!(header.unique_id.as_deref(), Some(&b"id"[..]));
    let ProxyAddresses::Tcp { client, local } = header.addresses else {
        panic!("{header:?}")
    };
    assert_eq!(
        (client.to_string(), local.to_string()),
        ("192.0.2.7:56324".into(), "198.51.100.1:443".into())
    );
    assert_eq!(proxy.access_line()["route"], "l#1");
}

#[test]
fn a_header_of_an_untrusted_peer_is_data_unless_such_peers_are_refused() {
    let server = Server::keeping(b"answer");
    let proxy = Proxy::start(&config(&server, "", "", ""));
    let mut client = Client::connect_from("127.0.0.2", proxy.at("l"));
    client.send(V1).finish();
    assert_eq!(client.read_all(), b"answer");
    assert_eq!(server.received(), [V1]);
    assert!(
        proxy.access_line()["client"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.2:")
    );
    assert!(proxy.reload(&config(&server, ", others = \"refuse\"", "", "")));
    Client::connect_from("127.0.0.2", proxy.at("l")).must_be_reset();
    wait_for_ended_sessions(&proxy, "denied", 1);
}

#[test]
fn guards_judge_the_client_in_the_header() {
    let server = Server::keeping(b"answer");
    let proxy = Proxy::start(&config(&server, "", "", ""));
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"PROXY TCP6 ::ffff:192.0.2.66 ::1 1 2\r\n");
    client.must_be_reset();
    let line = proxy.access_line();
    assert_eq!(
        (&line["ending"], &line["client"]),
        (&"denied".into(), &"192.0.2.66:1".into())
    );
}

#[test]
fn invalid_or_missing_headers_end_as_proxy_invalid_without_an_answer() {
    let server = Server::keeping(b"answer");
    let proxy = Proxy::start(&config(&server, "", "", ""));
    let mut damaged = V2.to_vec();
    damaged[12] = 0x31;
    for (bytes, detail) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "proxy_header_missing"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 x\r\n", "proxy_header_line"),
        (&damaged, "proxy_header_version"),
    ] {
        let before = proxy.access().len();
        let mut client = Client::connect(proxy.at("l"));
        client.send(bytes);
        let ended = client.0.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
        let line = proxy.access_lines(before + 1).remove(before);
        assert_eq!(
            (&line["ending"], &line["detail"]),
            (&"proxy_invalid".into(), &detail.into())
        );
    }
    assert_eq!(server.sessions(), 0);
}

#[test]
fn without_require_a_trusted_peer_may_come_without_a_header() {
    let server = Server::keeping(b"answer");
    let proxy = Proxy::start(&config(&server, ", require = false", "", ""));
    for (sent, received) in [(&b"PROX without"[..], &b"PROX without"[..]), (V1, b"")] {
        let mut client = Client::connect(proxy.at("l"));
        client.send(sent).finish();
        assert_eq!(client.read_all(), b"answer");
        assert_eq!(server.received().pop().unwrap(), received);
    }
}

#[test]
fn without_require_a_client_that_waits_for_the_server_needs_no_header() {
    let server = Server::named("greeting");
    let keys = "hello_timeout = \"300ms\"";
    let proxy = Proxy::start(&config(&server, ", require = false", keys, ""));
    let mut client = Client::connect(proxy.at("l"));
    assert_eq!(client.read(8), b"greeting");
    client.finish();
    assert_eq!(client.read_all(), b"");
    let line = proxy.access_line();
    assert_eq!(
        (&line["ending"], &line["client"]),
        (&"client_closed".into(), &line["peer"])
    );
    // A client that stops within a header, or sends none where it is required, is too slow.
    Client::connect(proxy.at("l")).send(b"PROXY ").read_all();
    assert!(proxy.reload(&config(&server, "", keys, "")));
    Client::connect(proxy.at("l")).read_all();
    wait_for_ended_sessions(&proxy, "hello_timeout", 2);
}

/// One deadline, counted from accept, holds for the header and the ClientHello together. The last 30 bytes come 100 ms
/// apart, which takes longer than the deadline allows.
#[test]
fn a_dripping_peer_is_closed_in_time() {
    let server = Server::keeping(b"answer");
    let routes = "hello_timeout = \"1s\"\n[[listeners.l.routes]]\nsni = \"a.example\"\npool = \"p\"";
    let proxy = Proxy::start(&config(&server, "", routes, ""));
    let hello = Hello::named("a.example").bytes();
    for whole in [V2.to_vec(), [V2, &hello].concat()] {
        let mut client = Client::connect(proxy.at("l"));
        let (head, tail) = whole.split_at(whole.len() - 30);
        client.send(head);
        client.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut tail = tail.iter();
        let ended = loop {
            match client.0.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {} // the pause between two bytes
                ended => break ended.map_err(|error| error.kind()),
            }
            let byte = tail.next().expect("it is closed before all has come");
            let _ = client.0.write_all(&[*byte]);
        };
        assert!(matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
    }
    wait_for_ended_sessions(&proxy, "hello_timeout", 2);
    assert_eq!(server.sessions(), 0);
}

#[test]
fn source_hash_uses_the_client_in_the_header() {
    let servers = [Server::named("a"), Server::named("b")];
    let pool = configs::pool(
        "p",
        &[servers[0].address, servers[1].address],
        "balance = \"source-hash\"\nhealth = { check = \"off\" }",
    );
    let listener = configs::listener("l", "p", "accept_proxy = { from = \"127.0.0.1\" }");
    let proxy = Proxy::start(&[listener, pool].concat());
    let reached = |last: u8| {
        let mut client = Client::connect(proxy.at("l"));
        client.send(format!("PROXY TCP4 192.0.2.{last} 192.0.2.1 1 2\r\n").as_bytes());
        client.finish().read_all()
    };
    let first: Vec<_> = (0..30).map(reached).collect();
    let again: Vec<_> = (0..30).map(reached).collect();
    assert_eq!(first, again, "a client always reaches the same server");
    assert!(
        first.contains(&b"a".to_vec()) && first.contains(&b"b".to_vec()),
        "{first:?}"
    );
}

#[test]
fn route_explains_a_client_behind_a_peer() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, ", others = \"refuse\"", "", ""));
    let explain = |peer: &str| {
        let arguments = [
            "route",
            "-c",
            "acequia.toml",
            "--listener",
            "l",
            "--peer",
            peer,
            "--from",
            "192.0.2.66",
        ];
        proxy.command(&arguments).stdout
    };
    let trusted = explain("127.0.0.1");
    assert!(trusted.contains("peer 127.0.0.1 is trusted"), "{trusted}");
    assert!(trusted.contains("deny"), "the guard refuses the client: {trusted}");
    let other = explain("127.0.0.2");
    assert!(other.contains("peer 127.0.0.2 is refused"), "{other}");
}

#[test]
fn trusting_all_peers_or_unix_peers_without_a_unix_socket_causes_a_warning() {
    let server = Server::echo();
    for (from, expected) in [
        ("\"0.0.0.0/0\"", "trusts everybody"),
        ("\"::/0\"", "trusts everybody"),
        ("[\"0.0.0.0/1\", \"128.0.0.0/1\"]", "trusts everybody"),
        ("[\"127.0.0.1\", \"unix\"]", "the listener has no Unix socket"),
    ] {
        let text = config(&server, "", "", "").replace("from = \"127.0.0.1\"", &format!("from = {from}"));
        let proxy = Proxy::start(&text);
        let checked = proxy.command(&["check", "-c", "acequia.toml"]);
        let printed = checked.stdout + &checked.stderr;
        assert!(checked.code == Some(0) && printed.contains(expected), "{printed}");
    }
}

#[test]
fn health_checks_by_peers_are_not_logged_and_slow_headers_end_in_time() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&server, "", "hello_timeout = \"300ms\"", ""));
    drop(Client::connect(proxy.at("l")));
    wait_for_ended_sessions(&proxy, "client_left_early", 1);
    // The command LOCAL of version 2: the peer connects on its own behalf, without a client.
    let mut local = Client::connect(proxy.at("l"));
    local.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").finish();
    assert_eq!(local.read_all(), b"");
    wait_for_ended_sessions(&proxy, "client_closed", 1);
    let mut slow = Client::connect(proxy.at("l"));
    slow.send(b"PROXY ");
    assert_eq!(slow.read_all(), b"");
    wait_for_ended_sessions(&proxy, "hello_timeout", 1);
    wait_for_active_sessions(&proxy, 0);
    assert_eq!(proxy.stop().access.len(), 1, "only the slow one");
}
