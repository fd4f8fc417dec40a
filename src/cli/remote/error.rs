//! Why a request has no result.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hyper::http;

use crate::cli::exit::{EXIT_CONFIG, EXIT_RUN, EXIT_USAGE};
use crate::cli::terminal::print_message;
use crate::error::chain;
use crate::tls::TlsFileError;
use crate::units::format_duration;

/// Why a request has no result to print.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum RemoteError {
    /// The configuration turns the socket off.
    #[error("the process has no socket: `socket` in [admin] of its configuration is \"off\"")]
    SocketOff,
    /// The configuration cannot be read, or is too broken to find the socket in it (`InvalidData`).
    #[error("{}; or name the socket with --socket", chain(.0))]
    Configuration(io::Error),
    /// The runtime of this command cannot start.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
    /// The process did not answer, or was silent, for this long.
    #[error("no response within {}", format_duration(*.0))]
    Timeout(Duration),
    /// Arguments about the admin port without its URL.
    #[error("--ca-file and --token-file are about the admin port: name it with --url")]
    NoUrl,
    /// The token cannot be read.
    #[error("cannot read the token")]
    TokenFile(#[source] io::Error),
    /// The authorities of the admin port's certificate cannot be read.
    #[error("cannot use --ca-file")]
    CaFile(#[source] TlsFileError),
    /// The admin port cannot be reached.
    #[error("cannot reach the admin port")]
    AdminPort(#[source] io::Error),
    /// No known authority has issued the certificate of the admin port.
    #[error("no trusted authority has issued the certificate of the admin port: name its authority with --ca-file")]
    UnknownIssuer,
    /// No process listens on any of these sockets.
    #[error("no running acequia was found (name its socket with --socket): {}", list(.0))]
    NotRunning(Vec<ConnectError>),
    /// The process was found at the first connect, but its socket is gone at the second one, which is for the request.
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
        /// The configuration of the process; `None`: it runs without a file.
        running: Option<String>,
        /// The configuration that was named or found.
        expected: PathBuf,
    },
    /// The arguments make no valid request.
    #[error("invalid request")]
    InvalidRequest(#[from] http::Error),
    /// The process has ended the stream of events.
    #[cfg(feature = "top")]
    #[error("acequia has ended")]
    Ended,
    /// The connection failed before the end of the response.
    #[error("the connection was lost")]
    Connection(#[source] Box<dyn Error + Send + Sync>),
    /// The stream of events was lost, and cannot be opened again.
    #[cfg(feature = "top")]
    #[error("the connection was lost")]
    Lost(#[source] Box<Self>),
    /// The response is not the expected JSON.
    #[error("invalid response")]
    InvalidResponse(#[source] serde_json::Error),
    /// The API's error message with a status other than 503, or what this command itself finds wrong in a response.
    #[error("{0}")]
    Rejected(String),
    /// The API's error message with status 503: a later request may succeed (RFC 9110, section 15.6.4).
    #[error("{0}")]
    Unavailable(String),
}

/// A socket that cannot be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{}", .socket.display())]
pub(in crate::cli) struct ConnectError {
    pub(super) socket: PathBuf,
    pub(super) source: io::Error,
}

fn list(errors: &[ConnectError]) -> String {
    let errors: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    errors.join("; ")
}

impl RemoteError {
    /// Prints the error and its sources; returns the exit code.
    pub(in crate::cli) fn print(&self) -> ExitCode {
        let message = chain(self);
        // A message about an invalid configuration, as a reload returns it, begins with this prefix already.
        print_message("error", message.strip_prefix("error: ").unwrap_or(&message));
        ExitCode::from(match self {
            Self::NoUrl => EXIT_USAGE,
            Self::Configuration(error) | Self::TokenFile(error) if error.kind() == io::ErrorKind::InvalidData => {
                EXIT_CONFIG
            }
            Self::CaFile(error) if !error.is_unreadable() => EXIT_CONFIG,
            Self::OtherFile { .. } | Self::InvalidRequest(_) | Self::Rejected(_) | Self::Unavailable(_) => EXIT_CONFIG,
            _ => EXIT_RUN,
        })
    }
}
