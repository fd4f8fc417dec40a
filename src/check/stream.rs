//! A connection of a check, encrypted or not.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::CheckTarget;

/// A stream of bytes to a server and from it.
pub(super) trait CheckStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> CheckStream for T {}

/// Begins TLS. The server name is the host name of the server, if it has one.
///
/// # Errors
/// Those of the handshake.
pub(super) async fn start_tls(
    stream: Box<dyn CheckStream>,
    config: Arc<ClientConfig>,
    target: &CheckTarget,
) -> io::Result<Box<dyn CheckStream>> {
    let name = target.host.as_deref();
    let name = name.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    // No name is sent for an IP address (RFC 6066, section 3).
    let name = name.unwrap_or_else(|| ServerName::IpAddress(target.address.ip().into()));
    let encrypted = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(encrypted))
}

/// Connects, and begins TLS if there is a configuration for it.
///
/// # Errors
/// Those of connecting, and of the handshake.
pub(super) async fn open_stream(
    target: &CheckTarget,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<Box<dyn CheckStream>> {
    let stream = Box::new(target.connect().await?);
    match tls {
        Some(config) => start_tls(stream, config, target).await,
        None => Ok(stream),
    }
}
