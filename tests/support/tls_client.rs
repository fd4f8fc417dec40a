//! TLS clients.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::PATIENCE;
use super::authority::{Authority, Issued};
use super::tls_peer::TlsPeer;

/// How a client connects.
#[derive(Clone)]
pub struct TlsSetup {
    pub config: Arc<ClientConfig>,
}

impl TlsSetup {
    /// Trusts this authority.
    pub fn trusting(authority: &Authority) -> Self {
        Self::new(authority, rustls::ALL_VERSIONS, None)
    }

    /// As [`Self::trusting`], with these versions; `own` is the certificate that the client shows.
    pub fn new(authority: &Authority, versions: &[&'static SupportedProtocolVersion], own: Option<&Issued>) -> Self {
        Self::with_root(&authority.certificate(), versions, own)
    }

    /// Trusts the authority in this PEM text.
    pub fn trusting_pem(root: &str) -> Self {
        Self::with_root(root, rustls::ALL_VERSIONS, None)
    }

    fn with_root(root: &str, versions: &[&'static SupportedProtocolVersion], own: Option<&Issued>) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(root.as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = own.chain_and_key();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.resumption = Resumption::in_memory_sessions(8);
        Self {
            config: Arc::new(config),
        }
    }

    /// Offers these protocols by ALPN.
    pub fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self {
            config: Arc::new(config),
        }
    }

    /// Its ClientHello for this name.
    pub fn hello(&self, name: &str) -> Vec<u8> {
        let mut hello = Vec::new();
        self.connection(name).write_tls(&mut hello).unwrap();
        hello
    }

    /// Connects, and completes the handshake.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsClient> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        self.over(socket, name)
    }

    /// As [`Self::connect`], over a socket that is already connected.
    pub fn over(&self, socket: TcpStream, name: &str) -> io::Result<TlsClient> {
        TlsPeer::over(socket, self.connection(name))
    }

    fn connection(&self, name: &str) -> ClientConnection {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        ClientConnection::new(Arc::clone(&self.config), name).unwrap()
    }
}

/// The client's end of a connection.
pub type TlsClient = TlsPeer<ClientConnection>;
