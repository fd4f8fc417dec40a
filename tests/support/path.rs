//! What lies between the clients and the servers of a test.

use std::net::SocketAddr;
use std::ops::Deref;

use tempfile::TempDir;

use super::authority::{Authority, replace};
use super::configs::{listener, pool, two_listeners};
use super::proxy::Proxy;

const UNCHECKED: &str = "health = { check = \"off\" }";

/// A path from clients to servers through the observed proxy, which is the one that the test is about. Clients and
/// servers do not speak TLS: if the observed proxy terminates TLS, another proxy before it begins that TLS; if the
/// observed proxy begins TLS, another proxy after it terminates that TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The observed proxy speaks no TLS.
    Plain,
    /// It begins the TLS with its servers.
    Encrypted,
    /// It terminates the TLS of its clients.
    Terminated,
    /// It does both.
    Reencrypted,
}

/// A path that is open. It dereferences to the observed proxy.
pub struct OpenPath {
    observed: Proxy,
    /// The proxy that begins the TLS which the observed one terminates. Clients connect to it.
    before: Option<Proxy>,
    /// The proxy that terminates the TLS which the observed one begins.
    _after: Option<Proxy>,
    _files: TempDir,
}

impl Deref for OpenPath {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.observed
    }
}

impl OpenPath {
    /// The address that clients connect to. Each path has the listener `plain`; [`Path::Plain`] also has `tls`, for
    /// tests that send a ClientHello themselves: it reads the server name.
    pub fn at(&self, listener: &str) -> SocketAddr {
        self.before.as_ref().unwrap_or(&self.observed).at(listener)
    }

    /// The observed proxy; the others are stopped.
    pub fn into_observed(self) -> Proxy {
        self.observed
    }
}

impl Path {
    const fn terminates_tls(self) -> bool {
        matches!(self, Self::Terminated | Self::Reencrypted)
    }

    /// Whether the observed proxy begins the TLS with its servers.
    pub const fn begins_tls(self) -> bool {
        matches!(self, Self::Encrypted | Self::Reencrypted)
    }

    /// The number of proxies.
    pub fn proxies(self) -> usize {
        1 + usize::from(self.terminates_tls()) + usize::from(self.begins_tls())
    }

    /// Opens the path to this server, without health checks. `keys` are further lines of each of the observed
    /// proxy's listeners.
    pub fn open(self, server: SocketAddr, keys: &str) -> OpenPath {
        self.open_with(server, "", keys)
    }

    /// As [`Self::open`]; `head` comes first in the configuration of the observed proxy.
    pub fn open_with(self, server: SocketAddr, head: &str, keys: &str) -> OpenPath {
        let (authority, files) = (Authority::new("between"), tempfile::tempdir().unwrap());
        authority.issue(&["127.0.0.1"]).write(files.path(), "between");
        replace(&files.path().join("ca.pem"), &authority.certificate());
        let file = |name: &str| format!("{:?}", files.path().join(name));
        let (cert, key, ca) = (file("between.pem"), file("between.key"), file("ca.pem"));
        let listener_tls = format!("[listeners.plain.tls]\ncertificates = [{{ cert = {cert}, key = {key} }}]\n");
        let pool_tls = format!("{UNCHECKED}\n[pools.all.tls]\nca_file = {ca}");
        let after = self.begins_tls().then(|| {
            let config = listener("plain", "all", "") + &listener_tls + &pool("all", &[server], UNCHECKED);
            Proxy::start(&config)
        });
        let to_server = match &after {
            None => pool("all", &[server], UNCHECKED),
            Some(after) => pool("all", &[after.at("plain")], &pool_tls),
        };
        let config = match self {
            Self::Plain => two_listeners(server, keys),
            Self::Encrypted => listener("plain", "all", keys) + &to_server,
            Self::Terminated | Self::Reencrypted => listener("plain", "all", keys) + &listener_tls + &to_server,
        };
        let observed = Proxy::start(&format!("{head}\n{config}"));
        let before = self.terminates_tls().then(|| {
            let config = listener("plain", "all", "") + &pool("all", &[observed.at("plain")], &pool_tls);
            Proxy::start(&config)
        });
        OpenPath {
            observed,
            before,
            _after: after,
            _files: files,
        }
    }
}

/// Makes a test for each of these functions and each [`Path`].
#[macro_export]
macro_rules! over_each_path {
    ($($function:ident),+ $(,)?) => {
        $crate::over_path!(plain Plain: $($function)+);
        $crate::over_path!(encrypted Encrypted: $($function)+);
        $crate::over_path!(terminated Terminated: $($function)+);
        $crate::over_path!(reencrypted Reencrypted: $($function)+);
    };
}

/// Makes a test for each of these functions and one [`Path`], in the module `$module`.
#[macro_export]
macro_rules! over_path {
    ($module:ident $path:ident: $($function:ident)+) => {
        mod $module {
            $(#[test] fn $function() { super::$function($crate::support::path::Path::$path); })+
        }
    };
}
