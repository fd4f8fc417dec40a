//! One end of a TLS connection whose handshake is complete.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::{Deref, DerefMut};

use rustls::pki_types::CertificateDer;
use rustls::{ConnectionCommon, HandshakeKind, SideData, StreamOwned};

/// A client or a server.
pub struct TlsPeer<C>(pub StreamOwned<C, TcpStream>)
where
    C: Deref + DerefMut;

impl<C, S> TlsPeer<C>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    /// Completes the handshake.
    pub(super) fn over(mut socket: TcpStream, mut connection: C) -> io::Result<Self> {
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self(StreamOwned::new(connection, socket)))
    }

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

    /// The certificate that the other end has shown.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    pub fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The protocol that was selected by ALPN.
    pub fn protocol(&self) -> Option<String> {
        let protocol = self.0.conn.alpn_protocol()?;
        Some(String::from_utf8(protocol.to_vec()).unwrap())
    }
}
