//! The TLS of a listener: what is configured, and what is in force.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};

use super::certificate::{Certificate, CertificateSource};
use super::client_auth::{ClientAuthPlan, PolicyHash};
use super::file::{FileStamp, TlsFileError, file_version};
use super::store::{CertificateResolver, CertificateStore, LoadedStore};
use super::tickets::{TicketSecrets, Ticketer};

/// Names of protocols (RFC 7301), the preferred first; empty: none is agreed.
pub type Protocols = Vec<Box<[u8]>>;

/// The oldest version of TLS that is agreed.
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
    pub certificates: Vec<CertificateSource>,
    /// What is agreed where the route does not say otherwise.
    pub alpn: Protocols,
    /// The oldest version.
    pub min_version: MinVersion,
    /// Which certificates clients need; `None`: they are not asked for one.
    pub client_auth: Option<ClientAuthPlan>,
    /// The secrets of tickets, shared by a fleet; `None`: of this process alone.
    pub tickets: Option<PathBuf>,
    /// The lists of protocols of the routes that terminate TLS and have their own.
    pub route_alpn: Vec<Protocols>,
}

/// The TLS of a listener that is in force. Its files may be read again at any time; handshakes that are under way go on
/// with what they began with.
#[derive(Debug)]
pub struct ListenerTls {
    plan: ListenerTlsPlan,
    provider: Arc<CryptoProvider>,
    resolver: Arc<CertificateResolver>,
    policy: ArcSwap<HandshakePolicy>,
    state: Mutex<ReloadState>,
}

/// What handshakes are made with, apart from certificates.
#[derive(Debug)]
struct HandshakePolicy {
    versions: Vec<Option<FileStamp>>,
    /// A configuration for each list of protocols.
    configs: Vec<(Protocols, Arc<ServerConfig>)>,
}

/// What the next reading of the files needs to know. Only one thread reads at a time.
#[derive(Debug, Default)]
struct ReloadState {
    /// What is broken, and has been reported.
    broken: Vec<String>,
}

/// What came of reading the files again.
#[derive(Debug, Default)]
pub struct TlsReload {
    /// How many certificates are new, changed or gone.
    pub certificates: usize,
    /// Whether the rules for clients' certificates or the secrets of tickets have changed.
    pub policy: bool,
    /// What is broken now and was not before. What was in force stays.
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

    fn versions(&self) -> Vec<Option<FileStamp>> {
        let auth = self.client_auth.iter().flat_map(ClientAuthPlan::versions);
        auth.chain(self.tickets.iter().map(|path| file_version(path))).collect()
    }

    fn policy(
        &self,
        resolver: &Arc<CertificateResolver>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<HandshakePolicy, TlsFileError> {
        let versions = self.versions();
        let auth = self
            .client_auth
            .as_ref()
            .map(|auth| auth.verifier(provider))
            .transpose()?;
        let (verifier, hash) = auth.map_or((None, PolicyHash::default()), |(verifier, hash)| (Some(verifier), hash));
        let secrets = self
            .tickets
            .as_deref()
            .map_or_else(|| Ok(TicketSecrets::random()), TicketSecrets::read)?;
        let ticketer = Arc::new(Ticketer::new(&secrets, &hash));
        let config = |alpn: &Protocols| {
            let versions: &[_] = match self.min_version {
                MinVersion::Tls12 => &[&TLS13, &TLS12],
                MinVersion::Tls13 => &[&TLS13],
            };
            let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
            let builder = builder
                .with_protocol_versions(versions)
                .expect("the provider has suites of both");
            let builder = match &verifier {
                Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(Arc::clone(resolver) as _);
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            // Sessions are resumed by tickets alone: a cache would be one lock for all workers.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.ticketer = Arc::clone(&ticketer) as _;
            Arc::new(config)
        };
        let lists: HashSet<_> = self.route_alpn.iter().chain([&self.alpn]).collect();
        Ok(HandshakePolicy {
            versions,
            configs: lists.into_iter().map(|alpn| (alpn.clone(), config(alpn))).collect(),
        })
    }
}

impl ListenerTls {
    /// Reads all files. Takes time where there are many.
    ///
    /// # Errors
    /// What is wrong with the first file that cannot be used.
    pub fn load(plan: ListenerTlsPlan) -> Result<Self, TlsFileError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let LoadedStore { store, mut broken, .. } =
            CertificateStore::load(&plan.certificates, &CertificateStore::default());
        if !broken.is_empty() {
            return Err(broken.remove(0));
        }
        if store.all().is_empty() {
            let directory = plan.certificates.iter().find_map(|source| match source {
                CertificateSource::Directory(path) => Some(&**path),
                CertificateSource::Files { .. } => None,
            });
            let directory = directory.unwrap_or(Path::new(""));
            return Err(TlsFileError::new(
                directory,
                "there is no certificate with its key in it",
            ));
        }
        let resolver = Arc::new(CertificateResolver(ArcSwap::from_pointee(store)));
        let policy = plan.policy(&resolver, &provider)?;
        Ok(Self {
            plan,
            provider,
            resolver,
            policy: ArcSwap::from_pointee(policy),
            state: Mutex::default(),
        })
    }

    /// Reads the files that have changed, and puts in force what is not broken. Takes time where there are many.
    pub fn reload(&self) -> TlsReload {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let LoadedStore { store, changed, broken } =
            CertificateStore::load(&self.plan.certificates, &self.certificates());
        let mut broken: Vec<_> = broken.iter().map(ToString::to_string).collect();
        if changed > 0 && !store.all().is_empty() {
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
        let before = std::mem::replace(&mut state.broken, broken.clone());
        broken.retain(|error| !before.contains(error));
        TlsReload {
            certificates: changed,
            policy: has_policy_changed,
            broken,
        }
    }

    /// What is configured.
    #[must_use]
    pub fn plan(&self) -> &ListenerTlsPlan {
        &self.plan
    }

    /// What a handshake is made with, if this list of protocols may be agreed: that of the listener, or of one of its
    /// routes.
    #[must_use]
    pub fn config(&self, alpn: &[Box<[u8]>]) -> Option<Arc<ServerConfig>> {
        let policy = self.policy.load();
        let mut configs = policy.configs.iter();
        configs
            .find(|(list, _)| list == alpn)
            .map(|(_, config)| Arc::clone(config))
    }

    /// The certificates in force.
    #[must_use]
    pub fn certificates(&self) -> Arc<CertificateStore> {
        self.resolver.0.load_full()
    }

    /// The certificate for a client that can verify any.
    #[must_use]
    pub fn certificate_for(&self, name: Option<&str>) -> Option<Arc<Certificate>> {
        let store = self.certificates();
        let named = name.and_then(|name| store.for_name(name).first());
        named.or_else(|| store.all().first()).cloned()
    }

    /// What is broken: files that were changed and cannot be used. What was in force before is in force still.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).broken.clone()
    }
}
