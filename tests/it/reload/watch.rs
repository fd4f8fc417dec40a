//! With `watch = true` a change of the file is a reload, however it is made.

use std::os::unix::fs::symlink;

use crate::support::client::server_reached;
use crate::support::eventually;

use crate::support::proxy::Proxy;
use crate::support::server::Server;

fn text(server: &Server) -> String {
    format!(
        "[runtime]\nwatch = true\n[admin]\nbind = \"127.0.0.1:0\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [\"{}\"]",
        server.address
    )
}

fn servers() -> [Server; 3] {
    [Server::named("a"), Server::named("b"), Server::named("c")]
}

fn eventually_serves(proxy: &Proxy, name: &str) {
    eventually("the change is in force", || server_reached(proxy.at("l")) == name);
}

#[test]
fn written_in_place_or_renamed_over() {
    let [a, b, c] = servers();
    let proxy = Proxy::start(&text(&a));
    std::fs::write(proxy.folder().join("acequia.toml"), text(&b)).unwrap();
    eventually_serves(&proxy, "b");
    // As editors do.
    for (server, name) in [(&c, "c"), (&a, "a")] {
        proxy.rewrite(&text(server));
        eventually_serves(&proxy, name);
    }
    // What is wrong is said, and what is right again is taken.
    proxy.rewrite("[listeners");
    eventually("it is told", || proxy.reloads().1 > 0.0);
    assert_eq!(server_reached(proxy.at("l")), "a");
    std::fs::remove_file(proxy.folder().join("acequia.toml")).unwrap();
    proxy.rewrite(&text(&b));
    eventually_serves(&proxy, "b");
}

#[test]
fn as_kubernetes_does_it() {
    // A ConfigMap is mounted as a link to a folder through a link that is swapped.
    let [a, b, c] = servers();
    let proxy = Proxy::start(&text(&a));
    let folder = proxy.folder();
    let version = |name: &str, server: &Server| {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("acequia.toml"), text(server)).unwrap();
        symlink(name, folder.join("..next")).unwrap();
        std::fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
    };
    version("..1", &b);
    symlink("..data/acequia.toml", folder.join("next")).unwrap();
    std::fs::rename(folder.join("next"), folder.join("acequia.toml")).unwrap();
    eventually_serves(&proxy, "b");
    for (name, server, served) in [("..2", &c, "c"), ("..3", &a, "a")] {
        version(name, server);
        eventually_serves(&proxy, served);
    }
}

#[test]
fn other_files_beside_it_are_no_change() {
    let [a, ..] = servers();
    let proxy = Proxy::start(&text(&a));
    std::fs::write(proxy.folder().join("acequia.toml.swp"), "x").unwrap();
    // Something that certainly comes after whatever that might have set off.
    proxy.rewrite("[listeners");
    eventually("it is told", || proxy.reloads().1 > 0.0);
    assert_eq!(proxy.reloads(), (0.0, 1.0));
}

#[test]
fn without_inotify_it_is_found_within_ten_seconds() {
    let [a, b, _] = servers();
    let none = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let under = ["unshare", "--map-root-user", "sh", "-c", none, "sh"];
    let proxy = Proxy::setup(&text(&a)).under(&under).start();
    let said = || {
        let is_it = |line: &serde_json::Value| line["message"].to_string().contains("cannot watch the configuration");
        proxy.log().iter().filter(|line| is_it(line)).count()
    };
    eventually("it is said", || said() == 1);
    proxy.rewrite(&text(&b));
    eventually_serves(&proxy, "b");
    assert_eq!(said(), 1, "once");
}
