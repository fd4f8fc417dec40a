//! The Unix admin socket: commands find it, only its owner may open it, and a running process keeps it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia, config_folder};
use crate::support::server::Server;
use rustix::process::Signal;
use serde_json::Value;

fn text(server: &Server, socket: &str) -> String {
    let admin = format!("[admin]\nbind = \"127.0.0.1:0\"\nsocket = \"{socket}\"\n");
    admin + &one_pool(&[server.address], "")
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|there| there.file_type().is_socket())
}

#[test]
fn only_the_owner_may_open_the_socket_and_it_is_removed_at_exit() {
    let (server, folder) = (Server::echo(), tempfile::tempdir().unwrap());
    let path = folder.path().join("a.sock");
    let proxy = Proxy::start(&text(&server, path.to_str().unwrap()));
    assert!(is_socket(&path));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Commands find it through the configuration, even a broken one, or by its path.
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
fn a_stale_socket_is_replaced_and_a_live_one_is_an_error() {
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
fn an_unusable_default_path_is_only_a_warning_and_off_disables_the_socket() {
    let server = Server::echo();
    let usual = one_pool(&[server.address], "");
    let with_default = Proxy::start(&usual);
    assert!(is_socket(&with_default.folder().join("acequia/admin.sock")));
    // A path that cannot be created, since /dev/null is no folder.
    let without = Proxy::setup(&usual)
        .under(&["env", "XDG_RUNTIME_DIR=/dev/null"])
        .start();
    let is_warning = |line: &Value| line["level"] == "WARN" && line["path"] == "/dev/null/acequia/admin.sock";
    assert!(without.log().iter().any(is_warning), "{:#?}", without.log());
    assert_eq!(Client::connect(without.at("l")).send(b"hi").read(2), b"hi");
    let off = Proxy::start(&text(&server, "off"));
    let failed = off.command(&["status"]);
    assert_eq!(failed.code, Some(3));
    assert!(failed.stderr.contains("\"off\""), "{failed:#?}");
}

#[test]
fn silent_connections_do_not_block_commands() {
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
