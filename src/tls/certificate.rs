//! Certificates with their keys, as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::certificate::{Validity, X509Certificate};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::file::{FileStamp, TlsFileError, certificates, file_version, nothing_found, read};
use super::ocsp::Staple;
use super::words::{bounded, unix_now};
use crate::name::{NamePattern, ServerName};

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// A chain, the server's certificate first, and its key. Both may be in one file.
    Files(CertificateFiles),
    /// A directory of such pairs: `NAME.pem` or `NAME.crt` with `NAME.key`, or `NAME.pem` with both in it; the same, or
    /// `fullchain.pem` with `privkey.pem`, in directories within it.
    Directory(PathBuf),
    /// What is ordered by ACME. A self-signed certificate takes its place until the file is there.
    Acme(AcmeSource),
}

/// A certificate that is ordered by ACME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSource {
    /// The `[acme.NAME]` that it is ordered by.
    pub acme: Arc<str>,
    /// The host names that it is to be for; at least one.
    pub names: Arc<[ServerName]>,
    /// The file of the chain and its key.
    pub file: PathBuf,
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, our own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A certificate with its chain and its key.
#[derive(Debug)]
pub struct Certificate {
    pub(super) files: CertificateFiles,
    /// The versions of the files that it was read from; taken before they were read.
    versions: FileStamps,
    /// For rustls.
    pub(super) key: Arc<CertifiedKey>,
    /// Until when its OCSP response can be sent, in seconds since the Unix epoch; `None`: there is no end, or no response.
    staple_expires: Option<i64>,
    /// The host names it is for.
    pub names: Vec<NamePattern>,
    /// Who issued it: the issuer's common name, or else its whole name, as in RFC 4514; escaped.
    pub issuer: Box<str>,
    /// From when it is valid, in seconds since the Unix epoch.
    pub not_before: i64,
    /// When it expires, in seconds since the Unix epoch: the earliest of its chain.
    pub not_after: i64,
    /// The `[acme.NAME]` that it is ordered by; `None`: it is not ours to renew.
    pub acme: Option<Arc<str>>,
    /// Whether it only takes the place of one that is ordered.
    pub is_self_signed: bool,
    /// What is wrong with it or its chain, though it can be used.
    pub warnings: Vec<String>,
}

/// How long a self-signed certificate is valid: another is made at each start.
const SELF_SIGNED_VALIDITY: Duration = Duration::from_secs(90 * 86_400);

type FileStamps = [Option<FileStamp>; 3];

impl CertificateSource {
    /// The files that it stands for, by name.
    pub(super) fn files(&self) -> Result<Vec<CertificateFiles>, TlsFileError> {
        match self {
            Self::Files(files) => Ok(vec![files.clone()]),
            Self::Directory(path) => {
                let mut found = Vec::new();
                for directory in list_directory(path, &mut found)? {
                    list_directory(&directory, &mut found)?;
                }
                Ok(found)
            }
            Self::Acme(source) => Ok(vec![CertificateFiles {
                cert: source.file.clone(),
                key: source.file.clone(),
            }]),
        }
    }
}

impl AcmeSource {
    /// The name that it goes by: the first one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names[0].as_str()
    }

    /// Reads the certificate. While its file is missing, it is a new self-signed one.
    pub(super) fn load(&self, files: &CertificateFiles) -> Result<Certificate, TlsFileError> {
        let acme = Some(Arc::clone(&self.acme));
        if file_version(&self.file).is_some() {
            return Ok(Certificate { acme, ..files.load()? });
        }
        let made = self_signed(&self.names).map_err(|error| TlsFileError::new(&self.file, error.to_string()))?;
        let (chain, key) = made;
        let certificate = files.certificate([None; 3], &[chain], &key)?;
        Ok(Certificate {
            acme,
            is_self_signed: true,
            ..certificate
        })
    }
}

/// A self-signed certificate for these names, and its key. Clients that verify certificates refuse it.
fn self_signed(names: &[ServerName]) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let names: Vec<_> = names.iter().map(|name| name.as_str().to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "acequia, until ACME has issued a certificate");
    params.not_before = SystemTime::now().into();
    params.not_after = params.not_before + SELF_SIGNED_VALIDITY;
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok((certificate.der().clone(), key.into()))
}

/// Checks that a text in PEM is a chain with its key, as it is to be written to this file.
///
/// # Errors
/// What is wrong with it.
pub fn check_certificate(file: &Path, text: &[u8]) -> Result<(), TlsFileError> {
    let files = CertificateFiles {
        cert: file.to_owned(),
        key: file.to_owned(),
    };
    files.certificate([None; 3], &certificates(file, text)?, &parse_key(file, text)?)?;
    Ok(())
}

/// Adds the certificates of a directory. Returns the directories in it.
fn list_directory(path: &Path, found: &mut Vec<CertificateFiles>) -> Result<Vec<PathBuf>, TlsFileError> {
    let listed = path.read_dir().and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let listed = listed.map_err(|error| TlsFileError::new(path, error.to_string()))?;
    // Names with a dot are not for us: Kubernetes keeps the files of a secret in `..data`, behind links.
    let is_hidden = |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    let mut paths: Vec<_> = listed
        .iter()
        .filter(|entry| !is_hidden(entry))
        .map(std::fs::DirEntry::path)
        .collect();
    paths.sort();
    let certbot = CertificateFiles {
        cert: path.join("fullchain.pem"),
        key: path.join("privkey.pem"),
    };
    if paths.contains(&certbot.cert) && paths.contains(&certbot.key) {
        found.push(certbot);
        return Ok(Vec::new());
    }
    let mut directories = Vec::new();
    for cert in &paths {
        let ending = cert.extension().and_then(std::ffi::OsStr::to_str);
        let key = cert.with_extension("key");
        match ending {
            Some("pem" | "crt") if paths.binary_search(&key).is_ok() => found.push(CertificateFiles {
                cert: cert.clone(),
                key,
            }),
            Some("pem") => found.push(CertificateFiles {
                cert: cert.clone(),
                key: cert.clone(),
            }),
            _ if cert.is_dir() => directories.push(cert.clone()),
            _ => {}
        }
    }
    Ok(directories)
}

impl CertificateFiles {
    /// Where the OCSP response for the certificate may be, which is sent along if it is there (RFC 6066, section 8).
    fn ocsp(&self) -> PathBuf {
        self.cert.with_extension("ocsp")
    }

    fn versions(&self) -> FileStamps {
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

    /// A certificate with its key, both read from these versions of the files.
    fn certificate(
        &self,
        versions: FileStamps,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<Certificate, TlsFileError> {
        let key = any_supported_type(key).map_err(|_| {
            TlsFileError::new(
                &self.key,
                "this kind of key is not supported: use ECDSA (P-256, P-384, P-521), Ed25519, or RSA of at least 2048 bits",
            )
        })?;
        let parsed = chain.iter().map(|certificate| parse_x509_certificate(certificate));
        let parsed: Result<Vec<_>, _> = parsed
            .map(|parsed| parsed.map(|(_, certificate)| certificate))
            .collect();
        let parsed = parsed.map_err(|error| TlsFileError::new(&self.cert, format!("not a certificate: {error}")))?;
        let mut certified = CertifiedKey::new(chain.to_vec(), key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => {
                let what = format!(
                    "the key does not fit the certificate in {}, whose first one must be the server's",
                    self.cert.display()
                );
                return Err(TlsFileError::new(&self.key, what));
            }
        }
        let staple = Staple::read(&self.ocsp(), &parsed[0]);
        certified.ocsp = staple.response;
        let mut warnings = warnings(&self.cert, &parsed);
        warnings.extend(staple.warning);
        let names = names_of(&parsed[0]);
        let not_after = parsed
            .iter()
            .map(|certificate| certificate.validity().not_after.timestamp())
            .min();
        Ok(Certificate {
            files: self.clone(),
            versions,
            warnings,
            key: Arc::new(certified),
            staple_expires: staple.expires,
            names,
            acme: None,
            is_self_signed: false,
            issuer: issuer_of(&parsed[0]),
            not_before: parsed[0].validity().not_before.timestamp(),
            not_after: not_after.unwrap_or(i64::MAX),
        })
    }
}

impl Certificate {
    /// The file of the certificate.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.files.cert
    }

    /// The file of the key.
    #[must_use]
    pub fn key_path(&self) -> &Path {
        &self.files.key
    }

    /// Whether it, or one of its chain, has expired.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.not_after < unix_now()
    }

    /// Whether the files are those that it was read from.
    pub(super) fn is_current(&self) -> bool {
        let can_be_stapled = self.staple_expires.is_none_or(|expires| expires > unix_now());
        can_be_stapled && self.versions == self.files.versions()
    }
}

fn parse_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        let is_encrypted = text.windows(9).any(|window| window == b"ENCRYPTED");
        let what = match error {
            _ if is_encrypted => {
                "the key is encrypted: remove its passphrase (openssl pkey -in FILE -out FILE)".to_owned()
            }
            pem::Error::NoItemsFound => nothing_found(text, "there is no private key in it", "pkey"),
            error => format!("not PEM: {error}"),
        };
        TlsFileError::new(path, what)
    })
}

/// The host names of a certificate; none if it cannot be read.
#[must_use]
pub fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<NamePattern> {
    parse_x509_certificate(certificate).map_or_else(|_| Vec::new(), |(_, parsed)| names_of(&parsed))
}

/// The host names of a certificate (RFC 5280, section 4.2.1.6). Names that no client asks for are left out.
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

fn issuer_of(certificate: &X509Certificate<'_>) -> Box<str> {
    let issuer = certificate.issuer();
    let common_name = issuer.iter_common_name().next().and_then(|name| name.as_str().ok());
    common_name.map_or_else(|| bounded(&issuer.to_string()), bounded)
}

/// The time before the expiry of a certificate at which it should have been replaced: a certificate of 90 days is usually
/// renewed when 30 are left, one of a few days when a third of them is left.
fn late_seconds(validity: &Validity) -> i64 {
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
            warn(format!("{which} has expired on {}", validity.not_after));
        } else if validity.not_before.timestamp() > now {
            warn(format!("{which} is not valid before {}", validity.not_before));
        } else if validity.not_after.timestamp() - now < late_seconds(validity) {
            warn(format!("{which} expires soon, on {}", validity.not_after));
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
