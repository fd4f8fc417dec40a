//! The certificates of a listener, found by the name for which a client asks.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::acme_certificate::AcmeCertificate;
use super::certificate::{Certificate, CertificateFiles};
use super::file::TlsFileError;
use super::location::CertificateLocation;
use crate::name::NamePattern;

/// Certificates, found by the name for which a client asks: by its hash, and, for wildcards, by the hash of the name
/// without its first label (RFC 9525, section 6.3). So a search does not take longer if there are more certificates.
#[derive(Debug, Default)]
pub struct CertificateStore {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Arc<str>, Vec<Arc<Certificate>>>,
    wildcards: HashMap<Arc<str>, Vec<Arc<Certificate>>>,
}

/// The result of reading certificates.
pub(super) struct LoadedStore {
    pub(super) store: CertificateStore,
    /// How many certificates are new, were read again, or are gone.
    pub(super) changed: usize,
    /// Problems of certificates that were read and can be used nevertheless.
    pub(super) warnings: Vec<String>,
    /// Files and directories that cannot be used. If they had certificates before, the store still has them.
    pub(super) broken: Vec<TlsFileError>,
}

impl CertificateStore {
    fn new(all: Vec<Arc<Certificate>>) -> Self {
        let mut store = Self::default();
        for certificate in &all {
            for name in &certificate.names {
                let named = match name {
                    NamePattern::Exact(name) => store.exact.entry(name.shared()),
                    NamePattern::Suffix(suffix) => store.wildcards.entry(suffix.shared()),
                    NamePattern::Any => continue,
                };
                named.or_default().push(Arc::clone(certificate));
            }
        }
        store.all = all;
        store
    }

    /// Reads the certificates of these locations. Those that are still what is wanted (see
    /// [`WantedCertificate::unchanged`]) are taken from `before`. If one cannot be read, it is reported as broken, and
    /// also taken from `before`, if it is there.
    pub(super) fn load(locations: &[CertificateLocation], before: &Self) -> LoadedStore {
        let known: KnownCertificates<'_> = before.all.iter().map(|known| (&known.files, known)).collect();
        let mut broken = Vec::new();
        let wanted = before.find_wanted(locations, &known, &mut broken);
        let loaded = in_parallel(&wanted, |wanted| match wanted.unchanged(&known) {
            Some(unchanged) => Ok((Arc::clone(unchanged), false)),
            None => Ok((Arc::new(wanted.load(&before.all)?), true)),
        });
        let (mut changed, mut warnings) = (0, Vec::new());
        let mut all = Vec::with_capacity(wanted.len());
        for (wanted, loaded) in wanted.iter().zip(loaded) {
            match loaded {
                Ok((certificate, was_read)) => {
                    if was_read {
                        changed += 1;
                        warnings.extend_from_slice(&certificate.warnings);
                    }
                    all.push(certificate);
                }
                Err(error) => {
                    broken.push(error);
                    all.extend(known.get(&wanted.files).map(|kept| Arc::clone(kept)));
                }
            }
        }
        let remaining: HashSet<_> = all.iter().map(|certificate| &certificate.files).collect();
        let is_gone = |certificate: &&Arc<Certificate>| !remaining.contains(&certificate.files);
        changed += before.all.iter().filter(is_gone).count();
        LoadedStore {
            store: Self::new(all),
            changed,
            warnings,
            broken,
        }
    }

    /// The certificates at these locations. If a directory cannot be read, its error is added to `broken`, and the
    /// certificates in `self` that come from this directory are returned for it.
    fn find_wanted<'a>(
        &self,
        locations: &'a [CertificateLocation],
        known: &KnownCertificates<'_>,
        broken: &mut Vec<TlsFileError>,
    ) -> Vec<WantedCertificate<'a>> {
        let mut wanted = Vec::new();
        for location in locations {
            let acme = match location {
                CertificateLocation::Acme(acme) => Some(acme),
                CertificateLocation::Files(_) | CertificateLocation::Directory(_) => None,
            };
            let is_known = |files: &CertificateFiles| known.contains_key(files);
            let mut keep_known_files = |error: TlsFileError| {
                let files = self.files_in(&error.path);
                broken.push(error);
                files
            };
            let found = location.files(&is_known, &mut keep_known_files);
            wanted.extend(found.into_iter().map(|files| WantedCertificate { files, acme }));
        }
        wanted
    }

    /// The files of the store's certificates that are in this directory.
    fn files_in(&self, directory: &Path) -> Vec<CertificateFiles> {
        let files = self.all.iter().map(|certificate| &certificate.files);
        files
            .filter(|files| files.cert.starts_with(directory))
            .cloned()
            .collect()
    }

    /// All certificates, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    /// The certificates for a name, which must be in lower case; empty if there is none.
    #[must_use]
    pub fn for_name(&self, name: &str) -> &[Arc<Certificate>] {
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).map_or(&[], Vec::as_slice)
    }

    /// The certificate for a client that asks for this name, which must be in lower case. Among the certificates for
    /// the name, takes the first whose key can sign by one of the client's `schemes`, else the first. If there is none
    /// for the name, chooses among all certificates in the same way.
    #[must_use]
    pub fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<Certificate>> {
        let fits = |certificate: &&Arc<Certificate>| certificate.certified_key.key.choose_scheme(schemes).is_some();
        let named = name.map_or(&[][..], |name| self.for_name(name));
        let named = named.iter().find(fits).or(named.first());
        named.or_else(|| self.all.iter().find(fits)).or(self.all.first())
    }
}

type KnownCertificates<'a> = HashMap<&'a CertificateFiles, &'a Arc<Certificate>>;

/// A certificate of the configuration, which may be known already.
struct WantedCertificate<'a> {
    files: CertificateFiles,
    acme: Option<&'a AcmeCertificate>,
}

impl WantedCertificate<'_> {
    /// The known certificate, if it is still the one that is wanted.
    fn unchanged<'a>(&self, known: &KnownCertificates<'a>) -> Option<&'a Arc<Certificate>> {
        let certificate = known.get(&self.files).copied().filter(|known| known.is_current())?;
        let is_acceptable = match self.acme {
            Some(acme) => acme.accepts(certificate),
            None => certificate.acme.is_none(),
        };
        is_acceptable.then_some(certificate)
    }

    fn load(&self, known: &[Arc<Certificate>]) -> Result<Certificate, TlsFileError> {
        match self.acme {
            Some(acme) => acme.load(known),
            None => self.files.load(),
        }
    }
}

/// The results for all items, in their order; computed by at most one thread per core.
fn in_parallel<T: Sync, R: Send>(items: &[T], compute: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = items.len().div_ceil(threads).max(16); // fewer items are not worth a thread
    if items.len() <= share {
        return items.iter().map(compute).collect();
    }
    let compute = &compute;
    thread::scope(|scope| {
        let started = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(compute).collect::<Vec<_>>()));
        let started: Vec<_> = started.collect();
        let results = started.into_iter().map(|thread| thread.join());
        results
            .flat_map(|computed| computed.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Finds the certificate for each handshake, in the store in force.
#[derive(Debug)]
pub(super) struct CertificateResolver(pub(super) ArcSwap<CertificateStore>);

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let store = self.0.load();
        let certificate = store.find(name.as_deref(), hello.signature_schemes())?;
        Some(Arc::clone(&certificate.certified_key))
    }
}
