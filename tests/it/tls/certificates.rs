//! Which certificate a client gets, and what becomes of certificates that change.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::scope;

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::eventually;
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia, config_folder};
use crate::support::server::Server;
use crate::support::tls_client::TlsSetup;

/// What `acequia check` prints about this configuration, and its exit code.
fn checked(config: &str) -> (Option<i32>, String) {
    let folder = config_folder("acequia.toml", config);
    let done = finished(acequia(&["check", "-c", "acequia.toml"]).current_dir(folder.path()));
    (done.code, done.stderr)
}

#[test]
fn the_certificate_is_that_of_the_name_and_otherwise_the_first() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let of = |name: &str| {
        let shown = site.client().connect(proxy.at("tls"), name);
        shown
            .map(|client| client.certificate())
            .map_err(|error| error.to_string())
    };
    let (shop, other) = (of("shop.example").unwrap(), of("other.example").unwrap());
    assert_ne!(shop, other);
    assert_eq!(of("a.shop.example").unwrap(), shop);
    assert_eq!(of("SHOP.example").unwrap(), shop);
    for unknown in ["a.b.shop.example", "unknown.example"] {
        let error = of(unknown).unwrap_err();
        assert!(
            error.contains("not valid for name"),
            "expected the first certificate: {error}"
        );
    }
}

#[test]
fn certificates_of_a_directory_are_found_in_every_usual_layout() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let folder = site.folder().join("sites");
    for directory in ["secret", "certbot"] {
        fs::create_dir_all(folder.join(directory)).unwrap();
    }
    let issue = |name: &str| site.authority.issue(&[name]);
    issue("pem.example").write(&folder, "pem");
    let manager = issue("manager.example");
    replace(&folder.join("secret/tls.crt"), &manager.certificate);
    replace(&folder.join("secret/tls.key"), &manager.key);
    let certbot = issue("certbot.example");
    replace(&folder.join("certbot/fullchain.pem"), &certbot.certificate);
    replace(&folder.join("certbot/privkey.pem"), &certbot.key);
    replace(&folder.join("certbot/chain.pem"), &site.authority.certificate());
    let both = issue("both.example");
    replace(&folder.join("both.pem"), &(both.certificate + &both.key));
    let config = site.config(server.address, "", "");
    let start = config.find("certificates = ").unwrap();
    let end = start + config[start..].find('\n').unwrap();
    let directory = format!("certificates = [{{ directory = {} }}]", site.file("sites"));
    let proxy = Proxy::start(&(config[..start].to_owned() + &directory + &config[end..]));
    for name in ["pem.example", "manager.example", "certbot.example", "both.example"] {
        assert_eq!(
            site.client().connect(proxy.at("tls"), name).unwrap().read(5),
            b"hello",
            "{name}"
        );
    }
    assert_eq!(proxy.answer(&["status"])["listeners"][0]["tls"]["certificates"], 4);
}

#[test]
fn a_certificate_that_changes_is_replaced_and_no_client_notices() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let setup = TlsSetup::trusting(&site.authority);
    scope(|all| {
        let load = all.spawn(|| {
            while !stop.load(Relaxed) {
                assert_eq!(
                    setup.connect(proxy.at("tls"), "shop.example").unwrap().read(5),
                    b"hello"
                );
                served.fetch_add(1, Relaxed);
            }
        });
        let shown = || {
            site.client()
                .connect(proxy.at("tls"), "shop.example")
                .unwrap()
                .certificate()
        };
        for _ in 0..2 {
            let before = shown();
            site.authority.issue(&["shop.example"]).write(site.folder(), "shop");
            eventually("the new certificate is shown", || shown() != before);
        }
        stop.store(true, Relaxed);
        load.join().unwrap();
    });
    assert!(served.load(Relaxed) > 0);
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let shown = || {
        site.client()
            .connect(proxy.at("tls"), "shop.example")
            .unwrap()
            .certificate()
    };
    let before = shown();
    replace(
        &site.folder().join("shop.key"),
        &site.authority.issue(&["x.example"]).key,
    );
    eventually("the log tells that the key does not fit", || {
        let tells = |line: &serde_json::Value| {
            line["error"]
                .as_str()
                .is_some_and(|error| error.contains("does not fit"))
        };
        proxy.log().iter().any(|line| line["level"] == "ERROR" && tells(line))
    });
    assert_eq!(shown(), before);
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("broken") && status.contains("shop.key"), "{status}");
    assert!(
        proxy
            .metrics()
            .sum("acequia_certificate_reloads_total", &[("result", "error")])
            >= 1.0
    );
    site.authority.issue(&["shop.example"]).write(site.folder(), "shop");
    eventually("the certificate that fits is shown", || shown() != before);
    eventually("nothing is broken", || {
        !proxy.command(&["status"]).stdout.contains("broken")
    });
}

#[test]
fn the_expiry_of_every_certificate_is_a_metric() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    for name in ["shop.example", "other.example"] {
        let labels = [("listener", "tls"), ("name", name)];
        assert!(
            proxy
                .metrics()
                .sum("acequia_certificate_expiry_timestamp_seconds", &labels)
                > 1e9
        );
    }
}

#[test]
fn check_tells_what_is_wrong_with_which_file() {
    let site = Site::new();
    let config = |routes: &str| site.config("127.0.0.1:9".parse().unwrap(), "", routes);
    assert_eq!(checked(&config("")), (Some(0), String::new()));
    let (code, said) = checked(&config(
        "[[listeners.tls.routes]]\nsni = \"absent.example\"\npool = \"p\"\n",
    ));
    assert!(
        code == Some(0) && said.contains("no certificate is for `absent.example` of route `tls#1`"),
        "{said}"
    );
    site.authority
        .issue_expired(&["other.example"])
        .write(site.folder(), "other");
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(0) && said.contains("other.pem: the certificate has expired on"),
        "{said}"
    );
    let issued = site.authority.issue(&["other.example"]);
    let chain = issued.certificate.clone() + &Authority::new("another").certificate();
    replace(&site.folder().join("other.pem"), &chain);
    replace(&site.folder().join("other.key"), &issued.key);
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(0) && said.contains("other.pem: wrong order: certificate 1 was not issued by"),
        "{said}"
    );
    replace(
        &site.folder().join("other.key"),
        &site.authority.issue(&["x.example"]).key,
    );
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(1) && said.contains("other.key: the key does not fit the certificate in"),
        "{said}"
    );
    replace(&site.folder().join("other.key"), "no key");
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(1) && said.contains("other.key: there is no private key in it"),
        "{said}"
    );
    fs::remove_file(site.folder().join("other.key")).unwrap();
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(0) && said.starts_with("warning: ") && said.contains("other.key"),
        "{said}"
    );
}

#[test]
fn route_tells_whether_tls_ends_and_with_which_certificate() {
    let site = Site::new();
    let routes = "[[listeners.tls.routes]]\nsni = \"*.example\"\ntls = \"pass\"\npool = \"p\"\n";
    let folder = config_folder("acequia.toml", &site.config("127.0.0.1:9".parse().unwrap(), "", routes));
    let said = |sni: &str| {
        let words = ["route", "-c", "acequia.toml", "--listener", "tls", "--sni", sni];
        finished(acequia(&words).current_dir(folder.path())).stdout
    };
    assert!(
        said("shop.example").contains("TLS is passed on"),
        "{}",
        said("shop.example")
    );
    let said = said("localhost");
    assert!(
        said.contains("TLS ends here, with the certificate ") && said.contains("shop.pem"),
        "{said}"
    );
}
