//! Certificates of clients: who issued them, whether they are revoked, and for which names they are.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::file::{FileStamp, TlsFileError, file_version, read, read_authorities, read_revocations};
use crate::name::{NamePattern, Sni};

/// `client_auth`: which certificates clients need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthPlan {
    /// The authorities that issue them.
    pub ca_file: PathBuf,
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
    /// Lists of revoked certificates.
    pub crl_file: Option<PathBuf>,
    /// A certificate must be for a name that one of these matches; empty: for any, or none.
    pub names: Vec<NamePattern>,
}

/// What identifies the version of a policy, on every machine that has the same files: a hash of the plan and the files.
pub(super) type PolicyHash = [u8; 32];

impl ClientAuthPlan {
    /// The versions of the files.
    pub(super) fn versions(&self) -> Vec<Option<FileStamp>> {
        let files = [Some(&self.ca_file), self.crl_file.as_ref()];
        files.into_iter().flatten().map(|path| file_version(path)).collect()
    }

    /// Reads the files. Returns what verifies clients, and the hash of it.
    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Arc<dyn ClientCertVerifier>, PolicyHash), TlsFileError> {
        let mut hash = Context::new(&SHA256);
        hash.update(&read(&self.ca_file)?);
        let roots = Arc::new(read_authorities(&self.ca_file)?);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        if let Some(path) = &self.crl_file {
            hash.update(&[1]);
            hash.update(&read(path)?);
            // Only the certificates of clients themselves are looked up: a list for each authority in between is rare.
            builder = builder
                .with_crls(read_revocations(path)?)
                .only_check_end_entity_revocation();
        }
        if !self.is_required {
            builder = builder.allow_unauthenticated();
        }
        let about = self.crl_file.as_ref().unwrap_or(&self.ca_file);
        let chain = builder
            .build()
            .map_err(|error| TlsFileError::new(about, error.to_string()))?;
        hash.update(format!("{:?} {:?}", self.is_required, self.names).as_bytes());
        let verifier: Arc<dyn ClientCertVerifier> = if self.names.is_empty() {
            chain
        } else {
            Arc::new(NamedClients {
                chain,
                names: self.names.clone(),
            })
        };
        let hash = hash.finish();
        Ok((verifier, hash.as_ref().try_into().expect("SHA-256 has 32 bytes")))
    }
}

/// Accepts clients whose chain is valid, and whose certificate is for one of these names.
#[derive(Debug)]
struct NamedClients {
    chain: Arc<dyn ClientCertVerifier>,
    names: Vec<NamePattern>,
}

impl NamedClients {
    fn has_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
            return false;
        };
        let Ok(Some(extension)) = parsed.subject_alternative_name() else {
            return false;
        };
        extension.value.general_names.iter().any(|name| match name {
            GeneralName::DNSName(name) => self.matches(name),
            _ => false,
        })
    }

    fn matches(&self, name: &str) -> bool {
        let Ok(name) = Sni::from_config(name) else {
            return false;
        };
        self.names.iter().any(|pattern| match pattern {
            NamePattern::Exact(exact) => name.valid() == Some(exact),
            NamePattern::Suffix(suffix) => name.parents().any(|parent| parent == suffix.as_str().as_bytes()),
            NamePattern::Any => true,
        })
    }
}

impl ClientCertVerifier for NamedClients {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        if self.has_name(certificate) {
            Ok(verified)
        } else {
            // Sent as `access_denied`.
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
