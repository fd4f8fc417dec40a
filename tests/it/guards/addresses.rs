//! Guards that allow and deny networks.

use std::io::ErrorKind;

use crate::support::client::Client;
use crate::support::configs;
use crate::support::counts::wait_for_ended_sessions;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// The record of a fatal alert, access_denied (RFC 8446, section 6). Its version is that of TLS 1.2.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

fn config(server: &Server, guard_keys: &str, listener_keys: &str) -> String {
    [
        format!("[guards.g]\n{guard_keys}\n"),
        configs::listener("l", "p", &format!("guards = [\"g\"]\n{listener_keys}")),
        configs::pool("p", &[server.address], "health = { check = \"off\" }"),
    ]
    .concat()
}

/// Whether a client from this address is served; otherwise it must be reset.
fn is_served(proxy: &Proxy, source: &str) -> bool {
    match Client::try_connect_from(source, proxy.at("l")).and_then(|mut client| client.try_read_all()) {
        Ok(bytes) => {
            assert_eq!(bytes, b"served");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{source}");
            false
        }
    }
}

fn greeting_server() -> Server {
    Server::run(|mut stream| {
        use std::io::Write;
        let _ = stream.write_all(b"served");
    })
}

#[test]
fn clients_that_are_denied_or_not_allowed_are_reset_before_they_reach_a_server() {
    let server = greeting_server();
    let proxy = Proxy::start(&config(&server, "allow = \"127.0.0.0/29\"\ndeny = \"127.0.0.2\"", ""));
    let served = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.9"].map(|source| is_served(&proxy, source));
    assert_eq!(served, [true, false, true, false]);
    wait_for_ended_sessions(&proxy, "denied", 2);
    let refusals = |reason| {
        proxy
            .metrics()
            .sum("acequia_guard_refusals_total", &[("guard", "g"), ("reason", reason)])
    };
    assert_eq!(
        (refusals("deny"), refusals("not_allowed"), refusals("rate")),
        (1.0, 1.0, 0.0)
    );
    let lines = proxy.access_lines(4);
    let denied: Vec<_> = lines.iter().filter(|line| line["ending"] == "denied").collect();
    let reasons: Vec<_> = denied
        .iter()
        .map(|line| line["guard_reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["deny", "not_allowed"]);
    assert!(
        denied
            .iter()
            .all(|line| line["guard"] == "g" && line["pool"].is_null() && line["suppressed"] == 0)
    );
    let passed = lines.iter().find(|line| line["ending"] != "denied").unwrap();
    assert!(passed.get("guard").is_none(), "{passed}");
    assert_eq!(server.sessions(), 2);
}

#[test]
fn refuse_with_close_closes_cleanly_despite_unread_bytes() {
    let server = greeting_server();
    let proxy = Proxy::start(&config(&server, "deny = \"127.0.0.2\"\nrefuse_with = \"close\"", ""));
    let mut client = Client::connect_from("127.0.0.2", proxy.at("l"));
    client.send(b"something");
    assert_eq!(client.read_all(), b"");
}

/// A client that is refused without a reset counts in `max_connections` until it closes, for at most a second. So, of
/// the clients from which nothing was read, a guard refuses only 10 a second that way, and resets the others.
#[test]
fn in_a_flood_most_refused_clients_are_reset() {
    let server = greeting_server();
    for (guard_keys, listener_keys, answer) in [
        (
            "",
            "protocol = \"redis\"",
            &b"-ERR this client may not connect here\r\n"[..],
        ),
        ("refuse_with = \"close\"", "", b""),
    ] {
        let proxy = Proxy::start(&config(
            &server,
            &format!("deny = \"127.0.0.2\"\n{guard_keys}"),
            listener_keys,
        ));
        // These clients keep their end open.
        let mut flood: Vec<_> = (0..200)
            .map(|_| Client::try_connect_from("127.0.0.2", proxy.at("l")))
            .collect();
        wait_for_ended_sessions(&proxy, "denied", 200);
        let read_all = |client: &mut std::io::Result<Client>| match client {
            Ok(client) => client.try_read_all(),
            Err(error) => Err(error.kind().into()),
        };
        let answers = flood.iter_mut().filter_map(|client| match read_all(client) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                None
            }
        });
        let answers: Vec<_> = answers.collect();
        assert!(
            (1..100).contains(&answers.len()),
            "{} of 200 had a reply",
            answers.len()
        );
        assert!(answers.iter().all(|bytes| bytes == answer), "{answers:?}");
    }
}

#[test]
fn a_route_guard_is_asked_after_routing_and_answers_by_an_alert() {
    let server = Server::keeping(b"answer");
    let route = |sni: &str, guards: &str| format!("[[listeners.l.routes]]\nsni = \"{sni}\"\npool = \"p\"\n{guards}\n");
    let proxy = Proxy::start(
        &[
            "[guards.g]\ndeny = \"127.0.0.2\"\n",
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n",
            &route("guarded.example", "guards = \"g\""),
            &route("open.example", ""),
            &configs::pool("p", &[server.address], "health = { check = \"off\" }"),
        ]
        .concat(),
    );
    let ask = |source: &str, name: &str| {
        let mut client = Client::connect_from(source, proxy.at("l"));
        client.send(&Hello::named(name).bytes()).finish().read_all()
    };
    assert_eq!(ask("127.0.0.2", "open.example"), b"answer");
    assert_eq!(ask("127.0.0.2", "other.example"), b"answer", "the listener's own pool");
    assert_eq!(ask("127.0.0.1", "guarded.example"), b"answer");
    assert_eq!(ask("127.0.0.2", "guarded.example"), ACCESS_DENIED);
    let lines = proxy.access_lines(4);
    let denied = lines.iter().find(|line| line["ending"] == "denied").unwrap();
    assert_eq!(
        (&denied["route"], &denied["sni"]),
        (&"l#1".into(), &"guarded.example".into())
    );
    assert!(
        denied.get("suppressed").is_none(),
        "all refusals after a ClientHello are logged"
    );
}

#[test]
fn a_reload_reads_the_files_again_and_rejects_invalid_ones() {
    let server = greeting_server();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("denied.txt");
    std::fs::write(&file, "127.0.0.2\n").unwrap();
    let text = config(&server, &format!("deny_file = \"{}\"", file.display()), "");
    let proxy = Proxy::start(&text);
    assert!(is_served(&proxy, "127.0.0.1") && !is_served(&proxy, "127.0.0.2"));
    std::fs::write(&file, "127.0.0.0/8 # all\n").unwrap();
    assert!(proxy.reload(&text));
    assert!(!is_served(&proxy, "127.0.0.1"));
    std::fs::write(&file, "not a network\n").unwrap();
    assert!(!proxy.reload(&text), "a file with errors changes nothing");
    assert!(!is_served(&proxy, "127.0.0.1"));
    std::fs::write(&file, "127.0.0.2\n127.0.0.1").unwrap();
    assert!(
        !proxy.reload(&text),
        "a file whose last line has no end changes nothing: its 127.0.0.1 may be the start of 127.0.0.128"
    );
    std::fs::write(&file, "127.0.0.2\n127.0.0.128\n").unwrap();
    let reloaded = proxy.command(&["reload"]);
    assert!(reloaded.stdout.contains("guard g: 2 networks denied\n"), "{reloaded:?}");
    let checked = proxy.command(&["check", "-c", "acequia.toml"]);
    assert!(checked.stdout.contains("guard g: 2 networks denied\n"), "{checked:?}");
    // An empty file is valid. The number of networks shows an operator that it was perhaps not written yet.
    std::fs::write(&file, "").unwrap();
    let emptied = proxy.command(&["reload"]);
    assert!(emptied.stdout.contains("guard g: 0 networks denied\n"), "{emptied:?}");
}

#[test]
fn an_allow_file_adds_to_the_allow_list() {
    let server = greeting_server();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("allowed.txt");
    std::fs::write(&file, "# the office\n127.0.0.2\n").unwrap();
    let guard = format!("allow = \"127.0.0.4\"\nallow_file = \"{}\"", file.display());
    let text = config(&server, &guard, "");
    let proxy = Proxy::start(&text);
    let served = || ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|source| is_served(&proxy, source));
    assert_eq!(served(), [true, false, true]);
    std::fs::write(&file, "127.0.0.3\n").unwrap();
    assert!(proxy.reload(&text));
    assert_eq!(served(), [false, true, true]);
}

#[test]
fn a_hundred_thousand_networks_are_reloaded_within_seconds() {
    let server = greeting_server();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("denied.txt");
    let network = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        format!("{}.{a}.{b}.{c}\n", 20 + number % 50)
    };
    std::fs::write(&file, (0..100_000).map(network).collect::<String>()).unwrap();
    let text = config(&server, &format!("deny_file = \"{}\"", file.display()), "");
    let proxy = Proxy::start(&text);
    std::fs::write(&file, (0..100_000).map(network).collect::<String>() + "127.0.0.3\n").unwrap();
    let began = tokio::time::Instant::now();
    assert!(proxy.reload(&text));
    let took = began.elapsed();
    assert!(is_served(&proxy, "127.0.0.1") && !is_served(&proxy, "127.0.0.3"));
    // The bound is for a debug build; an optimized build takes a tenth of the time.
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
}
