//! Unix sockets (unix(7)): their paths, and the peer process.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The absolute path of a Unix socket. It is displayed as it is configured, `unix:/run/app.sock`, but with `.` and `..`
/// resolved ([`Self::new`]).
#[derive(Clone, Copy)]
pub struct UnixPath {
    bytes: [u8; Self::BYTES_MAX],
    length: u8,
}

/// Why a text is not the path of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnixPathError {
    /// It is not absolute.
    #[error("the path of a Unix socket must be absolute")]
    Relative,
    /// It is longer than [`UnixPath::BYTES_MAX`].
    #[error("the path of a Unix socket has at most 107 bytes")]
    TooLong,
    /// It ends with a slash, `.` or `..`, or has an empty part or a control character.
    #[error("this is not the path of a file")]
    NoFile,
}

impl UnixPath {
    /// The limit of the kernel: `sun_path` of unix(7) without the zero byte at the end.
    pub const BYTES_MAX: usize = 107;

    /// The path without `.` and `..`, which are resolved in the text. Only `..` after a symbolic link, and each `..`
    /// that follows a kept one, are kept: the first leads to the parent of the link's target. Makes system calls if the
    /// path has `..`.
    ///
    /// # Errors
    /// Why it cannot be the path of a socket.
    pub fn new(path: &str) -> Result<Self, UnixPathError> {
        let parts = path.strip_prefix('/').ok_or(UnixPathError::Relative)?;
        let is_directory = matches!(parts.rsplit('/').next(), Some("." | ".."));
        if is_directory || parts.split('/').any(str::is_empty) || path.contains(char::is_control) {
            return Err(UnixPathError::NoFile);
        }
        let path = without_dots(parts);
        let mut bytes = [0; Self::BYTES_MAX];
        let room = bytes.get_mut(..path.len()).ok_or(UnixPathError::TooLong)?;
        room.copy_from_slice(path.as_bytes());
        Ok(Self {
            bytes,
            length: path.len() as u8, // at most BYTES_MAX
        })
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default() // built from a `str`
    }

    /// The path as the system calls take it.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_str())
    }

    /// Whether both are paths of one socket. Makes system calls if the paths differ.
    #[must_use]
    pub fn is_same_socket(&self, other: &Self) -> bool {
        self == other || self.place() == other.place()
    }

    /// Where the socket is.
    #[must_use]
    pub fn place(&self) -> UnixPlace {
        UnixPlace::of(self.as_path())
    }
}

/// Resolves `.` and `..` as [`UnixPath::new`] does. `parts` is the path after its first slash.
fn without_dots(parts: &str) -> String {
    let mut path = String::new();
    for part in parts.split('/').filter(|part| *part != ".") {
        // `..` after a symbolic link is kept. So is each `..` that follows a kept one.
        if part == ".." && !path.ends_with("/..") && !Path::new(&path).is_symlink() {
            path.truncate(path.rfind('/').unwrap_or_default()); // the parent of the root is the root
        } else {
            path.push('/');
            path.push_str(part);
        }
    }
    path
}

/// Where a Unix socket is: its directory, and its name there. Two paths of one socket have equal places, also if one of
/// them leads there by a symbolic link or a second mount of the directory, but not if one is a hard link. A later
/// change of the links or mounts is not seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixPlace {
    /// The device and the inode of the directory; `None`: it cannot be found.
    directory: Option<(u64, u64)>,
    /// The name in the directory, or the whole path if the directory cannot be found.
    file: PathBuf,
}

impl UnixPlace {
    /// The place that this path leads to now; the socket need not exist. Makes system calls.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        const LINKS_MAX: usize = 8; // links may form a cycle
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            match path.read_link() {
                Ok(target) => path = path.with_file_name(target),
                Err(_) => break, // it is no link, or does not exist
            }
        }
        let directory = path.parent().and_then(|directory| directory.metadata().ok());
        let name = path.file_name().filter(|_| directory.is_some()).map(PathBuf::from);
        Self {
            directory: directory.map(|directory| (directory.dev(), directory.ino())),
            file: name.unwrap_or(path),
        }
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.as_str())
    }
}

impl fmt::Debug for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for UnixPath {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for UnixPath {}

impl Hash for UnixPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for UnixPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnixPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

/// The process that was at the other end of a Unix socket when the connection was made (`SO_PEERCRED` of unix(7)). It
/// is displayed as `unix:uid=1000,pid=4711`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixPeer {
    /// Its effective user ID.
    pub uid: u32,
    /// Its process ID; 0 if it has none in our PID namespace (pid_namespaces(7)).
    pub pid: u32,
}

impl fmt::Display for UnixPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:uid={},pid={}", self.uid, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_names_a_file() {
        let longest = format!("/{}", "a".repeat(UnixPath::BYTES_MAX - 1));
        for path in ["/a", "/run/app.sock", "/run/bücher.sock", &longest] {
            let parsed = UnixPath::new(path).unwrap();
            assert_eq!(parsed.as_str(), path);
            assert_eq!(parsed.to_string(), format!("unix:{path}"));
        }
        for (path, error) in [
            ("", UnixPathError::Relative),
            ("run/app.sock", UnixPathError::Relative),
            ("@name", UnixPathError::Relative),
            ("/", UnixPathError::NoFile),
            ("/run/", UnixPathError::NoFile),
            ("/run/..", UnixPathError::NoFile),
            ("/run/.", UnixPathError::NoFile),
            ("//run/a", UnixPathError::NoFile),
            ("/a\0b", UnixPathError::NoFile),
            (&format!("{longest}a"), UnixPathError::TooLong),
        ] {
            assert_eq!(UnixPath::new(path).err(), Some(error), "{path}");
        }
    }

    fn directory_with_links() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/deep")).unwrap();
        for (target, link) in [("a", "link"), ("a/deep", "down"), ("../s", "a/deep/t")] {
            std::os::unix::fs::symlink(target, directory.path().join(link)).unwrap();
        }
        directory
    }

    #[test]
    fn dots_are_resolved_except_after_a_symbolic_link() {
        let directory = directory_with_links();
        let path = |rest: &str| format!("{}/{rest}", directory.path().to_str().unwrap());
        let new = |rest: &str| UnixPath::new(&path(rest)).unwrap();
        for same in ["a/s", "a/./s", "./a/deep/../s", "missing/../a/s"] {
            assert_eq!(new(same), new("a/s"), "{same}");
        }
        assert_eq!(
            new("down/../s").as_str(),
            path("down/../s"),
            "expected `..` after a link to stay"
        );
        assert_eq!(UnixPath::new("/../run/../s").unwrap().as_str(), "/s");
    }

    #[test]
    fn one_socket_has_one_place_whatever_its_path() {
        let directory = directory_with_links();
        let path = |rest: &str| format!("{}/{rest}", directory.path().to_str().unwrap());
        let new = |rest: &str| UnixPath::new(&path(rest)).unwrap();
        for same in ["link/s", "down/../s", "a/deep/t", "link/deep/t"] {
            assert_eq!(new(same).place(), new("a/s").place(), "{same}");
        }
        for other in ["s", "a/t", "a/deep/s", "missing/s", "none/s"] {
            assert_ne!(new(other).place(), new("a/s").place(), "{other}");
        }
        assert_ne!(new("missing/s").place(), new("none/s").place());
    }

    #[test]
    fn paths_are_compared_as_text() {
        let path = |path| UnixPath::new(path).unwrap();
        assert_eq!(path("/a"), path("/a"));
        assert!(path("/a") < path("/ab") && path("/ab") < path("/b"));
    }
}
