//! The TLS with the servers of a pool: what is configured, and what is in force.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::certificate::{Certificate, CertificateFiles, parse_key};
use super::connection::TlsConnection;
use super::file::{FileVersion, PemText, TlsFileError, certificates, file_version};
use super::last_expiry_check::LastExpiryCheck;
use super::listener::{Protocols, TlsReload};
use super::verification::{any_certificate_verifier, authority_verifier};
use crate::name::ServerName;

/// For how many names a server's tickets are kept. A server has several names where `sni` is the client's, or after a
/// reload has changed `sni`; beyond this number, the tickets of the names that were added first are dropped.
const NAMES_WITH_SESSIONS_MAX: usize = 32;

/// How many tickets rustls keeps for a name. The size of its cache is a number of tickets.
const TICKETS_OF_NAME_MAX: usize = 8;

/// `[pools.NAME.tls]`: how TLS with the servers of a pool begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolTlsPlan {
    /// The name that servers are asked for. If their certificates are verified, these must have it.
    pub sni: SentSni,
    /// The protocols that servers are offered.
    pub alpn: OfferedProtocols,
    /// Whether certificates of servers are verified.
    pub verify: bool,
    /// The authorities of servers; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for servers that ask for one.
    pub identity: Option<CertificateFiles>,
}

/// The name that servers are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SentSni {
    /// The host name in the server's address. If that has none, no name is sent, and a certificate that is verified
    /// must be for the IP address.
    #[default]
    Host,
    /// The name that the client has asked for; if it has asked for none, as [`Self::Host`].
    Client,
    /// This name.
    Name(ServerName),
}

/// The protocols that servers are offered (RFC 7301).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferedProtocols {
    /// These protocols; if the list is empty, none is offered.
    List(Protocols),
    /// The protocol that was agreed with the client.
    Client,
}

impl OfferedProtocols {
    /// The protocols that a server is offered for a client.
    fn offered<'a>(&'a self, client: ClientChoice<'a>) -> Vec<&'a [u8]> {
        match self {
            Self::List(list) => list.iter().map(|protocol| &**protocol).collect(),
            Self::Client => client.protocol.into_iter().collect(),
        }
    }

    /// Whether the server must select a protocol: only if it is offered nothing but HTTP/2, which requires that (RFC
    /// 9113, section 3.2). Servers of other protocols may not know ALPN.
    #[must_use]
    pub fn must_be_selected(&self, client: ClientChoice<'_>) -> bool {
        self.offered(client) == [b"h2"]
    }
}

impl SentSni {
    /// The name for a server at this address. `host` is the server's host name, if it has one. `client_name` is the
    /// name that the client has asked for. If the result is an IP address, rustls sends no name (RFC 6066, section 3).
    #[must_use]
    pub fn server_name(
        &self,
        client_name: Option<&ServerName>,
        host: Option<&str>,
        address: IpAddr,
    ) -> pki_types::ServerName<'static> {
        let name = match self {
            Self::Name(name) => Some(name.as_str()),
            Self::Client => client_name.map(ServerName::as_str).or(host),
            Self::Host => host,
        };
        let name = name.and_then(|name| pki_types::ServerName::try_from(name.to_owned()).ok());
        name.unwrap_or_else(|| pki_types::ServerName::IpAddress(address.into()))
    }
}

impl Default for OfferedProtocols {
    fn default() -> Self {
        Self::List(Protocols::new())
    }
}

/// What the client of a session has asked for and agreed to in its own TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientChoice<'a> {
    /// The name that it has asked for.
    pub name: Option<&'a ServerName>,
    /// The protocol that was agreed with it.
    pub protocol: Option<&'a [u8]>,
}

/// The TLS in force with the servers of a pool. Its files may be read again at any time; handshakes under way
/// go on with the settings that they began with.
#[derive(Debug)]
pub struct PoolTls {
    plan: PoolTlsPlan,
    current: ArcSwap<Current>,
    /// The broken file that was reported last; `None` while the files can be used. Not guarded by `reload`, so that
    /// readers never wait for a reload: a file may be on a file system that hangs.
    broken: ArcSwapOption<TlsFileError>,
    /// Held while the files are read: by one thread at a time.
    reload: Mutex<()>,
    last_expiry_check: LastExpiryCheck,
}

/// The configuration of handshakes.
#[derive(Debug)]
struct Current {
    /// The versions of the files; taken before they were read.
    versions: Vec<Option<FileVersion>>,
    config: Arc<ClientConfig>,
    identity: Option<Arc<Certificate>>,
}

/// The sessions that can be resumed with one server.
#[derive(Clone, Debug)]
pub struct ResumableSessions(Arc<dyn ClientSessionStore>);

impl Default for ResumableSessions {
    fn default() -> Self {
        let tickets_max = NAMES_WITH_SESSIONS_MAX * TICKETS_OF_NAME_MAX;
        Self(Arc::new(ClientSessionMemoryCache::new(tickets_max)))
    }
}

impl PoolTlsPlan {
    /// The configured files that are read, each with its key in `[pools.NAME.tls]`.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files: Vec<(&'static str, &Path)> = Vec::new();
        if self.verify {
            files.extend(self.ca_file.as_deref().map(|path| ("ca_file", path)));
        }
        if let Some(CertificateFiles { cert, key }) = &self.identity {
            files.push(("cert", cert));
            files.push(("key", key));
        }
        files
    }

    fn versions(&self) -> Vec<Option<FileVersion>> {
        self.files().iter().map(|(_, path)| file_version(path)).collect()
    }

    fn read(&self) -> Result<Current, TlsFileError> {
        let versions = self.versions();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = if self.verify {
            let trusted = self.ca_file.as_deref().map(PemText::read).transpose()?;
            authority_verifier(trusted.as_ref(), &provider)?
        } else {
            any_certificate_verifier(&provider)
        };
        let mut config = config_with(provider, verifier);
        let identity = self.identity.as_ref().map(CertificateFiles::load).transpose()?;
        if let Some(certificate) = &identity {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&certificate.certified_key)));
        }
        if let OfferedProtocols::List(protocols) = &self.alpn {
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        }
        Ok(Current {
            versions,
            config: Arc::new(config),
            identity: identity.map(Arc::new),
        })
    }
}

/// The configuration of handshakes where nothing is configured: any certificate is accepted.
#[must_use]
pub fn unverified_config() -> Arc<ClientConfig> {
    let read = PoolTlsPlan::default().read();
    read.expect("no file is read").config
}

/// A configuration that accepts only servers with a valid certificate of the authorities in `ca_file`; `None`: of those
/// of the system. `identity`: our certificate, for servers that ask for one.
///
/// # Errors
/// A file, or the system trust store, cannot be used.
pub fn client_config(
    ca_file: Option<&Path>,
    identity: Option<&CertificateFiles>,
) -> Result<Arc<ClientConfig>, TlsFileError> {
    let plan = PoolTlsPlan {
        verify: true,
        ca_file: ca_file.map(Path::to_owned),
        identity: identity.cloned(),
        ..PoolTlsPlan::default()
    };
    Ok(plan.read()?.config)
}

/// As [`client_config`], from texts instead of files. `identity`: our certificate with its chain, and its key, for
/// servers that ask for one.
///
/// # Errors
/// A text, or the system trust store, cannot be used.
pub fn client_config_of(
    trusted: Option<&PemText>,
    identity: Option<&(PemText, PemText)>,
) -> Result<Arc<ClientConfig>, TlsFileError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = config_with(Arc::clone(&provider), authority_verifier(trusted, &provider)?);
    if let Some((chain, key)) = identity {
        let (certificates, parsed) = (
            certificates(&chain.name, &chain.text)?,
            parse_key(&key.name, &key.text)?,
        );
        let certified = CertifiedKey::from_der(certificates, parsed, &provider);
        let certified = certified.map_err(|error| TlsFileError::new(&key.name, error.to_string()))?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    }
    Ok(Arc::new(config))
}

fn config_with(provider: Arc<CryptoProvider>, verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of the usual versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

impl PoolTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file, or the system trust store, cannot be used. The error is about the first of them.
    pub fn load(plan: PoolTlsPlan) -> Result<Self, TlsFileError> {
        Ok(Self {
            current: ArcSwap::from_pointee(plan.read()?),
            plan,
            broken: ArcSwapOption::empty(),
            reload: Mutex::default(),
            last_expiry_check: LastExpiryCheck::default(),
        })
    }

    /// Reads the files if they have changed, and puts them in force if none is broken.
    pub fn reload(&self) -> TlsReload {
        let mut result = TlsReload::default();
        let _one_at_a_time = self.reload.lock();
        let since_last_check = self.last_expiry_check.advance();
        let expired = self.identity().filter(|own| since_last_check.contains(&own.not_after));
        result.warnings.extend(expired.map(|own| own.expiry_warning()));
        if self.plan.versions() == self.current.load().versions {
            self.broken.store(None);
            return result;
        }
        match self.plan.read() {
            Ok(current) => {
                self.current.store(Arc::new(current));
                self.broken.store(None);
                result.has_policy_changed = true;
            }
            Err(error) => {
                let before = self.broken.swap(Some(Arc::new(error.clone())));
                if before.as_deref() != Some(&error) {
                    result.broken.push(error.to_string());
                }
            }
        }
        result
    }

    /// What is configured.
    #[must_use]
    pub fn plan(&self) -> &PoolTlsPlan {
        &self.plan
    }

    /// The broken file: it was changed, and cannot be used. What was in force before still is.
    #[must_use]
    pub fn broken(&self) -> Option<TlsFileError> {
        self.broken.load().as_deref().cloned()
    }

    /// Our certificate, if there is one.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<Certificate>> {
        self.current.load().identity.clone()
    }

    /// The configuration of handshakes at this moment.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Begins a connection for a client to the server with this host name and address. The server's earlier sessions
    /// may be resumed.
    ///
    /// # Errors
    /// Those of rustls, for a configuration that contradicts itself.
    pub fn connection(
        &self,
        client: ClientChoice<'_>,
        host: Option<&str>,
        address: IpAddr,
        sessions: &ResumableSessions,
    ) -> Result<TlsConnection, rustls::Error> {
        let mut config = ClientConfig::clone(&self.current.load().config);
        // Each server has sessions of its own, because other servers usually cannot decrypt its tickets.
        config.resumption = Resumption::store(Arc::clone(&sessions.0));
        let protocols = self.plan.alpn.offered(client).into_iter().map(<[u8]>::to_vec).collect();
        let name = self.plan.sni.server_name(client.name, host, address);
        TlsConnection::client(Arc::new(config), name, protocols)
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn sessions_of_32_names_can_be_resumed() {
        let sessions = ResumableSessions::default();
        let names: Vec<_> = (0..NAMES_WITH_SESSIONS_MAX)
            .map(|number| pki_types::ServerName::try_from(format!("h{number}.example")).unwrap())
            .collect();
        // The cache has one entry for each name, with its tickets and this hint: both are kept equally long.
        for name in &names {
            sessions.0.set_kx_hint(name.clone(), NamedGroup::X25519);
        }
        assert!(names.iter().all(|name| sessions.0.kx_hint(name).is_some()));
    }
}
