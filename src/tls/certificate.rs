//! Certificates with their keys, as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::{Validity, X509Certificate};
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName};
use x509_parser::parse_x509_certificate;

use super::file::{FileVersion, TlsFileError, certificates, file_version, not_pem, nothing_found, read};
use super::ocsp::Staple;
use super::words::{bounded, date, unix_now};
use crate::name::{NamePattern, ServerName};

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, our own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A certificate with its chain and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) files: CertificateFiles,
    /// The versions of its files, taken before they were read.
    pub(super) versions: FileVersions,
    /// The chain, the key and the OCSP response, for rustls.
    pub(super) certified_key: Arc<CertifiedKey>,
    /// When the OCSP response expires, or begins to be valid, in seconds since the Unix epoch; `None`: never. After
    /// this time, the next check of the files reads them again even if they are unchanged.
    pub(super) staple_changes: Option<i64>,
    /// Its host names.
    pub names: Vec<NamePattern>,
    /// Who issued it, for people: the issuer's common name, or else its whole name, as in `C=DE, O=a`.
    pub issuer: Box<str>,
    /// From when it is valid, in seconds since the Unix epoch.
    pub not_before: i64,
    /// When it expires, in seconds since the Unix epoch: the earliest expiry in its chain.
    pub not_after: i64,
    /// When the certificate itself expires, without regard to its chain, in seconds since the Unix epoch.
    pub own_not_after: i64,
    /// The `[acme.NAME]` by which it is ordered; `None`: it is not ours to renew.
    pub acme: Option<Arc<str>>,
    /// Whether it stands in for a certificate that is being ordered: it is an earlier one, or self-signed.
    pub is_placeholder: bool,
    /// Whether it is a self-signed placeholder.
    pub is_self_signed: bool,
    /// Whether its purposes (extendedKeyUsage) include that a server shows it to clients.
    pub is_for_servers: bool,
    /// Whether its purposes include that a client shows it to servers.
    pub is_for_clients: bool,
    /// Problems of the certificate, its chain or its OCSP response that do not prevent its use.
    pub warnings: Vec<String>,
}

/// The versions of the files of a certificate: its chain, its key and its OCSP response.
pub(super) type FileVersions = [Option<FileVersion>; 3];

/// Parses a chain and its key from a PEM text that is about to be written to `file`.
///
/// # Errors
/// The text has no usable certificate and key.
pub fn parse_certificate(file: &Path, text: &[u8]) -> Result<Certificate, TlsFileError> {
    let files = CertificateFiles {
        cert: file.to_owned(),
        key: file.to_owned(),
    };
    files.certificate([None; 3], &certificates(file, text)?, &parse_key(file, text)?)
}

impl CertificateFiles {
    /// The path of the OCSP response for the certificate. If the file exists, the response is sent along with the
    /// certificate (RFC 6066, section 8), unless no client would accept it.
    fn ocsp(&self) -> PathBuf {
        self.cert.with_extension("ocsp")
    }

    pub(super) fn versions(&self) -> FileVersions {
        [
            file_version(&self.cert),
            file_version(&self.key),
            file_version(&self.ocsp()),
        ]
    }

    /// Reads the certificate and its key.
    pub(super) fn load(&self) -> Result<Certificate, TlsFileError> {
        let versions = self.versions();
        let chain = certificates(&self.cert, &read(&self.cert)?)?;
        self.certificate(versions, &chain, &parse_key(&self.key, &read(&self.key)?)?)
    }

    /// Makes a [`Certificate`] from a chain and a key that were read from these versions of the files.
    pub(super) fn certificate(
        &self,
        versions: FileVersions,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<Certificate, TlsFileError> {
        let key = any_supported_type(key).map_err(|_| {
            TlsFileError::new(
                &self.key,
                "this kind of key is not supported: use ECDSA (P-256, P-384, P-521), Ed25519, or RSA of at least 2048 bits",
            )
        })?;
        let parsed: Result<Vec<_>, _> = chain
            .iter()
            .map(|der| parse_x509_certificate(der).map(|(_, certificate)| certificate))
            .collect();
        let parsed = parsed.map_err(|error| TlsFileError::new(&self.cert, format!("not a certificate: {error}")))?;
        let own = &parsed[0]; // a chain is not empty
        let mut certified = CertifiedKey::new(chain.to_vec(), key);
        // Not `keys_match` of rustls: it reads the certificate as strictly as clients with rustls do, but other clients
        // may accept more.
        let public = certified.key.public_key();
        if public.is_some_and(|public| *public != *own.public_key().raw) {
            let what = format!(
                "the key does not fit the first certificate in {}: the certificate of the key must come first",
                self.cert.display()
            );
            return Err(TlsFileError::new(&self.key, what));
        }
        let staple = Staple::read(&self.ocsp(), own);
        certified.ocsp = staple.response;
        let mut warnings = warnings(&self.cert, &parsed);
        warnings.extend(staple.warning);
        let names = names_of(own);
        let not_after = parsed
            .iter()
            .map(|certificate| certificate.validity().not_after.timestamp())
            .min();
        Ok(Certificate {
            files: self.clone(),
            versions,
            warnings,
            certified_key: Arc::new(certified),
            staple_changes: staple.changes_at,
            names,
            is_for_servers: is_for(own, |usage| usage.server_auth),
            is_for_clients: is_for(own, |usage| usage.client_auth),
            acme: None,
            is_placeholder: false,
            is_self_signed: false,
            issuer: issuer_of(own),
            not_before: own.validity().not_before.timestamp(),
            not_after: not_after.unwrap_or(i64::MAX),
            own_not_after: own.validity().not_after.timestamp(),
        })
    }
}

impl Certificate {
    /// The file of the certificate.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.files.cert
    }

    /// The certificate itself.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certified_key.cert[0] // a chain is not empty
    }

    /// The file of the key.
    #[must_use]
    pub fn key_path(&self) -> &Path {
        &self.files.key
    }

    /// How many of these names it lists. Names that only a wildcard of it matches do not count.
    #[must_use]
    pub fn count_names(&self, names: &[ServerName]) -> usize {
        let is_listed = |name: &&ServerName| {
            let mut listed = self.names.iter();
            listed.any(|listed| matches!(listed, NamePattern::Exact(listed) if listed == *name))
        };
        names.iter().filter(is_listed).count()
    }

    /// Whether it, or another certificate of its chain, has expired.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.not_after < unix_now()
    }

    /// Whether the certificate itself has expired, without regard to its chain.
    #[must_use]
    pub fn has_expired_itself(&self) -> bool {
        self.own_not_after < unix_now()
    }

    /// The warning that it, or another certificate of its chain, has expired.
    #[must_use]
    pub fn expiry_warning(&self) -> String {
        let (path, end) = (self.path().display(), date(self.not_after));
        format!("{path}: the certificate, or one of its chain, has expired on {end}")
    }

    /// Whether reading its files again would give the same: they are unchanged, and so is the state of the OCSP
    /// response.
    pub(super) fn is_current(&self) -> bool {
        let is_same_staple = self.staple_changes.is_none_or(|changes| changes > unix_now());
        is_same_staple && self.versions == self.files.versions()
    }
}

/// The private key in a PEM file.
pub(super) fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let is_encrypted = text.windows(9).any(|window| window == b"ENCRYPTED");
        let what = match error {
            _ if is_encrypted => {
                "the key is encrypted: remove its passphrase (openssl pkey -in FILE -out NEWFILE)".to_owned()
            }
            pem::Error::NoItemsFound => nothing_found(text, "there is no private key in it", "pkey"),
            error => not_pem(&error),
        };
        TlsFileError::new(path, what)
    })
}

/// The host names of a certificate; none if it cannot be read.
#[must_use]
pub fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<NamePattern> {
    parse_x509_certificate(certificate).map_or_else(|_| Vec::new(), |(_, parsed)| names_of(&parsed))
}

/// The host names of a certificate (RFC 5280, section 4.2.1.6). Invalid names and `*` are left out: no client asks for
/// them.
fn names_of(certificate: &X509Certificate<'_>) -> Vec<NamePattern> {
    let patterns = dns_names(certificate).filter_map(|name| NamePattern::from_config(name).ok());
    patterns
        .filter(|pattern| !matches!(pattern, NamePattern::Any))
        .collect()
}

/// The DNS names of a certificate as they are written; none if they cannot be read.
pub(super) fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a str> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    })
}

/// Whether a certificate may be used for a purpose; `lists_purpose` returns whether an extendedKeyUsage extension lists
/// the purpose. A certificate without the extension may be used for any purpose (RFC 5280, section 4.2.1.12).
fn is_for(certificate: &X509Certificate<'_>, lists_purpose: impl Fn(&ExtendedKeyUsage<'_>) -> bool) -> bool {
    let usage = certificate.extended_key_usage().ok().flatten();
    usage.is_none_or(|usage| usage.value.any || lists_purpose(usage.value))
}

fn issuer_of(certificate: &X509Certificate<'_>) -> Box<str> {
    let issuer = certificate.issuer();
    let common_name = issuer.iter_common_name().next().and_then(|name| name.as_str().ok());
    common_name.map_or_else(|| bounded(&issuer.to_string()), bounded)
}

/// How many seconds before its expiry a certificate is overdue for renewal. Usually, a certificate is renewed earlier:
/// when a third of its lifetime is left.
fn overdue_seconds(validity: &Validity) -> i64 {
    const MAX: i64 = 14 * 86_400;
    let whole = validity.not_after.timestamp() - validity.not_before.timestamp();
    (whole / 4).min(MAX)
}

fn warnings(path: &Path, chain: &[X509Certificate<'_>]) -> Vec<String> {
    let now = unix_now();
    let mut found = Vec::new();
    let mut warn = |what: String| found.push(format!("{}: {what}", path.display()));
    for (number, certificate) in (1..).zip(chain) {
        let validity = certificate.validity();
        let which = if number == 1 {
            String::from("the certificate")
        } else {
            format!("certificate {number} of the chain")
        };
        if validity.not_after.timestamp() < now {
            warn(format!(
                "{which} has expired on {}",
                date(validity.not_after.timestamp())
            ));
        } else if validity.not_before.timestamp() > now {
            warn(format!(
                "{which} is not valid before {}",
                date(validity.not_before.timestamp())
            ));
        } else if validity.not_after.timestamp() - now < overdue_seconds(validity) {
            warn(format!(
                "{which} expires soon, on {}",
                date(validity.not_after.timestamp())
            ));
        }
    }
    for (number, pair) in (1..).zip(chain.windows(2)) {
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            warn(format!(
                "wrong order: certificate {number} was not issued by certificate {} of the chain",
                number + 1
            ));
        }
    }
    found
}
