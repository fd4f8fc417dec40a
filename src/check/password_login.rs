//! A user and a password, with which several kinds of checks log in.

use std::path::{Path, PathBuf};

use super::CheckFailure;
use super::file::read_password;

/// A user and a password, as `user` and `password_file` in `[pools.NAME.health]` configure them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordLogin {
    /// The user.
    pub user: Box<str>,
    /// Contains the password; a line end after the password is ignored. Read when a check needs it. `None`: no
    /// password.
    pub password_file: Option<PathBuf>,
}

impl PasswordLogin {
    /// The keys, each with its value as text: the part of [`super::Check::settings`] that this login adds.
    pub(super) fn settings(&self) -> [(&'static str, String); 2] {
        let Self { user, password_file } = self;
        [
            ("health.user", format!("{user:?}")),
            ("health.password_file", format!("{password_file:?}")),
        ]
    }

    /// The file with the password, with the key that names it.
    pub(super) fn file(&self) -> Option<(&'static str, &Path)> {
        let file = self.password_file.as_deref();
        file.map(|path| ("password_file", path))
    }

    /// Reads the password; `None`: there is none.
    ///
    /// # Errors
    /// Those of [`read_password`].
    pub(super) async fn password(&self) -> Result<Option<Vec<u8>>, CheckFailure> {
        match self.file() {
            Some((key, path)) => read_password(key, path).await.map(Some),
            None => Ok(None),
        }
    }
}
