//! The TLS handshake with a connected server.

use std::net::Ipv4Addr;

use tokio::net::TcpStream;

use crate::pool::Server;
use crate::tls::{
    ClientChoice, HandshakeError, OfferedProtocols, PoolTls, SentSni, TlsConnection, handshake_with_server,
};

/// What a dial needs for the TLS handshake with a server.
#[derive(Clone, Copy, Debug)]
pub struct DialTls<'a> {
    /// The TLS settings of the pool.
    pub tls: &'a PoolTls,
    /// The name that the client asked for, and the protocol that was agreed with the client.
    pub client: ClientChoice<'a>,
    /// The bytes for the server before the handshake: a PROXY header, or nothing.
    pub header: &'a [u8],
}

/// Why the handshake was not completed.
#[derive(Debug)]
pub(super) struct TlsFailure {
    pub(super) error: HandshakeError,
    /// Whether the server was sent a name or a protocol that came from the client, and may be the cause. Then the
    /// failure does not count against the server: otherwise a client could eject servers by names that they do not
    /// have.
    pub(super) may_be_client_fault: bool,
}

/// Sends the PROXY header, and completes a handshake. The caller bounds the time.
pub(super) async fn begin_tls(
    socket: &TcpStream,
    server: &Server,
    DialTls { tls, client, header }: &DialTls<'_>,
) -> Result<Box<TlsConnection>, TlsFailure> {
    let begin = async {
        let spec = server.spec();
        // A server on a Unix socket is on this machine.
        let ip = spec.address.ip().unwrap_or(Ipv4Addr::LOCALHOST.into());
        let connection = tls.connection(*client, spec.host(), ip, server.tls_sessions())?;
        let mut connection = Box::new(connection);
        handshake_with_server(socket, &mut connection, header.to_vec()).await?;
        let has_selected = connection.negotiated().alpn_protocol().is_some();
        if !has_selected && tls.plan().alpn.must_be_selected(*client) {
            return Err(rustls::Error::NoApplicationProtocol.into());
        }
        Ok(connection)
    };
    begin.await.map_err(|error| {
        let sends_client_name = client.name.is_some() && tls.plan().sni == SentSni::Client;
        let offers_client_protocol = client.protocol.is_some() && tls.plan().alpn == OfferedProtocols::Client;
        TlsFailure {
            error,
            may_be_client_fault: sends_client_name || offers_client_protocol,
        }
    })
}
