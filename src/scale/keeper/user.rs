//! The user as which a clone runs.

use std::fs;
use std::io;

const PASSWD: &str = "/etc/passwd";

/// The user and the group of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserIds {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// Finds a user by name in `/etc/passwd`.
///
/// # Errors
/// It cannot be read, or has no such user.
pub(super) fn find(name: &str) -> io::Result<UserIds> {
    let users = fs::read_to_string(PASSWD)?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no user `{name}` in {PASSWD}"));
    ids_in(&users, name).ok_or_else(missing)
}

/// The format: passwd(5).
fn ids_in(users: &str, name: &str) -> Option<UserIds> {
    let ids = |line: &str| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let mut id = |skipped| fields.nth(skipped)?.parse().ok();
        Some(UserIds {
            user: id(1)?,
            group: id(0)?,
        })
    };
    users.lines().find_map(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1001:1002:,,,:/:/bin/false\n";
        let app = UserIds {
            user: 1001,
            group: 1002,
        };
        assert_eq!(ids_in(users, "app"), Some(app));
        assert_eq!(
            (ids_in(users, "ap"), ids_in(users, "broken"), ids_in(users, "")),
            (None, None, None)
        );
    }
}
