//! Errors that end the process, or prevent a reload.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::chain;
use crate::listen::BindError;
use crate::text::escape;
use crate::tls::TlsFileError;

/// Why the process cannot start, reload or continue.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// All addresses that cannot be bound, each with its causes on a line of its own. None stays bound.
    #[error("{}", .0.iter().map(|(name, error)| format!("{name}: {}", chain(error))).collect::<Vec<_>>().join("\n"))]
    Bind(Vec<(String, BindError)>),
    /// The access log cannot be opened.
    #[error("cannot write the access log (`access` in [log])")]
    AccessLog(#[source] io::Error),
    /// A system call failed.
    #[error("{what}")]
    System {
        /// What could not be done.
        what: &'static str,
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
    /// A file of the configuration cannot be read.
    #[error("{key}: cannot read {}", escape(&.path.to_string_lossy(), &[]))]
    File {
        /// The key that names it.
        key: String,
        /// Its path.
        path: PathBuf,
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
    /// A certificate, a key or another file of a listener's TLS cannot be used.
    #[error("listeners.{listener}.tls")]
    Tls {
        /// The listener.
        listener: Arc<str>,
        /// What is wrong.
        #[source]
        cause: TlsFileError,
    },
    /// A worker, or its task for a listening socket, has ended before the shutdown.
    #[error("a worker has ended before the shutdown: this is a fault of acequia")]
    WorkersGone,
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |cause| Failure::System { what, cause }
}
