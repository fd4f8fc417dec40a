//! Errors that end the process, or prevent a reload.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{chain, os_error};
use crate::listen::BindError;
use crate::text::escape;
use crate::tls::TlsFileError;

/// Why the process cannot start, reload or continue.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// For each address that cannot be bound, or for the first that cannot be listened on: its listener or `[admin]`,
    /// and the error. The message has one line for each. The other new addresses are released.
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
    /// A file that the configuration names cannot be read, or has no usable password or token.
    #[error("{key}: cannot read {}", escape(&.path.to_string_lossy(), &[]))]
    File {
        /// The key that names it.
        key: String,
        /// Its path.
        path: PathBuf,
        /// The error of the system, or what is wrong with the contents.
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
    /// Several at once, or one. The message has one line for each.
    #[error("{}", .0.iter().map(|failure| chain(failure)).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Self>),
    /// A worker, or its task for a listening socket, has ended before the shutdown.
    #[error("a worker has ended before the shutdown: this is a fault of acequia")]
    WorkersGone,
}

impl Failure {
    pub(super) fn access_log(cause: io::Error) -> Self {
        Self::AccessLog(with_remedy(cause))
    }

    /// Whether the configuration itself is wrong: a file that it names can be read, but its contents cannot be used. Of
    /// several failures, all must be of this kind.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::File { cause, .. } => cause.kind() == io::ErrorKind::InvalidData,
            Self::Tls { cause, .. } => !cause.is_unreadable(),
            Self::Several(failures) => failures.iter().all(Self::is_configuration),
            _ => false,
        }
    }

    /// The file that a `File` or `Tls` failure is about.
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
            Self::Several(failures) => failures.iter().map(Self::for_store).collect::<Vec<_>>().join("\n"),
            _ => chain(self),
        }
    }
}

pub(super) fn cannot_use_state_dir(cause: io::Error) -> Failure {
    system("cannot use `state_dir`")(with_remedy(cause))
}

/// Adds the remedy to an error about a path that is written.
pub(super) fn with_remedy(error: io::Error) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "create its directory",
        io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            "name another path"
        }
        io::ErrorKind::PermissionDenied => "let the user that runs acequia write there",
        io::ErrorKind::ReadOnlyFilesystem => "name a path on a file system that can be written",
        _ if os_error(&error) == Some(libc::ENXIO) => "a FIFO needs a reader, and a socket cannot be used",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{}: {remedy}", chain(&error)))
}

pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |cause| Failure::System { what, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_failures_have_one_line_each_and_are_of_the_configuration_only_if_all_are() {
        let file = |key: &str, kind: io::ErrorKind| Failure::File {
            key: key.to_owned(),
            path: "a".into(),
            cause: io::Error::new(kind, "why"),
        };
        let several = |second| Failure::Several(vec![file("x", io::ErrorKind::InvalidData), file("y", second)]);
        let text = "x: cannot read a: why\ny: cannot read a: why";
        for (second, is_configuration) in [(io::ErrorKind::InvalidData, true), (io::ErrorKind::NotFound, false)] {
            let failure = several(second);
            assert_eq!((&*chain(&failure), &*failure.for_store()), (text, text));
            assert_eq!(failure.is_configuration(), is_configuration);
        }
    }
}
