//! The TLS of a listener: what is configured, and what is in force.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::version::{TLS12, TLS13};

use super::certificate::Certificate;
use super::client_auth::ClientAuthPlan;
use super::client_tickets::for_one_client;
use super::file::{FileVersion, TlsFileError, file_version};
use super::last_expiry_check::LastExpiryCheck;
use super::location::CertificateLocation;
use super::store::{CertificateResolver, CertificateStore, LoadedStore};
use super::tickets::{TicketSecrets, Ticketer};
use super::words::unix_now;

/// Names of protocols (RFC 7301), the preferred first; empty: none is agreed.
pub type Protocols = Vec<Box<[u8]>>;

/// The oldest version of TLS that may be agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// `[listeners.NAME.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTlsPlan {
    /// At least one.
    pub certificates: Vec<CertificateLocation>,
    /// The protocols that may be agreed, unless the route has a list of its own.
    pub alpn: Protocols,
    /// The oldest version.
    pub min_version: MinVersion,
    /// Whether clients need certificates, and which are accepted; `None`: clients are not asked for one.
    pub client_auth: Option<ClientAuthPlan>,
    /// The file with the secrets of tickets that a fleet shares; `None`: tickets are for this process alone.
    pub tickets: Option<PathBuf>,
    /// The lists of protocols of the routes that terminate TLS and have their own.
    pub route_alpn: Vec<Protocols>,
}

/// The settings of a listener's TLS that are in force. Their files may be read again at any time; handshakes under way
/// go on with the settings that they began with.
#[derive(Debug)]
pub struct ListenerTls {
    plan: ListenerTlsPlan,
    provider: Arc<CryptoProvider>,
    resolver: Arc<CertificateResolver>,
    policy: ArcSwap<HandshakePolicy>,
    /// The errors of the broken files. Readers never wait for a reload, which takes long if there are many files, or if
    /// their file system hangs.
    broken: ArcSwap<Vec<String>>,
    /// Held while the files are read: by one thread at a time.
    reload: Mutex<()>,
    last_expiry_check: LastExpiryCheck,
}

/// The configuration of handshakes, apart from certificates.
#[derive(Debug)]
struct HandshakePolicy {
    /// The versions of the files of `client_auth` and `tickets`, taken before they were read.
    versions: Vec<Option<FileVersion>>,
    /// A configuration for each list of protocols. If clients are asked for certificates, each connection has its own
    /// copy, because its tickets expire with the certificate of its client.
    configs: Vec<(Protocols, Arc<ServerConfig>)>,
    /// What verifies clients; `None`: they are not asked for a certificate.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    ticketer: Arc<dyn ProducesTickets>,
    /// Problems of the files of `client_auth` that do not prevent their use.
    warnings: Vec<String>,
    /// The earliest time at which a list of revoked certificates should be replaced, in seconds since the Unix epoch.
    crl_next_update: Option<i64>,
}

/// The result of reading the files of a listener or a pool again.
#[derive(Debug, Default)]
pub struct TlsReload {
    /// How many certificates are new, changed or gone.
    pub certificates: usize,
    /// Whether a file with rules for clients' certificates or with secrets of tickets has changed. For a pool: whether
    /// any of its files has changed. `false` if one of these files is broken.
    pub has_policy_changed: bool,
    /// Problems of new or changed certificates that do not prevent their use; and certificates and lists of revoked
    /// certificates that have expired since the last check.
    pub warnings: Vec<String>,
    /// The files that are broken now and were not before, or for another reason. What was in force stays.
    pub broken: Vec<String>,
}

impl ListenerTlsPlan {
    /// The files that are read, apart from those of certificates; each with its key in `[listeners.NAME.tls]`.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files = Vec::new();
        if let Some(auth) = &self.client_auth {
            files.push(("client_auth.ca_file", &*auth.ca_file));
            files.extend(auth.crl_file.as_deref().map(|path| ("client_auth.crl_file", path)));
        }
        files.extend(self.tickets.as_deref().map(|path| ("tickets", path)));
        files
    }

    /// The error if no location has a certificate: all are directories, and empty. Files that are missing have an error
    /// of their own, and a certificate by ACME has a placeholder until it is issued.
    fn no_certificate(&self) -> TlsFileError {
        let mut locations = self.certificates.iter();
        let directory = locations.find_map(|location| match location {
            CertificateLocation::Directory(path) => Some(&**path),
            CertificateLocation::Files(_) | CertificateLocation::Acme(_) => None,
        });
        let directory = directory.unwrap_or(Path::new(""));
        TlsFileError::new(directory, "there is no certificate with its key in it")
    }

    fn versions(&self) -> Vec<Option<FileVersion>> {
        let auth = self.client_auth.iter().flat_map(ClientAuthPlan::versions);
        auth.chain(self.tickets.iter().map(|path| file_version(path))).collect()
    }

    fn policy(
        &self,
        resolver: &Arc<CertificateResolver>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<HandshakePolicy, TlsFileError> {
        let versions = self.versions();
        let auth = self.client_auth.as_ref().map(|auth| auth.read(provider)).transpose()?;
        let hash = auth.as_ref().map_or_else(Default::default, |auth| auth.hash);
        let ticketer: Arc<dyn ProducesTickets> = match &self.tickets {
            Some(path) => Arc::new(Ticketer::new(&TicketSecrets::read(path)?, &hash)),
            // Each policy gets a ticketer with new keys, so that no ticket outlives its policy. A ticketer that is in
            // use replaces its keys every six hours, and tickets are valid for twelve: an attacker who gets its keys
            // cannot decrypt sessions of TLS 1.2 whose tickets are older than twelve hours.
            None => aws_lc_rs::Ticketer::new().expect("the system has random bytes"),
        };
        let lists: HashSet<_> = self.route_alpn.iter().chain([&self.alpn]).collect();
        let verifier = auth.as_ref().map(|auth| Arc::clone(&auth.verifier));
        let config = |alpn: &Protocols| self.config(alpn, resolver, provider, verifier.clone(), Arc::clone(&ticketer));
        Ok(HandshakePolicy {
            versions,
            configs: lists.into_iter().map(|alpn| (alpn.clone(), config(alpn))).collect(),
            crl_next_update: auth.as_ref().and_then(|auth| auth.next_update),
            warnings: auth.map_or_else(Vec::new, |auth| auth.warnings),
            verifier,
            ticketer,
        })
    }

    fn config(
        &self,
        alpn: &Protocols,
        resolver: &Arc<CertificateResolver>,
        provider: &Arc<CryptoProvider>,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        ticketer: Arc<dyn ProducesTickets>,
    ) -> Arc<ServerConfig> {
        let tls_versions: &[_] = match self.min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
        let builder = builder
            .with_protocol_versions(tls_versions)
            .expect("the provider has cipher suites for both versions");
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(resolver) as _);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // Sessions are resumed by tickets only: a cache would be one lock for all workers.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ticketer;
        Arc::new(config)
    }
}

impl ListenerTls {
    /// Reads all files, except those of certificates that were read `before` and have not changed. Takes long if there
    /// are many files.
    ///
    /// # Errors
    /// A file or a directory cannot be used, or there is no certificate. The error is about one of them.
    pub fn load(plan: ListenerTlsPlan, before: &CertificateStore) -> Result<Self, TlsFileError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let LoadedStore { store, mut broken, .. } = CertificateStore::load(&plan.certificates, before);
        if !broken.is_empty() {
            return Err(broken.remove(0));
        }
        if store.all().is_empty() {
            return Err(plan.no_certificate());
        }
        let resolver = Arc::new(CertificateResolver(ArcSwap::from_pointee(store)));
        let policy = plan.policy(&resolver, &provider)?;
        Ok(Self {
            plan,
            provider,
            resolver,
            policy: ArcSwap::from_pointee(policy),
            broken: ArcSwap::default(),
            reload: Mutex::default(),
            last_expiry_check: LastExpiryCheck::default(),
        })
    }

    /// Reads the files that have changed, and puts in force what is not broken. Takes long if many have changed.
    pub fn reload(&self) -> TlsReload {
        let _one_at_a_time = self.reload.lock();
        let LoadedStore {
            store,
            mut changed,
            mut warnings,
            mut broken,
        } = CertificateStore::load(&self.plan.certificates, &self.certificates());
        if store.all().is_empty() {
            // The certificates in force stay.
            changed = 0;
            warnings.clear();
            broken.push(self.plan.no_certificate());
        }
        let mut broken: Vec<_> = broken.iter().map(ToString::to_string).collect();
        if changed > 0 {
            self.resolver.0.store(Arc::new(store));
        }
        let mut has_policy_changed = false;
        if self.plan.versions() != self.policy.load().versions {
            match self.plan.policy(&self.resolver, &self.provider) {
                Ok(policy) => {
                    self.policy.store(Arc::new(policy));
                    has_policy_changed = true;
                }
                Err(error) => broken.push(error.to_string()),
            }
        }
        let since_last_check = self.last_expiry_check.advance();
        let store = self.certificates();
        let expired = store
            .all()
            .iter()
            .filter(|certificate| since_last_check.contains(&certificate.not_after));
        warnings.extend(expired.map(|certificate| certificate.expiry_warning()));
        // If the policy has changed, the caller logs all its warnings: see [`Self::client_auth_warnings`].
        let next_update = self
            .crl_next_update()
            .filter(|next| since_last_check.contains(next) && !has_policy_changed);
        warnings.extend(next_update.and_then(|next| self.outdated_warning(next)));
        let before = self.broken.swap(Arc::new(broken.clone()));
        broken.retain(|error| !before.contains(error));
        TlsReload {
            certificates: changed,
            has_policy_changed,
            warnings,
            broken,
        }
    }

    /// What is configured.
    #[must_use]
    pub fn plan(&self) -> &ListenerTlsPlan {
        &self.plan
    }

    /// The configuration of a handshake that may agree on this list of protocols: the list of the listener, or of one
    /// of its routes. `None`: it is another list.
    #[must_use]
    pub fn config(&self, alpn: &[Box<[u8]>]) -> Option<Arc<ServerConfig>> {
        let policy = self.policy.load();
        let mut configs = policy.configs.iter();
        let (alpn, config) = configs.find(|(list, _)| list == alpn)?;
        let Some(verifier) = &policy.verifier else {
            return Some(Arc::clone(config));
        };
        let (verifier, ticketer) = for_one_client(verifier, &policy.ticketer);
        let plan = &self.plan;
        Some(plan.config(alpn, &self.resolver, &self.provider, Some(verifier), ticketer))
    }

    /// The configuration of a handshake that may agree on the protocols of the listener.
    ///
    /// # Panics
    /// Never: there is a configuration for each list of protocols of the plan.
    #[must_use]
    pub fn default_config(&self) -> Arc<ServerConfig> {
        self.config(&self.plan.alpn)
            .expect("there is one for the list of the plan")
    }

    /// The certificates in force.
    #[must_use]
    pub fn certificates(&self) -> Arc<CertificateStore> {
        self.resolver.0.load_full()
    }

    /// Problems of the files of `client_auth` that do not prevent their use.
    #[must_use]
    pub fn client_auth_warnings(&self) -> Vec<String> {
        let mut warnings = self.policy.load().warnings.clone();
        let passed = self.crl_next_update().filter(|next| *next < unix_now());
        warnings.extend(passed.and_then(|next| self.outdated_warning(next)));
        warnings
    }

    /// The earliest time at which a list of revoked certificates should be replaced, in seconds since the Unix epoch;
    /// `None`: there are no lists.
    #[must_use]
    pub fn crl_next_update(&self) -> Option<i64> {
        self.policy.load().crl_next_update
    }

    fn outdated_warning(&self, next_update: i64) -> Option<String> {
        self.plan.client_auth.as_ref()?.outdated_warning(next_update)
    }

    /// The certificate for a client that asks for this name (`None`: for no name) and can verify any kind of key.
    #[must_use]
    pub fn certificate_for(&self, name: Option<&str>) -> Option<Arc<Certificate>> {
        let store = self.certificates();
        let named = name.and_then(|name| store.for_name(name).first());
        named.or_else(|| store.all().first()).cloned()
    }

    /// The errors of the broken files: they were changed, and cannot be used. What was in force before still is.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.broken.load().to_vec()
    }
}

#[cfg(test)]
mod tests;
