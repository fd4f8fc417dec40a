//! Which certificates of clients are accepted.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::site::Site;
use crate::support::authority::{Authority, Issued, replace};
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::tls_client::{TlsClient, TlsSetup};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

/// A site that asks its clients for certificates, which the authority `clients` must have issued.
struct VerifyingSite {
    site: Site,
    clients: Authority,
    proxy: Proxy,
    _server: Server,
}

impl VerifyingSite {
    /// `settings` are further entries of `client_auth`.
    fn new(settings: &str) -> Self {
        let (site, clients, server) = (Site::new(), Authority::new("clients"), Server::named("hello"));
        replace(&site.directory().join("clients.pem"), &clients.certificate());
        replace(&site.directory().join("clients.crl"), &clients.revocations(&[]));
        let (ca, crl) = (site.file("clients.pem"), site.file("clients.crl"));
        let auth = format!("client_auth = {{ ca_file = {ca}, crl_file = {crl}, {settings} }}");
        let proxy = Proxy::start(&site.config(server.address, &auth, ""));
        Self {
            site,
            clients,
            proxy,
            _server: server,
        }
    }

    /// Whether a client with this certificate is served, with both versions of TLS.
    fn serves(&self, own: Option<&Issued>) -> bool {
        let served = [&TLS12, &TLS13].map(|version| {
            let setup = TlsSetup::new(&self.site.authority, &[version], own);
            Self::is_served(&setup, &self.proxy)
        });
        assert_eq!(served[0], served[1]);
        served[0]
    }

    fn is_served(setup: &TlsSetup, proxy: &Proxy) -> bool {
        let Ok(mut client) = setup.connect(proxy.at("tls"), "shop.example") else {
            return false;
        };
        read_greeting(&mut client) == b"hello"
    }
}

/// Reads the first bytes; with TLS 1.3, only that read tells a client that its certificate was refused.
fn read_greeting(client: &mut TlsClient) -> Vec<u8> {
    let mut bytes = [0; 5];
    match client.0.read_exact(&mut bytes) {
        Ok(()) => bytes.to_vec(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn only_valid_certificates_of_the_authority_are_accepted() {
    let verifying = VerifyingSite::new("mode = \"require\"");
    let good = verifying.clients.issue(&["joe.clients.example"]);
    assert!(verifying.serves(Some(&good)));
    assert!(!verifying.serves(None));
    assert!(!verifying.serves(Some(&verifying.clients.issue_expired(&["joe.clients.example"]))));
    assert!(!verifying.serves(Some(&Authority::new("strangers").issue(&["joe.clients.example"]))));
    let lines = verifying.proxy.access_lines(8);
    let count = |ending: &str| lines.iter().filter(|line| line["ending"] == ending).count();
    assert_eq!(count("tls_client_refused"), 6, "{lines:#?}");
    let errors: Vec<_> = lines.iter().filter_map(|line| line["tls_error"].as_str()).collect();
    for error in ["certificate_required", "certificate_expired", "unknown_ca"] {
        assert_eq!(errors.iter().filter(|word| **word == error).count(), 2, "{errors:?}");
    }
    assert!(
        lines
            .iter()
            .filter(|line| line["tls_error"].is_string())
            .all(|line| line["tls_refusal"].is_string())
    );
    let served = lines.iter().find(|line| line["client_cert"].is_object()).unwrap();
    assert!(
        served["client_cert"]["subject"]
            .as_str()
            .unwrap()
            .contains("joe.clients.example")
    );
    assert_eq!(served["client_cert"]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn with_mode_request_a_client_certificate_is_optional_but_must_be_valid() {
    let verifying = VerifyingSite::new("mode = \"request\"");
    assert!(verifying.serves(None));
    assert!(verifying.serves(Some(&verifying.clients.issue(&["joe.clients.example"]))));
    assert!(!verifying.serves(Some(&Authority::new("strangers").issue(&["joe.clients.example"]))));
}

#[test]
fn a_client_certificate_must_have_one_of_the_names() {
    let verifying = VerifyingSite::new("names = [\"*.clients.example\"]");
    assert!(verifying.serves(Some(&verifying.clients.issue(&["joe.clients.example"]))));
    let invalid = [
        "/.clients.example",
        "a b.clients.example",
        "*.clients.example",
        "joe\0.clients.example",
    ];
    for name in ["joe.example"].into_iter().chain(invalid) {
        assert!(!verifying.serves(Some(&verifying.clients.issue(&[name]))), "{name}");
    }
    // Each of these clients has tried both versions.
    let lines = verifying.proxy.access_lines(12);
    let refused = lines.iter().filter(|line| line["tls_error"] == "access_denied").count();
    assert_eq!(refused, 10, "{lines:#?}");
}

#[test]
fn a_revoked_certificate_is_refused_even_with_a_ticket() {
    let verifying = VerifyingSite::new("mode = \"require\"");
    let (valid, revoked) = (
        verifying.clients.issue(&["a.example"]),
        verifying.clients.issue(&["b.example"]),
    );
    let setup = |own| TlsSetup::new(&verifying.site.authority, &[&TLS13], Some(own));
    let (valid_setup, revoked_setup) = (setup(&valid), setup(&revoked));
    for setup in [&valid_setup, &revoked_setup] {
        assert!(VerifyingSite::is_served(setup, &verifying.proxy));
    }
    assert!(verifying.proxy.metrics().sum("acequia_tls_resumptions_total", &[]) == 0.0);
    replace(
        &verifying.site.directory().join("clients.crl"),
        &verifying.clients.revocations(&[&revoked]),
    );
    eventually("the certificate is refused", || {
        !VerifyingSite::is_served(&revoked_setup, &verifying.proxy)
    });
    assert!(
        !VerifyingSite::is_served(&revoked_setup, &verifying.proxy),
        "its tickets are of no use"
    );
    assert!(!verifying.serves(Some(&revoked)));
    assert!(verifying.serves(Some(&valid)) && VerifyingSite::is_served(&valid_setup, &verifying.proxy));
    let proxy = &verifying.proxy;
    proxy.wait_for_access("the log tells why", |line| line["tls_error"] == "certificate_revoked");
}

/// The certificate that a client shows, which may change.
#[derive(Debug)]
struct OwnCertificate(Mutex<Arc<CertifiedKey>>);

impl OwnCertificate {
    fn certified(own: &Issued) -> Arc<CertifiedKey> {
        let (chain, key) = own.chain_and_key();
        Arc::new(CertifiedKey::from_der(chain, key, &default_provider()).unwrap())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn a_ticket_of_an_expired_certificate_does_not_prevent_a_new_handshake() {
    let verifying = VerifyingSite::new("mode = \"require\"");
    for version in [&TLS12, &TLS13] {
        let setup = |own: &Issued| TlsSetup::new(&verifying.site.authority, &[version], Some(own));
        // On a slow machine a certificate may expire before it is shown.
        let served = (1..10).find_map(|seconds| {
            let short = verifying.clients.issue_for_seconds(&["a.example"], seconds);
            let own = Arc::new(OwnCertificate(Mutex::new(OwnCertificate::certified(&short))));
            let mut client = setup(&short);
            Arc::make_mut(&mut client.config).client_auth_cert_resolver = Arc::clone(&own) as _;
            VerifyingSite::is_served(&client, &verifying.proxy).then_some((client, own, short))
        });
        let (client, own, short) = served.unwrap();
        eventually("the certificate expires", || {
            !VerifyingSite::is_served(&setup(&short), &verifying.proxy)
        });
        *own.0.lock().unwrap() = OwnCertificate::certified(&verifying.clients.issue(&["a.example"]));
        let is_resumed = || {
            let mut session = client.connect(verifying.proxy.at("tls"), "shop.example").unwrap();
            assert_eq!(read_greeting(&mut session), b"hello");
            session.is_resumed()
        };
        assert_eq!([is_resumed(), is_resumed()], [false, true]);
    }
}

#[test]
fn a_client_of_a_revoked_authority_is_refused() {
    let verifying = VerifyingSite::new("mode = \"require\"");
    let (intermediate, intermediate_certificate) = verifying.clients.subordinate("intermediate");
    let client = intermediate
        .issue(&["a.example"])
        .followed_by(&intermediate_certificate);
    let write_lists = |text: String| replace(&verifying.site.directory().join("clients.crl"), &text);
    let reload = || assert_eq!(verifying.proxy.command(&["cert", "reload"]).code, Some(0));
    assert!(!verifying.serves(Some(&client)), "there is no list of `intermediate`");
    write_lists(verifying.clients.revocations(&[]) + &intermediate.revocations(&[]));
    reload();
    assert!(verifying.serves(Some(&client)));
    // Without a list of `clients`, the certificate of `intermediate` is not checked for revocation.
    write_lists(intermediate.revocations(&[]));
    reload();
    assert!(verifying.serves(Some(&client)));
    let checked = verifying.proxy.command(&["check", "-c", "acequia.toml"]);
    let warning = "there is no list of `CN=clients`";
    assert!(checked.stderr.contains(warning), "{checked:#?}");
    let warned = |line: &serde_json::Value| line["message"].as_str().is_some_and(|text| text.contains(warning));
    eventually("the log has the warning", || verifying.proxy.log().iter().any(warned));
    write_lists(verifying.clients.revocations(&[&intermediate_certificate]) + &intermediate.revocations(&[]));
    reload();
    assert!(!verifying.serves(Some(&client)));
    assert!(verifying.serves(Some(&verifying.clients.issue(&["b.example"]))));
    let lines = verifying.proxy.access_lines(10);
    let count_of = |words: &str| {
        let refusals = lines.iter().filter_map(|line| line["tls_refusal"].as_str());
        refusals.filter(|refusal| refusal.contains(words)).count()
    };
    assert_eq!(count_of("there is no list of revoked certificates"), 2, "{lines:#?}");
    assert_eq!(count_of("it is revoked"), 2, "{lines:#?}");
}

#[test]
fn a_client_of_an_expired_authority_is_served_but_check_warns_about_the_authority() {
    let (site, clients, server) = (Site::new(), Authority::expired("clients"), Server::named("hello"));
    replace(&site.directory().join("clients.pem"), &clients.certificate());
    let auth = format!("client_auth = {{ ca_file = {} }}", site.file("clients.pem"));
    let proxy = Proxy::start(&site.config(server.address, &auth, ""));
    let own = clients.issue(&["a.example"]);
    assert!(VerifyingSite::is_served(
        &TlsSetup::new(&site.authority, &[&TLS13], Some(&own)),
        &proxy
    ));
    let checked = proxy.command(&["check", "-c", "acequia.toml"]);
    assert!(
        checked
            .stderr
            .contains("`CN=clients` has expired on 2020-01-01T00:00:00Z"),
        "{checked:#?}"
    );
}

#[test]
fn an_outdated_revocation_list_stays_in_force_and_is_logged() {
    let (site, clients, server) = (Site::new(), Authority::new("clients"), Server::named("hello"));
    let (valid, revoked) = (clients.issue(&["a.example"]), clients.issue(&["b.example"]));
    replace(&site.directory().join("clients.pem"), &clients.certificate());
    replace(
        &site.directory().join("clients.crl"),
        &clients.revocations_until(&[&revoked], SystemTime::now() - Duration::from_secs(3600)),
    );
    let (ca, crl) = (site.file("clients.pem"), site.file("clients.crl"));
    let auth = format!("client_auth = {{ ca_file = {ca}, crl_file = {crl} }}");
    let proxy = Proxy::start(&site.config(server.address, &auth, ""));
    let is_served = |own| VerifyingSite::is_served(&TlsSetup::new(&site.authority, &[&TLS13], Some(own)), &proxy);
    assert!(is_served(&valid) && !is_served(&revoked));
    let warned = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("clients.crl: the list of revoked certificates should have been replaced by ")
    };
    eventually("a warning", || proxy.log().iter().any(warned));
}

#[test]
fn lists_and_certificates_that_expire_while_in_use_are_reported() {
    let (site, clients, server) = (Site::new(), Authority::new("clients"), Server::named("hello"));
    let (revoked, soon) = (
        clients.issue(&["b.example"]),
        SystemTime::now() + Duration::from_secs(3),
    );
    replace(&site.directory().join("clients.pem"), &clients.certificate());
    replace(
        &site.directory().join("clients.crl"),
        &clients.revocations_until(&[&revoked], soon),
    );
    let short = site.authority.issue_for_seconds(&["other.example"], 3);
    short.write(site.directory(), "other");
    let (ca, crl) = (site.file("clients.pem"), site.file("clients.crl"));
    let auth = format!("client_auth = {{ ca_file = {ca}, crl_file = {crl} }}");
    let proxy = Proxy::start(&site.config(server.address, &auth, ""));
    let (list, expired) = (
        "clients.crl: the list of revoked certificates should have been replaced by ",
        "other.pem: the certificate, or one of its chain, has expired on ",
    );
    for what in [list, expired] {
        let count_of = || {
            let log = proxy.log();
            let messages = log.iter().filter_map(|line| line["message"].as_str());
            messages.filter(|message| message.contains(what)).count()
        };
        eventually(what, || count_of() == 1);
        let status = proxy.command(&["status"]).stdout;
        assert!(status.contains(what), "{status}");
        proxy.command(&["cert", "reload"]);
        assert_eq!(count_of(), 1, "it is logged once");
    }
    let next_update = proxy
        .metrics()
        .sum("acequia_crl_next_update_timestamp_seconds", &[("listener", "tls")]);
    assert_eq!(next_update as u64, soon.duration_since(UNIX_EPOCH).unwrap().as_secs());
}

#[test]
fn a_refused_client_gets_a_specific_alert() {
    let verifying = VerifyingSite::new("names = [\"*.clients.example\"]");
    let issue = |name| verifying.clients.issue(&[name]);
    let revoked = issue("r.clients.example");
    replace(
        &verifying.site.directory().join("clients.crl"),
        &verifying.clients.revocations(&[&revoked]),
    );
    assert_eq!(verifying.proxy.command(&["cert", "reload"]).code, Some(0));
    let stranger = Authority::new("strangers").issue(&["a.clients.example"]);
    let expired = verifying.clients.issue_expired(&["a.clients.example"]);
    for (own, alert) in [
        (None, "CertificateRequired"),
        (Some(&stranger), "UnknownCA"),
        (Some(&expired), "CertificateExpired"),
        (Some(&revoked), "CertificateRevoked"),
        (Some(&issue("a.example")), "AccessDenied"),
    ] {
        let setup = TlsSetup::new(&verifying.site.authority, &[&TLS13], own);
        let connected = setup.connect(verifying.proxy.at("tls"), "shop.example");
        // In TLS 1.3, the handshake is complete for the client before the proxy verifies the client certificate.
        let read = connected.and_then(|mut client| client.0.read(&mut [0; 5]));
        let error = read.unwrap_err().to_string();
        assert_eq!(error, format!("received fatal alert: {alert}"));
    }
}

#[test]
fn a_proxy_header_describes_the_client_certificate() {
    let (site, clients, manual) = (Site::new(), Authority::new("clients"), ManualServer::new());
    replace(&site.directory().join("clients.pem"), &clients.certificate());
    let auth = format!(
        "client_auth = {{ ca_file = {}, mode = \"request\" }}",
        site.file("clients.pem")
    );
    let config = site.config(manual.server.address, &auth, "");
    let check = "health = { check = \"off\" }";
    let proxy = Proxy::start(&config.replace(check, &format!("{check}\nproxy_protocol = \"v2\"")));
    let own = clients.issue(&["joe.example"]);
    let (with, without) = (TlsSetup::new(&site.authority, &[&TLS13], Some(&own)), site.client());
    // Each value begins with the `client` flags and the `verify` result of section 2.2.6 of the PROXY protocol.
    for (setup, expected) in [
        // A certificate from the handshake.
        (
            &with,
            &b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x0bjoe.example\x23\0\x16TLS_AES_256_GCM_SHA384"[..],
        ),
        // A certificate from the session that is resumed.
        (
            &with,
            b"\x05\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x0bjoe.example\x23\0\x16TLS_AES_256_GCM_SHA384",
        ),
        // No certificate, so that nothing was verified.
        (
            &without,
            b"\x01\0\0\0\x01\x21\0\x07TLSv1.3\x23\0\x16TLS_AES_256_GCM_SHA384",
        ),
    ] {
        let mut client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
        let (mut server, header) = manual.session_behind_header();
        assert!(
            header.windows(expected.len()).any(|window| window == expected),
            "{header:?}"
        );
        server.write_all(b"hello").unwrap();
        assert_eq!(read_greeting(&mut client), b"hello"); // the tickets for the next session came before it
    }
}
