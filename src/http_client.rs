//! HTTP/1.1 requests, each over a connection of its own. The commands of the command line send them to the running
//! process, at its Unix socket or admin port. The process sends them to ACME servers, etcd, Docker, Kubernetes and URLs
//! that list servers.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::error::with_context;
use crate::socket::{Keepalive, SocketOptions};
use crate::units::format_duration;

/// A server that vanishes without closing the connection is noticed after 35 s of silence (20 s, then three probes),
/// also while a response goes on for hours.
const SOCKET_OPTIONS: SocketOptions = SocketOptions {
    keepalive: Some(Keepalive {
        idle: Duration::from_secs(20),
        interval: Duration::from_secs(5),
        probes: 3,
    }),
    user_timeout: None,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// A connection to a server, with or without TLS.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Whether the server of a URL is reached over TLS. If not, no certificate is verified, and no CA certificates are
/// needed.
#[must_use]
pub fn uses_tls(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Connects to the server of a URL. `tls` is used only if the URL [needs it](uses_tls). There is no time limit: the
/// caller has to set one, for example with [`in_time`].
///
/// # Errors
/// The URL begins with neither `https:` nor `http:`, it needs TLS and `tls` is `None`, the host cannot be resolved or
/// connected to, or the TLS handshake fails.
pub async fn connect(url: &Uri, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Connection>> {
    let tls = match url.scheme_str() {
        Some("https") => Some(tls.ok_or_else(|| io::Error::other("the URL needs TLS"))?),
        Some("http") => None,
        _ => return Err(io::Error::other("the URL must begin with https:// or http://")),
    };
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']'); // RFC 3986, section 3.2.2
    let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let connected = TcpStream::connect((host, port)).await;
    let stream = connected.map_err(|error| with_context(error, format!("cannot connect to {host}:{port}")))?;
    SOCKET_OPTIONS.apply(&SockRef::from(&stream));
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connected = TlsConnector::from(tls).connect(name, stream).await;
    let stream = connected.map_err(|error| with_context(error, format!("no TLS with {host}:{port}")))?;
    Ok(Box::new(stream))
}

/// Takes the URL out of a request, and returns it. Only its path and its query stay in the request. The request gets a
/// `Host` header with the authority of the URL (RFC 9112, section 3.2.1), which is empty if the URL has none.
///
/// # Errors
/// The host or the path of the URL is not valid.
pub fn take_url<B>(request: &mut Request<B>) -> Result<Uri, BoxError> {
    let path = Uri::try_from(request.uri().path_and_query().map_or("/", |path| path.as_str()))?;
    let url = std::mem::replace(request.uri_mut(), path);
    let host = url.authority().map_or("", |authority| authority.as_str());
    request.headers_mut().insert(HOST, HeaderValue::from_str(host)?);
    Ok(url)
}

/// [`StreamedResponse::refusal`] reads no more once it has this much.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// A response whose body is read as it comes.
pub struct StreamedResponse {
    /// Its status.
    pub status: StatusCode,
    body: Incoming,
    _connection: ConnectionTask,
}

impl StreamedResponse {
    /// The next part of the body; `None` at its end. There is no time limit: the caller has to set one. A part is not
    /// lost if this future is dropped.
    ///
    /// # Errors
    /// The connection fails, or the body is not HTTP.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        loop {
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    /// If the status is not a success: the beginning of the body, for the error message, as far as it could be read.
    /// Otherwise reads and returns nothing. There is no time limit: the caller has to set one.
    pub async fn refusal(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while !self.status.is_success()
            && body.len() < REFUSAL_BYTES_MAX
            && let Ok(Some(bytes)) = self.next().await
        {
            body.extend_from_slice(&bytes);
        }
        body
    }
}

/// The lines of a response that may go on for hours, such as that to a watch.
pub struct ResponseLines {
    response: StreamedResponse,
    line_bytes_max: usize,
    received: Vec<u8>,
}

impl ResponseLines {
    /// The lines of a response, each of at most `line_bytes_max` bytes including its newline.
    #[must_use]
    pub fn new(response: StreamedResponse, line_bytes_max: usize) -> Self {
        Self {
            response,
            line_bytes_max,
            received: Vec::new(),
        }
    }

    /// The next line, including its newline; `None`: the response has ended. Bytes after the last newline are ignored.
    /// There is no time limit: the caller has to set one. Nothing is lost if this future is dropped.
    ///
    /// # Errors
    /// The connection fails, the body is not HTTP, or a line is too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, BoxError> {
        let mut searched = 0;
        loop {
            let newline = self.received[searched..].iter().position(|byte| *byte == b'\n');
            let line_bytes = newline.map_or(self.received.len(), |at| searched + at + 1);
            if line_bytes > self.line_bytes_max {
                return Err("a line of the answer is too long".into());
            }
            if newline.is_some() {
                return Ok(Some(self.received.drain(..line_bytes).collect()));
            }
            searched = self.received.len();
            let Some(bytes) = self.response.next().await? else {
                return Ok(None);
            };
            self.received.extend_from_slice(&bytes);
        }
    }
}

/// Sends a request and reads the head of the response. There is no time limit: the caller has to set one.
///
/// # Errors
/// The connection fails, or the response is not HTTP.
pub async fn open(
    stream: impl Connection + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StreamedResponse, BoxError> {
    let (response, connection) = send(stream, request).await?;
    Ok(StreamedResponse {
        status: response.status(),
        body: response.into_body(),
        _connection: connection,
    })
}

/// Sends a request and reads the response, with at most `body_bytes_max` bytes of body. There is no time limit: the
/// caller has to set one.
///
/// # Errors
/// The connection fails, the response is not HTTP, or its body is too long.
pub async fn exchange(
    stream: impl Connection + 'static,
    request: Request<Full<Bytes>>,
    body_bytes_max: usize,
) -> Result<Response<Bytes>, BoxError> {
    let (response, connection) = send(stream, request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, body_bytes_max).collect().await?.to_bytes();
    drop(connection);
    Ok(Response::from_parts(head, body))
}

/// Waits for an answer, for at most this long.
///
/// # Errors
/// Those of `answer`; or there is no answer in time: then the error names `server`.
pub async fn in_time<T>(
    limit: Duration,
    server: impl Display,
    answer: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let late = |_| Err(format!("{server} gives no answer within {}", format_duration(limit)).into());
    timeout(limit, answer).await.unwrap_or_else(late)
}

/// The task that runs a connection. Dropping this handle ends the connection.
type ConnectionTask = AbortOnDropHandle<Result<(), hyper::Error>>;

async fn send(
    stream: impl Connection + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, ConnectionTask), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    Ok((sender.send_request(request).await?, connection))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A response with this status and this body. The body ends with the connection.
    async fn response(status: &str, body: &str) -> StreamedResponse {
        let (near, mut far) = duplex(1 << 20);
        let head = format!("HTTP/1.1 {status}\r\n\r\n{body}");
        let answering = async move {
            let _ = far.read(&mut [0; 1024]).await.unwrap();
            far.write_all(head.as_bytes()).await.unwrap();
        };
        let request = Request::get("/").body(Full::default()).unwrap();
        let (opened, ()) = tokio::join!(open(near, request), answering);
        opened.unwrap()
    }

    #[tokio::test]
    async fn a_line_longer_than_the_bound_is_an_error_even_if_it_arrives_whole() {
        let mut lines = ResponseLines::new(response("200 OK", "12345\n123456\n1").await, 6);
        assert_eq!(lines.next().await.unwrap().unwrap(), b"12345\n");
        assert!(lines.next().await.unwrap_err().to_string().contains("too long"));
    }

    #[tokio::test]
    async fn a_last_line_without_a_newline_is_ignored() {
        let mut lines = ResponseLines::new(response("200 OK", "\n1").await, 6);
        assert_eq!(lines.next().await.unwrap().unwrap(), b"\n");
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn only_an_error_status_has_a_refusal() {
        assert_eq!(
            response("401 Unauthorized", "invalid token").await.refusal().await,
            b"invalid token"
        );
        assert_eq!(response("200 OK", "1").await.refusal().await, b"");
    }
}
