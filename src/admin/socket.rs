//! The Unix socket: where the commands find it, and who may open it.

use std::borrow::Cow;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tokio::time::Instant;

use super::answers::Process;
use crate::plan::AdminSocket;
use crate::text::escape;

/// Its place where there is nothing better.
const SYSTEM_PLACE: &str = "/run/acequia/admin.sock";

/// Clients that may wait to be answered.
const BACKLOG: i32 = 64;

/// How long somebody who has the socket already may take to say who it is.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// And how much it may say: a path of 4096 bytes, escaped, and a few words more.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Names that are tried for the socket while it is made. That even one of them is taken is an accident.
const NAMES_TRIED: usize = 16;

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
/// The place that was asked for by name cannot be had; or another process answers in the usual place, so that commands
/// would steer that one.
pub fn bind(wanted: &AdminSocket) -> io::Result<Option<AdminListener>> {
    let place = match wanted {
        AdminSocket::Off => return Ok(None),
        AdminSocket::At(path) => path.clone(),
        AdminSocket::Usual => usual_places().swap_remove(0),
    };
    match AdminListener::bind(&place) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if *wanted == AdminSocket::Usual && error.kind() != ErrorKind::AddrInUse => {
            tracing::warn!(
                path = %place.display(),
                %error,
                "no Unix socket, so commands do not reach this process: set `socket` in [admin]"
            );
            Ok(None)
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", place.display()))),
    }
}

/// Makes the folder if it is missing, for its owner alone, and refuses one in which somebody else could put another
/// socket in place of ours.
fn ready_folder(place: &Path) -> io::Result<()> {
    let folder = place.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let what = format!("cannot make its folder {}: {error}", folder.display());
            return Err(io::Error::new(error.kind(), what));
        }
        _ => {}
    }
    let there = folder.metadata()?;
    let refused = |what: String| Err(io::Error::new(ErrorKind::PermissionDenied, what));
    let us = rustix::process::geteuid().as_raw();
    if there.uid() != us && there.uid() != 0 {
        return refused(format!(
            "its folder belongs to another user (uid {}), who could put another socket there: `chown` it to uid {us}, or \
             name another folder",
            there.uid()
        ));
    }
    let (others_may_write, is_sticky) = (there.mode() & 0o022 != 0, there.mode() & 0o1000 != 0);
    if others_may_write && !is_sticky {
        return refused(format!(
            "others may write in its folder (mode {:04o}), and could put another socket there: `chmod go-w` it, or name \
             another folder",
            there.mode() & 0o7777
        ));
    }
    Ok(())
}

impl AdminListener {
    /// Takes the place of a socket nobody listens on; leaves alone one that is listened on, and what is no socket.
    fn bind(path: &Path) -> io::Result<Self> {
        ready_folder(path)?;
        if let Ok(there) = path.symlink_metadata() {
            if !there.file_type().is_socket() {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            if let Some(other) = other(path)? {
                return Err(io::Error::new(ErrorKind::AddrInUse, other));
            }
        }
        // Bound beside it and moved there, so that nobody ever sees it with other permissions, nor half made.
        let (socket, beside) = listen_beside(path)?;
        std::fs::rename(&beside, path).inspect_err(|_| drop(std::fs::remove_file(&beside)))?;
        let there = path.symlink_metadata()?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            path: path.to_owned(),
            inode: (there.dev(), there.ino()),
        })
    }
}

/// Listens under a name in the same folder that nobody has: binding never replaces a file (unix(7)).
fn listen_beside(path: &Path) -> io::Result<(Socket, PathBuf)> {
    let mut tried = Err(io::Error::from(ErrorKind::AddrInUse));
    for _ in 0..NAMES_TRIED {
        let beside = path.with_file_name(format!(".{:06x}", fastrand::u32(..1 << 24)));
        tried = listen(&beside).map(|socket| (socket, beside));
        if !matches!(&tried, Err(error) if error.kind() == ErrorKind::AddrInUse) {
            break;
        }
    }
    tried
}

fn listen(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let opened = std::fs::set_permissions(path, Permissions::from_mode(0o600)).and_then(|()| socket.listen(BACKLOG));
    opened.inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(socket)
}

/// Who listens there, in words, and what to do about it; `None`: nobody. That its queue is full means somebody.
fn other(path: &Path) -> io::Result<Option<String>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let who = match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => who_answers(socket.into()),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => return Ok(None),
            ErrorKind::WouldBlock => "another process listens there".to_owned(),
            _ => return Err(error),
        },
    };
    Ok(Some(format!(
        "{who}: stop it, or give this one a place of its own, `socket = \"/run/acequia/NAME.sock\"` in [admin]"
    )))
}

fn who_answers(stream: UnixStream) -> String {
    let pid = pid_of(&stream).map_or_else(String::new, |pid| format!(" (pid {pid})"));
    match ask_who(stream) {
        Ok(process) => {
            let file = process.configuration.as_deref();
            let file = file.map_or(Cow::Borrowed("no file"), |file| escape(file, &[]));
            format!("another acequia answers there{pid}, which runs {file}")
        }
        Err(_) => format!("another process answers there{pid}"),
    }
}

/// The kernel's word, and its number as we see it.
fn pid_of(stream: &UnixStream) -> Option<i32> {
    let stream = tokio::net::UnixStream::from_std(stream.try_clone().ok()?).ok()?;
    stream.peer_cred().ok()?.pid()
}

/// The answer to `GET /api/v1/process`, within a time: the runtime is not there yet.
fn ask_who(mut stream: UnixStream) -> io::Result<Process> {
    let end = Instant::now() + ANSWER_TIME_MAX;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    stream.write_all(b"GET /api/v1/process HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut answer, mut read) = (Vec::new(), 1);
    while read > 0 && answer.len() as u64 <= ANSWER_BYTES_MAX {
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?; // 0 would be for ever
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut piece = [0; 4096];
        read = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..read]);
    }
    let body = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .map_or(0, |head| head + 4);
    serde_json::from_slice(&answer[body..]).map_err(io::Error::other)
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
        assert!(other(&path).unwrap().is_some());
        // As a process that is killed leaves it.
        let stale = folder.path().join("b.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let second = AdminListener::bind(&stale).unwrap();
        std::fs::rename(&stale, &path).unwrap();
        drop(first);
        assert!(other(&path).unwrap().is_some(), "another took its place");
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

    #[tokio::test]
    async fn no_other_file_beside_it_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join(format!(".{}", std::process::id()));
        std::fs::write(&beside, "precious").unwrap();
        drop(AdminListener::bind(&folder.path().join("a.sock")).unwrap());
        assert_eq!(std::fs::read(&beside).unwrap(), b"precious");
        assert!(listen(&beside).is_err(), "a name that is taken is left alone");
        assert_eq!(std::fs::read(&beside).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn only_a_folder_that_is_ours_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("made");
        let bind = || AdminListener::bind(&inner.join("a.sock"));
        let mode = |mode| std::fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
        drop(bind().unwrap());
        assert_eq!(inner.metadata().unwrap().mode() & 0o777, 0o700);
        for open in [0o777, 0o770, 0o702] {
            mode(open);
            let error = bind().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{open:o}: {error}");
            assert!(error.to_string().contains("others may write"), "{error}");
        }
        for closed in [0o755, 0o1777] {
            mode(closed);
            drop(bind().unwrap());
        }
    }
}
