//! Errors that end the process, or prevent a reload.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::chain;
use crate::listen::BindError;
use crate::text::escape;
use crate::tls::TlsFileError;

/// Why the process cannot start, reload or continue.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// For each address that cannot be bound: its listener or `[admin]`, and the error. The message has one line for
    /// each. The other new addresses are released.
    #[error("{}", .0.iter().map(|(name, error)| format!("{name}: {}", chain(error))).collect::<Vec<_>>().join("\n"))]
    Bind(Vec<(String, BindError)>),
    /// The access log cannot be opened.
    #[error("cannot write the access log (`access` in [log])")]
    AccessLog(#[source] io::Error),
    /// A system call failed.
    #[error("{what}")]
    System {
        /// The failed action.
        what: &'static str,
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
    /// A file that the configuration names cannot be read.
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
    /// A certificate, a key or another file of TLS cannot be used.
    #[error("{section}")]
    Tls {
        /// The section that names it, as in `listeners.NAME.tls`.
        section: String,
        /// The problem.
        #[source]
        cause: TlsFileError,
    },
    /// A worker, or its task for a listening socket, has ended before the shutdown.
    #[error("a worker has ended before the shutdown: this is a fault of acequia")]
    WorkersGone,
}

impl Failure {
    /// Whether the configuration itself is wrong: a file of TLS can be read, but its contents cannot be used. A file
    /// that is missing does not count.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Tls { cause, .. } if cause.is_file_readable())
    }

    /// The file that it is about.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Tls { cause, .. } => Some(&cause.path),
            _ => None,
        }
    }

    /// The error without text from files, for everybody who may read the store of the configuration.
    #[must_use]
    pub fn for_store(&self) -> String {
        match self {
            Self::Tls { section, cause } => {
                format!(
                    "{section}: {} cannot be used: see the log of this instance",
                    cause.path.display()
                )
            }
            _ => chain(self),
        }
    }
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |cause| Failure::System { what, cause }
}
