//! The Unix socket is found by the commands, opened by its owner alone, and taken from nobody who lives.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::support::client::Client;
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia, config_folder};
use crate::support::server::Server;
use rustix::process::Signal;
use serde_json::Value;

fn text(server: &Server, socket: &str) -> String {
    format!(
        "[admin]\nbind = \"127.0.0.1:0\"\nsocket = \"{socket}\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [\"{}\"]",
        server.address
    )
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|there| there.file_type().is_socket())
}

#[test]
fn it_is_its_owners_alone_and_leaves_with_the_process() {
    let (server, folder) = (Server::echo(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.sock");
    let proxy = Proxy::start(&text(&server, path.to_str().unwrap()));
    assert!(is_socket(&path));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Found through the configuration, a broken one too, or by its path.
    assert_eq!(proxy.command(&["status"]).code, Some(0));
    std::fs::write(
        proxy.folder().join("acequia.toml"),
        format!("[admin]\nsocket = {path:?}\n[listeners"),
    )
    .unwrap();
    assert_eq!(proxy.command(&["status"]).code, Some(0));
    assert_eq!(
        finished(&mut acequia(&["status", "--socket", path.to_str().unwrap()])).code,
        Some(0)
    );
    assert_eq!(proxy.stop().code, Some(0));
    assert!(!path.exists());
}

#[test]
fn one_that_is_left_over_is_replaced_and_one_that_lives_is_respected() {
    let (server, folder) = (Server::echo(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.sock");
    let text = text(&server, path.to_str().unwrap());
    let first = Proxy::start(&text);
    first.signal(Signal::KILL);
    first.wait();
    assert!(is_socket(&path), "a killed process leaves it behind");
    let second = Proxy::start(&text);
    let other = config_folder("acequia.toml", &text);
    let third = finished(acequia(&["run"]).current_dir(other.path()));
    assert_eq!(third.code, Some(3), "{third:#?}");
    assert!(third.stderr.contains("another process answers there"), "{third:#?}");
    assert_eq!(second.command(&["status"]).code, Some(0));
}

#[test]
fn without_its_usual_place_it_runs_all_the_same_and_off_is_off() {
    let server = Server::echo();
    let usual = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]",
        server.address
    );
    let in_usual_place = Proxy::start(&usual);
    assert!(is_socket(&in_usual_place.folder().join("acequia/admin.sock")));
    // A place that cannot be had, since what should be a folder is none.
    let without = Proxy::setup(&usual)
        .under(&["env", "XDG_RUNTIME_DIR=/dev/null"])
        .start();
    let is_told = |line: &Value| line["level"] == "WARN" && line["path"] == "/dev/null/acequia/admin.sock";
    assert!(without.log().iter().any(is_told), "{:#?}", without.log());
    assert_eq!(Client::connect(without.at("l")).send(b"hi").read(2), b"hi");
    let off = Proxy::start(&text(&server, "off"));
    let said = off.command(&["status"]);
    assert_eq!(said.code, Some(3));
    assert!(said.stderr.contains("\"off\""), "{said:#?}");
}

#[test]
fn who_only_sits_there_keeps_nobody_out() {
    let server = Server::echo();
    let proxy = Proxy::start(&text(&server, "a.sock"));
    let path = proxy.folder().join("a.sock");
    let _silent: Vec<_> = (0..40)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    for _ in 0..5 {
        assert_eq!(proxy.command(&["status"]).code, Some(0));
    }
}
