//! OCSP responses that are sent along with certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::configs::pool;
use crate::support::eventually;
use crate::support::process::{finished, must};
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;

/// Makes two authorities (`ca.pem` and `other.pem`), and a certificate of the first one with the serial number 0x11
/// (`shop.pem`, `shop.key`).
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        must(
            Command::new("openssl")
                .current_dir(directory)
                .args(arguments.split(' ')),
        )
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for name in ["ca", "other"] {
        openssl(&format!(
            "req -x509 {key} -keyout {name}.key -out {name}.pem -days 30 -subj /CN={name}"
        ));
    }
    openssl(&format!(
        "req -x509 {key} -keyout shop.key -out shop.pem -days 60 -subj /CN=shop -set_serial 0x11 -CA ca.pem -CAkey ca.key \
         -addext subjectAltName=DNS:shop.example"
    ));
}

/// Writes `shop.ocsp`: a response of `ca` about the certificate with this serial number (in hexadecimal digits). The
/// response is valid for three days from `from`, an offset from now in the format of libfaketime.
fn respond(directory: &Path, serial: &str, from: &str) {
    respond_as(directory, "ca", serial, serial, from);
}

/// As [`respond`], but the response is of this authority, which knows only the certificate with the serial number
/// `known`.
fn respond_as(directory: &Path, authority: &str, serial: &str, known: &str, from: &str) {
    let index = format!("V\t491231235959Z\t\t{known}\tunknown\t/CN=shop\n");
    fs::write(directory.join("index.txt"), index).unwrap();
    let arguments = format!(
        "ocsp -index index.txt -rsigner {authority}.pem -rkey {authority}.key -CA {authority}.pem -issuer {authority}.pem \
         -serial 0x{serial} -respout next -ndays 3"
    );
    must(
        Command::new("openssl")
            .current_dir(directory)
            .args(arguments.split(' '))
            .env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1")
            .env("FAKETIME", from),
    );
    fs::rename(directory.join("next"), directory.join("shop.ocsp")).unwrap();
}

fn config(directory: &Path, server: &Server) -> String {
    let file = |name: &str| directory.join(name).display().to_string();
    format!(
        "[listeners.tls]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[listeners.tls.tls]\n\
         certificates = [{{ cert = {:?}, key = {:?} }}]\n{}",
        file("shop.pem"),
        file("shop.key"),
        pool("p", &[server.address], "health = { check = \"off\" }")
    )
}

/// What openssl prints about a connection to the listener, including the OCSP response.
fn shown(proxy: &Proxy) -> String {
    let mut command = Command::new("openssl");
    let address = proxy.at("tls").to_string();
    command.args([
        "s_client",
        "-connect",
        &address,
        "-servername",
        "shop.example",
        "-status",
    ]);
    finished(&mut command).stdout
}

fn is_stapled(proxy: &Proxy) -> bool {
    let shown = shown(proxy);
    let none = shown.contains("OCSP response: no response sent");
    assert!(none || shown.contains("OCSP Response Status: successful"), "{shown}");
    !none
}

#[test]
fn an_ocsp_response_beside_the_certificate_is_stapled_if_it_is_valid_and_the_log_tells_why_not() {
    let (directory, server) = (tempfile::tempdir().unwrap(), Server::named("hello"));
    let directory = directory.path();
    make_certificates(directory);
    let proxy = Proxy::start(&config(directory, &server));
    assert!(!is_stapled(&proxy));

    respond(directory, "11", "+0d");
    proxy.answer(&["cert", "reload"]);
    assert!(is_stapled(&proxy) && shown(&proxy).contains("Cert Status: good"));

    for (serial, from, expected) in [
        (
            "11",
            "-10d",
            "shop.ocsp: the OCSP response has expired: no OCSP response is sent",
        ),
        (
            "12",
            "+0d",
            "shop.ocsp: the OCSP response is for another certificate, or damaged: no OCSP response is sent",
        ),
    ] {
        respond(directory, serial, from);
        eventually(expected, || !is_stapled(&proxy));
        eventually("the log tells why", || {
            proxy.log().iter().any(|line| line.to_string().contains(expected))
        });
        respond(directory, "11", "+0d");
        proxy.answer(&["cert", "reload"]);
        assert!(is_stapled(&proxy));
    }

    let check = || finished(acequia(&["check", "-c"]).arg(proxy.directory().join("acequia.toml"))).stderr;
    for (authority, known, from, expected) in [
        (
            "other",
            "11",
            "+0d",
            "shop.ocsp: the OCSP response is for another certificate, or damaged: no OCSP response is sent",
        ),
        // The 2 begins the year.
        ("ca", "11", "+1d", "shop.ocsp: the OCSP response is not valid before 2"),
        (
            "ca",
            "12",
            "+0d",
            "shop.ocsp: the certificate is unknown to the OCSP responder: no OCSP response is sent",
        ),
    ] {
        respond_as(directory, authority, "11", known, from);
        proxy.answer(&["cert", "reload"]);
        assert!(!is_stapled(&proxy), "{expected}");
        let said = check();
        assert!(said.contains(expected), "{said}");
    }
    respond(directory, "11", "+0d");
    let mut longer = fs::read(directory.join("shop.ocsp")).unwrap();
    longer.push(0);
    fs::write(directory.join("shop.ocsp"), longer).unwrap();
    assert!(check().contains("shop.ocsp: not a successful OCSP response"));

    fs::write(directory.join("shop.ocsp"), "no response").unwrap();
    proxy.answer(&["cert", "reload"]);
    assert!(!is_stapled(&proxy));
    let checked = finished(acequia(&["check", "-c"]).arg(proxy.directory().join("acequia.toml")));
    assert!(
        checked.code == Some(0) && checked.stderr.contains("shop.ocsp: not a successful OCSP response"),
        "{checked:?}"
    );
}
