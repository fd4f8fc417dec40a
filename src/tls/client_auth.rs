//! Certificates of clients: who issued them, whether they are revoked, and which names they have.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::parse_x509_certificate;

use super::certificate::dns_names;
use super::file::{FileVersion, TlsFileError, authorities, certificates, file_version, read};
use super::revocation::Revocations;
use super::words::{bounded, date, unix_now};
use crate::name::{NamePattern, Sni};

/// `client_auth`: whether clients need certificates, and which certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthPlan {
    /// The authorities that issue them.
    pub ca_file: PathBuf,
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
    /// Lists of revoked certificates.
    pub crl_file: Option<PathBuf>,
    /// One of these must match a name of the certificate; empty: it may have any name, or none.
    pub names: Vec<NamePattern>,
}

/// Identifies a policy: which certificates of clients are accepted. It is a hash of the [`ClientAuthPlan`],
/// with the contents of its files instead of their paths, so that all machines with the same policy have the same hash.
pub(super) type PolicyHash = [u8; 32];

/// The verifier of clients, as read from the files.
pub(super) struct ClientVerification {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) hash: PolicyHash,
    /// Problems of files that can be used nevertheless.
    pub(super) warnings: Vec<String>,
    /// The earliest time at which one of the lists should be replaced, in seconds since the Unix epoch; `None`: there
    /// are no lists.
    pub(super) next_update: Option<i64>,
}

impl ClientAuthPlan {
    /// The versions of the files.
    pub(super) fn versions(&self) -> Vec<Option<FileVersion>> {
        let files = [Some(&self.ca_file), self.crl_file.as_ref()];
        files.into_iter().flatten().map(|path| file_version(path)).collect()
    }

    /// Reads the files.
    pub(super) fn read(&self, provider: &Arc<CryptoProvider>) -> Result<ClientVerification, TlsFileError> {
        let mut hash = Context::new(&SHA256);
        let text = read(&self.ca_file)?;
        hash.update(&text);
        let anchors = certificates(&self.ca_file, &text)?;
        let roots = Arc::new(authorities(&self.ca_file, &text)?);
        let mut warnings = expiry_warnings(&self.ca_file, &anchors);
        let mut revocations = None;
        if let Some(path) = &self.crl_file {
            let text = read(path)?;
            hash.update(&[1]); // marks where the lists begin, so that moving bytes between the files changes the hash
            hash.update(&text);
            let algorithms = provider.signature_verification_algorithms;
            let (lists, found) = Revocations::new((path, &text), (&self.ca_file, &anchors), &roots, algorithms)?;
            warnings.extend(found);
            revocations = Some(lists);
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        if !self.is_required {
            builder = builder.allow_unauthenticated();
        }
        let built = builder.build();
        let chain_verifier = built.map_err(|error| TlsFileError::new(&self.ca_file, error.to_string()))?;
        let next_update = revocations.as_ref().and_then(Revocations::next_update);
        hash.update(format!("{:?} {:?}", self.is_required, self.names).as_bytes());
        let verifier: Arc<dyn ClientCertVerifier> = Arc::new(PolicyVerifier {
            chain_verifier,
            revocations,
            names: self.names.clone(),
        });
        let hash = hash.finish();
        Ok(ClientVerification {
            verifier,
            hash: hash.as_ref().try_into().expect("SHA-256 has 32 bytes"),
            warnings,
            next_update,
        })
    }

    /// The warning about a list that should have been replaced by `next_update`, in seconds since the Unix epoch;
    /// `None`: there is no file of lists. The outdated list stays in force. Otherwise all clients would have to be
    /// refused, and an authority that publishes its next list late would cause an outage.
    pub(super) fn outdated_warning(&self, next_update: i64) -> Option<String> {
        let (path, next) = (self.crl_file.as_ref()?.display(), date(next_update));
        Some(format!(
            "{path}: the list of revoked certificates should have been replaced by {next}: what was revoked since is accepted"
        ))
    }
}

/// The warnings about authorities that have expired. What they have issued is accepted: their own certificates are
/// trusted as they are (RFC 5280, section 6.1.1).
fn expiry_warnings(path: &Path, anchors: &[CertificateDer<'_>]) -> Vec<String> {
    let anchors = anchors.iter().filter_map(|anchor| parse_x509_certificate(anchor).ok());
    let warnings = anchors.filter_map(|(_, anchor)| {
        let not_after = anchor.validity().not_after.timestamp();
        let (path, subject) = (path.display(), bounded(&anchor.subject().to_string()));
        let end = (not_after < unix_now()).then(|| date(not_after))?;
        Some(format!(
            "{path}: `{subject}` has expired on {end}: certificates that it has issued are accepted"
        ))
    });
    warnings.collect()
}

/// Accepts clients whose chain is valid and not revoked, and whose certificate has one of `names`.
#[derive(Debug)]
struct PolicyVerifier {
    /// Verifies the chain, but not whether it is revoked.
    chain_verifier: Arc<dyn ClientCertVerifier>,
    /// Refuses a chain with a revoked certificate; `None`: there are no lists.
    revocations: Option<Revocations>,
    /// Empty: any name, or none.
    names: Vec<NamePattern>,
}

impl PolicyVerifier {
    fn has_name(&self, certificate: &CertificateDer<'_>) -> bool {
        parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| dns_names(&parsed).any(|name| self.matches(name)))
    }

    /// An invalid name matches nothing, so that it grants no access. (In a route, a pattern may match an invalid name.)
    fn matches(&self, name: &str) -> bool {
        let valid = Sni::from_config(name).ok().filter(|name| name.valid().is_some());
        valid.is_some_and(|name| self.names.iter().any(|pattern| pattern.rank(&name).is_some()))
    }
}

impl ClientCertVerifier for PolicyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain_verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain_verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain_verifier
            .verify_client_cert(certificate, intermediates, now)?;
        if let Some(revocations) = &self.revocations {
            revocations.verify(certificate, intermediates, now)?;
        }
        if self.names.is_empty() || self.has_name(certificate) {
            Ok(verified)
        } else {
            // Sent as the alert `access_denied`.
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain_verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain_verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain_verifier.supported_verify_schemes()
    }
}
