//! A connection of a check, encrypted or not.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::CheckTarget;
use crate::tls::SentSni;

/// A stream of bytes to a server and from it.
pub(super) trait CheckStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> CheckStream for T {}

/// Begins TLS. Asks for the same server name as a session of the pool whose client has asked for none. If the pool has
/// no TLS settings, asks for the host name of the server.
///
/// # Errors
/// Those of the handshake.
pub(super) async fn start_tls(
    stream: Box<dyn CheckStream>,
    config: Arc<ClientConfig>,
    target: &CheckTarget,
) -> io::Result<Box<dyn CheckStream>> {
    let sni = target.tls.as_ref().map(|tls| &tls.plan().sni);
    let name = target.server_name(sni.unwrap_or(&SentSni::Host));
    let encrypted = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(encrypted))
}

/// Connects, and begins TLS if `tls` is given. Kinds of checks with TLS settings of their own use [`super::tls::open`].
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
