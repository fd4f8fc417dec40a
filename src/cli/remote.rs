//! Requests to a running process over its Unix socket.

use std::error::Error;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header, http};
use hyper_util::rt::TokioIo;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::time::timeout;

use super::exit::{EXIT_CONFIG, EXIT_RUN};
use super::terminal::{print, print_json, print_message};
use crate::admin::bodies::{ErrorBody, ProcessBody};
use crate::admin::default_paths;
use crate::config;
use crate::error::chain;
use crate::plan::AdminSocket;

/// The time limit for a response. It is longer than the process keeps a connection open.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest response, in bytes: enough for the state of about 100,000 servers.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// Selects the process, and the output format. The arguments are also accepted after a subcommand.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// The Unix socket of the process [default: the one in its configuration, then the default paths]
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
    /// Print the response of the API as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// Why a request has no result to print.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    /// The configuration turns the socket off.
    #[error("the process has no socket: `socket` in [admin] of its configuration is \"off\"")]
    SocketOff,
    /// The configuration is too broken to find the socket.
    #[error("cannot read the configuration (`acequia check` shows the errors): name the socket with --socket")]
    Configuration,
    /// The client's runtime cannot start.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
    /// The process took longer than [`REQUEST_TIMEOUT`].
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// No process listens on any of these sockets.
    #[error("no acequia is running there (name its socket with --socket): {}", list(.0))]
    NotRunning(Vec<ConnectError>),
    /// The socket of the process that was found first is gone at the second connect.
    #[error("cannot connect")]
    Connect(#[from] ConnectError),
    /// A process listens, but its response is not one of the API.
    #[error("the process at {} is not an acequia", .socket.display())]
    OtherProgram {
        /// The socket.
        socket: PathBuf,
        /// The error in its response.
        #[source]
        error: serde_json::Error,
    },
    /// The process runs another configuration than the one named or found.
    #[error(
        "the acequia at {} (pid {pid}) runs {}, not {}: name the socket of the right process with --socket",
        .socket.display(),
        .running.as_deref().unwrap_or("no file"),
        .expected.display()
    )]
    OtherFile {
        /// The socket.
        socket: PathBuf,
        /// The PID of the process, in its own namespace.
        pid: u32,
        /// Its configuration.
        running: Option<String>,
        /// The configuration that was named or found.
        expected: PathBuf,
    },
    /// The arguments make no valid request.
    #[error("invalid request")]
    InvalidRequest(#[from] http::Error),
    /// The connection failed before the end of the response.
    #[error("the connection was lost")]
    Connection(#[source] Box<dyn Error + Send + Sync>),
    /// The response is not the expected JSON.
    #[error("invalid response")]
    InvalidResponse(#[source] serde_json::Error),
    /// The API's error message, or an equivalent one.
    #[error("{0}")]
    Rejected(String),
}

/// A socket that cannot be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{}", .socket.display())]
pub(super) struct ConnectError {
    socket: PathBuf,
    source: io::Error,
}

fn list(errors: &[ConnectError]) -> String {
    let errors: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    errors.join("; ")
}

impl RemoteError {
    /// Prints the error and its sources; returns the exit code.
    fn print(&self) -> ExitCode {
        let message = chain(self);
        // Errors of a configuration, which a reload returns, begin with this prefix already.
        print_message("error", message.strip_prefix("error: ").unwrap_or(&message));
        ExitCode::from(match self {
            Self::OtherFile { .. } | Self::InvalidRequest(_) | Self::Rejected(_) => EXIT_CONFIG,
            _ => EXIT_RUN,
        })
    }
}

/// A request to the API.
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
    /// Returns the exit code: 0; 1 if the request or the response is rejected, by the API or by `format`; 3 if no
    /// process answers.
    pub(super) fn request<B: DeserializeOwned>(
        &self,
        request: ApiRequest,
        format: impl FnOnce(B) -> Result<String, RemoteError>,
    ) -> ExitCode {
        let output = self.send(request).and_then(|bytes| {
            let body = serde_json::from_slice(&bytes);
            if !self.json {
                return format(body.map_err(RemoteError::InvalidResponse)?);
            }
            match body {
                Ok(body) => drop(format(body)?),
                // The response of another version may have other keys, but it must be JSON.
                Err(_) => drop(serde_json::from_slice::<IgnoredAny>(&bytes).map_err(RemoteError::InvalidResponse)?),
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        });
        match output {
            Ok(json) if self.json => print_json(&json),
            Ok(text) => print(&text),
            Err(error) => error.print(),
        }
    }

    fn send(&self, request: ApiRequest) -> Result<Bytes, RemoteError> {
        let (sockets, file) = self.sockets()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(RemoteError::Runtime)?.block_on(async {
            let response = timeout(REQUEST_TIMEOUT, async {
                let stream = find_process(&sockets, file.as_deref()).await?;
                exchange(stream, request).await
            });
            response.await.map_err(|_| RemoteError::Timeout(REQUEST_TIMEOUT))?
        })
    }

    /// The sockets to try, and the configuration that the process must run if the sockets come from one.
    fn sockets(&self) -> Result<(Vec<PathBuf>, Option<PathBuf>), RemoteError> {
        if let Some(socket) = &self.socket {
            return Ok((vec![socket.clone()], None));
        }
        let Ok(file) = config::find(self.config.as_deref()) else {
            return Ok((default_paths(), None));
        };
        // Errors in other parts of the file do not matter: commands must reach the process while the file is broken.
        let sockets = match config::admin_socket(&file) {
            Some(AdminSocket::At(path)) => vec![path],
            Some(AdminSocket::Usual) => default_paths(),
            Some(AdminSocket::Off) => return Err(RemoteError::SocketOff),
            None => return Err(RemoteError::Configuration),
        };
        Ok((sockets, Some(file)))
    }
}

/// Connects to the first socket on which a process listens; if `file` is given, a process that runs that file. This is
/// checked before any other request, because several files may share a default socket.
async fn find_process(sockets: &[PathBuf], file: Option<&Path>) -> Result<UnixStream, RemoteError> {
    let (mut errors, mut other) = (Vec::new(), None);
    for socket in sockets {
        let stream = match connect(socket).await {
            Ok(stream) => stream,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let Some(file) = file else { return Ok(stream) };
        let bytes = exchange(stream, ApiRequest::get("/api/v1/process")).await?;
        let process: ProcessBody = serde_json::from_slice(&bytes).map_err(|error| RemoteError::OtherProgram {
            socket: socket.clone(),
            error,
        })?;
        match process.configuration {
            // A connection serves one request.
            Some(running) if is_same_file(file, Path::new(&running)) => return Ok(connect(socket).await?),
            running => {
                other.get_or_insert(RemoteError::OtherFile {
                    socket: socket.clone(),
                    pid: process.pid,
                    running,
                    expected: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
                });
            }
        }
    }
    Err(other.unwrap_or(RemoteError::NotRunning(errors)))
}

/// Whether both paths lead to the same file. `running` is the path as the process sees it, perhaps in another mount
/// namespace: then only the paths can be compared.
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

async fn exchange(stream: UnixStream, request: ApiRequest) -> Result<Bytes, RemoteError> {
    let lost = |error: hyper::Error| RemoteError::Connection(error.into());
    let request = Request::builder()
        .method(request.method)
        .uri(request.path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(request.body)))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(lost)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await;
    let bytes = body.map_err(RemoteError::Connection)?.to_bytes();
    connection.abort();
    if status == StatusCode::OK {
        return Ok(bytes);
    }
    let message = serde_json::from_slice(&bytes).map(|ErrorBody { error }| error);
    Err(RemoteError::Rejected(message.unwrap_or_else(|_| status.to_string())))
}
