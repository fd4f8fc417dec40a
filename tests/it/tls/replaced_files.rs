//! The files of certificates are replaced while the process runs.

use std::fs;
use std::process::Command;

use super::site::Site;
use crate::support::authority::replace;
use crate::support::configs::{listener, pool};
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

#[test]
fn a_certificate_stays_in_use_until_both_of_its_files_are_missing() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let directory = site.directory().join("sites");
    fs::create_dir_all(directory.join("bot")).unwrap();
    site.authority.issue(&["a.example"]).write(&directory, "a"); // the default certificate
    let layouts = [
        ("pem.example", "b.pem", "b.key"),
        ("crt.example", "c.crt", "c.key"),
        ("bot.example", "bot/fullchain.pem", "bot/privkey.pem"),
    ];
    for (name, certificate, key) in layouts {
        let issued = site.authority.issue(&[name]);
        replace(&directory.join(certificate), &issued.certificate);
        replace(&directory.join(key), &issued.key);
    }
    let proxy = site.start_with_sites(server.address);
    let is_served = |name| site.client().connect(proxy.at("tls"), name).is_ok();
    let renamed_file = directory.join("renamed");
    for (name, certificate, key) in layouts {
        for file in [certificate, key] {
            fs::rename(directory.join(file), &renamed_file).unwrap();
            let reloaded = proxy.command(&["cert", "reload"]);
            assert!(
                reloaded.code == Some(1) && reloaded.stderr.contains(&format!("{file}: No such file")),
                "{reloaded:?}"
            );
            assert!(is_served(name), "{name} without {file}");
            let status = proxy.command(&["status"]).stdout;
            assert!(status.contains("broken") && status.contains(file), "{status}");
            fs::rename(&renamed_file, directory.join(file)).unwrap();
            assert_eq!(proxy.command(&["cert", "reload"]).code, Some(0));
            assert!(is_served(name));
        }
        fs::remove_file(directory.join(certificate)).unwrap();
        fs::remove_file(directory.join(key)).unwrap();
        assert_eq!(proxy.command(&["cert", "reload"]).code, Some(0));
        assert!(!is_served(name));
    }
}

#[test]
fn a_file_that_cannot_be_read_any_more_does_not_stop_a_reload() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let path = |name: &str| site.directory().join(name);
    for authorities in ["clients.pem", "servers.pem"] {
        replace(&path(authorities), &site.authority.certificate());
    }
    replace(&path("clients.crl"), &site.authority.revocations(&[]));
    replace(&path("tickets"), &"x".repeat(32));
    let names = [
        "shop.pem",
        "shop.key",
        "clients.pem",
        "clients.crl",
        "tickets",
        "servers.pem",
        "own.pem",
        "own.key",
    ];
    site.authority.issue(&["own.example"]).write(site.directory(), "own");
    let [_, _, clients, revoked, tickets, servers, cert, key] = names.map(|name| site.file(name));
    let of_listener = format!("client_auth = {{ ca_file = {clients}, crl_file = {revoked} }}\ntickets = {tickets}");
    let of_pool = format!("health.check = \"off\"\ntls = {{ ca_file = {servers}, cert = {cert}, key = {key} }}");
    let config = |added: &str| {
        let rest = pool("q", &[server.address], &of_pool) + &listener(added, "q", "");
        site.config(server.address, &of_listener, "") + &rest
    };
    let proxy = Proxy::start(&config("first"));
    let reload = |added: &str| {
        proxy.rewrite(&config(added));
        let reloaded = proxy.command(&["reload"]);
        assert!(reloaded.stdout.contains(&format!("+ {added}\n")), "{reloaded:#?}");
        reloaded
    };
    for name in names {
        let is_broken = |added: &str, why: &str| {
            let reloaded = reload(added);
            let expected = format!("{name}: {why}");
            assert!(
                reloaded.code == Some(1) && reloaded.stderr.contains(&expected),
                "{expected}: {reloaded:#?}"
            );
        };
        fs::rename(path(name), path("hidden")).unwrap();
        is_broken("missing", "No such file");
        must(Command::new("mkfifo").arg(path(name)));
        is_broken("fifo", "not a regular file");
        fs::rename(path("hidden"), path(name)).unwrap();
        let restored = reload("restored");
        assert_eq!(restored.code, Some(0), "{name}: {restored:#?}");
    }
}

#[test]
fn a_key_may_move_into_the_file_of_its_certificate() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let directory = site.directory().join("sites");
    fs::create_dir(&directory).unwrap();
    site.authority.issue(&["a.example"]).write(&directory, "a");
    let proxy = site.start_with_sites(server.address);
    let next = site.authority.issue(&["a.example"]);
    replace(&directory.join("a.pem"), &(next.certificate.clone() + &next.key));
    fs::remove_file(directory.join("a.key")).unwrap();
    assert_eq!(proxy.command(&["cert", "reload"]).code, Some(0));
    let client = site.client().connect(proxy.at("tls"), "a.example").unwrap();
    assert_eq!(client.certificate(), next.chain_and_key().0[0]);
}

#[test]
fn an_open_session_goes_on_when_its_certificate_is_replaced() {
    let (site, echo) = (Site::new(), Server::echo());
    let proxy = site.start(echo.address);
    let setup = site.client();
    let mut open = setup.connect(proxy.at("tls"), "shop.example").unwrap();
    assert_eq!(open.send(b"before").read(6), b"before");
    let next = site.authority.issue(&["shop.example"]);
    next.write(site.directory(), "shop");
    assert_eq!(proxy.command(&["cert", "reload"]).code, Some(0));
    let client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    assert_eq!(client.certificate(), next.chain_and_key().0[0]);
    assert_eq!(open.send(b"after").read(5), b"after");
    open.finish();
    assert_eq!(open.read_to_end(), (Vec::new(), Ok(())));
}
