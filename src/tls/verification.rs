//! How certificates of servers are verified.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::file::{PemText, TlsFileError, authorities};

/// What an error names in place of a file.
const SYSTEM: &str = "the system trust store";

/// The verifier that accepts a certificate if it is for the server's name and was issued by a trusted authority.
/// `trusted`: the trusted authorities, as PEM text; `None`: those of the system.
///
/// # Errors
/// The text, or the system trust store, cannot be used.
pub(super) fn authority_verifier(
    trusted: Option<&PemText>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsFileError> {
    let roots = match trusted {
        Some(PemText { name, text }) => Arc::new(authorities(name, text)?),
        None => system_authorities()?,
    };
    let about = trusted.map_or(Path::new(SYSTEM), |pem| &pem.name);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    verifier
        .map(|verifier| verifier as _)
        .map_err(|error| TlsFileError::new(about, error.to_string()))
}

/// The verifier that accepts any certificate, as long as the server proves that it has the certificate's private key.
pub(super) fn any_certificate_verifier(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(AnyCertificate(Arc::clone(provider)))
}

/// The authorities of the system trust store, as they are now. All pools share one [`RootCertStore`] until the
/// certificates in the system trust store change.
fn system_authorities() -> Result<Arc<RootCertStore>, TlsFileError> {
    /// The certificates as they were loaded, and the store that was made of them.
    type Latest = (Vec<CertificateDer<'static>>, Arc<RootCertStore>);
    static LATEST: Mutex<Option<Latest>> = Mutex::new(None);
    let loaded = rustls_native_certs::load_native_certs();
    let mut latest = LATEST.lock();
    if let Some((_, store)) = latest
        .as_ref()
        .filter(|(certificates, _)| *certificates == loaded.certs)
    {
        return Ok(Arc::clone(store));
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(loaded.certs.iter().cloned());
    if store.is_empty() {
        let error = loaded
            .errors
            .first()
            .map_or_else(|| "it has no usable certificate".to_owned(), ToString::to_string);
        let what = format!(
            "cannot be used ({error}): install certificates of authorities (ca-certificates), or name a `ca_file`"
        );
        return Err(TlsFileError::of_reading(Path::new(SYSTEM), &io::Error::other(what)));
    }
    let store = Arc::new(store);
    *latest = Some((loaded.certs, Arc::clone(&store)));
    Ok(store)
}

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
