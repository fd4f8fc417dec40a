//! An HTTPS server with a self-signed certificate. Its responses and its certificate contain its name.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// The time for the handshake, and for the head of each request.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates a self-signed certificate for one name, and an acceptor that uses it.
///
/// # Errors
/// The certificate cannot be created: a bug.
pub(super) fn acceptor(server: &str, certified: &str) -> io::Result<TlsAcceptor> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::new([certified.to_owned()]).map_err(io::Error::other)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("acequia demo, server {server}"));
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves clients for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, name: &'static str, acceptor: TlsAcceptor) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve_client(socket, name, acceptor.clone()));
    }
}

async fn serve_client(socket: TcpStream, name: &'static str, acceptor: TlsAcceptor) {
    // Clients that abort the handshake, such as health checks, get no response.
    let Ok(Ok(socket)) = timeout(CLIENT_TIMEOUT, acceptor.accept(socket)).await else {
        return;
    };
    let asked = socket.get_ref().1.server_name().unwrap_or("nobody by name");
    let text = format!("server {name} answers a client that asked for {asked}\n");
    let service = service_fn(move |_: Request<_>| {
        let response = Response::new(text.clone());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CLIENT_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    let _ = connection.await; // errors are the client's
}
