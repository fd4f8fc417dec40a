//! `[acme.NAME]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `[acme.NAME]`: an account with an ACME server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmePlan {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The URL of the server's directory (RFC 8555, section 7.1.1); `https`.
    pub directory: Box<str>,
    /// Whom the server may write to, as URLs (`mailto:`).
    pub contact: Vec<Box<str>>,
    /// The authorities of the server's own certificate, PEM; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The account with the server's operator to which the ACME account is bound; `None`: the server needs none.
    pub eab: Option<ExternalAccount>,
    /// How the server finds out that names are ours.
    pub challenge: ChallengeKind,
    /// The directory of the account, the certificates and the failed attempts. No other `[acme.NAME]` uses this
    /// directory.
    pub state_dir: PathBuf,
}

/// `eab`: an external account (RFC 8555, section 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The identifier of its key.
    pub key_id: Box<str>,
    /// The file with the key, in base64url.
    pub key_file: PathBuf,
}

/// How a server finds out that a name is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a TLS handshake with port 443 (RFC 8737).
    #[default]
    TlsAlpn01,
    /// By an HTTP request to port 80 (RFC 8555, section 8.3).
    Http01,
}

impl ChallengeKind {
    /// Its name in the registry of IANA, and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

impl AcmePlan {
    /// The file of the account with its key.
    #[must_use]
    pub fn account_file(&self) -> PathBuf {
        self.state_dir.join("account.json")
    }

    /// The files that the configuration names, each with its configuration key in `[acme.NAME]`.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let ca_file = self.ca_file.as_deref().map(|path| ("ca_file", path));
        let key_file = self.eab.as_ref().map(|eab| ("eab.key_file", &*eab.key_file));
        ca_file.into_iter().chain(key_file).collect()
    }
}
