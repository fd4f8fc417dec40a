//! The check `tls`: the server completes a TLS handshake.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use super::file::file_error;
use super::{Check, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck};
use crate::error::with_context;

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "tls",
    health_keys: &["sni", "alpn", "verify", "ca_file"],
    pool_keys: &[],
    service: None,
};

/// The check `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsCheck {
    /// The server name to ask for; `None`: the host name in the server's address, or none if that is an IP address.
    pub sni: Option<Box<str>>,
    /// The protocols to offer; if there are any, the server must select one of them.
    pub alpn: Vec<Box<str>>,
    /// Whether the certificate must be valid for the server name, by the authorities in `ca_file`.
    pub verify: bool,
    /// Certificates of authorities, PEM; read when a check needs them. `None`: those of the system.
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
        settings.extend(sni.as_ref().map(|sni| ("health.sni", format!("{sni:?}"))));
        settings.extend((!alpn.is_empty()).then(|| ("health.alpn", format!("{alpn:?}"))));
        settings.extend(verify.then(|| ("health.verify", verify.to_string())));
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

struct TlsProbe {
    check: Arc<TlsCheck>,
    target: CheckTarget,
    /// The name to ask for and, if the certificate is verified, to find in it.
    name: ServerName<'static>,
    /// What the last handshake was made with, and the version of `ca_file` that it is of. A std mutex: locked to look, and
    /// to store another.
    config: Mutex<Option<(FileVersion, Arc<ClientConfig>)>>,
}

/// When a file was last changed, and its length; `None`: no file is configured.
type FileVersion = Option<(SystemTime, u64)>;

impl Probe for TlsProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            let certificate_ends = self.handshake().await?;
            Ok(CheckPass {
                certificate_ends,
                ..CheckPass::default()
            })
        })
    }
}

impl TlsProbe {
    fn new(check: Arc<TlsCheck>, target: CheckTarget) -> Self {
        let name = check.sni.as_deref().or(target.host.as_deref());
        // Without a valid name the IP address stands for it: then no name is sent (RFC 6066, section 3).
        let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        Self {
            name: name.unwrap_or_else(|| ServerName::IpAddress(target.address.ip().into())),
            check,
            target,
            config: Mutex::default(),
        }
    }

    /// Connects and completes a handshake. Returns when the server's certificate expires, in seconds since the Unix epoch;
    /// `None`: it cannot be read.
    ///
    /// # Errors
    /// Those of connecting; what is wrong with the handshake, the selected protocol, or the certificate.
    async fn handshake(&self) -> io::Result<Option<i64>> {
        let connector = TlsConnector::from(self.current_config().await?);
        let socket = self.target.connect().await?;
        let connected = connector.connect(self.name.clone(), socket).await;
        let mut stream = connected.map_err(|error| match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => with_context(error, "the server does not speak TLS"),
            _ => error,
        })?;
        let (_, session) = stream.get_ref();
        if !self.check.alpn.is_empty() && session.alpn_protocol().is_none() {
            let offered = self.check.alpn.join(", ");
            return Err(io::Error::other(format!(
                "the server selects none of the protocols {offered}"
            )));
        }
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let certificate_ends = leaf.and_then(|leaf| not_after(leaf));
        let _ = stream.shutdown().await; // sends close_notify; the answer does not matter
        Ok(certificate_ends)
    }

    /// What a handshake is made with; made anew when `ca_file` has changed.
    async fn current_config(&self) -> io::Result<Arc<ClientConfig>> {
        let file = self.check.ca_file.clone().filter(|_| self.check.verify);
        let version = match file.clone() {
            None => None,
            Some(file) => Some(off_the_runtime(move || file_version(&file)).await?),
        };
        if let Some((of, config)) = &*self.last_config()
            && *of == version
        {
            return Ok(Arc::clone(config));
        }
        let check = Arc::clone(&self.check);
        let config = Arc::new(off_the_runtime(move || client_config(&check, file)).await?);
        *self.last_config() = Some((version, Arc::clone(&config)));
        Ok(config)
    }

    fn last_config(&self) -> MutexGuard<'_, Option<(FileVersion, Arc<ClientConfig>)>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads files on a thread that may block.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

fn file_version(file: &Path) -> io::Result<(SystemTime, u64)> {
    let version = |metadata: Metadata| Ok((metadata.modified()?, metadata.len()));
    let read = file.metadata().and_then(version);
    read.map_err(|error| file_error("ca_file", error))
}

fn client_config(check: &TlsCheck, ca_file: Option<PathBuf>) -> io::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if check.verify {
        let roots = match ca_file {
            Some(file) => Arc::new(read_authorities(&file)?),
            None => system_authorities(),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        verifier.map_err(io::Error::other)?
    } else {
        Arc::new(AnyCertificate(Arc::clone(&provider)))
    };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = check.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

/// A configuration that accepts any certificate.
pub(super) fn unverified() -> io::Result<ClientConfig> {
    client_config(&TlsCheck::default(), None)
}

fn read_authorities(file: &Path) -> io::Result<RootCertStore> {
    let text = std::fs::read(file).map_err(|error| file_error("ca_file", error))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| with_context(io::Error::other(error), "ca_file"))?;
        let added = store.add(certificate);
        added.map_err(|error| with_context(io::Error::other(error), "ca_file"))?;
    }
    if store.is_empty() {
        return Err(io::Error::other("ca_file: the file contains no certificate"));
    }
    Ok(store)
}

/// The authorities of the system, read once.
fn system_authorities() -> Arc<RootCertStore> {
    static STORE: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    };
    Arc::clone(STORE.get_or_init(read))
}

/// `notAfter` (RFC 5280, section 4.1.2.5).
fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Accepts any certificate, as long as the server has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
