//! What a proxy that terminates TLS needs: certificates in a directory, and the authority that issued them.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::authority::Authority;
use crate::support::configs::{listener, pool};
use crate::support::proxy::Proxy;
use crate::support::tls_client::TlsSetup;
use tempfile::TempDir;

/// An authority, and a directory with two of its certificates: `shop` for shop.example and *.shop.example, and `other`
/// for other.example.
pub(super) struct Site {
    pub(super) authority: Authority,
    directory: TempDir,
}

impl Site {
    pub(super) fn new() -> Self {
        let (authority, directory) = (Authority::new("test authority"), tempfile::tempdir().unwrap());
        authority
            .issue(&["shop.example", "*.shop.example"])
            .write(directory.path(), "shop");
        authority.issue(&["other.example"]).write(directory.path(), "other");
        Self { authority, directory }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path of a file in the directory, as a TOML string.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{:?}", self.directory.path().join(name))
    }

    /// A listener `tls` with both certificates, and a pool `p` that contains `server`. `tls` are further lines of
    /// `[listeners.tls.tls]`, and `routes` are sections after it.
    pub(super) fn config(&self, server: SocketAddr, tls: &str, routes: &str) -> String {
        let certificate = |name: &str| {
            let (cert, key) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
            format!("{{ cert = {cert}, key = {key} }}")
        };
        format!(
            "[listeners.tls]\nbind = \"127.0.0.1:0\"\npool = \"p\"\nhello_timeout = \"2s\"\n\
             [listeners.tls.tls]\ncertificates = [{}, {}]\n{tls}\n{routes}\n{}",
            certificate("shop"),
            certificate("other"),
            pool("p", &[server], "health = { check = \"off\" }")
        )
    }

    pub(super) fn start(&self, server: SocketAddr) -> Proxy {
        Proxy::start(&self.config(server, "", ""))
    }

    /// Starts a proxy whose listener `tls` has the certificates in `sites`, a subdirectory of the site's directory.
    pub(super) fn start_with_sites(&self, server: SocketAddr) -> Proxy {
        let tls = format!(
            "[listeners.tls.tls]\ncertificates = [{{ directory = {} }}]",
            self.file("sites")
        );
        let pool = pool("p", &[server], "health = { check = \"off\" }");
        Proxy::start(&(listener("tls", "p", &tls) + &pool))
    }

    pub(super) fn client(&self) -> TlsSetup {
        TlsSetup::trusting(&self.authority)
    }
}
