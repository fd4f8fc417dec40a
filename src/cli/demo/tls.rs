//! An HTTPS server with a self-signed certificate. Its responses and its certificate contain its name. Also writes the
//! certificate of the load balancer.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::{Certificate, CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// The time for the handshake, and for the head of each request.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes a self-signed certificate of the load balancer for one host name, and its key, to a new file that only this
/// user may read.
///
/// # Errors
/// The certificate cannot be created (a bug), or the file cannot be written.
pub(super) fn write_certificate(path: &Path, host: &str) -> io::Result<()> {
    let (certificate, key) = self_signed("balancer", host)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all((certificate.pem() + &key.serialize_pem()).as_bytes())
}

/// An acceptor with a self-signed certificate of this server for one host name.
///
/// # Errors
/// The certificate cannot be created: a bug.
pub(super) fn acceptor(server: &str, host: &str) -> io::Result<TlsAcceptor> {
    let (certificate, key) = self_signed(&format!("server {server}"), host)?;
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

/// A self-signed certificate for one host name, and its key. `owner` is a part of its common name.
fn self_signed(owner: &str, host: &str) -> io::Result<(Certificate, KeyPair)> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::new([host.to_owned()]).map_err(io::Error::other)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("acequia demo, {owner}"));
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    Ok((certificate, key))
}

/// Serves clients until a client cannot be accepted, for example because too many files are open.
pub(super) async fn serve(listener: TcpListener, server: &'static str, acceptor: TlsAcceptor) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve_client(socket, server, acceptor.clone()));
    }
}

async fn serve_client(socket: TcpStream, server: &'static str, acceptor: TlsAcceptor) {
    // Clients that abort the handshake, such as health checks, get no response.
    let Ok(Ok(socket)) = timeout(CLIENT_TIMEOUT, acceptor.accept(socket)).await else {
        return;
    };
    let asked = socket.get_ref().1.server_name().unwrap_or("no name");
    let text = format!("server {server} answers a client that asked for {asked}\n");
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
