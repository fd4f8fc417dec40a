//! Listening on Unix sockets: their files, and who is at the other end.

mod credentials;

use std::ffi::OsStr;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::iter::repeat_with;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

pub use credentials::peer_of;

/// The number of random names to try for the temporary socket. Even one collision is unlikely.
const NAMES_TRIED: usize = 16;

/// The longest temporary name, in bytes.
const NAME_BYTES_MAX: usize = 7;

/// How many times to try to lock the directory. Another acequia locks it only for microseconds, to name a socket there.
const LOCK_TRIES: usize = 50;

/// The wait between two tries.
const LOCK_WAIT: Duration = Duration::from_millis(1);

/// The file of a Unix socket of this process. Dropping it removes the file, unless another one has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Its device and its inode.
    inode: (u64, u64),
}

/// A socket that is bound, and does not listen yet. Its file has a temporary name, and gets the final one only when it
/// has its permissions and the socket listens.
#[derive(Debug)]
pub struct BoundUnix {
    socket: Socket,
    file: SocketFile,
    /// The final name.
    path: PathBuf,
}

/// A new Unix socket, neither bound nor connected.
///
/// # Errors
/// Those of `socket`.
pub fn unix_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// A connection to the process that listens on this path; `None`: there is no file, or one that an ended process has
/// left.
///
/// # Errors
/// The file is not a socket ([`ErrorKind::AlreadyExists`]); a process listens there, but its queue is full
/// ([`ErrorKind::AddrInUse`]); or those of `lstat`, `socket` and `connect`. If the permissions of the file forbid to
/// connect, the error names the owner of the file, and has no OS error number.
pub fn connect_to_listener(path: &Path) -> io::Result<Option<Socket>> {
    let existing = match path.symlink_metadata() {
        Ok(existing) => existing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !existing.file_type().is_socket() {
        let message = "the file exists and is not a socket";
        return Err(io::Error::new(ErrorKind::AlreadyExists, message));
    }
    let socket = unix_socket()?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(Some(socket)),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(in_use("another process listens there".to_owned())),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let message = format!("the file there belongs to uid {}: {error}", existing.uid());
            Err(io::Error::new(ErrorKind::PermissionDenied, message))
        }
        Err(error) => Err(error),
    }
}

impl BoundUnix {
    /// Binds a socket for this path, with these permissions (such as `0o660`). The path itself is not touched before
    /// [`Self::listen`].
    ///
    /// # Errors
    /// Those of `socket`, `bind`, `lstat` and `chmod`.
    pub fn new(path: &Path, mode: u32) -> io::Result<Self> {
        // Binding never replaces a file (unix(7)).
        let mut result = Err(io::Error::from(ErrorKind::AddrInUse));
        for _ in 0..NAMES_TRIED {
            let temporary = path.with_file_name(temporary_name(path.file_name().unwrap_or_default()));
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

    /// Listens, and gives the file its final name. A file that an ended process has left at this path is replaced.
    /// If several processes do this at once, only one of them succeeds, unless the directory cannot be locked.
    ///
    /// # Errors
    /// A process listens there ([`in_use_by`]); or those of [`connect_to_listener`], `listen` and `rename`.
    pub fn listen(self, backlog: i32) -> io::Result<(Socket, SocketFile)> {
        let Self { socket, mut file, path } = self;
        socket.listen(backlog)?;
        let _lock = lock_directory(&path);
        if let Some(connection) = connect_to_listener(&path)? {
            return Err(in_use_by(&connection));
        }
        std::fs::rename(&file.path, &path)?;
        file.path = path;
        Ok((socket, file))
    }
}

/// The error for a path on which a process listens already: another process ([`ErrorKind::AddrInUse`]), or this process
/// ([`ErrorKind::ResourceBusy`]). `connection` leads to the process.
#[must_use]
pub fn in_use_by(connection: &Socket) -> io::Error {
    match peer_of(connection) {
        Ok(peer) if peer.pid == std::process::id() => {
            io::Error::new(ErrorKind::ResourceBusy, "this process listens there already")
        }
        Ok(peer) => in_use(format!("another process listens there (pid {})", peer.pid)),
        Err(_) => in_use("another process listens there".to_owned()),
    }
}

fn in_use(message: String) -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, message)
}

/// A random name. It is not longer than the final name, because the length of the whole path is limited. A dot or
/// unusual characters make it unlikely that it is the final name of another socket. That would be unsafe: until this
/// socket listens, its file looks like one that an ended process has left, and the other socket's file may replace it.
fn temporary_name(final_name: &OsStr) -> String {
    let (prefix, characters): (_, &[u8]) = if final_name.len() > 1 {
        (".", b"abcdefghijklmnopqrstuvwxyz")
    } else {
        ("", b"%+=@^_~") // no room for a dot
    };
    let random_len = final_name.len().clamp(1, NAME_BYTES_MAX) - prefix.len();
    loop {
        let character = || char::from(*fastrand::choice(characters).expect("there are some"));
        let name: String = prefix.chars().chain(repeat_with(character).take(random_len)).collect();
        if *final_name != *name {
            return name;
        }
    }
}

/// Locks the directory of this path until the returned file is dropped, so that no other acequia names a socket there
/// meanwhile. `None`: the directory cannot be read or locked, or is locked for long. The caller then goes on without
/// the lock, because anybody who can read the directory can lock it.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..LOCK_TRIES {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
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

    /// Whether the file is still there, so that clients can connect. Anybody may have removed or replaced it.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let metadata = self.path.symlink_metadata();
        metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path); // if this fails, the next process replaces it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_its_permissions_and_is_removed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let file_count = || directory.path().read_dir().unwrap().count();
        let bound = BoundUnix::new(&path, 0o640).unwrap();
        assert!(!path.exists(), "it does not listen yet");
        let (_socket, file) = bound.listen(1).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        file.set_mode(0o600).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        drop(file);
        drop(BoundUnix::new(&path, 0o600).unwrap());
        assert_eq!(file_count(), 0);
    }

    #[test]
    fn a_living_process_is_distinguished_from_a_stale_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        assert!(connect_to_listener(&path).unwrap().is_none());
        let (socket, file) = BoundUnix::new(&path, 0o600).unwrap().listen(1).unwrap();
        let connected = connect_to_listener(&path).unwrap().unwrap();
        let this_process = (rustix::process::geteuid().as_raw(), std::process::id());
        let peer = peer_of(&connected).unwrap();
        assert_eq!((peer.uid, peer.pid), this_process);
        let no_socket = File::open(directory.path()).unwrap();
        assert_eq!(peer_of(&no_socket).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        drop(socket); // as a killed process leaves it
        assert!(path.exists() && connect_to_listener(&path).unwrap().is_none());
        let (_second, _second_file) = BoundUnix::new(&path, 0o600).unwrap().listen(1).unwrap();
        drop(file);
        assert!(
            connect_to_listener(&path).unwrap().is_some(),
            "dropping the first keeps the second"
        );
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(connect_to_listener(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_process_whose_queue_is_full_is_found_to_listen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let (_socket, _file) = BoundUnix::new(&path, 0o600).unwrap().listen(0).unwrap();
        let mut queue = Vec::new();
        let full = loop {
            match connect_to_listener(&path) {
                Ok(connected) => queue.push(connected.unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::AddrInUse, "{full}");
    }

    /// The threads stand for processes that start at once.
    #[test]
    fn only_one_of_several_concurrent_listeners_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        for _ in 0..50 {
            let bound: Vec<_> = (0..4).map(|_| BoundUnix::new(&path, 0o600).unwrap()).collect();
            let started: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = bound.into_iter().map(|bound| scope.spawn(|| bound.listen(8))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (listening, failed): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
            assert_eq!(listening.len(), 1);
            for error in failed.into_iter().map(Result::unwrap_err) {
                assert_eq!(error.kind(), ErrorKind::ResourceBusy, "{error}"); // this process has all sockets
            }
            let (socket, file) = listening.into_iter().next().unwrap().unwrap();
            assert!(file.is_in_place());
            std::mem::forget(file);
            drop(socket); // its file stays, and the next listeners replace it
        }
        assert_eq!(
            directory.path().read_dir().unwrap().count(),
            1,
            "no temporary name is left"
        );
    }

    #[test]
    fn a_locked_directory_does_not_prevent_listening() {
        let directory = tempfile::tempdir().unwrap();
        let lock = File::open(directory.path()).unwrap();
        lock.lock().unwrap();
        let (_socket, file) = BoundUnix::new(&directory.path().join("a"), 0o600)
            .unwrap()
            .listen(1)
            .unwrap();
        assert!(file.is_in_place());
    }

    #[test]
    fn temporary_names_differ_from_final_names_and_are_not_longer() {
        for name in ["s", "~"] {
            let temporary = (0..1_000).map(|_| temporary_name(OsStr::new(name)));
            assert!(temporary.into_iter().all(|temporary| temporary != name));
        }
        let has_letter = |temporary: String| temporary.chars().any(char::is_alphanumeric);
        assert!(
            (0..1_000).all(|_| !has_letter(temporary_name(OsStr::new("s")))),
            "it could be the final name of another socket"
        );
        for (name, length) in [("s", 1), ("ab", 2), ("a.sock", 6), ("acequia.sock", NAME_BYTES_MAX)] {
            let temporary = temporary_name(OsStr::new(name));
            assert_eq!(temporary.len(), length, "{temporary}");
            assert_eq!(temporary.starts_with('.'), length > 1);
        }
    }

    #[test]
    fn other_files_in_the_directory_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let neighbour = directory.path().join(".000001");
        std::fs::write(&neighbour, "precious").unwrap();
        assert!(bind(&neighbour, 0o600).is_err(), "a name that is taken is left alone");
        assert_eq!(std::fs::read(&neighbour).unwrap(), b"precious");
    }
}
