//! A FIFO in place of a file blocks no reload.

use std::path::Path;
use std::process::Command;

use crate::support::client::server_reached;
use crate::support::eventually;
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use rustix::process::Signal;

/// A listener `l` and a pool `p`. `listener` and `pool` are further lines of these; `sections` are put before both.
fn config(server: &Server, [sections, listener, pool]: [&str; 3]) -> String {
    let servers = match pool.starts_with("discover") {
        true => String::new(),
        false => format!("servers = [\"{}\"]", server.address),
    };
    format!(
        "{sections}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n{listener}\n\
         [pools.p]\n{servers}\n{pool}\n"
    )
}

fn make_fifo(path: &Path) {
    must(Command::new("mkfifo").args(["-m", "600"]).arg(path));
}

#[test]
fn a_directory_or_fifo_in_place_of_the_configuration_is_an_error_at_once() {
    let (server, next) = (Server::named("x"), Server::named("y"));
    let proxy = Proxy::start(&config(&server, [""; 3]));
    let file = proxy.directory().join("acequia.toml");
    let socket = proxy.directory().join("acequia/admin.sock");
    let assert_refused = || {
        let refused = proxy.command(&["reload", "--socket", socket.to_str().unwrap()]);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        for expected in ["acequia.toml", "not a regular file", "put a regular file in its place"] {
            assert!(refused.stderr.contains(expected), "{expected}: {refused:#?}");
        }
        assert!(!refused.stderr.contains("pipe"), "{refused:#?}");
    };
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_refused();
    std::fs::remove_dir(&file).unwrap();
    make_fifo(&file);
    assert_refused();
    proxy.signal(Signal::HUP);
    eventually("the reload has failed", || proxy.reloads() == (0.0, 3.0));
    let lost = proxy.command(&["status"]); // reads the file for the path of the socket
    assert_eq!(lost.code, Some(3), "{lost:#?}");
    for expected in ["acequia.toml: not a regular file", "--socket"] {
        assert!(lost.stderr.contains(expected), "{lost:#?}");
    }
    assert_eq!(server_reached(proxy.at("l")), "x");
    assert!(proxy.reload(&config(&next, [""; 3])));
    assert_eq!(server_reached(proxy.at("l")), "y");
}

#[test]
fn a_watched_configuration_that_becomes_a_fifo_is_read_again_once_it_is_a_file() {
    let (server, next) = (Server::named("x"), Server::named("y"));
    let watched = "[runtime]\nwatch = true";
    let proxy = Proxy::start(&config(&server, [watched, "", ""]));
    make_fifo(&proxy.directory().join("next"));
    std::fs::rename(proxy.directory().join("next"), proxy.directory().join("acequia.toml")).unwrap();
    eventually("the reload has failed", || proxy.reloads() == (0.0, 1.0));
    proxy.rewrite(&config(&next, [watched, "", ""]));
    eventually("the file is in force", || server_reached(proxy.at("l")) == "y");
}

#[test]
fn a_fifo_in_place_of_a_named_file_is_an_error_at_once_except_for_a_list_of_servers() {
    let server = Server::named("x");
    let proxy = Proxy::start(&config(&server, [""; 3]));
    make_fifo(&proxy.directory().join("fifo"));
    let guard = "guards = \"g\"";
    let certificates = "[listeners.l.tls]\ncertificates = [{ cert = \"fifo\", key = \"fifo\" }]";
    let client_auth = "client_auth = { ca_file = \"fifo\", crl_file = \"fifo\" }";
    for [sections, listener, pool] in [
        ["[guards.g]\ndeny_file = \"fifo\"", guard, ""],
        ["[guards.g]\nallow_file = \"fifo\"", guard, ""],
        ["[log]\naccess = \"./fifo\"", "", ""],
        ["[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = \"fifo\"", "", ""],
        [
            "[admin]\nbind = \"127.0.0.1:0\"\ntls = { cert = \"fifo\", key = \"fifo\" }",
            "",
            "",
        ],
        ["", certificates, ""],
        ["", &format!("{certificates}\n{client_auth}"), ""],
        ["", &format!("{certificates}\ntickets = \"fifo\""), ""],
        ["", "", "tls = { ca_file = \"fifo\" }"],
        ["", "", "tls = { cert = \"fifo\", key = \"fifo\" }"],
        [
            "",
            "",
            "health = { check = \"postgres\", user = \"u\", password_file = \"fifo\" }",
        ],
        [
            "",
            "",
            "health = { check = \"tls\", verify = true, ca_file = \"fifo\" }",
        ],
        [
            "",
            "",
            "discover = { http = \"https://127.0.0.1:1/\", ca_file = \"fifo\" }",
        ],
        [
            "[providers.kubernetes]\nkubeconfig = \"fifo\"",
            "",
            "discover = { kubernetes = \"default/web\" }",
        ],
        [
            "[providers.etcd]\nendpoints = [\"http://127.0.0.1:1\"]\nuser = \"u\"\npassword_file = \"fifo\"",
            "",
            "discover = { etcd = \"/a/\" }",
        ],
        [
            "[acme.a]\ndirectory = \"https://127.0.0.1:1/\"\nstate_dir = \"acme\"\nca_file = \"fifo\"",
            "[listeners.l.tls]\ncertificates = [{ acme = \"a\", names = [\"a.example\"] }]",
            "",
        ],
    ] {
        let text = config(&server, [sections, listener, pool]);
        proxy.rewrite(&text);
        let refused = proxy.command(&["reload"]);
        assert_eq!(refused.code, Some(1), "{text}: {refused:#?}");
        assert!(refused.stderr.contains("fifo: "), "{text}: {refused:#?}");
    }
    // Lists of servers may be missing at first: a pool waits for its list.
    proxy.rewrite(&config(&server, ["", "", "discover = { file = \"fifo\" }"]));
    let reloaded = proxy.command(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:#?}");
    assert!(proxy.reload(&config(&server, [""; 3])));
    assert_eq!(server_reached(proxy.at("l")), "x");
}
