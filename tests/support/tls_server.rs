//! A TLS server whose sessions the test serves.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::authority::{Authority, Issued};
use super::server::ManualServer;
use super::tls_peer::TlsPeer;

/// The server's end of a connection.
pub type TlsSession = TlsPeer<ServerConnection>;

/// A server whose TLS sessions the test serves itself, one at a time.
pub struct ManualTlsServer {
    pub manual: ManualServer,
    pub config: Arc<ServerConfig>,
}

impl ManualTlsServer {
    /// A server with this certificate.
    pub fn new(certificate: &Issued) -> Self {
        Self::with(certificate, rustls::ALL_VERSIONS, None)
    }

    /// As [`Self::new`], with these TLS versions. With a `client_authority`, clients need a certificate that it issued.
    pub fn with(
        certificate: &Issued,
        versions: &[&'static SupportedProtocolVersion],
        client_authority: Option<&Authority>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = match client_authority {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
                roots.add(root).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let (chain, key) = certificate.chain_and_key();
        Self {
            manual: ManualServer::new(),
            config: Arc::new(builder.with_single_cert(chain, key).unwrap()),
        }
    }

    /// Makes the server select one of these protocols by ALPN.
    pub fn selecting(mut self, protocols: &[&str]) -> Self {
        let config = Arc::get_mut(&mut self.config).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Accepts the next session, and completes its handshake.
    pub fn session(&self) -> TlsSession {
        self.over(self.manual.session()).unwrap()
    }

    /// A session over this connection, after its handshake.
    pub fn over(&self, socket: TcpStream) -> io::Result<TlsSession> {
        TlsPeer::over(socket, ServerConnection::new(Arc::clone(&self.config)).unwrap())
    }
}
