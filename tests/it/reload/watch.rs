//! With `watch = true` a change of the configuration file causes a reload, however the file is replaced.

use std::os::unix::fs::symlink;

use crate::support::client::server_reached;
use crate::support::configs::one_pool;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

fn text(server: &Server) -> String {
    let process = "[runtime]\nwatch = true\n[admin]\nbind = \"127.0.0.1:0\"\n";
    process.to_owned() + &one_pool(&[server.address], "")
}

fn servers() -> [Server; 3] {
    [Server::named("a"), Server::named("b"), Server::named("c")]
}

fn wait_until_served_by(proxy: &Proxy, name: &str) {
    eventually("the change is in force", || server_reached(proxy.at("l")) == name);
}

#[test]
fn a_file_written_in_place_or_replaced_by_rename_is_reloaded() {
    let [a, b, c] = servers();
    let proxy = Proxy::start(&text(&a));
    std::fs::write(proxy.directory().join("acequia.toml"), text(&b)).unwrap();
    wait_until_served_by(&proxy, "b");
    // `rewrite` replaces the file by a rename.
    for (server, name) in [(&c, "c"), (&a, "a")] {
        proxy.rewrite(&text(server));
        wait_until_served_by(&proxy, name);
    }
    // An invalid file is rejected. A valid one that follows is applied, even if the file was absent in between.
    proxy.rewrite("[listeners");
    eventually("the invalid file is rejected", || proxy.reloads().1 > 0.0);
    assert_eq!(server_reached(proxy.at("l")), "a");
    std::fs::remove_file(proxy.directory().join("acequia.toml")).unwrap();
    proxy.rewrite(&text(&b));
    wait_until_served_by(&proxy, "b");
}

#[test]
fn a_file_behind_swapped_symlinks_as_in_kubernetes_is_reloaded() {
    // Kubernetes mounts a ConfigMap as a symlink into a directory that is a symlink, too, and swaps the latter.
    let [a, b, c] = servers();
    let proxy = Proxy::start(&text(&a));
    let directory = proxy.directory();
    let swap_in = |name: &str, server: &Server| {
        std::fs::create_dir(directory.join(name)).unwrap();
        std::fs::write(directory.join(name).join("acequia.toml"), text(server)).unwrap();
        symlink(name, directory.join("..next")).unwrap();
        std::fs::rename(directory.join("..next"), directory.join("..data")).unwrap();
    };
    swap_in("..1", &b);
    symlink("..data/acequia.toml", directory.join("next")).unwrap();
    std::fs::rename(directory.join("next"), directory.join("acequia.toml")).unwrap();
    wait_until_served_by(&proxy, "b");
    for (name, server, served) in [("..2", &c, "c"), ("..3", &a, "a")] {
        swap_in(name, server);
        wait_until_served_by(&proxy, served);
    }
}

#[test]
fn without_inotify_a_change_is_found_by_polling() {
    let [a, b, _] = servers();
    let without_inotify = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let under = ["unshare", "--map-root-user", "sh", "-c", without_inotify, "sh"];
    let proxy = Proxy::setup(&text(&a)).under(&under).start();
    let warnings = || {
        let is_warning = |line: &serde_json::Value| line["message"].to_string().contains("cannot watch a file");
        proxy.log().iter().filter(|line| is_warning(line)).count()
    };
    eventually("the log says that the file cannot be watched", || warnings() == 1);
    proxy.rewrite(&text(&b));
    wait_until_served_by(&proxy, "b");
    assert_eq!(warnings(), 1, "expected one warning");
}

#[test]
fn events_of_the_watched_directory_are_not_logged_at_any_level() {
    // A log file in that directory would cause an event for each of its lines, and a line for each event.
    let [a, b, _] = servers();
    let trace = |server| format!("[log]\nlevel = \"trace\"\n{}", text(server));
    let proxy = Proxy::start(&trace(&a));
    proxy.rewrite(&trace(&b));
    wait_until_served_by(&proxy, "b");
    let log = proxy.log();
    let is_of_notify =
        |line: &&serde_json::Value| line["log.target"].as_str().is_some_and(|of| of.starts_with("notify"));
    assert_eq!(log.iter().find(is_of_notify), None);
    assert!(log.iter().any(|line| line["level"] == "TRACE"), "{log:#?}");
}
