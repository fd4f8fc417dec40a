//! The Unix socket: where the commands find it, and who may open it.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::plan::AdminSocket;

/// Its place where there is nothing better.
const SYSTEM_PLACE: &str = "/run/acequia/admin.sock";

/// Clients that may wait to be answered.
const BACKLOG: i32 = 64;

/// A socket that is listened on. Dropping it removes it, unless another has taken its place.
#[derive(Debug)]
pub struct AdminListener {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

/// Where it usually is, the best place first: below `$XDG_RUNTIME_DIR` where that is set, and for the whole system.
#[must_use]
pub fn usual_places() -> Vec<PathBuf> {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    let of_user = of_user.map(|folder| Path::new(&folder).join("acequia/admin.sock"));
    of_user.into_iter().chain([SYSTEM_PLACE.into()]).collect()
}

/// Listens on the socket that is configured, if any. That its usual place cannot be had is no reason not to run: it is
/// said, and the commands will not find this process. To be called within a runtime.
///
/// # Errors
/// The place that was asked for by name cannot be had.
pub fn bind(wanted: &AdminSocket) -> io::Result<Option<AdminListener>> {
    match wanted {
        AdminSocket::Off => Ok(None),
        AdminSocket::At(path) => {
            let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            AdminListener::bind(path).map(Some).map_err(told)
        }
        AdminSocket::Usual => {
            let place = usual_places().swap_remove(0);
            let listening = with_folder(&place).and_then(|()| AdminListener::bind(&place));
            Ok(listening
                .inspect_err(|error| {
                    tracing::warn!(
                        path = %place.display(),
                        %error,
                        "no Unix socket, so commands do not reach this process: set `socket` in [admin]"
                    );
                })
                .ok())
        }
    }
}

fn with_folder(place: &Path) -> io::Result<()> {
    let Some(folder) = place.parent() else { return Ok(()) };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

impl AdminListener {
    /// Takes the place of a socket nobody listens on; leaves alone one that is listened on, and what is no socket.
    fn bind(path: &Path) -> io::Result<Self> {
        if let Ok(there) = path.symlink_metadata() {
            if !there.file_type().is_socket() {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            if is_alive(path)? {
                return Err(io::Error::new(ErrorKind::AddrInUse, "another process answers there"));
            }
        }
        // Bound beside it and moved there, so that nobody ever sees it with other permissions, nor half made.
        let beside = path.with_file_name(format!(".{}", std::process::id()));
        let _ = std::fs::remove_file(&beside); // of a process of this number that was killed
        let listening = listen(&beside).and_then(|socket| {
            std::fs::rename(&beside, path)?;
            Ok(socket)
        });
        let socket = listening.inspect_err(|_| drop(std::fs::remove_file(&beside)))?;
        let there = path.symlink_metadata()?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            path: path.to_owned(),
            inode: (there.dev(), there.ino()),
        })
    }
}

fn listen(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether somebody listens there. That its queue is full means yes.
fn is_alive(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(false),
            ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        let there = self.path.symlink_metadata();
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path); // the next process would replace it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_owner_may_open_it_and_it_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = AdminListener::bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn one_that_is_alive_stays_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let first = AdminListener::bind(&path).unwrap();
        assert_eq!(AdminListener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(is_alive(&path).unwrap());
        // As a process that is killed leaves it.
        let stale = folder.path().join("b.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let second = AdminListener::bind(&stale).unwrap();
        std::fs::rename(&stale, &path).unwrap();
        drop(first);
        assert!(is_alive(&path).unwrap(), "another took its place");
        drop(second);
    }

    #[tokio::test]
    async fn a_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(AdminListener::bind(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
