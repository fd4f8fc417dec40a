//! Chromium as the client of a listener that terminates TLS.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use super::site::Site;
use crate::support::browser::Browser;
use crate::support::nginx::Nginx;
use crate::support::proxy::Proxy;
use serde_json::Value;

/// The SHA-256 of the public key of a certificate of the site, in base64.
fn pin(site: &Site, name: &str) -> String {
    let certificate = CertificateDer::from_pem_file(site.directory().join(name)).unwrap();
    let (_, parsed) = parse_x509_certificate(&certificate).unwrap();
    BASE64_STANDARD.encode(digest(&SHA256, parsed.public_key().raw))
}

#[test]
fn a_page_loads_by_the_http_version_of_its_route() {
    let (site, http_2, http_1) = (Site::new(), Nginx::start("http2"), Nginx::start(""));
    let routes = "[[listeners.tls.routes]]\nsni = \"other.example\"\nalpn = \"http/1.1\"\npool = \"one\"\n";
    let pool_one = format!(
        "[pools.one]\nservers = [\"{}\"]\nhealth.check = \"off\"\n",
        http_1.address()
    );
    let proxy = Proxy::start(&(site.config(http_2.address(), "alpn = [\"h2\", \"http/1.1\"]", routes) + &pool_one));
    let pins = ["shop.pem", "other.pem"].map(|name| pin(&site, name)).join(",");
    let mut browser = Browser::open_with(
        &[
            format!("--host-resolver-rules=MAP *.example {}", proxy.at("tls")),
            format!("--ignore-certificate-errors-spki-list={pins}"),
        ],
        "https://shop.example/",
        800,
        600,
    );
    browser.eventually("document.body?.innerText === 'HTTP/2.0'");
    let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.evaluate(protocol), "h2");
    // Many requests share the open connections.
    let fetched = "Promise.all([...Array(50)].map(() => fetch('/').then((answer) => answer.text()))).then((all) => \
                   all.every((text) => text === 'HTTP/2.0'))";
    assert_eq!(browser.evaluate(fetched), true);
    browser.ask("Page.navigate", &serde_json::json!({ "url": "https://other.example/" }));
    browser.eventually("document.body?.innerText === 'HTTP/1.1'");
    assert_eq!(browser.evaluate(protocol), "http/1.1");
    drop(browser);
    let is_of = |name: &'static str| move |line: &Value| line["sni"] == name && line["tls"] == "1.3";
    for name in ["shop.example", "other.example"] {
        proxy.wait_for_access(name, is_of(name));
    }
    let lines = proxy.access();
    let sessions = lines.iter().filter(|line| is_of("shop.example")(line)).count();
    assert!(sessions <= 3, "expected few connections for all requests: {lines:#?}");
}
