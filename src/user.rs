//! Users of this machine: finds their IDs, and runs functions with their permissions.

use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The IDs of a user and of its primary group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserIds {
    /// The ID of the user.
    pub user: u32,
    /// The ID of its primary group.
    pub group: u32,
}

/// The users of this machine at one moment.
#[derive(Debug)]
pub struct Users(String);

impl Users {
    /// Reads `/etc/passwd`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read() -> io::Result<Self> {
        read_text(Path::new(PASSWD)).map(Self)
    }

    /// Finds a user by name.
    ///
    /// # Errors
    /// There is no such user.
    pub fn find(&self, name: &str) -> io::Result<UserIds> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no user `{name}` in {PASSWD}"));
        ids_in(&self.0, name).ok_or_else(missing)
    }
}

/// Runs a function in a thread with the permissions of a user: with its ID, its primary group, and the groups in
/// `/etc/group` that list it.
///
/// # Errors
/// The user is not known, `/etc/passwd` or `/etc/group` cannot be read, or this process may not change its user.
pub fn run_as<T: Send>(name: &str, run: impl FnOnce() -> T + Send) -> io::Result<T> {
    let UserIds { user, group } = Users::read()?.find(name)?;
    let groups = groups_in(&read_text(Path::new(GROUP))?, name);
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(group));
    // Made without the C library, these system calls change only the thread that calls them (setresuid(2), "C
    // library/kernel differences").
    let as_user = move || {
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(run())
    };
    thread::scope(|scope| scope.spawn(as_user).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Reads a file as text. Full names in it may have any encoding; names that are looked up are UTF-8.
fn read_text(file: &Path) -> io::Result<String> {
    let bytes = fs::read(file)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The IDs of a user. The format of `users`: passwd(5).
fn ids_in(users: &str, name: &str) -> Option<UserIds> {
    let ids = |line: &str| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let _password = fields.next()?;
        let mut next_id = || fields.next()?.parse().ok();
        Some(UserIds {
            user: next_id()?,
            group: next_id()?,
        })
    };
    users.lines().find_map(ids)
}

/// The groups that list a user. The format of `groups`: group(5).
fn groups_in(groups: &str, name: &str) -> Vec<Gid> {
    let user_group = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        let [_, _, number, members] = fields[..] else {
            return None;
        };
        if !members.split(',').any(|member| member == name) {
            return None;
        }
        number.parse().ok().map(Gid::from_raw)
    };
    groups.lines().filter_map(user_group).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn a_user_is_found_beside_a_full_name_that_is_not_utf_8() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"jo:x:1:2:J\xf6rg:/:/bin/sh\napp:x:3:4::/:/bin/false\n").unwrap();
        let users = Users(read_text(file.path()).unwrap());
        assert_eq!(users.find("app").unwrap(), UserIds { user: 3, group: 4 });
    }

    #[test]
    fn groups_are_those_that_list_the_whole_name() {
        let groups = "app:x:1:\ntls:x:2:www,app\nlog:x:3:apple\nbroken\nweb:x:4:app";
        let raw: Vec<_> = groups_in(groups, "app").into_iter().map(Gid::as_raw).collect();
        assert_eq!(raw, [2, 4]);
    }

    #[test]
    fn a_thread_of_another_user_reads_no_file_of_root() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let read = |user: &str| run_as(user, || fs::read(file.path()).is_ok());
        if rustix::process::geteuid().is_root() {
            assert_eq!((read("root").unwrap(), read("nobody").unwrap()), (true, false));
            assert!(fs::read(file.path()).is_ok(), "other threads are not changed");
        } else {
            assert!(read("nobody").is_err());
        }
        assert!(read("nobody-has-this-name").is_err());
    }
}
