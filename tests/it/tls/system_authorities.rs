//! Servers whose certificates are verified with the authorities of the system trust store.

use std::net::SocketAddr;

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::client::Client;
use crate::support::configs::{listener, pool};
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia, config_directory};
use crate::support::tls_server::ManualTlsServer;

/// A listener `l` whose pool `p` speaks TLS with its server. `tls`: the lines of `[pools.p.tls]`.
fn config(server: SocketAddr, tls: &str) -> String {
    let keys = format!("retries = 0\nhealth = {{ check = \"off\" }}\n[pools.p.tls]\n{tls}");
    listener("l", "p", "") + &pool("p", &[server], &keys)
}

#[test]
fn system_authorities_are_read_at_the_start_and_when_the_tls_section_changes() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["127.0.0.1"]));
    let file = site.directory().join("system.pem");
    replace(&file, &Authority::new("another").certificate());
    let address = server.manual.server.address;
    let authorities = format!("SSL_CERT_FILE={}", file.display());
    let setup = Proxy::setup(&config(address, "")).under(&["env", "-u", "SSL_CERT_DIR", &authorities]);
    let proxy = setup.start();
    let mut client = Client::connect(proxy.at("l"));
    assert!(server.over(server.manual.session()).is_err());
    assert_eq!(client.read_all(), b"");
    assert_eq!(proxy.access_line()["tls_error"], "unknown_ca");
    replace(&file, &site.authority.certificate());
    assert!(proxy.reload(&config(address, "alpn = [\"http/1.1\"]")));
    let mut client = Client::connect(proxy.at("l"));
    server.session().send(b"served").finish();
    assert_eq!(client.read_all(), b"served");
}

#[test]
fn a_command_over_http_needs_no_system_authorities() {
    let proxy = Proxy::start(&config("127.0.0.1:9".parse().unwrap(), "verify = false"));
    for (scheme, code, reads_authorities) in [("http", Some(0), false), ("https", Some(3), true)] {
        let mut status = acequia(&["status", "--url", &format!("{scheme}://{}", proxy.admin())]);
        status.env("SSL_CERT_FILE", "/absent.pem").env_remove("SSL_CERT_DIR");
        let done = finished(&mut status);
        let misses_authorities = done.stderr.contains("ca-certificates");
        assert_eq!((done.code, misses_authorities), (code, reads_authorities), "{done:?}");
    }
}

#[test]
fn without_system_authorities_the_start_fails_with_a_remedy() {
    let site = Site::new();
    let directory = config_directory("acequia.toml", &config("127.0.0.1:9".parse().unwrap(), ""));
    let (absent, empty) = (site.directory().join("absent.pem"), site.directory().join("empty.pem"));
    replace(&empty, "");
    for file in [absent, empty] {
        let mut run = acequia(&["run", "-c", "acequia.toml"]);
        run.env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
        run.current_dir(directory.path());
        let done = finished(&mut run);
        assert!(
            done.code == Some(3)
                && done
                    .stderr
                    .contains("install certificates of authorities (ca-certificates), or name a `ca_file`"),
            "{done:?}"
        );
    }
}
