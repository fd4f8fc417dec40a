//! `acequia check --live` tries the servers of a configuration.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::authority::Authority;
use crate::support::configs::{listener, pool};
use crate::support::process::{Finished, Port, finished};
use crate::support::proxy::acequia;
use crate::support::server::Server;
use crate::support::tls_server::ManualTlsServer;

fn check_live(toml: &str, arguments: &[&str]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.toml"), toml).unwrap();
    let arguments = [&["check", "--live", "-c", "a.toml"], arguments].concat();
    finished(acequia(&arguments).current_dir(directory.path()))
}

/// Starts a TLS server with a certificate for these names, and returns its address. It runs until this process ends.
fn tls_server(authority: &Authority, names: &[&str]) -> SocketAddr {
    let server = ManualTlsServer::new(&authority.issue(names));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            if let Ok(mut session) = server.over(socket.unwrap()) {
                let _ = session.read_to_end();
            }
        }
    });
    address
}

#[test]
fn servers_are_checked_and_a_pool_without_a_usable_server_is_an_error() {
    let (good, unused) = (Server::echo(), Port::keep());
    let gone = unused.address;
    let listeners = listener("l", "mixed", "") + &listener("m", "unchecked", "");
    let fine = listeners.clone()
        + &pool("mixed", &[good.address, gone], "")
        + &pool("unchecked", &[good.address], "health = { check = \"off\" }");
    let done = check_live(&fine, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let refused = "Connection refused (os error 111)";
    let expected = format!(
        "a.toml: 2 listeners, 2 pools, 3 servers: fine\npool mixed\n  {}: passes its check\n  {gone}: {refused}\n\
         pool unchecked\n  {}: connected\n",
        good.address, good.address
    );
    assert_eq!(done.stdout, expected);
    assert!(
        done.stderr
            .contains(&format!("warning: server mixed/{gone}: {refused}")),
        "{done:?}"
    );

    let lost = listeners + &pool("mixed", &[gone], "") + &pool("unchecked", &[gone], "health = { check = \"off\" }");
    let done = check_live(&lost, &["--format", "json"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(json["valid"], false);
    let errors: Vec<_> = json["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|problem| problem["severity"] == "error")
        .collect();
    assert_eq!(errors.len(), 2, "{json:#}");
    assert_eq!(errors[0]["message"], "pool mixed has no usable server");
    let done = check_live(&lost, &[]);
    let is_not_called_fine = done
        .stdout
        .starts_with("a.toml: 2 listeners, 2 pools, 2 servers:\npool mixed\n");
    assert!(done.code == Some(1) && is_not_called_fine, "{done:?}");
}

#[test]
fn a_configuration_with_an_unusable_file_is_not_called_fine() {
    let good = Server::echo();
    let admin = "[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = \"/nonexistent\"\n";
    let done = check_live(&(listener("l", "p", "") + &pool("p", &[good.address], "") + admin), &[]);
    assert!(done.code != Some(0) && done.stdout.is_empty(), "{done:?}");
}

/// Whoever runs `check --live` on another machine, or as another user, wants to know about the servers.
#[test]
fn servers_are_tried_even_if_the_access_log_cannot_be_written() {
    let good = Server::echo();
    let log = "[log]\naccess = \"/nonexistent/access.log\"\n";
    let done = check_live(&(listener("l", "p", "") + &pool("p", &[good.address], "") + log), &[]);
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.stderr.contains("cannot write the access log"), "{done:?}");
    assert!(done.stdout.contains(&format!("  {}: ", good.address)), "{done:?}");
}

#[test]
fn a_name_without_an_address_is_reported() {
    let done = check_live(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"nowhere.invalid:1\"]",
        &[],
    );
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stderr
            .contains("server p/nowhere.invalid:1: the name has no address"),
        "{done:?}"
    );
}

#[test]
fn certificates_are_compared_with_the_names_of_routes() {
    let authority = Authority::new("live");
    let shop = tls_server(&authority, &["shop.example.com", "mail.example.com"]);
    let mail = tls_server(&authority, &["*.example.com"]);
    let toml = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\n\
         [[listeners.l.routes]]\nname = \"shop\"\nsni = [\"shop.example.com\", \"other.example.org\"]\npool = \"shop\"\n\
         [[listeners.l.routes]]\nname = \"mail\"\nsni = [\"mail.example.com\", \"*.example.com\"]\npool = \"mail\"\n\
         [[listeners.l.routes]]\nname = \"deep\"\nsni = \"a.b.example.com\"\npool = \"mail\"\n{}{}",
        pool("shop", &[shop], ""),
        pool("mail", &[mail], "")
    );
    let done = check_live(&toml, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let warnings: Vec<_> = done
        .stderr
        .lines()
        .filter(|line| line.starts_with("warning: route"))
        .collect();
    let risk = "browsers may send requests for that name over HTTP/2 connections of route";
    assert_eq!(
        warnings,
        [
            format!(
                "warning: route shop: the certificate of shop/{shop} is also for a name of route mail: {risk} shop"
            ),
            format!("warning: route shop: the certificate of shop/{shop} is not for other.example.org"),
            format!(
                "warning: route mail: the certificate of mail/{mail} is also for a name of route shop: {risk} mail"
            ),
            format!("warning: route deep: the certificate of mail/{mail} is not for a.b.example.com"),
        ]
    );
}

#[test]
fn servers_that_a_file_lists_are_tried_and_those_of_a_url_or_of_scale_are_not() {
    let good = Server::echo();
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("servers.json");
    std::fs::write(&list, format!("[\"{}\"]", good.address)).unwrap();
    let toml = [
        listener("l", "listed", ""),
        listener("m", "asked", ""),
        listener("n", "grown", ""),
        format!("[pools.listed]\ndiscover = {{ file = {list:?} }}\n"),
        "[pools.asked]\ndiscover = { http = \"http://127.0.0.1:9/servers\" }\n".to_owned(),
        "[pools.grown.scale]\nmin = 1\nmax = 2\nsessions_per_server = 1\ncommand = \"/bin/false\"\n".to_owned(),
    ];
    let began = Instant::now();
    let done = check_live(&toml.concat(), &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let expected = format!(
        "pool listed\n  {}: passes its check\npool asked\n  http://127.0.0.1:9/servers: not tried\npool grown\n  clones: not tried\n",
        good.address
    );
    assert!(done.stdout.ends_with(&expected), "{done:?}");
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "the check does not use up its time limit of 10 s"
    );
}

#[test]
fn a_pool_without_a_usable_server_is_no_error_if_its_fallback_serves() {
    let (good, unused) = (Server::echo(), Port::keep());
    let gone = unused.address;
    let pools = |last: SocketAddr| {
        listener("l", "a", "")
            + &pool("a", &[gone], "fallback = \"b\"")
            + &pool("b", &[gone], "fallback = \"c\"\nhealth = { check = \"off\" }")
            + &pool("c", &[last], "")
    };
    let done = check_live(&pools(good.address), &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for name in ["a", "b"] {
        let warning = format!("warning: pool {name} has no usable server: pool c stands in for it");
        assert!(done.stderr.contains(&warning), "{done:?}");
    }
    let done = check_live(&pools(gone), &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.stderr.matches("has no usable server\n").count(), 3, "{done:?}");
}

#[test]
fn a_server_of_weight_0_is_judged_by_its_check_and_does_not_serve() {
    let (good, unused) = (Server::echo(), Port::keep());
    let gone = unused.address;
    let servers = |serving: SocketAddr, idle: SocketAddr| {
        listener("l", "p", "")
            + &format!("[pools.p]\nservers = [\"{serving}\", {{ address = \"{idle}\", weight = 0 }}]\n")
    };
    let refused = "Connection refused (os error 111)";
    let done = check_live(&servers(good.address, gone), &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stdout.contains(&format!("{gone}: {refused}; weight 0")),
        "{done:?}"
    );
    assert!(done.stderr.contains(&format!("server p/{gone}: {refused}")), "{done:?}");
    let done = check_live(&servers(gone, good.address), &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.contains("passes its check; weight 0"), "{done:?}");
    assert!(done.stderr.contains("pool p has no usable server"), "{done:?}");
}

#[test]
fn certificates_of_postgresql_are_fetched_by_its_ssl_request() {
    let server = ManualTlsServer::new(&Authority::new("live").issue(&["shop.example.com"]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = [0; 8];
            if socket.read_exact(&mut request).is_ok() && request == *b"\0\0\0\x08\x04\xd2\x16\x2f" {
                socket.write_all(b"S").unwrap();
                if let Ok(mut session) = server.over(socket) {
                    let _ = session.read_to_end();
                }
            }
        }
    });
    let routes =
        "[[listeners.l.routes]]\nname = \"shop\"\nsni = [\"shop.example.com\", \"other.example.org\"]\npool = \"p\"\n";
    let toml = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n{routes}{}",
        pool("p", &[address], "health = { check = \"off\" }")
    );
    let done = check_live(&toml, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let warning = format!("warning: route shop: the certificate of p/{address} is not for other.example.org\n");
    assert!(done.stderr.contains(&warning), "{done:?}");
    assert!(!done.stderr.contains("not for shop"), "{done:?}");
}

#[test]
fn after_a_failed_handshake_the_server_is_not_asked_for_other_names() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let toml = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\n\
         [[listeners.l.routes]]\nsni = [\"a.example\", \"b.example\", \"c.example\"]\npool = \"p\"\n{}",
        pool(
            "p",
            &[address],
            "connect_timeout = \"200ms\"\nhealth = { check = \"off\" }"
        )
    );
    let done = check_live(&toml, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(
        listener.incoming().take_while(Result::is_ok).count(),
        2,
        "a connection to try the server, and one handshake"
    );
}
