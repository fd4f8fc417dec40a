//! A server in front of Pebble that also says when certificates are to be renewed (RFC 9773), which Pebble 2.4 cannot.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::{ServerConfig, ServerConnection};
use serde_json::Value;

use super::pebble::Pebble;
use super::server::Server;
use super::tls_client::TlsSetup;
use super::tls_peer::TlsPeer;
use super::tls_server::ManualTlsServer;

/// The server. It answers requests about renewals itself. It forwards all others to Pebble, except orders that
/// [`Self::refusing`] refuses, and adds to Pebble's responses only what RFC 9773 adds to the directory and to orders.
pub struct RenewalServer {
    server: Server,
    seen: Arc<Mutex<Seen>>,
}

/// What clients have requested.
#[derive(Clone, Default)]
pub struct Seen {
    /// The identifiers of the certificates in requests about renewals.
    pub asked: Vec<String>,
    /// The identifiers of certificates that orders replace.
    pub replaced: Vec<String>,
    /// The number of orders.
    pub orders: usize,
}

/// Returns the whole response to a request about the renewal of the certificate with this identifier. `None`: the
/// request is never answered.
type Answer = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// What answers the requests.
struct Handler {
    config: Arc<ServerConfig>,
    /// How to connect to Pebble.
    connector: TlsSetup,
    pebble: std::net::SocketAddr,
    answer: Box<Answer>,
    /// The response to orders that name the certificate that they replace. `None`: such orders are forwarded.
    refusal: Option<Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
}

impl RenewalServer {
    pub fn new(pebble: &Pebble, answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::refusing(pebble, answer, None)
    }

    /// As [`Self::new`], but answers with `refusal` to orders that name the certificate that they replace.
    pub fn refusing(
        pebble: &Pebble,
        answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
        refusal: Option<Vec<u8>>,
    ) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let authority = pebble.authority();
        let handler = Handler {
            config: ManualTlsServer::new(&authority.issue(&["localhost"])).config,
            connector: TlsSetup::trusting(authority),
            pebble: pebble.address(),
            answer: Box::new(answer),
            refusal,
            seen: Arc::clone(&seen),
        };
        let server = Server::run(move |socket| {
            // An error on this side is seen by the test on the client's side.
            let _ = handler.serve(socket);
        });
        Self { server, seen }
    }

    pub fn port(&self) -> u16 {
        self.server.address.port()
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Handler {
    /// Answers one request.
    fn serve(&self, socket: TcpStream) -> std::io::Result<()> {
        let port = socket.local_addr()?.port();
        let mut client = TlsPeer::over(socket, ServerConnection::new(Arc::clone(&self.config)).unwrap())?;
        let (head, body) = read_request(&mut client.0)?;
        let path = head.split(' ').nth(1).unwrap();
        let response = if let Some(identifier) = path.strip_prefix("/renewal-info/") {
            self.seen.lock().unwrap().asked.push(identifier.to_owned());
            let Some(response) = (self.answer)(identifier) else {
                return client.0.read(&mut [0]).map(drop); // until the client leaves
            };
            response
        } else if path == "/dir" {
            let url = format!("https://localhost:{port}/renewal-info");
            with_member(&self.forward(&head, &body)?, "renewalInfo", url)
        } else {
            self.response_to_acme(path, &head, &body)?
        };
        client.0.write_all(&response)?;
        client.0.conn.send_close_notify();
        client.0.flush()
    }

    /// The response to a request that Pebble understands. Counts orders.
    fn response_to_acme(&self, path: &str, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let replaced = replaced(body);
        let response = match &self.refusal {
            Some(refusal) if replaced.is_some() => refusal.clone(),
            _ => self.forward(head, body)?,
        };
        // Pebble rejects some nonces by chance. The client then sends its request again.
        if !String::from_utf8_lossy(&response).contains("badNonce") {
            let mut seen = self.seen.lock().unwrap();
            seen.orders += usize::from(path == "/order-plz");
            seen.replaced.extend(replaced.clone());
        }
        Ok(match replaced {
            Some(replaced) if self.refusal.is_none() => with_member(&response, "replaces", replaced),
            _ => response,
        })
    }

    /// Pebble's response. The header `Host` is passed on: Pebble takes its own name from it, and the client has signed
    /// URLs with that name.
    fn forward(&self, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut pebble = self.connector.connect(self.pebble, "localhost")?;
        let head = head.trim_end();
        pebble.send(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
        pebble.send(body);
        Ok(pebble.read_to_end().0)
    }
}

/// The head of a request, and its body.
fn read_request(client: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    client.read_exact(&mut body)?;
    Ok((head, body))
}

/// The identifier of the certificate that an order replaces; `None`: this is not an order, or it replaces nothing.
fn replaced(body: &[u8]) -> Option<String> {
    let signed = serde_json::from_slice::<Value>(body).ok()?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str()?).ok()?;
    let payload = serde_json::from_slice::<Value>(&payload).ok()?;
    Some(payload["replaces"].as_str()?.to_owned())
}

/// Adds a member to the JSON object in the body of a response.
fn with_member(response: &[u8], name: &str, value: String) -> Vec<u8> {
    let text = String::from_utf8(response.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut body = serde_json::from_str::<Value>(body).unwrap();
    body[name] = value.into();
    let body = body.to_string();
    let kept = head
        .lines()
        .filter(|line| !line.to_lowercase().starts_with("content-length:"));
    let head: String = kept.map(|line| format!("{line}\r\n")).collect();
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
