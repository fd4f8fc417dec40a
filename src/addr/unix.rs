//! Unix sockets (unix(7)): the path of one, and who is at the other end.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;

/// The absolute path of a Unix socket. It is displayed as it is configured, `unix:/run/app.sock`.
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
    /// It ends with a slash, or has an empty part or a control character.
    #[error("this is not the path of a file")]
    NoFile,
}

impl UnixPath {
    /// The limit of the kernel: `sun_path` of unix(7) without the zero byte at the end.
    pub const BYTES_MAX: usize = 107;

    /// The path.
    ///
    /// # Errors
    /// Why it cannot be the path of a socket.
    pub fn new(path: &str) -> Result<Self, UnixPathError> {
        let parts = path.strip_prefix('/').ok_or(UnixPathError::Relative)?;
        if parts.split('/').any(str::is_empty) || path.contains(char::is_control) {
            return Err(UnixPathError::NoFile);
        }
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

/// The process at the other end of a Unix socket when it connected (`SO_PEERCRED` of unix(7)). It is displayed as
/// `unix:uid=1000,pid=4711`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixPeer {
    /// Its effective user.
    pub uid: u32,
    /// Its number; 0 if it is in another PID namespace (pid_namespaces(7)).
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
            let path = UnixPath::new(path).map(|parsed| (parsed.as_str() == path, parsed.to_string()));
            assert!(path.is_ok_and(|(is_same, shown)| is_same && shown.starts_with("unix:/")));
        }
        for (path, error) in [
            ("", UnixPathError::Relative),
            ("run/app.sock", UnixPathError::Relative),
            ("@name", UnixPathError::Relative),
            ("/", UnixPathError::NoFile),
            ("/run/", UnixPathError::NoFile),
            ("//run/a", UnixPathError::NoFile),
            ("/a\0b", UnixPathError::NoFile),
            (&format!("{longest}a"), UnixPathError::TooLong),
        ] {
            assert_eq!(UnixPath::new(path).err(), Some(error), "{path}");
        }
    }

    #[test]
    fn paths_are_compared_as_text() {
        let path = |path| UnixPath::new(path).unwrap();
        assert_eq!(path("/a"), path("/a"));
        assert!(path("/a") < path("/ab") && path("/ab") < path("/b"));
    }
}
