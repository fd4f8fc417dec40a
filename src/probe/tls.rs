//! The check `tls`: the server completes a TLS handshake.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use super::of_file;
use crate::addr::ServerAddr;
use crate::dial::{ConnectOptions, connect_for_ourselves};
use crate::plan::TlsCheck;

/// How the servers of a pool are checked, and what was made ready for that.
#[derive(Debug)]
pub(super) struct TlsProbe {
    check: Arc<TlsCheck>,
    /// Asked for and, if that is wanted, looked for in the certificate.
    name: ServerName<'static>,
    // A std mutex: to look, and to put another in place.
    ready: Mutex<Option<(Stamp, Arc<ClientConfig>)>>,
}

/// By which a file that has changed is told from one that has not; `None`: there is no file.
type Stamp = Option<(SystemTime, u64)>;

impl TlsProbe {
    /// `host`: the server's name, if it was written by name.
    pub(super) fn new(check: Arc<TlsCheck>, host: Option<&str>, address: ServerAddr) -> Self {
        let name = check.sni.as_deref().or(host);
        // What is no valid name is asked for by address: then no name is sent (RFC 6066, section 3).
        let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        Self {
            check,
            name: name.unwrap_or_else(|| ServerName::IpAddress(address.ip().into())),
            ready: Mutex::default(),
        }
    }

    /// Connects and shakes hands. When the server's certificate ends, in seconds since the epoch; `None`: it cannot be
    /// told.
    ///
    /// # Errors
    /// Those of connecting; what is wrong with the handshake, the protocol agreed to, or the certificate.
    pub(super) async fn check(&self, server: ServerAddr, options: &ConnectOptions) -> io::Result<Option<i64>> {
        let connector = TlsConnector::from(self.config().await?);
        let socket = connect_for_ourselves(server, options).await?;
        let shaken = connector.connect(self.name.clone(), socket).await;
        let mut stream = shaken.map_err(|error| match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => io::Error::other(format!("it does not speak TLS: {error}")),
            _ => error,
        })?;
        let (_, session) = stream.get_ref();
        if !self.check.alpn.is_empty() && session.alpn_protocol().is_none() {
            let wanted = self.check.alpn.join(", ");
            return Err(io::Error::other(format!("it agrees to no protocol of {wanted}")));
        }
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let ends = leaf.and_then(|leaf| end_of(leaf));
        let _ = stream.shutdown().await; // a farewell; nobody waits for its answer
        Ok(ends)
    }

    /// What the handshake is made with; anew when the file of authorities has changed.
    async fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let file = self.check.ca_file.clone().filter(|_| self.check.verify);
        let stamp = match file.clone() {
            None => None,
            Some(file) => Some(off_the_runtime(move || stamp(&file)).await?),
        };
        if let Some((of, config)) = &*self.ready()
            && *of == stamp
        {
            return Ok(Arc::clone(config));
        }
        let check = Arc::clone(&self.check);
        let config = Arc::new(off_the_runtime(move || config(&check, file)).await?);
        *self.ready() = Some((stamp, Arc::clone(&config)));
        Ok(config)
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, Option<(Stamp, Arc<ClientConfig>)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files are read where they keep nobody waiting.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|lost| Err(io::Error::other(lost)))
}

fn stamp(file: &Path) -> io::Result<(SystemTime, u64)> {
    let of = |metadata: Metadata| Ok((metadata.modified()?, metadata.len()));
    file.metadata().and_then(of).map_err(|error| of_file("ca_file", error))
}

fn config(check: &TlsCheck, ca_file: Option<PathBuf>) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if check.verify {
        let roots = match ca_file {
            Some(file) => Arc::new(authorities(&file)?),
            None => system_authorities(),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        verifier.map_err(io::Error::other)?
    } else {
        Arc::new(Anybody(Arc::clone(&provider)))
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

/// A configuration that takes any certificate: for what only wants to know whether a server answers.
pub(super) fn unverified() -> io::Result<ClientConfig> {
    config(&TlsCheck::default(), None)
}

fn authorities(file: &Path) -> io::Result<RootCertStore> {
    let text = std::fs::read(file).map_err(|error| of_file("ca_file", error))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| io::Error::other(format!("ca_file: {error}")))?;
        let added = store.add(certificate);
        added.map_err(|error| io::Error::other(format!("ca_file: {error}")))?;
    }
    if store.is_empty() {
        return Err(io::Error::other("ca_file: there is no certificate in it"));
    }
    Ok(store)
}

/// Those of this machine, read once.
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
fn end_of(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
