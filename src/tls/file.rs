//! Reading the files of TLS: certificates, keys, authorities, revocations.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

/// A longer file is not one of these, but named by mistake. A list of revoked certificates may be long.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is wrong with a file.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {what}", .path.display())]
pub struct TlsFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl TlsFileError {
    /// Whether the file, or directory, can be read at this moment.
    #[must_use]
    pub fn can_be_read(&self) -> bool {
        File::open(&self.path).is_ok()
    }

    pub(super) fn new(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

/// Tells versions of a file apart: another file, length or time of change is another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

/// The version of a file, of the one that symbolic links lead to; `None`: there is none.
pub(super) fn file_version(path: &Path) -> Option<FileStamp> {
    let metadata = path.metadata().ok()?;
    Some(FileStamp {
        inode: metadata.ino(),
        length: metadata.len(),
        changed: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

/// The bytes of a file, which are erased when they are dropped: it may contain a key.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsFileError> {
    let read = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len().min(FILE_BYTES_MAX);
        // Reserved at once: a buffer that grows leaves copies of a key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other("the file is too long"));
        }
        Ok(bytes)
    };
    read().map_err(|error| TlsFileError::new(path, error.to_string()))
}

/// The certificates in a PEM file; at least one.
pub(super) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(TlsFileError::new(path, "there is no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsFileError::new(path, format!("not PEM: {error}"))),
    }
}

/// The authorities in a PEM file.
///
/// # Errors
/// The file cannot be read, or has no usable certificate.
pub fn read_authorities(path: &Path) -> Result<RootCertStore, TlsFileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path, &read(path)?)? {
        let added = store.add(certificate);
        added.map_err(|error| TlsFileError::new(path, error.to_string()))?;
    }
    Ok(store)
}

/// The lists of revoked certificates in a PEM file; at least one.
pub(super) fn read_revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFileError> {
    let lists: Result<Vec<_>, pem::Error> = CertificateRevocationListDer::pem_slice_iter(&read(path)?).collect();
    match lists {
        Ok(lists) if lists.is_empty() => Err(TlsFileError::new(
            path,
            "there is no list of revoked certificates (X509 CRL) in it",
        )),
        Ok(lists) => Ok(lists),
        Err(error) => Err(TlsFileError::new(path, format!("not PEM: {error}"))),
    }
}
