//! Certificates by ACME, ordered from Pebble.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::authority::Authority;
use crate::support::client::Client;
use crate::support::configs::pool;
use crate::support::hello::Hello;
use crate::support::pebble::{Pebble, PebbleSetup};
use crate::support::process::Port;
use crate::support::proxy::{Proxy, http_get};
use crate::support::server::Server;
use crate::support::{eventually, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The ports of a listener `https` that terminates TLS and of a listener `http` that redirects to it, a state
/// directory, and the server behind `https`.
pub(super) struct Site {
    https: Port,
    http: Port,
    pub(super) state: TempDir,
    server: Server,
}

impl Site {
    pub(super) fn new() -> Self {
        Self {
            https: Port::keep(),
            http: Port::keep(),
            state: tempfile::tempdir().unwrap(),
            server: Server::named("hello"),
        }
    }

    pub(super) fn pebble(&self) -> PebbleSetup {
        PebbleSetup::new(self.https.number(), self.http.number())
    }

    /// `acme` are further lines of `[acme.pebble]`.
    pub(super) fn config(&self, pebble: &Pebble, acme: &str, names: &[&str]) -> String {
        format!(
            "[acme.pebble]\n{}state_dir = {:?}\n{acme}\n\
             [listeners.https]\nbind = \"{}\"\npool = \"p\"\n\
             [listeners.https.tls]\ncertificates = [{{ acme = \"pebble\", names = {names:?} }}]\n\
             [listeners.http]\nbind = \"{}\"\nredirect = {{ to = \"https\" }}\n{}",
            pebble.config_lines(),
            self.state.path(),
            self.https.address,
            self.http.address,
            pool("p", &[self.server.address], "health = { check = \"off\" }")
        )
    }

    fn start(&self, pebble: &Pebble) -> Proxy {
        Proxy::start(&self.config(
            pebble,
            "contact = \"mailto:ops@example.com\"",
            &["shop.example", "www.example"],
        ))
    }

    /// What a client that trusts Pebble reads from the server through the proxy.
    pub(super) fn read(&self, pebble: &Pebble, name: &str) -> std::io::Result<Vec<u8>> {
        Ok(pebble.client().connect(self.https.address, name)?.read(5))
    }
}

/// The only certificate of the proxy, as `cert list` shows it.
pub(super) fn listed(proxy: &Proxy) -> Value {
    proxy.answer(&["cert", "list"])["certificates"][0].clone()
}

/// The number of orders for `shop.example` that have ended with this result.
pub(super) fn orders(proxy: &Proxy, result: &str) -> f64 {
    let labels = [("name", "shop.example"), ("result", result)];
    proxy.metrics().sum("acequia_acme_renewals_total", &labels)
}

pub(super) fn wait_until_issued(proxy: &Proxy) {
    eventually("the certificate is issued", || {
        let certificate = listed(proxy);
        certificate["self_signed"] == false && certificate["renewal"]["under_way"] == false
    });
}

#[test]
fn a_certificate_is_ordered_renewed_on_request_and_kept_over_a_restart() {
    let site = Site::new();
    let mut pebble = site.pebble().start();
    let proxy = site.start(&pebble);
    wait_until_issued(&proxy);
    for name in ["shop.example", "www.example"] {
        assert_eq!(site.read(&pebble, name).unwrap(), b"hello", "{name}");
    }
    let file = site.state.path().join("shop.example.pem");
    for file in [&file, &site.state.path().join("account.json")] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let first = fs::read(&file).unwrap();
    assert_eq!(
        proxy.answer(&["cert", "renew", "www.example"])["renewing"],
        "shop.example"
    );
    eventually("a second order succeeds", || orders(&proxy, "ok") == 2.0);
    assert_ne!(fs::read(&file).unwrap(), first);
    let absent = proxy.command(&["cert", "renew", "other.example"]);
    assert!(
        absent.code == Some(1) && absent.stderr.contains("no certificate for `other.example`"),
        "{absent:?}"
    );
    proxy.wait_for_access("a challenge is logged", |line| line["ending"] == "acme_challenge");
    drop(proxy);

    let client = pebble.client();
    pebble.stop();
    let proxy = site.start(&pebble);
    assert_eq!(
        client.connect(site.https.address, "shop.example").unwrap().read(5),
        b"hello"
    );
    // When this time is shown, the proxy has decided whether a renewal is due now.
    eventually("the next renewal is shown", || {
        listed(&proxy)["renewal"]["at"].is_string()
    });
    let certificate = listed(&proxy);
    assert_eq!(certificate["acme"], "pebble");
    assert_eq!(certificate["renewal"]["under_way"], false, "{certificate}");
    assert_eq!((orders(&proxy, "ok"), orders(&proxy, "error")), (0.0, 0.0));
}

#[test]
fn a_listener_that_redirects_answers_http_01_and_redirects_all_else() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let proxy = Proxy::start(&site.config(&pebble, "challenge = \"http-01\"", &["shop.example"]));
    wait_until_issued(&proxy);
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
    let answered = |line: &Value| line["listener"] == "http" && line["ending"] == "acme_challenge";
    proxy.wait_for_access("a challenge is logged", answered);
    let (head, _) = http_get(site.http.address, "/.well-known/acme-challenge/unknown").unwrap();
    assert!(head.starts_with("HTTP/1.1 308 "), "{head}");
}

#[test]
fn a_certificate_is_renewed_before_it_expires() {
    let site = Site::new();
    let pebble = site.pebble().valid_for_seconds(6).start();
    let proxy = site.start(&pebble);
    wait_until_issued(&proxy);
    let first = listed(&proxy)["expires"].clone();
    eventually("it was renewed twice", || {
        let certificate = listed(&proxy);
        // The times are in RFC 3339 and UTC, so they can be compared as text.
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert!(
            text(&certificate["renewal"]["at"]) < text(&certificate["expires"]),
            "{certificate}"
        );
        orders(&proxy, "ok") >= 3.0 && certificate["expires"] != first
    });
    assert_eq!(orders(&proxy, "error"), 0.0);
}

/// The configuration changes while the ACME server does not answer.
#[test]
fn an_order_survives_a_reload_and_its_certificate_is_used_at_once() {
    let site = Site::new();
    let pebble = site.pebble().start();
    pebble.pause();
    let proxy = site.start(&pebble);
    eventually("an order is under way", || {
        listed(&proxy)["renewal"]["under_way"] == true
    });
    let config = site.config(&pebble, "", &["shop.example", "www.example"]);
    assert!(proxy.reload(&config.replace("[listeners.https.tls]", "[listeners.https.tls]\nalpn = [\"http/1.1\"]")));
    pebble.resume();
    wait_until_issued(&proxy);
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
    assert_eq!(orders(&proxy, "ok"), 1.0, "expected one order");
}

#[test]
fn only_one_order_runs_at_a_time() {
    let site = Site::new();
    let pebble = site.pebble().start();
    pebble.pause();
    let config = site.config(&pebble, "", &["shop.example"]);
    let other = "certificates = [{ acme = \"pebble\", names = [\"other.example\"] }, ";
    let proxy = Proxy::start(&config.replace("certificates = [", other));
    let count = |is_wanted: fn(&Value) -> bool| {
        let listed = proxy.answer(&["cert", "list"])["certificates"].clone();
        listed.as_array().unwrap().iter().filter(|one| is_wanted(one)).count()
    };
    eventually("an order is under way", || {
        count(|one| one["renewal"]["under_way"] == true) == 1
    });
    pebble.resume();
    eventually("both are issued", || {
        assert!(count(|one| one["renewal"]["under_way"] == true) <= 1);
        count(|one| one["self_signed"] == false) == 2
    });
}

#[test]
fn each_certificate_that_was_requested_during_an_order_is_ordered() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let config = site.config(&pebble, "", &["shop.example"]);
    let others =
        ["other.example", "third.example"].map(|name| format!("{{ acme = \"pebble\", names = [{name:?}] }}, "));
    let proxy = Proxy::start(&config.replace("certificates = [", &format!("certificates = [{}", others.concat())));
    let issued = || proxy.metrics().sum("acequia_acme_renewals_total", &[("result", "ok")]);
    eventually("all are issued", || issued() == 3.0);
    pebble.pause();
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("an order is under way", || {
        let listed = proxy.answer(&["cert", "list"])["certificates"].clone();
        listed
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["renewal"]["under_way"] == true)
    });
    for name in ["other.example", "third.example"] {
        proxy.answer(&["cert", "renew", name]);
    }
    pebble.resume();
    eventually("all are issued again", || issued() == 6.0);
}

#[test]
fn a_failed_order_backs_off_even_if_the_failure_cannot_be_saved() {
    let site = Site::new();
    let pebble = site.pebble().start_without_name_server();
    fs::create_dir(site.state.path().join("attempts.json")).unwrap();
    let proxy = site.start(&pebble);
    let renewal = wait_for("the failure is shown", || {
        Some(listed(&proxy)["renewal"].clone()).filter(|renewal| renewal["failures"] == 1)
    });
    assert_eq!(renewal["under_way"], false, "{renewal}");
    let is_reported = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("cannot keep the failed attempts of ACME")
    };
    eventually("the failure to save is logged", || proxy.log().iter().any(is_reported));
}

#[test]
fn a_failed_order_backs_off_across_a_restart_and_clients_get_a_self_signed_certificate() {
    let site = Site::new();
    let mut pebble = site.pebble().start_without_name_server();
    let proxy = site.start(&pebble);
    eventually("the order fails", || orders(&proxy, "error") == 1.0);
    let renewal = wait_for("the failure is shown", || {
        Some(listed(&proxy)["renewal"].clone()).filter(|renewal| renewal["failures"] == 1)
    });
    let error = renewal["error"].as_str().unwrap();
    assert!(
        error.contains("was not validated") || error.contains("resolving"),
        "{error}"
    );
    let (status, list) = (
        proxy.command(&["status"]).stdout,
        proxy.command(&["cert", "list"]).stdout,
    );
    assert!(
        status.contains("shop.example has a self-signed certificate until ACME has issued one"),
        "{status}"
    );
    assert!(list.contains("shop.example: 1 failed order, the next is at "), "{list}");
    let words = [
        "route",
        "-c",
        "acequia.toml",
        "--listener",
        "https",
        "--sni",
        "shop.example",
    ];
    let route = proxy.command(&words).stdout;
    assert!(
        route.contains("with a self-signed certificate, until there is "),
        "{route}"
    );
    assert_eq!(
        site.read(&pebble, "shop.example").unwrap_err().kind(),
        std::io::ErrorKind::InvalidData
    );
    let line = wait_for("the failure is logged", || {
        proxy.log().into_iter().find(|line| line["level"] == "ERROR")
    });
    assert_eq!((&line["name"], &line["failures"]), (&json!("shop.example"), &json!(1)));
    drop(proxy);

    let proxy = site.start(&pebble);
    let at = wait_for("the next order is shown", || {
        Some(listed(&proxy)["renewal"]["at"].clone()).filter(|at| !at.is_null())
    });
    assert_eq!(at, renewal["at"]);
    pebble.start_name_server();
    proxy.answer(&["cert", "renew", "shop.example"]);
    wait_until_issued(&proxy);
    assert_eq!(listed(&proxy)["renewal"]["failures"], 0);
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
}

#[test]
fn a_certificate_is_kept_while_the_acme_server_is_unreachable_and_a_lost_account_is_replaced() {
    let site = Site::new();
    let mut pebble = site.pebble().start();
    let proxy = site.start(&pebble);
    wait_until_issued(&proxy);
    let client = pebble.client();
    pebble.stop();
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("the order fails", || orders(&proxy, "error") == 1.0);
    wait_for("the failure is shown with its cause", || {
        let renewal = listed(&proxy)["renewal"].clone();
        let error = renewal["error"].as_str()?.to_owned();
        (error.contains("cannot connect to ") && error.contains("Connection refused")).then_some(())
    });
    assert_eq!(
        client.connect(site.https.address, "shop.example").unwrap().read(5),
        b"hello"
    );
    pebble.start(); // it has forgotten all accounts
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("the account is unknown", || orders(&proxy, "error") == 2.0);
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("another account gets a certificate", || orders(&proxy, "ok") == 2.0);
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
}

#[test]
fn a_lost_account_with_a_new_contact_is_replaced() {
    let site = Site::new();
    let mut pebble = site.pebble().start();
    let proxy = site.start(&pebble);
    wait_until_issued(&proxy);
    pebble.stop();
    pebble.start(); // it has forgotten all accounts
    let contact = "contact = \"mailto:others@example.com\"";
    assert!(proxy.reload(&site.config(&pebble, contact, &["shop.example", "www.example"])));
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("the account is unknown", || orders(&proxy, "error") == 1.0);
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("another account gets a certificate", || orders(&proxy, "ok") == 2.0);
}

#[test]
fn an_account_is_bound_to_an_external_one() {
    let site = Site::new();
    let pebble = site
        .pebble()
        .with_external_key(
            "kid-1",
            "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
        )
        .start();
    let key = site.state.path().join("eab");
    fs::write(
        &key,
        "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n",
    )
    .unwrap();
    let eab = format!("eab = {{ key_id = \"kid-1\", key_file = {key:?} }}");
    let proxy = Proxy::start(&site.config(&pebble, &eab, &["shop.example"]));
    wait_until_issued(&proxy);
}

#[test]
fn newly_configured_names_get_a_certificate() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let proxy = site.start(&pebble);
    wait_until_issued(&proxy);
    assert!(proxy.reload(&site.config(&pebble, "", &["shop.example", "more.example"])));
    eventually("the new name is in the certificate", || {
        site.read(&pebble, "more.example").is_ok()
    });
}

#[test]
fn a_certificate_with_a_deleted_file_stays_in_use_until_replaced() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let proxy = site.start(&pebble);
    wait_until_issued(&proxy);
    let file = site.state.path().join("shop.example.pem");
    fs::remove_file(&file).unwrap();
    let reloaded = proxy.command(&["cert", "reload"]);
    assert!(
        reloaded.code == Some(1)
            && reloaded
                .stderr
                .contains("`acequia cert renew shop.example` orders another"),
        "{reloaded:?}"
    );
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
    assert_eq!(listed(&proxy)["self_signed"], false);
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("another is issued", || orders(&proxy, "ok") == 2.0);
    assert!(file.exists());
    eventually("`cert reload` succeeds", || {
        proxy.command(&["cert", "reload"]).code == Some(0)
    });
}

#[test]
fn a_certificate_stays_in_use_until_it_is_replaced_under_a_new_first_name() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let proxy = site.start(&pebble);
    wait_until_issued(&proxy);
    let config = site.config(&pebble, "", &["www.example", "shop.example"]);
    let client = pebble.client(); // this asks Pebble for its roots
    pebble.pause();
    assert!(proxy.reload(&config));
    let before_it_is_replaced = client.connect(site.https.address, "shop.example").unwrap().read(5);
    assert_eq!(before_it_is_replaced, b"hello");
    pebble.resume();
    eventually("a certificate is issued under the new first name", || {
        assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
        site.state.path().join("www.example.pem").exists()
    });
    eventually("the new certificate is in use", || {
        let certificate = listed(&proxy);
        certificate["file"].as_str().unwrap().ends_with("www.example.pem")
            && certificate["renewal"]["under_way"] == false
    });
    assert_eq!(site.read(&pebble, "www.example").unwrap(), b"hello");
}

#[test]
fn instances_forward_validations_to_the_instance_that_orders() {
    let (site, forwarder_port) = (Site::new(), Port::keep());
    let pebble = PebbleSetup::new(forwarder_port.number(), site.http.number()).start();
    let (authority, directory) = (Authority::new("own"), tempfile::tempdir().unwrap());
    authority.issue(&["own.example"]).write(directory.path(), "own");
    let config = format!(
        "[listeners.https]\nbind = \"{}\"\npool = \"p\"\n\
         [listeners.https.tls]\ncertificates = [{{ directory = {:?} }}]\n\
         [[listeners.https.routes]]\nalpn = \"acme-tls/1\"\ntls = \"pass\"\npool = \"orders\"\n{}{}",
        forwarder_port.address,
        directory.path(),
        pool("p", &[site.server.address], "health = { check = \"off\" }"),
        pool("orders", &[site.https.address], "health = { check = \"off\" }")
    );
    let forwarder = Proxy::start(&config);
    let ordering = site.start(&pebble);
    wait_until_issued(&ordering);
    let passed = |line: &Value| line["pool"] == "orders" && line["tls"] == "pass";
    forwarder.wait_for_access("a challenge that was passed on is logged", passed);
    // An instance that does not order reads the certificate from a copy of the file.
    fs::copy(
        site.state.path().join("shop.example.pem"),
        directory.path().join("shop.pem"),
    )
    .unwrap();
    eventually("the forwarder has the certificate", || {
        pebble.client().connect(forwarder_port.address, "www.example").is_ok()
    });
}

#[test]
fn validations_of_foreign_names_are_routed() {
    let (directory, server) = (tempfile::tempdir().unwrap(), Server::echo());
    let config = format!(
        "[acme.absent]\ndirectory = \"https://127.0.0.1:1/dir\"\nstate_dir = {:?}\n\
         [listeners.tls]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [listeners.tls.tls]\ncertificates = [{{ acme = \"absent\", names = [\"ours.example\"] }}]\n\
         [[listeners.tls.routes]]\nsni = \"theirs.example\"\ntls = \"pass\"\npool = \"p\"\n{}",
        directory.path(),
        pool("p", &[server.address], "health = { check = \"off\" }")
    );
    let proxy = Proxy::start(&config);
    let hello = Hello::named("theirs.example").alpn(&["acme-tls/1"]).bytes();
    let mut client = Client::connect(proxy.at("tls"));
    client.send(&hello);
    assert_eq!(client.read(hello.len()), hello, "the server gets the ClientHello");
}
