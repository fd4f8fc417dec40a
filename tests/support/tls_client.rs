//! TLS clients.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::PATIENCE;
use super::authority::{Authority, Issued};

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

    pub fn new(authority: &Authority, versions: &[&'static SupportedProtocolVersion], own: Option<&Issued>) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
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

    /// Offers these protocols.
    pub fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self {
            config: Arc::new(config),
        }
    }

    /// Connects, and completes the handshake.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsClient> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        self.over(socket, name)
    }

    /// The same over a socket that is connected.
    pub fn over(&self, mut socket: TcpStream, name: &str) -> io::Result<TlsClient> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(TlsClient(StreamOwned::new(connection, socket)))
    }
}

/// A TLS client whose handshake is complete.
pub struct TlsClient(pub StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write_all(bytes).unwrap();
        self.0.flush().unwrap();
        self
    }

    /// Ends its stream: `close_notify`, and the end of the TCP stream.
    pub fn finish(&mut self) -> &mut Self {
        self.0.conn.send_close_notify();
        self.0.flush().unwrap();
        self.0.sock.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Ends its TCP stream without `close_notify`.
    pub fn truncate(&mut self) -> &mut Self {
        self.0.sock.shutdown(Shutdown::Write).unwrap();
        self
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// All bytes until the end of the stream, and what ended it, if that is not `close_notify`.
    pub fn read_to_end(&mut self) -> (Vec<u8>, Result<(), io::ErrorKind>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes);
        (bytes, end.map(|_| ()).map_err(|error| error.kind()))
    }

    /// The certificate that the server has shown.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub fn protocol(&self) -> Option<String> {
        let protocol = self.0.conn.alpn_protocol()?;
        Some(String::from_utf8(protocol.to_vec()).unwrap())
    }
}
