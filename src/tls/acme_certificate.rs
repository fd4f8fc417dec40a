//! Certificates that are ordered by ACME: their files, and placeholders until they are issued.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::certificate::{Certificate, CertificateFiles};
use super::file::TlsFileError;
use crate::name::ServerName;

/// A certificate that is ordered by ACME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// The `[acme.NAME]` by which it is ordered.
    pub acme: Arc<str>,
    /// The host names for which it is ordered; at least one.
    pub names: Arc<[ServerName]>,
    /// The file of the chain and its key.
    pub file: PathBuf,
}

/// How long a self-signed certificate is valid. It need not be long: each start of the process makes a new one.
const SELF_SIGNED_VALIDITY: Duration = Duration::from_secs(90 * 86_400);

impl AcmeCertificate {
    /// Its name: the first host name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.names[0].as_str()
    }

    pub(super) fn files(&self) -> CertificateFiles {
        CertificateFiles {
            cert: self.file.clone(),
            key: self.file.clone(),
        }
    }

    /// Whether `known`, which was loaded for the same file, may stay in use as it is. An issued certificate may stay
    /// even if its names differ, until a new one is issued. A self-signed certificate must have all the names.
    pub(super) fn accepts(&self, known: &Certificate) -> bool {
        known.acme.as_ref() == Some(&self.acme)
            && (!known.is_self_signed || known.count_names(&self.names) == self.names.len())
    }

    /// Reads the certificate. `before` are the certificates in use until now. If none of them was read from the file,
    /// and the file is missing or has no usable certificate, returns a placeholder: one of `before` that was issued for
    /// some of the names, otherwise a new self-signed certificate.
    ///
    /// # Errors
    /// The file cannot be read, one of `before` was read from it and it is now missing or broken, or no self-signed
    /// certificate can be made.
    pub(super) fn load(&self, before: &[Arc<Certificate>]) -> Result<Certificate, TlsFileError> {
        let (acme, files) = (Some(Arc::clone(&self.acme)), self.files());
        let versions = files.versions();
        let was_read = before.iter().any(|known| known.files == files && !known.is_placeholder);
        let mut warnings = Vec::new();
        match self.file.metadata() {
            Ok(_) => match files.load() {
                Ok(loaded) => return Ok(Certificate { acme, ..loaded }),
                Err(error) if was_read || error.is_os_error() => return Err(error),
                Err(error) => warnings.push(format!("{error}: another certificate is ordered")),
            },
            Err(error) if was_read => {
                let what = format!(
                    "{error}: `acequia cert renew {}` orders another certificate",
                    self.name()
                );
                return Err(TlsFileError::new(&self.file, what));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(TlsFileError::of_reading(&self.file, &error));
            }
            Err(_) => {}
        }
        let placeholder = match self.issued_before(before) {
            Some(issued) => Certificate {
                files,
                ..Certificate::clone(issued)
            },
            None => {
                let made = self_signed(&self.names);
                let (chain, key) = made.map_err(|error| TlsFileError::new(&self.file, error.to_string()))?;
                // `[None; 3]`: the versions of the files are set below.
                Certificate {
                    is_self_signed: true,
                    ..files.certificate([None; 3], &[chain], &key)?
                }
            }
        };
        Ok(Certificate {
            acme,
            versions,
            warnings,
            is_placeholder: true,
            ..placeholder
        })
    }

    /// Of the certificates that ACME has issued and that have not expired, the one with the most of the names; `None`:
    /// none has any of them.
    fn issued_before<'a>(&self, before: &'a [Arc<Certificate>]) -> Option<&'a Certificate> {
        let is_issued =
            |known: &&Arc<Certificate>| known.acme.is_some() && !known.is_self_signed && !known.has_expired();
        let issued = before.iter().filter(is_issued).map(|known| &**known);
        let best = issued.max_by_key(|known| known.count_names(&self.names))?;
        (best.count_names(&self.names) > 0).then_some(best)
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
