//! Sessions over TLS to servers: the server name and the protocols that the proxy offers, and the answers that it
//! accepts.

use std::thread::spawn;

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::client::Client;
use crate::support::configs::listener;
use crate::support::proxy::Proxy;
use crate::support::tls_server::ManualTlsServer;

/// A proxy with a listener `l` and a server at this host. `tls` are the lines of `[pools.p.tls]`.
fn start(site: &Site, server: &ManualTlsServer, host: &str, tls: &str) -> Proxy {
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    let port = server.manual.server.address.port();
    Proxy::start(&format!(
        "{}[pools.p]\nservers = [\"{host}:{port}\"]\nhealth = {{ check = \"off\" }}\n[pools.p.tls]\n{tls}\n",
        listener("l", "p", "")
    ))
}

/// Relays a session to a server at this host. The server's certificate is for `certified`. Returns the server name that
/// the proxy has sent, and the protocol that the server has selected.
fn sni_and_protocol(site: &Site, certified: &str, host: &str, tls: &str) -> (Option<String>, Option<String>) {
    let server = ManualTlsServer::new(&site.authority.issue(&[certified])).selecting(&["b", "a"]);
    let proxy = start(
        site,
        &server,
        host,
        &format!("ca_file = {}\n{tls}", site.file("ca.pem")),
    );
    let serving = spawn(move || {
        let mut session = server.session();
        session.send(b"served").finish();
        let sni = session.0.conn.server_name().map(str::to_owned);
        (sni, session.protocol())
    });
    assert_eq!(Client::connect(proxy.at("l")).read_all(), b"served");
    serving.join().unwrap()
}

#[test]
fn the_sni_to_a_server_is_its_host_name_or_the_configured_name() {
    let site = Site::new();
    let sni_sent = |certified: &str, host: &str, tls: &str| sni_and_protocol(&site, certified, host, tls).0;
    assert_eq!(sni_sent("localhost", "localhost", "").as_deref(), Some("localhost"));
    assert_eq!(sni_sent("127.0.0.1", "127.0.0.1", ""), None);
    let configured = "sni = \"own.example\"";
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(
            sni_sent("own.example", host, configured).as_deref(),
            Some("own.example"),
            "{host}"
        );
    }
}

#[test]
fn a_server_selects_one_of_the_configured_protocols() {
    let site = Site::new();
    let protocol_selected = |tls: &str| sni_and_protocol(&site, "127.0.0.1", "127.0.0.1", tls).1;
    assert_eq!(protocol_selected(""), None);
    assert_eq!(protocol_selected("alpn = [\"a\"]").as_deref(), Some("a"));
    assert_eq!(
        protocol_selected("alpn = [\"a\", \"b\"]").as_deref(),
        Some("b"),
        "the server prefers b"
    );
}

#[test]
fn a_server_that_selects_no_protocol_is_used_unless_only_http2_is_offered() {
    let site = Site::new();
    for (offered, is_served) in [("\"http/1.1\"", true), ("[\"h2\", \"a\"]", true), ("\"h2\"", false)] {
        let server = ManualTlsServer::new(&site.authority.issue(&["127.0.0.1"]));
        let tls = format!("ca_file = {}\nalpn = {offered}", site.file("ca.pem"));
        let proxy = start(&site, &server, "127.0.0.1", &tls);
        let serving = spawn(move || {
            let mut session = server.session();
            if is_served {
                session.send(b"served").finish();
            } else {
                let _ = session.read_to_end(); // the proxy leaves
            }
        });
        let mut client = Client::connect(proxy.at("l"));
        if is_served {
            assert_eq!(client.read_all(), b"served", "{offered}");
        } else {
            assert_eq!(proxy.access_line()["ending"], "connect_failed", "{offered}");
        }
        serving.join().unwrap();
    }
}

#[test]
fn without_verification_any_certificate_is_accepted() {
    let site = Site::new();
    let stranger = Authority::new("stranger").issue_expired(&["other.example"]);
    let server = ManualTlsServer::new(&stranger);
    let proxy = start(&site, &server, "127.0.0.1", "verify = false");
    let serving = spawn(move || {
        server.session().send(b"served").finish();
    });
    assert_eq!(Client::connect(proxy.at("l")).read_all(), b"served");
    serving.join().unwrap();
}
