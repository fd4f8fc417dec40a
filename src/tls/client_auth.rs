//! Certificates of clients: who issued them, whether they are revoked, and which names they have.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use super::certificate::dns_names;
use super::file::{FileStamp, TlsFileError, authorities, certificates, file_version, read, revocations};
use super::words::{bounded, date, unix_now};
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
    /// One of these must match a name of the certificate; empty: it may have any name, or none.
    pub names: Vec<NamePattern>,
}

/// Identifies the version of a policy, on every machine that has the same files: a hash of the plan and the files.
pub(super) type PolicyHash = [u8; 32];

/// The verifier of clients, as read from the files.
pub(super) struct ClientVerification {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) hash: PolicyHash,
    /// What is wrong with the files, though they can be used.
    pub(super) warnings: Vec<String>,
    /// When the first of the lists should be replaced, in seconds since the Unix epoch; `None`: there are no lists, or they do
    /// not say.
    pub(super) next_update: Option<i64>,
}

impl ClientAuthPlan {
    /// The versions of the files.
    pub(super) fn versions(&self) -> Vec<Option<FileStamp>> {
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
        let mut warnings = expired(&self.ca_file, &anchors);
        let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        let (mut chain, mut authorities, mut next_update) = (builder(), None, None);
        if let Some(path) = &self.crl_file {
            let text = read(path)?;
            hash.update(&[1]);
            hash.update(&text);
            let lists = revocations(path, &text)?;
            next_update = lists.iter().filter_map(|list| list_next_update(list)).min();
            warnings.extend(unlisted(path, &anchors, &lists));
            // The certificate of a client has to be looked up. Those of the authorities in between are looked up if their
            // issuer has a list: it is rare that all have one.
            authorities = Some(builder().with_crls(lists.clone()).allow_unknown_revocation_status());
            chain = chain.with_crls(lists).only_check_end_entity_revocation();
        }
        if !self.is_required {
            chain = chain.allow_unauthenticated();
        }
        let about = self.crl_file.as_ref().unwrap_or(&self.ca_file);
        let build = |builder: ClientCertVerifierBuilder| {
            let built = builder.build();
            built.map_err(|error| TlsFileError::new(about, error.to_string()))
        };
        let chain = build(chain)?;
        let authorities = authorities.map(build).transpose()?;
        hash.update(format!("{:?} {:?}", self.is_required, self.names).as_bytes());
        let verifier: Arc<dyn ClientCertVerifier> = Arc::new(Clients {
            chain,
            authorities,
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

    /// The warning about a list that should have been replaced by `next_update`, in seconds since the Unix epoch. The list
    /// stays in force: if all clients were refused as revoked, an authority would cause an outage by being late.
    pub(super) fn outdated(&self, next_update: i64) -> Option<String> {
        let (path, next) = (self.crl_file.as_ref()?.display(), date(next_update));
        Some(format!(
            "{path}: the list of revoked certificates should have been replaced by {next}: what was revoked since is accepted"
        ))
    }
}

fn list_next_update(list: &[u8]) -> Option<i64> {
    let (_, list) = parse_x509_crl(list).ok()?;
    Some(list.next_update()?.timestamp())
}

/// The warnings about authorities that have expired. What they have issued is accepted: their own certificates are trusted as
/// they are (RFC 5280, section 6.1.1).
fn expired(path: &Path, anchors: &[CertificateDer<'_>]) -> Vec<String> {
    let anchors = anchors.iter().filter_map(|anchor| parse_x509_certificate(anchor).ok());
    let warnings = anchors.filter_map(|(_, anchor)| {
        let end = anchor.validity().not_after.timestamp();
        let (path, subject) = (path.display(), bounded(&anchor.subject().to_string()));
        let end = (end < unix_now()).then(|| date(end))?;
        Some(format!(
            "{path}: `{subject}` has expired on {end}: certificates that it has issued are accepted"
        ))
    });
    warnings.collect()
}

/// The warnings about authorities that issue certificates of clients, and have no list: such clients are refused.
fn unlisted(path: &Path, anchors: &[CertificateDer<'_>], lists: &[CertificateRevocationListDer<'_>]) -> Vec<String> {
    let lists: Vec<_> = lists.iter().filter_map(|list| parse_x509_crl(list).ok()).collect();
    let anchors = anchors.iter().filter_map(|anchor| parse_x509_certificate(anchor).ok());
    let subjects = anchors.map(|(_, anchor)| anchor.tbs_certificate.subject);
    let unlisted = subjects.filter(|subject| lists.iter().all(|(_, list)| list.issuer().as_raw() != subject.as_raw()));
    let warnings = unlisted.map(|subject| {
        let (path, subject) = (path.display(), bounded(&subject.to_string()));
        format!("{path}: there is no list of `{subject}`: clients whose certificates it has issued itself are refused")
    });
    warnings.collect()
}

/// Accepts clients whose chain is valid and whose certificate has one of these names.
#[derive(Debug)]
struct Clients {
    chain: Arc<dyn ClientCertVerifier>,
    /// Refuses a chain with a revoked authority; `None`: there are no lists.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
    /// Empty: any name, or none.
    names: Vec<NamePattern>,
}

impl Clients {
    fn has_name(&self, certificate: &CertificateDer<'_>) -> bool {
        parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| dns_names(&parsed).any(|name| self.matches(name)))
    }

    /// An invalid name matches nothing: it must not open a door. (The pattern of a route may match one.)
    fn matches(&self, name: &str) -> bool {
        let valid = Sni::from_config(name).ok().filter(|name| name.valid().is_some());
        valid.is_some_and(|name| self.names.iter().any(|pattern| pattern.rank(&name).is_some()))
    }
}

impl ClientCertVerifier for Clients {
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
        if let Some(authorities) = &self.authorities {
            authorities.verify_client_cert(certificate, intermediates, now)?;
        }
        if self.names.is_empty() || self.has_name(certificate) {
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
