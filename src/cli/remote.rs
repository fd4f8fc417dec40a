//! Requests to a running process over its Unix socket, or to its admin port.

mod error;
mod admin_port;
#[cfg(feature = "top")]
mod events;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode, header};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::time::timeout;

use super::terminal::{print, print_json};
use crate::admin::bodies::{ErrorBody, ProcessBody};
use crate::admin::default_paths;
use crate::http_client::Connection;
use crate::plan::AdminSocket;
use crate::text::escape;
use crate::{config, http_client};
use admin_port::AdminPort;
use error::ConnectError;
pub(super) use error::RemoteError;
#[cfg(feature = "top")]
pub(super) use events::EventStream;

/// The time limit for a response. It is longer than the process keeps a connection open after the TLS handshake, unless
/// the response is a stream of events.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest response, in bytes: enough for the state of about 100,000 servers.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// The host in requests over the Unix socket.
const LOCAL_HOST: &str = "localhost";

/// Selects the process, and the output format. The arguments are also accepted after a subcommand.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// The Unix socket of the process [default: the one in its configuration, or else the default paths]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// The configuration of the process, which names its socket
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        conflicts_with = "socket",
        global = true
    )]
    config: Option<PathBuf>,
    #[command(flatten)]
    admin_port: AdminPort,
    /// Print the response of the API as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// A request to the API.
#[derive(Debug)]
pub(super) struct ApiRequest {
    method: Method,
    path: String,
    body: String,
}

impl ApiRequest {
    /// A GET request.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, String::new())
    }

    /// A POST request; `body` is JSON, or empty.
    pub(super) fn post(path: impl Into<String>, body: String) -> Self {
        Self::new(Method::POST, path, body)
    }

    /// A DELETE request.
    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, String::new())
    }

    fn new(method: Method, path: impl Into<String>, body: String) -> Self {
        Self {
            method,
            path: path.into(),
            body,
        }
    }
}

impl Remote {
    /// Sends a request and prints the response: as text in the form that `format` gives it, or with `--json` as it is.
    /// Returns exit code 0, or 1 if the output cannot be written. After a [`RemoteError`], it is the code of
    /// [`RemoteError::print`].
    pub(super) fn request<B: DeserializeOwned>(
        &self,
        request: ApiRequest,
        format: impl FnOnce(B) -> Result<String, RemoteError>,
    ) -> ExitCode {
        self.request_with_partial_failure(request, |_| None, format)
    }

    /// As [`Self::request`], for requests of which a part may fail. The response reports such a failure, and
    /// `failed_part` reads it from there. This error is printed after the response, and decides the exit code.
    pub(super) fn request_with_partial_failure<B: DeserializeOwned>(
        &self,
        request: ApiRequest,
        failed_part: impl FnOnce(&B) -> Option<RemoteError>,
        format: impl FnOnce(B) -> Result<String, RemoteError>,
    ) -> ExitCode {
        let output = self.send(request).and_then(|bytes| {
            let body = match serde_json::from_slice(&bytes) {
                Ok(body) => body,
                // The response of another version may have other keys, but it must be JSON.
                Err(_) if self.json && serde_json::from_slice::<IgnoredAny>(&bytes).is_ok() => {
                    return Ok((bytes, None));
                }
                Err(error) => return Err(RemoteError::InvalidResponse(error)),
            };
            let failed = failed_part(&body);
            let text = format(body)?;
            Ok((if self.json { bytes } else { text.into() }, failed))
        });
        let (output, failed) = match output {
            Ok(output) => output,
            Err(error) => return error.print(),
        };
        let output = String::from_utf8_lossy(&output);
        let printed = if self.json { print_json(&output) } else { print(&output) };
        failed.map_or(printed, |error| error.print())
    }

    /// As [`Self::fetch`], but blocks, on a runtime of its own.
    fn send(&self, request: ApiRequest) -> Result<Bytes, RemoteError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(RemoteError::Runtime)?.block_on(self.fetch(request))
    }

    /// Sends a request; returns the response.
    pub(super) async fn fetch(&self, request: ApiRequest) -> Result<Bytes, RemoteError> {
        let response = timeout(REQUEST_TIMEOUT, async { self.connect().await?.exchange(request).await });
        response.await.map_err(|_| RemoteError::Timeout(REQUEST_TIMEOUT))?
    }

    /// Sends a request; returns the response, read as JSON.
    #[cfg(feature = "top")]
    pub(super) async fn fetch_json<B: DeserializeOwned>(&self, request: ApiRequest) -> Result<B, RemoteError> {
        serde_json::from_slice(&self.fetch(request).await?).map_err(RemoteError::InvalidResponse)
    }

    /// Opens the stream of events.
    #[cfg(feature = "top")]
    pub(super) async fn events(&self) -> Result<EventStream, RemoteError> {
        let stream = timeout(REQUEST_TIMEOUT, async {
            EventStream::open(self.connect().await?).await
        });
        stream.await.map_err(|_| RemoteError::Timeout(REQUEST_TIMEOUT))?
    }

    /// Connects to the process, for one request.
    async fn connect(&self) -> Result<Peer, RemoteError> {
        if self.admin_port.lacks_url() {
            return Err(RemoteError::NoUrl);
        }
        if let Some(url) = &self.admin_port.url {
            return self.admin_port.connect(url).await;
        }
        let (sockets, file) = self.sockets()?;
        find_process(&sockets, file.as_deref()).await.map(Peer::local)
    }

    /// Whether the response is printed as JSON.
    #[cfg(feature = "top")]
    pub(super) fn wants_json(&self) -> bool {
        self.json
    }

    /// The sockets to try, and the configuration file that the process must run; `None`: any.
    fn sockets(&self) -> Result<(Vec<PathBuf>, Option<PathBuf>), RemoteError> {
        if let Some(socket) = &self.socket {
            return Ok((vec![socket.clone()], None));
        }
        let Ok(file) = config::find(self.config.as_deref()) else {
            return Ok((default_paths(), None));
        };
        // Most errors in other parts of the file do not matter: commands must reach the process while the file is
        // broken.
        let sockets = match config::admin_socket(&file).map_err(RemoteError::Configuration)? {
            AdminSocket::Path(path) => vec![path],
            AdminSocket::Default => default_paths(),
            AdminSocket::Off => return Err(RemoteError::SocketOff),
        };
        Ok((sockets, Some(file)))
    }
}

/// Connects to the first socket on which a process listens; with `file`, to the first whose process runs that
/// configuration. Several configurations may share a default socket, so each process is asked which one it runs.
async fn find_process(sockets: &[PathBuf], file: Option<&Path>) -> Result<UnixStream, RemoteError> {
    let mut errors = Vec::new();
    let mut other_file = None;
    for socket in sockets {
        let stream = match connect(socket).await {
            Ok(stream) => stream,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let Some(file) = file else { return Ok(stream) };
        let bytes = Peer::local(stream).exchange(ApiRequest::get("/api/v1/process")).await?;
        let process: ProcessBody = serde_json::from_slice(&bytes).map_err(|error| RemoteError::OtherProgram {
            socket: socket.clone(),
            error,
        })?;
        match process.configuration {
            // A second connection, because each serves one request.
            Some(running) if is_same_file(file, Path::new(&running)) => return Ok(connect(socket).await?),
            running => {
                other_file.get_or_insert(RemoteError::OtherFile {
                    socket: socket.clone(),
                    pid: process.pid,
                    running,
                    expected: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
                });
            }
        }
    }
    Err(other_file.unwrap_or(RemoteError::NotRunning(errors)))
}

/// Whether both paths lead to the same file. `running` is the path as the process sees it. If a path leads nowhere
/// here, for example because the process is in another mount namespace, only the paths can be compared.
fn is_same_file(named: &Path, running: &Path) -> bool {
    let inode = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    match (inode(named), inode(running)) {
        (Ok(named), Ok(running)) => named == running,
        _ => std::path::absolute(named).is_ok_and(|named| named == running),
    }
}

async fn connect(socket: &Path) -> Result<UnixStream, ConnectError> {
    UnixStream::connect(socket).await.map_err(|source| ConnectError {
        socket: socket.to_owned(),
        source,
    })
}

/// A connection to the process. It serves one request.
struct Peer {
    stream: Box<dyn Connection>,
    host: String,
    /// The value of `Authorization`.
    token: Option<HeaderValue>,
}

impl Peer {
    fn local(stream: UnixStream) -> Self {
        Self {
            stream: Box::new(stream),
            host: LOCAL_HOST.to_owned(),
            token: None,
        }
    }

    /// Sends a request; returns the response.
    async fn exchange(self, request: ApiRequest) -> Result<Bytes, RemoteError> {
        let request = self.http_request(request)?;
        let response = http_client::exchange(self.stream, request, RESPONSE_BYTES_MAX).await;
        let (head, bytes) = response.map_err(RemoteError::Connection)?.into_parts();
        if head.status == StatusCode::OK {
            return Ok(bytes);
        }
        Err(rejection(head.status, &bytes))
    }

    /// The request as it is sent to this process.
    fn http_request(&self, request: ApiRequest) -> Result<Request<Full<Bytes>>, RemoteError> {
        let builder = Request::builder().method(request.method).uri(request.path);
        let builder = builder
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json");
        let mut request = builder.body(Full::new(Bytes::from(request.body)))?;
        let token = self.token.clone().map(|token| (header::AUTHORIZATION, token));
        request.headers_mut().extend(token);
        Ok(request)
    }
}

/// The error in a response.
fn rejection(status: StatusCode, body: &[u8]) -> RemoteError {
    let message = serde_json::from_slice(body).map(|ErrorBody { error }| error);
    let message = message.unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().filter(|line| line.len() < 100);
        line.map_or_else(|| status.to_string(), |line| format!("{status}: {}", escape(line, &[])))
    });
    match status {
        StatusCode::SERVICE_UNAVAILABLE => RemoteError::Unavailable(message),
        _ => RemoteError::Rejected(message),
    }
}
