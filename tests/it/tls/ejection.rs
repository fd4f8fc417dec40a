//! Clients cannot eject servers by the names or protocols that they choose.

use std::io::{ErrorKind, Read};
use std::thread::spawn;

use super::site::Site;
use crate::support::authority::replace;
use crate::support::counts::{log_count, log_lines};
use crate::support::proxy::Proxy;
use crate::support::tls_client::TlsSetup;
use crate::support::tls_server::ManualTlsServer;

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

/// How many sessions fail in [`must_not_be_ejected`].
const FAILURES: usize = 3;

/// A proxy that ejects `server` at the first failure that counts. Its pool has a backup server, because it would never
/// eject its only usable server. `listener` are further lines of `[listeners.tls.tls]`, and `tls` of `[pools.p.tls]`.
fn start(site: &Site, server: &ManualTlsServer, listener: &str, tls: &str) -> Proxy {
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    let keys = format!(
        "retries = 0\nhealth = {{ check = \"off\", eject_after = 1 }}\n[pools.p.tls]\nca_file = {}\n{tls}",
        site.file("ca.pem")
    );
    let address = server.manual.server.address;
    let config = site.config(address, listener, "");
    let servers = format!("servers = [\"{address}\", {{ address = \"127.0.0.1:1\", priority = 1 }}]");
    let config = config.replace(&format!("servers = [\"{address}\"]"), &servers);
    assert!(config.contains(&servers), "{config}");
    Proxy::start(&config.replace("health = { check = \"off\" }", &keys))
}

/// Connects [`FAILURES`] times with the first setup and server name; `fail` makes each of these sessions fail. Asserts
/// that a client with the second setup and server name is served afterwards.
fn must_not_be_ejected(
    proxy: &Proxy,
    server: ManualTlsServer,
    fail: impl Fn(&ManualTlsServer) + Send + 'static,
    [(failing, failing_name), (good, good_name)]: [(&TlsSetup, &str); 2],
) {
    let serving = spawn(move || {
        (0..FAILURES).for_each(|_| fail(&server));
        let mut session = server.session();
        session.send(b"served").finish();
        session.read_to_end()
    });
    for _ in 0..FAILURES {
        let mut client = failing.connect(proxy.at("tls"), failing_name).unwrap();
        assert_eq!(client.read_to_end(), (Vec::new(), RESET));
    }
    let lines = proxy.access_lines(FAILURES);
    assert!(
        lines.iter().all(|line| line["ending"] == "connect_failed"),
        "{lines:#?}"
    );
    let mut client = good.connect(proxy.at("tls"), good_name).unwrap();
    client.finish();
    assert_eq!(client.read_to_end(), (b"served".to_vec(), Ok(())));
    assert_eq!(serving.join().unwrap(), (Vec::new(), Ok(())));
    assert_eq!(log_count(proxy, "server is ejected"), 0);
}

fn close_on_hello(server: &ManualTlsServer) {
    let mut hello = vec![0; 16_384];
    assert!(server.manual.session().read(&mut hello).unwrap() > 0);
}

#[test]
fn a_server_that_closes_on_the_configured_name_is_ejected() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["shop.example"]));
    let proxy = start(&site, &server, "", "sni = \"shop.example\"");
    let closing = spawn(move || close_on_hello(&server));
    let mut client = site.client().connect(proxy.at("tls"), "shop.example").unwrap();
    assert_eq!(client.read_to_end(), (Vec::new(), RESET));
    log_lines(&proxy, "server is ejected", 1);
    closing.join().unwrap();
}

#[test]
fn a_client_cannot_eject_a_server_by_asking_for_unknown_names() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["shop.example"]));
    let proxy = start(&site, &server, "", "sni = \"client\"");
    let fail = |server: &ManualTlsServer| assert!(server.over(server.manual.session()).is_err());
    let setup = site.client();
    let clients = [(&setup, "other.example"), (&setup, "shop.example")];
    must_not_be_ejected(&proxy, server, fail, clients);
    let lines = &proxy.access_lines(FAILURES)[..FAILURES];
    assert!(
        lines.iter().all(|line| line["tls_error"] == "bad_certificate"),
        "{lines:#?}"
    );
}

#[test]
fn a_client_cannot_eject_a_server_that_closes_on_unknown_names() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["shop.example"]));
    let proxy = start(&site, &server, "", "sni = \"client\"");
    let setup = site.client();
    let clients = [(&setup, "other.example"), (&setup, "shop.example")];
    must_not_be_ejected(&proxy, server, close_on_hello, clients);
}

#[test]
fn a_client_cannot_eject_a_server_by_an_unsupported_protocol() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["127.0.0.1"])).selecting(&["http/1.1"]);
    let listener = "alpn = [\"h2\", \"http/1.1\"]";
    let proxy = start(&site, &server, listener, "alpn = \"client\"");
    let fail = |server: &ManualTlsServer| assert!(server.over(server.manual.session()).is_err());
    let (http_2, http_1) = (site.client().offering(&["h2"]), site.client().offering(&["http/1.1"]));
    let clients = [(&http_2, "shop.example"), (&http_1, "shop.example")];
    must_not_be_ejected(&proxy, server, fail, clients);
    let lines = &proxy.access_lines(FAILURES)[..FAILURES];
    let has_alpn_error = |line: &serde_json::Value| line["tls_error"] == "no_application_protocol";
    assert!(lines.iter().all(has_alpn_error), "{lines:#?}");
}
