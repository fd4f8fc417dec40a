//! Listening on Unix sockets: their files, and who is at the other end.

mod credentials;

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

pub use credentials::peer_of;

/// The number of random names to try for the temporary socket. Even one collision is unlikely.
const NAMES_TRIED: usize = 16;

/// The file of a Unix socket of this process. Dropping it removes the file, unless another one has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

/// A socket that is bound, and does not listen yet. Its file has a temporary name, so that it is never seen with other
/// permissions, or not listening.
#[derive(Debug)]
pub struct BoundUnix {
    socket: Socket,
    file: SocketFile,
    path: PathBuf,
}

/// A Unix socket that can be connected to.
///
/// # Errors
/// Those of `socket`.
pub fn unix_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// A connection to the process that listens on this path; `None`: there is none, or a process that has ended has left the
/// file.
///
/// # Errors
/// The file is no socket ([`ErrorKind::AlreadyExists`]); or those of `connect`, of which [`ErrorKind::WouldBlock`] means that
/// the queue of a living process is full.
pub fn connect_to_listener(path: &Path) -> io::Result<Option<Socket>> {
    let Ok(existing) = path.symlink_metadata() else {
        return Ok(None);
    };
    if !existing.file_type().is_socket() {
        let message = "the file exists and is not a socket";
        return Err(io::Error::new(ErrorKind::AlreadyExists, message));
    }
    let socket = unix_socket()?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(Some(socket)),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

impl BoundUnix {
    /// Binds a socket for this path, with these permissions (`0o660`). Whoever listens there goes on until [`Self::listen`];
    /// see [`connect_to_listener`].
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `chmod`.
    pub fn new(path: &Path, mode: u32) -> io::Result<Self> {
        // Binding never replaces a file (unix(7)).
        let mut result = Err(io::Error::from(ErrorKind::AddrInUse));
        for _ in 0..NAMES_TRIED {
            let temporary = path.with_file_name(format!(".{:06x}", fastrand::u32(..1 << 24)));
            result = bind(&temporary, mode);
            if !matches!(&result, Err(error) if error.kind() == ErrorKind::AddrInUse) {
                break;
            }
        }
        let (socket, file) = result?;
        Ok(Self {
            socket,
            file,
            path: path.to_owned(),
        })
    }

    /// Listens, and gives the file its name. A file of that name is replaced.
    ///
    /// # Errors
    /// Those of `listen` and `rename`.
    pub fn listen(self, backlog: i32) -> io::Result<(Socket, SocketFile)> {
        let Self { socket, mut file, path } = self;
        socket.listen(backlog)?;
        std::fs::rename(&file.path, &path)?;
        file.path = path;
        Ok((socket, file))
    }
}

fn bind(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    let socket = unix_socket()?;
    socket.bind(&SockAddr::unix(path)?)?;
    let metadata = path.symlink_metadata()?;
    let file = SocketFile {
        path: path.to_owned(),
        inode: (metadata.dev(), metadata.ino()),
    };
    file.set_mode(mode)?;
    Ok((socket, file))
}

impl SocketFile {
    /// Changes the permissions.
    ///
    /// # Errors
    /// Those of `chmod`.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let metadata = self.path.symlink_metadata();
        if metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path); // if this fails, the next process replaces it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_its_permissions_and_is_removed_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let names = || folder.path().read_dir().unwrap().count();
        let bound = BoundUnix::new(&path, 0o640).unwrap();
        assert!(!path.exists(), "it does not listen yet");
        let (_socket, file) = bound.listen(1).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        file.set_mode(0o600).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        drop(file);
        drop(BoundUnix::new(&path, 0o600).unwrap());
        assert_eq!(names(), 0);
    }

    #[test]
    fn a_living_process_is_told_from_a_file_that_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        assert!(connect_to_listener(&path).unwrap().is_none());
        let (socket, file) = BoundUnix::new(&path, 0o600).unwrap().listen(1).unwrap();
        let connected = connect_to_listener(&path).unwrap().unwrap();
        let own = (rustix::process::geteuid().as_raw(), std::process::id());
        assert_eq!(peer_of(&connected).map(|peer| (peer.uid, peer.pid)), Some(own));
        drop(socket); // as a killed process leaves it
        assert!(path.exists() && connect_to_listener(&path).unwrap().is_none());
        let (_second, second_file) = BoundUnix::new(&path, 0o600).unwrap().listen(1).unwrap();
        drop(file);
        assert!(
            connect_to_listener(&path).unwrap().is_some(),
            "dropping the first keeps the second"
        );
        drop(second_file);
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(connect_to_listener(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn other_files_in_the_folder_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let neighbour = folder.path().join(".000001");
        std::fs::write(&neighbour, "precious").unwrap();
        assert!(bind(&neighbour, 0o600).is_err(), "a name that is taken is left alone");
        assert_eq!(std::fs::read(&neighbour).unwrap(), b"precious");
    }
}
