//! Finds the files of the certificates at a location.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};

use super::acme_certificate::AcmeCertificate;
use super::certificate::{CertificateFiles, parse_key};
use super::file::{TlsFileError, read};

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateLocation {
    /// A chain, our own certificate first, and its key. Both may be in one file.
    Files(CertificateFiles),
    /// A directory of such pairs: `NAME.pem` or `NAME.crt` with `NAME.key`, or `NAME.pem` with both in it. If it has
    /// the pair `fullchain.pem` and `privkey.pem`, only this pair counts. Otherwise, its direct subdirectories are
    /// searched in the same way.
    Directory(PathBuf),
    /// A certificate that is ordered by ACME. Until its file is there, another certificate is used.
    Acme(AcmeCertificate),
}

impl CertificateLocation {
    /// The files of its certificates: of a directory, first those in it, sorted by name, then those of its
    /// subdirectories. A known pair (its certificate is in use) also counts while one of its files is missing: that
    /// file is being replaced. `keep` gets the error of a directory that cannot be read, and returns the files that are
    /// known there.
    pub(super) fn files(
        &self,
        is_known: &dyn Fn(&CertificateFiles) -> bool,
        keep: &mut dyn FnMut(TlsFileError) -> Vec<CertificateFiles>,
    ) -> Vec<CertificateFiles> {
        match self {
            Self::Files(files) => vec![files.clone()],
            Self::Directory(path) => {
                let mut found = Vec::new();
                let mut list = |directory: &Path| {
                    let listed = list_directory(directory, is_known, &mut found);
                    listed.unwrap_or_else(|error| {
                        found.extend(keep(error));
                        Vec::new()
                    })
                };
                for directory in list(path) {
                    list(&directory);
                }
                found
            }
            Self::Acme(certificate) => vec![certificate.files()],
        }
    }
}

/// Adds the certificates of a directory to `found`. Returns its subdirectories.
///
/// If the directory has a pair with the names that certbot uses, adds only this pair and returns no subdirectories: the
/// other files there (`cert.pem`, `chain.pem`) are parts of the pair.
fn list_directory(
    path: &Path,
    is_known: &dyn Fn(&CertificateFiles) -> bool,
    found: &mut Vec<CertificateFiles>,
) -> Result<Vec<PathBuf>, TlsFileError> {
    let paths = paths_in(path)?;
    let is_there = |path: &PathBuf| paths.binary_search(path).is_ok();
    let is_pair = |pair: &CertificateFiles| match [&pair.cert, &pair.key].map(is_there) {
        [true, true] => true,
        [false, false] => false,
        _ => is_known(pair),
    };
    let certbot = CertificateFiles {
        cert: path.join("fullchain.pem"),
        key: path.join("privkey.pem"),
    };
    if is_pair(&certbot) {
        found.push(certbot);
        return Ok(Vec::new());
    }
    let mut directories = Vec::new();
    for file in &paths {
        let pair = |ending| CertificateFiles {
            cert: file.with_extension(ending),
            key: file.with_extension("key"),
        };
        match file.extension().and_then(OsStr::to_str) {
            Some("crt") => found.extend(Some(pair("crt")).filter(is_pair)),
            Some("pem") => {
                let mut pair = pair("pem");
                let key_is_being_replaced = || is_known(&pair) && !has_key(file);
                if !is_there(&pair.key) && !key_is_being_replaced() {
                    pair.key.clone_from(file);
                }
                found.push(pair);
            }
            // The certificate file adds the pair. While a known pair has no certificate file, because that is being
            // replaced, the `.key` file adds the pair.
            Some("key") => {
                let pairs = ["crt", "pem"].map(pair);
                if pairs.iter().all(|pair| !is_there(&pair.cert)) {
                    found.extend(pairs.into_iter().filter(is_pair));
                }
            }
            _ if file.is_dir() => directories.push(file.clone()),
            _ => {}
        }
    }
    Ok(directories)
}

/// The paths in a directory, sorted.
///
/// Skips names that begin with a dot: Kubernetes keeps the files of a secret in `..data`, and links to them. Skips
/// `lost+found`, the directory of fsck(8) at the root of a file system: only root may read it.
fn paths_in(directory: &Path) -> Result<Vec<PathBuf>, TlsFileError> {
    let listed = directory.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let listed = listed.map_err(|error| TlsFileError::of_reading(directory, &error))?;
    let is_skipped = |entry: &DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(b".") || name == "lost+found"
    };
    let listed = listed.iter().filter(|entry| !is_skipped(entry));
    let mut paths: Vec<_> = listed.map(DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

/// Whether there is a key in the file of a certificate.
fn has_key(file: &Path) -> bool {
    read(file).is_ok_and(|text| parse_key(file, &text).is_ok())
}
