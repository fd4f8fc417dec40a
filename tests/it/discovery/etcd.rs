//! Servers that are listed in keys of a real etcd.

use std::fs;

use super::reaches_only;
use crate::support::api;
use crate::support::authority::Authority;
use crate::support::client::Client;
use crate::support::counts::log_lines;
use crate::support::etcd::{Etcd, TlsFiles};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const KEPT: &str = "cannot take the list of servers, keeping the last one";

fn config(etcd: &Etcd) -> String {
    format!(
        "[providers.etcd]\nendpoints = [\"{}\"]\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nbalance = \"round-robin\"\ndiscover = {{ etcd = \"/orders/\", settle = \"0s\" }}",
        etcd.url()
    )
}

#[test]
fn servers_follow_the_keys_of_etcd_without_losing_sessions_and_stay_while_a_value_is_invalid() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let etcd = Etcd::start();
    etcd.put("/orders/1", &first.address.to_string());
    etcd.put("/other/1", "127.0.0.1:9");
    // Plain HTTP needs no certificate authorities.
    let proxy = Proxy::setup(&config(&etcd)).without_authorities().start();
    let mut old = Client::connect(proxy.at("l"));
    assert_eq!(old.read(5), b"first");
    let two = format!(r#"{{"address": "{}", "name": "two"}}"#, second.address);
    etcd.put("/orders/2", &two);
    etcd.delete("/orders/1");
    eventually("the deleted key's server gets no session", || {
        reaches_only(&proxy, "second")
    });
    assert_eq!(old.finish().try_read_all().unwrap(), b"");
    etcd.put("/orders/2", "unix:/run/acequia/admin.sock");
    super::wait_for_error(&proxy, "is a Unix socket");
    assert!(reaches_only(&proxy, "second"));
    etcd.put("/orders/2", &two);
    etcd.put("/orders/2", "nonsense");
    let line = &log_lines(&proxy, "the value of a key is not a server", 1)[0];
    assert_eq!((&line["key"], &line["kept"]), (&"/orders/2".into(), &true.into()));
    assert!(reaches_only(&proxy, "second"));
    eventually("the invalid value is shown", || {
        let status = proxy.command(&["status"]);
        status
            .stdout
            .contains("p: etcd /orders/: the value of key `/orders/2` is not a server")
    });
    let (_, state) = api::unix(&proxy, "GET", "/api/v1/state", "");
    assert_eq!(state["pools"][0]["servers"][0]["name"], "two");
    assert_eq!(state["pools"][0]["discovery"]["up"], true);
    etcd.put("/orders/2", &second.address.to_string());
    eventually("a valid value ends the warning", || {
        let (_, state) = api::unix(&proxy, "GET", "/api/v1/state", "");
        state["pools"][0]["discovery"]["warning"].is_null()
    });
}

#[test]
fn a_stopped_etcd_changes_nothing_and_is_followed_again_even_after_a_compaction() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let mut etcd = Etcd::start();
    etcd.put("/orders/1", &first.address.to_string());
    let proxy = Proxy::start(&config(&etcd));
    etcd.stop();
    log_lines(&proxy, KEPT, 1);
    assert!(reaches_only(&proxy, "first"));
    etcd.begin();
    let revision = etcd.put("/orders/1", &second.address.to_string());
    etcd.compact(revision);
    eventually("its keys are followed again", || reaches_only(&proxy, "second"));
}

#[test]
fn a_wrong_password_is_reported_without_being_shown_and_its_correction_is_used() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let etcd = Etcd::start();
    etcd.put("/orders/1", &first.address.to_string());
    etcd.enable_login("correct-1");
    let password = etcd.directory().join("password");
    fs::write(&password, "wrong-2\n").unwrap();
    let login = format!("[providers.etcd]\nuser = \"root\"\npassword_file = {password:?}\n");
    let proxy = Proxy::setup(&config(&etcd).replace("[providers.etcd]\n", &login)).launch();
    let line = log_lines(&proxy, KEPT, 1)[0].to_string();
    assert!(
        line.contains("authentication failed") && !line.contains("wrong-2"),
        "{line}"
    );
    fs::write(&password, "correct-1\n").unwrap();
    eventually("the file is read again", || {
        proxy.metrics().sum("acequia_discovery_up", &[("pool", "p")]) == 1.0
    });
    assert!(reaches_only(&proxy, "first"));
    etcd.put("/orders/1", &second.address.to_string());
    eventually("the watch has a login too", || reaches_only(&proxy, "second"));
}

#[test]
fn etcd_is_reached_over_tls_with_a_certificate_and_a_login() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let (authority, other) = (Authority::new("etcd"), Authority::new("other"));
    let files = TlsFiles::new(&authority);
    let etcd = Etcd::start_with_tls(&files);
    etcd.put("/orders/1", &first.address.to_string());
    etcd.enable_login("correct-1");
    let at = |name: &str| files.at(name).display().to_string();
    fs::write(files.at("password"), "correct-1\n").unwrap();
    fs::write(files.at("other.pem"), other.certificate()).unwrap();
    let settings = format!(
        "[providers.etcd]\nuser = \"root\"\npassword_file = {:?}\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
        at("password"),
        at("ca.pem"),
        at("client.pem"),
        at("client.key"),
    );
    let config = config(&etcd).replace("[providers.etcd]\n", &settings);
    let proxy = Proxy::start(&config);
    assert!(reaches_only(&proxy, "first"));
    etcd.put("/orders/1", &second.address.to_string());
    eventually("the key is watched", || reaches_only(&proxy, "second"));
    for (wrong, why) in [
        (config.replace(&at("ca.pem"), &at("other.pem")), "no TLS with"),
        (config.replace("cert_file", "#").replace("key_file", "#"), "Certificate"),
    ] {
        let proxy = Proxy::setup(&wrong).launch();
        let line = log_lines(&proxy, KEPT, 1)[0].to_string();
        assert!(line.contains(why), "{line}");
    }
}
