//! The admin port over TLS.

use std::io::ErrorKind;

use crate::support::authority::{Authority, Issued, replace};
use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::eventually;
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia, checked};
use crate::support::server::Server;
use crate::support::tls_client::TlsSetup;
use tempfile::TempDir;

/// An authority, and a directory with its certificate, a certificate of the admin port and a token.
struct Site {
    authority: Authority,
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        let (authority, directory) = (Authority::new("admin authority"), tempfile::tempdir().unwrap());
        let site = Self { authority, directory };
        site.issue();
        replace(&site.directory.path().join("ca.pem"), &site.authority.certificate());
        replace(&site.directory.path().join("token"), "secret\n");
        site
    }

    fn issue(&self) -> Issued {
        let issued = self.authority.issue(&["localhost", "127.0.0.1"]);
        issued.write(self.directory.path(), "admin");
        issued
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn start(&self, server: &Server) -> Proxy {
        let admin = format!(
            "[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = {:?}\n[admin.tls]\ncert = {:?}\nkey = {:?}\n",
            self.path("token"),
            self.path("admin.pem"),
            self.path("admin.key")
        );
        let proxy = Proxy::setup(&(admin + &one_pool(&[server.address], ""))).launch();
        eventually("it is ready", || self.get(&proxy, "/ready").starts_with("HTTP/1.1 200"));
        proxy
    }

    /// The response to a request over TLS.
    fn get(&self, proxy: &Proxy, path: &str) -> String {
        let mut client = TlsSetup::trusting(&self.authority)
            .connect(proxy.admin(), "localhost")
            .unwrap();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        String::from_utf8(client.read_to_end().0).unwrap()
    }
}

#[test]
fn the_admin_port_speaks_tls_and_only_tls() {
    let (site, server) = (Site::new(), Server::echo());
    let proxy = site.start(&server);
    let metrics = site.get(&proxy, "/metrics");
    let expiry = "acequia_certificate_expiry_timestamp_seconds{listener=\"[admin]\",name=\"localhost\"}";
    assert!(metrics.contains(expiry), "{metrics}");
    let mut plain = Client::connect(proxy.admin());
    plain.send(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = String::from_utf8(plain.read_all()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 400 ") && body == "This port is for https.\n",
        "{answer}"
    );
    let url = format!("http://{}", proxy.admin());
    let status = finished(&mut acequia(&["status", "--url", &url]));
    assert!(
        status.stderr.contains("400 Bad Request: This port is for https."),
        "{status:?}"
    );
    let stranger = TlsSetup::trusting(&Authority::new("another"));
    let error = stranger.connect(proxy.admin(), "localhost").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn a_new_certificate_is_used_and_a_broken_key_leaves_it_in_force() {
    let (site, server) = (Site::new(), Server::echo());
    let proxy = site.start(&server);
    let shown = || {
        let client = TlsSetup::trusting(&site.authority).connect(proxy.admin(), "localhost");
        client.unwrap().certificate()
    };
    let before = shown();
    site.issue();
    proxy.answer(&["cert", "reload"]);
    assert_ne!(shown(), before);
    let listed = proxy.answer(&["cert", "list"])["certificates"].clone();
    assert_eq!(
        (&listed[0]["listener"], &listed[0]["names"][0]),
        (&"[admin]".into(), &"localhost".into())
    );
    replace(&site.directory.path().join("admin.key"), "no key");
    assert_eq!(proxy.command(&["cert", "reload"]).code, Some(1));
    let status = proxy.command(&["status"]).stdout;
    assert!(
        status.contains("[admin]: 1 certificate, localhost expires ")
            && status.contains("[admin]: a TLS file is broken, the files read before stay in force: ")
            && status.contains("admin.key: there is no private key in it"),
        "{status}"
    );
}

#[test]
fn commands_reach_the_admin_port_with_its_authority_and_token() {
    let (site, server) = (Site::new(), Server::echo());
    let proxy = site.start(&server);
    let url = format!("https://{}", proxy.admin());
    let run = |words: &[&str]| finished(&mut acequia(&[words, &["--url", &url]].concat()));
    let (ca, token) = (site.path("ca.pem"), site.path("token"));
    let status = run(&["status", "--ca-file", &ca]);
    assert!(
        status.code == Some(0) && status.stdout.contains("1 of 1 servers up"),
        "{status:?}"
    );
    let reload = run(&["reload", "--ca-file", &ca]);
    assert!(
        reload.code == Some(1) && reload.stderr.contains("a token is required"),
        "{reload:?}"
    );
    let reload = run(&["reload", "--ca-file", &ca, "--token-file", &token]);
    assert_eq!(reload.code, Some(0), "{reload:?}");

    let untrusted = run(&["status"]);
    assert!(
        untrusted.code == Some(3) && untrusted.stderr.contains("name its authority with --ca-file"),
        "{untrusted:?}"
    );
    let absent = run(&["status", "--ca-file", &site.path("absent.pem")]);
    assert!(
        absent.code == Some(3) && absent.stderr.contains("absent.pem"),
        "{absent:?}"
    );
    let no_url = finished(&mut acequia(&["status", "--ca-file", &ca]));
    assert!(
        no_url.code == Some(2) && no_url.stderr.contains("name it with --url"),
        "{no_url:?}"
    );
}

#[test]
fn check_reads_the_certificate_of_the_admin_port() {
    let site = Site::new();
    let config = format!(
        "[admin]\nbind = \"127.0.0.1:9090\"\ntls = {{ cert = {:?}, key = {:?} }}\n\
         [listeners.l]\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]",
        site.path("admin.pem"),
        site.path("admin.key")
    );
    assert_eq!(checked(&config), (Some(0), String::new()));
    site.authority
        .issue_expired(&["localhost"])
        .write(site.directory.path(), "admin");
    let (code, said) = checked(&config);
    assert!(
        code == Some(0) && said.contains("warning: admin.tls: ") && said.contains("has expired"),
        "{code:?} {said}"
    );
    replace(
        &site.directory.path().join("admin.key"),
        &site.authority.issue(&["a.example"]).key,
    );
    let (code, said) = checked(&config);
    assert!(
        code == Some(1) && said.contains("error: admin.tls: ") && said.contains("does not fit"),
        "{code:?} {said}"
    );
}
