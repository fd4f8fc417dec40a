//! The Unix socket of the API: its path and its permissions.

use std::borrow::Cow;
use std::fs::{DirBuilder, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::Instant;

use super::bodies::ProcessBody;
use crate::error::{chain, with_context};
use crate::plan::AdminSocket;
use crate::text::escape;
use crate::unix_socket::{BoundUnix, SocketFile, connect_to_listener, peer_of};

/// The number of connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// The time for a process that already listens on the socket to identify itself.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(1);

/// The longest response in which a process identifies itself, in bytes: enough for an escaped path of 4096 bytes.
const RESPONSE_BYTES_MAX: u64 = 64 * 1024;

/// The uid shown for files whose owner is outside of the user namespace (`kernel.overflowuid` of sysctl(8)).
const OVERFLOW_UID: u32 = 65534;

/// A listening Unix socket. Dropping it removes the file, unless another socket has replaced it.
#[derive(Debug)]
pub struct AdminUnixListener {
    // Declared before the listener, so that the file is removed before the socket is closed. A process that starts in
    // between finds the path free, and never a stale file.
    _file: SocketFile,
    pub(super) listener: UnixListener,
}

/// The default paths, the preferred one first: below `$XDG_RUNTIME_DIR` if that is set, then the one of the system.
#[must_use]
pub fn default_paths() -> Vec<PathBuf> {
    let in_runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let in_runtime_dir = in_runtime_dir.map(|directory| Path::new(&directory).join("acequia/admin.sock"));
    in_runtime_dir
        .into_iter()
        .chain([AdminSocket::SYSTEM_PATH.into()])
        .collect()
}

/// Listens on the configured socket. `None`: it is off, or the default path cannot be used. In the second case, this
/// logs a warning: the process runs, but the commands do not reach it. Must be called within a tokio runtime.
///
/// # Errors
/// A path from the configuration cannot be used; or another process listens on the default path, so that the commands
/// would reach that one.
pub fn bind(configured: &AdminSocket) -> io::Result<Option<AdminUnixListener>> {
    let path = match configured {
        AdminSocket::Off => return Ok(None),
        AdminSocket::Path(path) => path.clone(),
        AdminSocket::Default => default_paths().swap_remove(0),
    };
    match AdminUnixListener::bind(&path) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if *configured == AdminSocket::Default && error.kind() != ErrorKind::AddrInUse => {
            tracing::warn!(
                path = %path.display(),
                error = %chain(&error),
                "cannot open the default Unix socket, commands will not reach this process: set `socket` in [admin]"
            );
            Ok(None)
        }
        Err(error) => Err(with_context(error, path.display().to_string())),
    }
}

/// Creates the socket's directory if it is missing, with mode 0700; rejects a directory in which another user could
/// replace the socket.
fn prepare_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| *directory != Path::new(""));
    let directory = directory.unwrap_or(Path::new("."));
    if let Err(error) = DirBuilder::new().mode(0o700).create(directory)
        && error.kind() != ErrorKind::AlreadyExists
    {
        let what = format!("cannot create its directory {}", directory.display());
        return Err(with_context(error, what));
    }
    let has_all_uids = has_all_uids();
    // A user who may rename a directory can replace it, and the socket in it.
    for (level, directory) in directory.canonicalize()?.ancestors().enumerate() {
        let metadata = directory.metadata()?;
        // In a user namespace, system directories belong to a user outside of the namespace (user_namespaces(7)). The
        // socket's own directory, at level 0, must not.
        if level == 0 || has_all_uids || metadata.uid() != OVERFLOW_UID {
            reject_shared(directory, &metadata)?;
        }
    }
    Ok(())
}

/// Whether no user is outside of the user namespace of this process, so that [`OVERFLOW_UID`] is an ordinary user.
fn has_all_uids() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps_all_uids(&map))
}

/// Whether a map of uids is that of the initial user namespace: `0 0 4294967295`.
fn maps_all_uids(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Rejects a directory in which a user other than root and the user of this process could rename an entry.
fn reject_shared(directory: &Path, metadata: &Metadata) -> io::Result<()> {
    let rejected = |message: String| Err(io::Error::new(ErrorKind::PermissionDenied, message));
    let own_uid = rustix::process::geteuid().as_raw();
    let directory = directory.display();
    if metadata.uid() != own_uid && metadata.uid() != 0 {
        return rejected(format!(
            "its directory {directory} belongs to another user (uid {}), who could replace the socket: `chown` it to uid \
             {own_uid}, or use another directory",
            metadata.uid()
        ));
    }
    let (others_may_write, is_sticky) = (metadata.mode() & 0o022 != 0, metadata.mode() & 0o1000 != 0);
    if others_may_write && !is_sticky {
        return rejected(format!(
            "other users may write in its directory {directory} (mode {:04o}) and could replace the socket: `chmod go-w` it, or \
             use another directory",
            metadata.mode() & 0o7777
        ));
    }
    Ok(())
}

impl AdminUnixListener {
    /// Listens on this path, and replaces a stale socket there. Fails if a process listens there, or if there is a file
    /// that is not a socket.
    fn bind(path: &Path) -> io::Result<Self> {
        prepare_directory(path)?;
        if let Some(message) = in_use_message(path)? {
            return Err(io::Error::new(ErrorKind::AddrInUse, message));
        }
        let (socket, file) = BoundUnix::new(path, 0o600)?.listen(BACKLOG)?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            _file: file,
        })
    }
}

/// The error message, with the remedy, if a process listens on the socket. `None`: there is no file, or a stale socket.
fn in_use_message(path: &Path) -> io::Result<Option<String>> {
    let problem = match connect_to_listener(path) {
        Ok(None) => return Ok(None),
        Ok(Some(socket)) => describe_listening_process(socket.into()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => error.to_string(), // the queue of its socket is full
        Err(error) => return Err(error),
    };
    Ok(Some(format!(
        "{problem}: stop it, or give this process a socket of its own, `socket = \"/run/acequia/NAME.sock\"` in [admin]"
    )))
}

fn describe_listening_process(stream: UnixStream) -> String {
    let pid = peer_of(&stream).map_or_else(|_| String::new(), |peer| format!(" (pid {})", peer.pid));
    match request_process(stream) {
        Ok(process) => {
            let file = process.configuration.as_deref();
            let file = file.map_or(Cow::Borrowed("no file"), |file| escape(file, &[]));
            format!("another acequia listens there{pid}, which runs {file}")
        }
        Err(_) => format!("another process listens there{pid}"),
    }
}

/// Sends `GET /api/v1/process` and reads the response, within [`RESPONSE_TIME_MAX`]. It may block the thread, because
/// it is called before the runtime serves anything.
fn request_process(mut stream: UnixStream) -> io::Result<ProcessBody> {
    let deadline = Instant::now() + RESPONSE_TIME_MAX;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(RESPONSE_TIME_MAX))?;
    stream.write_all(b"GET /api/v1/process HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut response = Vec::new();
    while response.len() as u64 <= RESPONSE_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => break,
            read => response.extend_from_slice(&buffer[..read]),
        }
    }
    let body = response
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .map_or(0, |head| head + 4);
    serde_json::from_slice(&response[body..]).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_socket_has_mode_0600_and_is_removed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let listener = AdminUnixListener::bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn only_the_initial_user_namespace_has_all_uids() {
        for (map, has_all) in [
            ("         0          0 4294967295\n", true),
            ("         0       1000          1\n", false),
            ("0 1000 1\n1 100000 65536\n", false),
            ("", false),
        ] {
            assert_eq!(maps_all_uids(map), has_all, "{map}");
        }
    }

    #[tokio::test]
    async fn a_live_socket_is_kept_and_a_stale_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let [live, stale] = ["live.sock", "stale.sock"].map(|name| directory.path().join(name));
        let _live = AdminUnixListener::bind(&live).unwrap();
        assert_eq!(AdminUnixListener::bind(&live).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(in_use_message(&live).unwrap().is_some());
        // A killed process leaves a socket like this one.
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        AdminUnixListener::bind(&stale).unwrap();
    }

    #[tokio::test]
    async fn dropping_a_listener_keeps_the_socket_that_has_replaced_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other_path] = ["a.sock", "b.sock"].map(|name| directory.path().join(name));
        let first = AdminUnixListener::bind(&path).unwrap();
        let second = AdminUnixListener::bind(&other_path).unwrap();
        std::fs::rename(&other_path, &path).unwrap();
        drop(first);
        assert!(in_use_message(&path).unwrap().is_some());
        drop(second);
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(
            AdminUnixListener::bind(&path).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_directory_that_others_may_write_to_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("made");
        let bind = || AdminUnixListener::bind(&inner.join("a.sock"));
        let set_mode = |mode| std::fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
        drop(bind().unwrap());
        assert_eq!(inner.metadata().unwrap().mode() & 0o777, 0o700);
        for rejected in [0o777, 0o770, 0o702] {
            set_mode(rejected);
            let error = bind().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{rejected:o}: {error}");
            assert!(error.to_string().contains("other users may write"), "{error}");
        }
        for accepted in [0o755, 0o1777] {
            set_mode(accepted);
            drop(bind().unwrap());
        }
    }

    #[tokio::test]
    async fn a_directory_that_others_may_rename_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let [outer, inner] = ["outer", "outer/inner"].map(|name| directory.path().join(name));
        std::fs::create_dir_all(&inner).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let bind = |directory: &Path| AdminUnixListener::bind(&directory.join("a.sock"));
        drop(bind(&inner).unwrap());
        std::fs::set_permissions(&outer, Permissions::from_mode(0o777)).unwrap();
        for path in [&inner, &link] {
            let error = bind(path).unwrap_err().to_string();
            assert!(error.contains(&format!("{} (mode 0777)", outer.display())), "{error}");
        }
        std::fs::set_permissions(&outer, Permissions::from_mode(0o1777)).unwrap();
        drop(bind(&inner).unwrap());
    }
}
