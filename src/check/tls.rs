//! The check `tls`: the server completes a TLS handshake.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::file::reading;
use super::stream::CheckStream;
use super::tcp::connect_error_or;
use super::{CertificateTimes, Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck};
use crate::error::with_context;
use crate::name::ServerName;
use crate::tls::{OfferedProtocols, PoolTls, PoolTlsPlan, SentSni, TlsFileError};

/// The kind `tls`.
pub static KIND: CheckKind = CheckKind {
    name: "tls",
    health_keys: &["sni", "alpn", "verify", "ca_file"],
    pool_keys: &[],
    service: None,
};

/// The check `tls`. In a pool with `[pools.NAME.tls]`, settings that are missing here are those of its sessions, as for
/// a client that has asked for no server name and agreed on no protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsCheck {
    /// The server name to ask for; `None`: as for sessions. If these have no TLS, it is the host name in the server's
    /// address, or none if the address is an IP address.
    pub sni: Option<ServerName>,
    /// The protocols to offer. In a check of the kind `tls`, the server must select one of them. Empty: those of
    /// sessions are offered, and the server may select none.
    pub alpn: Vec<Box<str>>,
    /// Whether the certificate must be valid for the server name, by the authorities in `ca_file`; `None`: it must if
    /// there is a `ca_file`, or if it must for sessions.
    pub verify: Option<bool>,
    /// The file with the certificates of authorities, in PEM. It is read when a check needs it. `None`: as for
    /// sessions; if these have no file, the authorities of the system.
    pub ca_file: Option<PathBuf>,
}

impl Check for TlsCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self {
            sni,
            alpn,
            verify,
            ca_file,
        } = self;
        let mut settings = Vec::new();
        settings.extend(sni.as_ref().map(|sni| ("health.sni", format!("{:?}", sni.as_str()))));
        settings.extend((!alpn.is_empty()).then(|| ("health.alpn", format!("{alpn:?}"))));
        settings.extend(verify.map(|verify| ("health.verify", verify.to_string())));
        settings.extend(ca_file.as_ref().map(|path| ("health.ca_file", format!("{path:?}"))));
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.ca_file.iter().map(|path| ("ca_file", &**path)).collect()
    }

    fn reads_certificate(&self) -> bool {
        true
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(TlsProbe::new(self, target))
    }
}

/// The TLS settings of a kind of check for which TLS is optional; `None`: it uses no TLS.
pub(super) fn optional_settings(tls: Option<&TlsCheck>) -> Vec<(&'static str, String)> {
    let mut settings = vec![("health.tls", tls.is_some().to_string())];
    settings.extend(tls.into_iter().flat_map(TlsCheck::settings));
    settings
}

/// The check of one server. Other kinds of checks connect with it.
pub(super) struct TlsProbe {
    check: Arc<TlsCheck>,
    target: CheckTarget,
    tls: CheckTls,
}

/// Where the configuration of handshakes comes from.
enum CheckTls {
    /// The TLS of sessions.
    Sessions(Arc<PoolTls>),
    /// The check's own TLS, because its settings differ from those of sessions.
    Own(Arc<OwnTls>),
}

/// TLS with settings of the check.
struct OwnTls {
    plan: PoolTlsPlan,
    // A blocking mutex: it is held only on threads that may block, while files are read.
    loaded: Mutex<Option<PoolTls>>,
}

impl Probe for TlsProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            let certificate = self.handshake().await?;
            Ok(CheckPass {
                certificate,
                ..CheckPass::default()
            })
        })
    }
}

impl TlsProbe {
    pub(super) fn new(check: Arc<TlsCheck>, target: CheckTarget) -> Self {
        let plan = check.plan(target.tls.as_ref().map(|tls| tls.plan().clone()).unwrap_or_default());
        let tls = match &target.tls {
            Some(session_tls) if *session_tls.plan() == plan => CheckTls::Sessions(Arc::clone(session_tls)),
            _ => CheckTls::Own(Arc::new(OwnTls {
                plan,
                loaded: Mutex::default(),
            })),
        };
        Self { check, target, tls }
    }

    /// Connects, completes a handshake and closes. Returns the validity period of the server's certificate, as
    /// [`Self::connect`] does.
    ///
    /// # Errors
    /// Those of [`Self::connect`], or the server selects no protocol although the check has an `alpn` of its own.
    async fn handshake(&self) -> Result<Option<CertificateTimes>, CheckFailure> {
        let (mut stream, certificate) = self.connect().await?;
        let (_, session) = stream.get_ref();
        if !self.check.alpn.is_empty() && session.alpn_protocol().is_none() {
            let offered = self.check.alpn.join(", ");
            let what = format!("the server selects none of the protocols {offered}");
            return Err(io::Error::other(what).into());
        }
        let _ = stream.shutdown().await; // sends close_notify; the answer does not matter
        Ok(certificate)
    }

    /// Connects and completes a handshake. Also returns the validity period of the server's certificate; `None`: the
    /// certificate cannot be read.
    ///
    /// # Errors
    /// Those of connecting; the handshake fails, the certificate is not valid, or a file of the check cannot be used.
    pub(super) async fn connect(&self) -> Result<(TlsStream<TcpStream>, Option<CertificateTimes>), CheckFailure> {
        let (config, sni) = match &self.tls {
            CheckTls::Sessions(tls) => (tls.config(), &tls.plan().sni),
            CheckTls::Own(own) => match Arc::clone(own).current_config().await {
                Ok(config) => (config, &own.plan.sni),
                Err(error) => return Err(connect_error_or(&self.target, CheckFailure::local(error)).await),
            },
        };
        let name = self.target.server_name(sni);
        let socket = self.target.connect().await?;
        let connected = TlsConnector::from(config).connect(name, socket).await;
        let stream = connected.map_err(|error| match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => with_context(error, "the server does not speak TLS"),
            _ => error,
        })?;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = leaf.and_then(|leaf| times(leaf));
        Ok((stream, certificate))
    }
}

impl TlsCheck {
    /// The settings of the check's handshakes. What the check does not set is taken from the settings of sessions.
    fn plan(&self, session_tls: PoolTlsPlan) -> PoolTlsPlan {
        let protocols = self.alpn.iter().map(|name| name.as_bytes().into());
        PoolTlsPlan {
            sni: self.sni.clone().map_or(session_tls.sni, SentSni::Name),
            alpn: if self.alpn.is_empty() {
                session_tls.alpn
            } else {
                OfferedProtocols::List(protocols.collect())
            },
            verify: self.verify.unwrap_or(session_tls.verify || self.ca_file.is_some()),
            ca_file: self.ca_file.clone().or(session_tls.ca_file),
            identity: session_tls.identity,
        }
    }
}

/// Connects, in TLS if `tls` is given. With TLS, also returns the validity period of the server's certificate,
/// as [`TlsProbe::connect`] does.
///
/// # Errors
/// Those of connecting, or of [`TlsProbe::connect`].
pub(super) async fn open(
    target: &CheckTarget,
    tls: Option<&TlsProbe>,
) -> Result<(Box<dyn CheckStream>, Option<CertificateTimes>), CheckFailure> {
    match tls {
        None => Ok((Box::new(target.connect().await?), None)),
        Some(tls) => {
            let (stream, certificate) = tls.connect().await?;
            Ok((Box::new(stream), certificate))
        }
    }
}

impl OwnTls {
    /// The configuration of a handshake; it is made anew when a file has changed.
    async fn current_config(self: Arc<Self>) -> io::Result<Arc<ClientConfig>> {
        // `reading` limits how many reads of one file run at once. All files of the plan are read together, so only the
        // first one is counted. If the plan has no file, the empty path is counted instead.
        let file = self
            .plan
            .files()
            .first()
            .map_or_else(PathBuf::new, |(_, path)| path.to_path_buf());
        reading(&file, move || self.load()).await
    }

    fn load(&self) -> io::Result<Arc<ClientConfig>> {
        let mut loaded = self.loaded.lock();
        let tls = match loaded.as_mut() {
            Some(tls) => {
                tls.reload();
                tls
            }
            None => {
                let tls = PoolTls::load(self.plan.clone()).map_err(|error| self.with_key(error))?;
                loaded.insert(tls)
            }
        };
        match tls.broken() {
            Some(error) => Err(self.with_key(error)),
            None => Ok(tls.config()),
        }
    }

    /// The error, with the key of the configuration that names its file, if one does.
    fn with_key(&self, error: TlsFileError) -> io::Error {
        let found = self.plan.files().into_iter().find(|(_, path)| *path == error.path);
        match found {
            Some((key, _)) => with_context(error.into(), key),
            None => error.into(),
        }
    }
}

/// The validity period of a certificate (RFC 5280, section 4.1.2.5); `None`: the certificate cannot be read.
fn times(certificate: &CertificateDer<'_>) -> Option<CertificateTimes> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(CertificateTimes {
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

#[cfg(test)]
mod tests;
