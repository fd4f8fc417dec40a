//! TLS servers, each with a self-signed certificate for its names.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::server::Server;

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A TLS server with a certificate for `name`. It answers HTTP/1.1 and HTTP/2 requests with a page that contains the
/// name.
pub fn tls_server(name: &'static str) -> Server {
    serve(config_for(vec![name.to_owned()]).0, name)
}

/// A TLS server whose certificate is for all of these names, and that certificate in PEM.
pub fn tls_server_of_many(names: Vec<String>) -> (Server, String) {
    let (config, certificate) = config_for(names);
    (serve(config, "many"), certificate)
}

fn serve(config: ServerConfig, name: &'static str) -> Server {
    let config = Arc::new(config);
    Server::run(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        // An error on this side is seen by the test on the client's side.
        let _ = answer(StreamOwned::new(connection, stream), name);
    })
}

/// A configuration with a certificate for these names, and that certificate in PEM.
pub fn config_for(names: Vec<String>) -> (ServerConfig, String) {
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let pem = made.cert.pem();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = versions
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (config, pem)
}

fn answer(mut tls: Tls, name: &str) -> std::io::Result<()> {
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    let page = format!("this is {name}\n");
    if tls.conn.alpn_protocol() == Some(b"h2") {
        http2(&mut tls, page.as_bytes())?;
    } else {
        http1(&mut tls, page.as_bytes())?;
    }
    tls.conn.send_close_notify();
    tls.flush()?;
    std::io::copy(&mut tls.sock, &mut std::io::sink()).map(drop)
}

fn http1(tls: &mut Tls, page: &[u8]) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    write!(
        tls,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        page.len()
    )?;
    tls.write_all(page)
}

// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

// Flags of frames.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Answers one HTTP/2 request (RFC 9113), whatever it is.
fn http2(tls: &mut Tls, page: &[u8]) -> std::io::Result<()> {
    tls.read_exact(&mut [0; 24])?; // the client's preface
    frame(tls, SETTINGS, 0, 0, &[])?;
    loop {
        let mut head = [0; 9];
        tls.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        std::io::copy(&mut Read::by_ref(tls).take(length.into()), &mut std::io::sink())?;
        match head[3] {
            SETTINGS if head[4] & ACK == 0 => frame(tls, SETTINGS, ACK, 0, &[])?,
            HEADERS => {
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                frame(tls, HEADERS, END_HEADERS, stream, &[0x88])?; // RFC 7541, appendix A: `:status: 200`
                frame(tls, DATA, END_STREAM, stream, page)?;
                // NO_ERROR. This stream was the last one to be processed, so the client must not repeat its request.
                return frame(tls, GOAWAY, 0, 0, &[stream.to_be_bytes(), [0; 4]].concat());
            }
            _ => {}
        }
    }
}

fn frame(tls: &mut Tls, kind: u8, flags: u8, stream: u32, content: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    tls.write_all(&[&head, content].concat())?;
    tls.flush()
}
