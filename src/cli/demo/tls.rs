//! A small HTTPS server with a certificate of its own: whose name it shows is who has answered.

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
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// For a client to finish its handshake, and to send the head of each request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A self-signed certificate, made on the spot, for one name.
///
/// # Errors
/// The certificate cannot be made: a fault of ours.
pub(super) fn acceptor(server: &str, certified: &str) -> io::Result<TlsAcceptor> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::new([certified.to_owned()]).map_err(io::Error::other)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("acequia demo, server {server}"));
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves every client, for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, name: &'static str, acceptor: TlsAcceptor) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(answer(socket, name, acceptor.clone()));
    }
}

async fn answer(socket: TcpStream, name: &'static str, acceptor: TlsAcceptor) {
    // Whoever breaks off the handshake, like a health check, is not answered.
    let Ok(Ok(socket)) = timeout(PATIENCE, acceptor.accept(socket)).await else {
        return;
    };
    let asked = socket.get_ref().1.server_name().unwrap_or("nobody by name");
    let text = format!("server {name} answers a client that asked for {asked}\n");
    let service = service_fn(move |_: Request<_>| {
        let answer = Response::new(text.clone());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(socket), service);
    let _ = connection.await; // what goes wrong here is the client's affair
}
