//! Certificates with their keys, as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::file::{FileStamp, TlsFileError, certificates, file_version, read};
use crate::name::NamePattern;

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// A chain, the server's certificate first, and its key. Both may be in one file.
    Files {
        /// The chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A directory of such pairs: `NAME.pem` or `NAME.crt` with `NAME.key`, or `NAME.pem` with both in it; the same, or
    /// `fullchain.pem` with `privkey.pem`, in directories within it.
    Directory(PathBuf),
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CertificateFiles {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// A certificate with its chain and its key.
#[derive(Debug)]
pub struct Certificate {
    pub(super) files: CertificateFiles,
    /// The versions of the files that it was read from; taken before they were read.
    versions: FileStamps,
    /// For rustls.
    pub(super) key: Arc<CertifiedKey>,
    /// The host names it is for.
    pub names: Vec<NamePattern>,
    /// When it expires, in seconds since the Unix epoch: the earliest of its chain.
    pub not_after: i64,
    /// What is wrong with it, though it can be used.
    pub warnings: Vec<String>,
}

type FileStamps = [Option<FileStamp>; 3];

impl CertificateSource {
    /// The files that it stands for, by name.
    pub(super) fn files(&self) -> Result<Vec<CertificateFiles>, TlsFileError> {
        match self {
            Self::Files { cert, key } => Ok(vec![CertificateFiles {
                cert: cert.clone(),
                key: key.clone(),
            }]),
            Self::Directory(path) => {
                let mut found = Vec::new();
                for directory in list_directory(path, &mut found)? {
                    list_directory(&directory, &mut found)?;
                }
                Ok(found)
            }
        }
    }
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
        let key = read_key(&self.key)?;
        let key = any_supported_type(&key).map_err(|_| {
            TlsFileError::new(
                &self.key,
                "this kind of key is not supported: use ECDSA (P-256, P-384), Ed25519 or RSA",
            )
        })?;
        let parsed = chain.iter().map(|certificate| parse_x509_certificate(certificate));
        let parsed: Result<Vec<_>, _> = parsed
            .map(|parsed| parsed.map(|(_, certificate)| certificate))
            .collect();
        let parsed = parsed.map_err(|error| TlsFileError::new(&self.cert, format!("not a certificate: {error}")))?;
        let mut certified = CertifiedKey::new(chain.clone(), key);
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
        certified.ocsp = std::fs::read(self.ocsp()).ok();
        let names = names_of(&parsed[0]);
        let not_after = parsed
            .iter()
            .map(|certificate| certificate.validity().not_after.timestamp())
            .min();
        Ok(Certificate {
            files: self.clone(),
            versions,
            warnings: warnings(&self.cert, &parsed, names.is_empty()),
            key: Arc::new(certified),
            names,
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

    /// Whether the files are those that it was read from.
    pub(super) fn is_current(&self) -> bool {
        self.versions == self.files.versions()
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let is_encrypted = text.windows(9).any(|window| window == b"ENCRYPTED");
        let what = match error {
            _ if is_encrypted => {
                "the key is encrypted: remove its passphrase (openssl pkey -in FILE -out FILE)".to_owned()
            }
            pem::Error::NoItemsFound => "there is no private key in it".to_owned(),
            error => format!("not PEM: {error}"),
        };
        TlsFileError::new(path, what)
    })
}

/// The host names of a certificate (RFC 5280, section 4.2.1.6). Names that no client asks for are left out.
fn names_of(certificate: &X509Certificate<'_>) -> Vec<NamePattern> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let dns = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => NamePattern::from_config(name).ok(),
        _ => None,
    });
    dns.filter(|pattern| !matches!(pattern, NamePattern::Any)).collect()
}

fn warnings(path: &Path, chain: &[X509Certificate<'_>], is_without_name: bool) -> Vec<String> {
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
    if is_without_name {
        warn(String::from(
            "the certificate is for no host name (it has no DNS name in subjectAltName)",
        ));
    }
    found
}

/// Seconds since the Unix epoch.
pub(super) fn unix_now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs().cast_signed())
}
