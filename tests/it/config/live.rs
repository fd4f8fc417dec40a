//! `acequia check --live` tries the servers of a configuration.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::support::authority::Authority;
use crate::support::configs::{listener, pool};
use crate::support::process::{Finished, Port, finished};
use crate::support::proxy::acequia;
use crate::support::server::Server;
use crate::support::tls_server::ManualTlsServer;

fn check_live(toml: &str, arguments: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), toml).unwrap();
    let arguments = [&["check", "--live", "-c", "a.toml"], arguments].concat();
    finished(acequia(&arguments).current_dir(folder.path()))
}

/// A TLS server with a certificate for these names, until the test ends.
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
fn servers_are_checked_once_and_a_pool_without_one_is_an_error() {
    let (good, gone) = (Server::echo(), Port::keep());
    let gone = SocketAddr::from(([127, 0, 0, 1], gone.number()));
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
}

#[test]
fn a_name_without_an_address_is_told() {
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
    let trap = "browsers may send requests for it on connections of HTTP/2 that this route has taken";
    assert_eq!(
        warnings,
        [
            format!("warning: route shop: the certificate of shop/{shop} is also for a name of route mail: {trap}"),
            format!("warning: route shop: the certificate of shop/{shop} is not for other.example.org"),
            format!("warning: route mail: the certificate of mail/{mail} is also for a name of route shop: {trap}"),
            format!("warning: route deep: the certificate of mail/{mail} is not for a.b.example.com"),
        ]
    );
}
