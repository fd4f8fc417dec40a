//! Reads the files of TLS: certificates, keys, authorities, revocations.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use super::words::bounded;
use crate::error::with_context;
use crate::regular_file;

/// The longest file that is read, in bytes. A list of revoked certificates may be long, but a file that is longer than
/// this was named by mistake.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The problem of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", .path.display())]
pub struct TlsFileError {
    /// The path of the file; for a text of another origin, its [`PemText::name`].
    pub path: PathBuf,
    /// The problem.
    pub what: String,
    /// The number of the error, if the system reported it.
    os_error: Option<i32>,
    /// Whether the file or directory cannot be read. Otherwise its contents are wrong.
    is_unreadable: bool,
}

impl TlsFileError {
    /// Whether the file, or directory, cannot be read. Otherwise its contents are wrong.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.is_unreadable
    }

    /// Whether the system reported this error.
    pub(super) fn is_os_error(&self) -> bool {
        self.os_error.is_some()
    }

    pub(super) fn new(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
            os_error: None,
            is_unreadable: false,
        }
    }

    /// The error of reading a file or directory.
    pub(super) fn of_reading(path: &Path, error: &io::Error) -> Self {
        Self {
            os_error: error.raw_os_error(),
            is_unreadable: error.kind() != io::ErrorKind::InvalidData,
            ..Self::new(path, error.to_string())
        }
    }
}

impl From<TlsFileError> for io::Error {
    fn from(error: TlsFileError) -> Self {
        // The caller recognizes a shortage of descriptors by the error number.
        match error.os_error {
            Some(number) => with_context(Self::from_raw_os_error(number), error.path.display().to_string()),
            None => Self::other(error),
        }
    }
}

/// The version of a file: its inode, length, time of modification and access rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileVersion {
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds since the Unix epoch.
    modified: (i64, i64),
    /// Mode, user and group. A file that has become unreadable is another version, so that it is found to be broken.
    access: (u32, u32, u32),
}

/// The version of a file; symbolic links are followed. `None`: its metadata cannot be read, for example because there
/// is no file, or a directory in its path is not accessible.
pub(super) fn file_version(path: &Path) -> Option<FileVersion> {
    let metadata = path.metadata().ok()?;
    Some(FileVersion {
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        access: (metadata.mode(), metadata.uid(), metadata.gid()),
    })
}

/// A text in PEM, and its name in errors: the path of its file, or the field of a kubeconfig that contains it.
pub struct PemText {
    /// Its name in errors.
    pub name: PathBuf,
    /// The text; erased when it is dropped, because it may contain a key.
    pub text: Zeroizing<Vec<u8>>,
}

impl PemText {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is longer than 64 MiB.
    pub fn read(file: &Path) -> Result<Self, TlsFileError> {
        Ok(Self {
            name: file.to_owned(),
            text: read(file)?,
        })
    }
}

/// The bytes of a file. They are erased when they are dropped: they may contain a key.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsFileError> {
    regular_file::read_zeroizing(path, FILE_BYTES_MAX).map_err(|error| TlsFileError::of_reading(path, &error))
}

/// Why nothing was found in a file with this content. If the file is in PKCS#12 or DER, the result says so, and how to
/// convert the file. `command` is the command of openssl(1) that converts it from DER. For other files, the result is
/// `default`.
pub(super) fn nothing_found(text: &[u8], default: &str, command: &str) -> String {
    match Any::from_der(text) {
        // A PFX, the structure of PKCS#12, begins with version 3 (RFC 7292, section 4).
        Ok((_, element)) if element.data.starts_with(&[2, 1, 3]) => {
            "it is in PKCS#12, not in PEM: convert it (openssl pkcs12 -nodes -in FILE -out FILE.pem)".to_owned()
        }
        Ok((_, element)) if element.tag() == Tag::Sequence => {
            format!("it is in DER, not in PEM: convert it (openssl {command} -inform der -in FILE -out FILE.pem)")
        }
        _ => default.to_owned(),
    }
}

/// What is wrong with a text that is not PEM. Does not quote it: it may be a key.
pub(super) fn not_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "not whole: a section has a `-----BEGIN` line, and no `-----END` line".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => "not PEM: a `-----BEGIN` line is not valid".to_owned(),
        error => format!("not PEM: {error}"),
    }
}

/// The certificates in a PEM file; at least one.
pub(super) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            let what = nothing_found(text, "there is no certificate in it", "x509");
            Err(TlsFileError::new(path, what))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsFileError::new(path, not_pem(&error))),
    }
}

/// The authorities in a PEM file; at least one.
pub(super) fn authorities(path: &Path, text: &[u8]) -> Result<RootCertStore, TlsFileError> {
    let mut store = RootCertStore::empty();
    let certificates = certificates(path, text)?;
    if let Some(what) = not_authorities(&certificates) {
        return Err(TlsFileError::new(path, what));
    }
    for certificate in certificates {
        let added = store.add(certificate);
        added.map_err(|error| TlsFileError::new(path, error.to_string()))?;
    }
    Ok(store)
}

/// What is wrong if none of these certificates is that of an authority. A self-signed certificate counts as that of
/// an authority. `None`: nothing is wrong, or a certificate cannot be parsed here; then adding it to the store decides.
fn not_authorities(certificates: &[CertificateDer<'_>]) -> Option<String> {
    let mut first = None;
    for certificate in certificates {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        if parsed.is_ca() || parsed.issuer().as_raw() == parsed.subject().as_raw() {
            return None;
        }
        let (subject, issuer) = (parsed.subject().to_string(), parsed.issuer().to_string());
        first = first.or_else(|| Some((bounded(&subject), bounded(&issuer))));
    }
    let (subject, issuer) = first?;
    Some(format!(
        "`{subject}` is not an authority: the certificate of `{issuer}`, which has issued it, belongs here"
    ))
}

/// The lists of revoked certificates in a PEM file; at least one.
pub(super) fn revocations(
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFileError> {
    let lists: Result<Vec<_>, pem::Error> = CertificateRevocationListDer::pem_slice_iter(text).collect();
    match lists {
        Ok(lists) if lists.is_empty() => {
            let what = nothing_found(text, "there is no list of revoked certificates (X509 CRL) in it", "crl");
            Err(TlsFileError::new(path, what))
        }
        Ok(lists) => Ok(lists),
        Err(error) => Err(TlsFileError::new(path, not_pem(&error))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_with_other_access_rights_is_another_version() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = file_version(file.path());
        std::fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
        assert_ne!(file_version(file.path()), before);
    }

    #[test]
    fn a_path_without_a_regular_file_is_unreadable_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("key.pem");
        regular_file::make_fifo(&fifo);
        for path in [fifo.as_path(), directory.path()] {
            let error = read(path).unwrap_err();
            assert_eq!(error.what, "not a regular file");
            assert!(error.is_unreadable(), "{}", path.display());
        }
        assert!(read(&directory.path().join("absent")).unwrap_err().is_unreadable());
    }
}
