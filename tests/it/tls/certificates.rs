//! Which certificate a client gets, what happens when certificates change, and what the commands say about them.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::scope;

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::eventually;
use crate::support::process::{finished, must};
use crate::support::proxy::{acequia, checked, config_directory};
use crate::support::server::Server;
use crate::support::stop::StopOnDrop;
use crate::support::tls_client::TlsSetup;

#[test]
fn a_certificate_is_selected_by_name_and_an_unknown_name_gets_one_for_other_names() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let shown_for = |name: &str| {
        let shown = site.client().connect(proxy.at("tls"), name);
        shown
            .map(|client| client.certificate())
            .map_err(|error| error.to_string())
    };
    let (shop, other) = (shown_for("shop.example").unwrap(), shown_for("other.example").unwrap());
    assert_ne!(shop, other);
    assert_eq!(shown_for("a.shop.example").unwrap(), shop);
    assert_eq!(shown_for("SHOP.example").unwrap(), shop);
    for unknown in ["a.b.shop.example", "unknown.example"] {
        let error = shown_for(unknown).unwrap_err();
        assert!(
            error.contains("not valid for name"),
            "expected a certificate for other names: {error}"
        );
    }
}

#[test]
fn certificates_of_a_directory_are_found_in_every_usual_layout() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let directory = site.directory().join("sites");
    for name in ["secret", "certbot"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    let issue = |name: &str| site.authority.issue(&[name]);
    issue("pem.example").write(&directory, "pem");
    let manager = issue("manager.example");
    replace(&directory.join("secret/tls.crt"), &manager.certificate);
    replace(&directory.join("secret/tls.key"), &manager.key);
    let certbot = issue("certbot.example");
    replace(&directory.join("certbot/fullchain.pem"), &certbot.certificate);
    replace(&directory.join("certbot/privkey.pem"), &certbot.key);
    replace(&directory.join("certbot/chain.pem"), &site.authority.certificate());
    let both = issue("both.example");
    replace(&directory.join("both.pem"), &(both.certificate + &both.key));
    fs::create_dir(directory.join("lost+found")).unwrap(); // the directory may be the root of a file system
    replace(&directory.join("lost+found/lost.pem"), "not a certificate");
    let proxy = site.start_with_sites(server.address);
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
fn a_changed_certificate_is_shown_and_no_connection_fails() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let setup = TlsSetup::trusting(&site.authority);
    scope(|all| {
        let stop_on_drop = StopOnDrop(&stop);
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
            site.authority.issue(&["shop.example"]).write(site.directory(), "shop");
            eventually("the new certificate is shown", || shown() != before);
        }
        drop(stop_on_drop);
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
        &site.directory().join("shop.key"),
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
    let more = "[listeners.more]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n";
    proxy.rewrite(&(more.to_owned() + &site.config(server.address, "", "")));
    for (words, expected) in [
        (&["reload"][..], "+ more"),
        (&["reload", "--json"], "\"broken\":[\"listeners.tls.tls: "),
        (&["cert", "reload"], "tls: 0 certificates changed"),
        (&["cert", "reload", "--json"], "\"broken\":[\""),
    ] {
        let reloaded = proxy.command(words);
        assert_eq!(reloaded.code, Some(1), "{reloaded:#?}");
        assert!(
            reloaded.stdout.contains(expected) && reloaded.stderr.contains("shop.key: the key does not fit"),
            "{reloaded:#?}"
        );
    }
    let status = proxy.command(&["status"]).stdout;
    assert!(status.contains("\nmore "), "the new listener is in force: {status}");
    assert_eq!(shown(), before);
    assert!(
        proxy
            .metrics()
            .sum("acequia_certificate_reloads_total", &[("result", "error")])
            >= 1.0
    );
    site.authority.issue(&["shop.example"]).write(site.directory(), "shop");
    eventually("the certificate that fits is shown", || shown() != before);
    eventually("nothing is broken", || {
        !proxy.command(&["status"]).stdout.contains("broken")
    });
    assert_eq!(proxy.command(&["reload"]).code, Some(0));
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
fn check_names_the_faulty_tls_file_and_the_fault() {
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
        .write(site.directory(), "other");
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(0) && said.contains("other.pem: the certificate has expired on"),
        "{said}"
    );
    let issued = site.authority.issue(&["other.example"]);
    let chain = issued.certificate.clone() + &Authority::new("another").certificate();
    replace(&site.directory().join("other.pem"), &chain);
    replace(&site.directory().join("other.key"), &issued.key);
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(0) && said.contains("other.pem: wrong order: certificate 1 was not issued by"),
        "{said}"
    );
    replace(
        &site.directory().join("other.key"),
        &site.authority.issue(&["x.example"]).key,
    );
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(1) && said.contains("other.key: the key does not fit the first certificate in"),
        "{said}"
    );
    let directory = config_directory("acequia.toml", &config(""));
    let run = finished(acequia(&["run", "-c", "acequia.toml"]).current_dir(directory.path()));
    assert!(
        run.code == Some(1) && run.stderr.contains("the key does not fit"),
        "{run:?}"
    );
    replace(&site.directory().join("other.key"), "no key");
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(1) && said.contains("other.key: there is no private key in it"),
        "{said}"
    );
    fs::remove_file(site.directory().join("other.key")).unwrap();
    let (code, said) = checked(&config(""));
    assert!(
        code == Some(3) && said.starts_with("error: ") && said.contains("other.key"),
        "{said}"
    );
}

#[test]
fn check_shows_how_to_convert_other_formats_to_pem() {
    let site = Site::new();
    let config = site.config("127.0.0.1:9".parse().unwrap(), "", "");
    let openssl = |arguments: &str| {
        must(
            Command::new("openssl")
                .current_dir(site.directory())
                .args(arguments.split(' ')),
        );
    };
    let restore = || site.authority.issue(&["shop.example"]).write(site.directory(), "shop");
    for (arguments, hint) in [
        (
            "x509 -in shop.pem -outform der -out made",
            "shop.pem: it is in DER, not in PEM: convert it (openssl x509 -inform der",
        ),
        (
            "pkey -in shop.key -outform der -out made",
            "shop.key: it is in DER, not in PEM: convert it (openssl pkey -inform der",
        ),
        (
            "pkcs12 -export -in shop.pem -inkey shop.key -passout pass: -out made",
            "shop.pem: it is in PKCS#12, not in PEM: convert it (openssl pkcs12",
        ),
    ] {
        restore();
        openssl(arguments);
        let (file, _) = hint.split_once(':').unwrap();
        fs::rename(site.directory().join("made"), site.directory().join(file)).unwrap();
        let (code, said) = checked(&config);
        assert!(code == Some(1) && said.contains(hint), "{said}");
    }
}

#[test]
fn check_reports_a_client_ca_that_is_not_an_authority() {
    let site = Site::new();
    site.authority
        .issue(&["client.example"])
        .write(site.directory(), "client");
    let auth = format!("client_auth = {{ ca_file = {} }}", site.file("client.pem"));
    let config = site.config("127.0.0.1:9".parse().unwrap(), &auth, "");
    let (code, said) = checked(&config);
    let expected = "client.pem: `CN=client.example` is not an authority: the certificate of `CN=test authority`";
    assert!(code == Some(1) && said.contains(expected), "{said}");
    let both = site.authority.certificate() + &fs::read_to_string(site.directory().join("client.pem")).unwrap();
    replace(&site.directory().join("client.pem"), &both);
    assert_eq!(checked(&config), (Some(0), String::new()));
}

#[test]
fn check_warns_about_certificates_not_yet_valid_or_about_to_expire() {
    let site = Site::new();
    let config = site.config("127.0.0.1:9".parse().unwrap(), "", "");
    // The warning that a certificate expires soon comes when a fourth of its lifetime is left, but not earlier than 14
    // days before its end.
    for (days_from_now, warning) in [
        (1..90, Some("other.pem: the certificate is not valid before ")),
        (-77..13, Some("other.pem: the certificate expires soon, on ")),
        (-75..15, None),
        (-5..1, Some("other.pem: the certificate expires soon, on ")),
        (-4..2, None),
    ] {
        let issued = site.authority.issue_between(&["other.example"], days_from_now.clone());
        issued.write(site.directory(), "other");
        let (code, said) = checked(&config);
        assert_eq!(code, Some(0), "{said}");
        match warning {
            Some(warning) => assert!(said.contains(warning), "{days_from_now:?}: {said}"),
            None => assert_eq!(said, "", "{days_from_now:?}"),
        }
    }
}

#[test]
fn check_warns_about_a_certificate_without_a_route() {
    let site = Site::new();
    let routes = "[[listeners.tls.routes]]\nsni = \"shop.example\"\npool = \"p\"\n";
    let config = site.config("127.0.0.1:9".parse().unwrap(), "", routes);
    assert_eq!(
        checked(&config),
        (Some(0), String::new()),
        "the pool of the listener takes every name"
    );
    let without_pool_of_listener = config.replacen("pool = \"p\"\n", "", 1);
    let (code, said) = checked(&without_pool_of_listener);
    assert!(
        code == Some(0) && said.contains("other.pem: no route is for a name of this certificate"),
        "{said}"
    );
    assert!(!said.contains("shop.pem"), "{said}");
}

#[test]
fn a_half_written_file_changes_nothing() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let proxy = site.start(server.address);
    let shown = || {
        let client = site.client().connect(proxy.at("tls"), "shop.example");
        client.unwrap().certificate()
    };
    let before = shown();
    let next = site.authority.issue(&["shop.example"]);
    // Each file is overwritten in place: it is empty, then half written, then complete. Each of these states is read.
    let write_in_parts = |ending: &str, text: &str| {
        let path = site.directory().join(format!("shop.{ending}"));
        for part in [&text[..0], &text[..text.len() / 2], text] {
            fs::write(&path, part).unwrap();
            proxy.command(&["cert", "reload"]);
            let is_pair_complete = ending == "key" && part.len() == text.len();
            if !is_pair_complete {
                assert_eq!(shown(), before, "after {} bytes of {ending}", part.len());
            }
        }
    };
    write_in_parts("pem", &next.certificate);
    write_in_parts("key", &next.key);
    assert_eq!(shown(), next.chain_and_key().0[0]);
    assert_eq!(proxy.command(&["cert", "reload"]).code, Some(0));
}

#[test]
fn a_fifo_in_place_of_an_ocsp_response_blocks_nothing() {
    let site = Site::new();
    must(Command::new("mkfifo").arg(site.directory().join("shop.ocsp")));
    let (code, said) = checked(&site.config("127.0.0.1:9".parse().unwrap(), "", ""));
    assert!(
        code == Some(0) && said.contains("shop.ocsp") && said.contains("no OCSP response is sent"),
        "{said}"
    );
}

#[test]
fn a_directory_without_its_last_certificate_is_reported_and_changes_nothing() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let directory = site.directory().join("sites");
    fs::create_dir(&directory).unwrap();
    for name in ["shop.example", "other.example"] {
        site.authority.issue(&[name]).write(&directory, name);
    }
    let proxy = site.start_with_sites(server.address);
    let remove = |name: &str| {
        for ending in ["pem", "key"] {
            fs::remove_file(directory.join(format!("{name}.{ending}"))).unwrap();
        }
        proxy.command(&["cert", "reload"])
    };
    let is_served = |name| site.client().connect(proxy.at("tls"), name).is_ok();
    assert_eq!(remove("other.example").code, Some(0));
    assert!(is_served("shop.example") && !is_served("other.example"));
    for failed in [remove("shop.example"), proxy.command(&["cert", "reload"])] {
        assert!(
            failed.code == Some(1)
                && failed
                    .stderr
                    .contains("sites: there is no certificate with its key in it"),
            "{failed:?}"
        );
    }
    assert!(is_served("shop.example"));
    let read_again = proxy
        .log()
        .iter()
        .filter(|line| line["message"] == "TLS files read again")
        .count();
    assert_eq!(read_again, 1, "only after other.example was removed");
}

#[test]
fn route_shows_whether_tls_is_terminated_and_with_which_certificate() {
    let site = Site::new();
    let routes = "[[listeners.tls.routes]]\nsni = \"*.example\"\ntls = \"pass\"\npool = \"p\"\n";
    let directory = config_directory("acequia.toml", &site.config("127.0.0.1:9".parse().unwrap(), "", routes));
    let said = |sni: &str| {
        let words = ["route", "-c", "acequia.toml", "--listener", "tls", "--sni", sni];
        finished(acequia(&words).current_dir(directory.path())).stdout
    };
    assert!(
        said("shop.example").contains("TLS is passed on"),
        "{}",
        said("shop.example")
    );
    let terminated = said("localhost");
    assert!(
        terminated.contains("TLS ends here, with the certificate ") && terminated.contains("shop.pem"),
        "{terminated}"
    );
}

#[test]
fn cert_list_shows_every_certificate_and_cert_reload_reads_the_files_again() {
    let (site, server) = (Site::new(), Server::named("hello"));
    site.authority
        .issue_expired(&["other.example"])
        .write(site.directory(), "other");
    let proxy = site.start(server.address);
    let listed = proxy.answer(&["cert", "list"])["certificates"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let shop = &listed[0];
    assert_eq!(shop["listener"], "tls");
    assert_eq!(shop["names"], serde_json::json!(["shop.example", "*.shop.example"]));
    assert_eq!(shop["issuer"], "test authority");
    assert_eq!(shop["file"], site.directory().join("shop.pem").to_str().unwrap());
    let table = proxy.command(&["cert", "list"]).stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[0].starts_with("NAMES") && lines[0].contains("DAYS LEFT"),
        "{table}"
    );
    assert!(
        lines[1].starts_with("other.example") && lines[1].contains("expired"),
        "{table}"
    );
    assert!(lines[2].starts_with("shop.example *.shop.example"), "{table}");

    site.authority.issue(&["new.example"]).write(site.directory(), "other");
    let reloaded = proxy.answer(&["cert", "reload"]);
    // The files are also watched: the watch or the command reads the change, whichever is first.
    assert!(reloaded["listeners"][0]["changed"].as_u64().unwrap() <= 1, "{reloaded}");
    let names = |number: usize| proxy.answer(&["cert", "list"])["certificates"][number]["names"].clone();
    assert_eq!(names(1), serde_json::json!(["new.example"]));

    replace(&site.directory().join("other.key"), "no key");
    let failed = proxy.command(&["cert", "reload"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(
        failed.stderr.contains("stay in force") && failed.stderr.contains("other.key: there is no private key in it"),
        "{failed:?}"
    );
    assert_eq!(names(1), serde_json::json!(["new.example"]));
}
