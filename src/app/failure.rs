//! Why the process cannot run, or go on.

use std::io;
use std::path::PathBuf;

use crate::listen::BindError;
use crate::text::escape;

/// Why the process cannot run, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Addresses that cannot be bound, all of them; none is held.
    #[error("{}", .0.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>().join("\n"))]
    Bind(Vec<(String, BindError)>),
    /// The access log cannot be opened.
    #[error("cannot write the access log: {0}; see `access` in [log]")]
    AccessLog(#[source] io::Error),
    /// Something else the system would not give.
    #[error("{what}: {cause}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why it could not.
        #[source]
        cause: io::Error,
    },
    /// A file that it needs to run.
    #[error("{key}: cannot read {}: {cause}", escape(&.path.to_string_lossy(), &[]))]
    File {
        /// The key that names it.
        key: String,
        /// Which.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        cause: io::Error,
    },
    /// A worker, or the part of it that keeps a listener, is gone though nobody told it to end.
    #[error("a worker has ended by itself: this is a fault of acequia")]
    WorkersGone,
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |cause| Failure::System { what, cause }
}
