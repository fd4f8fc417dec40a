//! Checks the files that a plan names: whether this process can read them, and whether other users can.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Failure;
use crate::admin::token;
use crate::check::password;
use crate::plan::Plan;
use crate::regular_file;

/// Mode bits that a file with a secret should not have: write for group and others, read for others. The group may
/// read: `root:acequia` with mode 0640 is a common way to give a secret to a process.
const SECRET_MASK: u32 = 0o026;

/// Suffixes of the configuration keys whose files everybody may read.
const PUBLIC_FILES: [&str; 4] = ["ca_file", "crl_file", "tls.cert", "cert_file"];

/// Mode bits that no file should have: write for group and others.
const WRITE_MASK: u32 = 0o022;

/// Reads a file and drops its secret; only the error matters.
type TryFile = fn(&Path) -> io::Result<()>;

/// Suffixes of the configuration keys whose files contain a password or a token, and what reads these. A file without
/// it is an error.
const SECRET_FILES: [(&str, TryFile); 2] = [
    ("password_file", |path| password(path).map(drop)),
    ("token_file", |path| token(path).map(drop)),
];

/// Checks that every file in [`Plan::files`] can be read, except those in the TLS settings of listeners and pools.
/// These are read next, by `load_tls`: one that is in force already and cannot be read any more does not prevent a
/// reload.
///
/// # Errors
/// The first file that cannot be read.
pub(super) fn check_readable(plan: &Plan) -> Result<(), Failure> {
    let mut files = plan.files_outside_tls().into_iter();
    files.find_map(unreadable_file).map_or(Ok(()), Err)
}

/// Each file of the plan that cannot be read, and each file of a password or token without a usable one.
pub fn unreadable(plan: &Plan) -> impl Iterator<Item = Failure> {
    plan.files().into_iter().filter_map(unreadable_file)
}

fn unreadable_file((key, path): (String, &Path)) -> Option<Failure> {
    let read = match SECRET_FILES.iter().find(|(suffix, _)| key.ends_with(suffix)) {
        Some((_, try_file)) => try_file(path),
        None => regular_file::open(path).map(drop),
    };
    let (path, cause) = (path.to_owned(), read.err()?);
    Some(Failure::File { key, path, cause })
}

/// A warning for each file of the plan that is empty, that the group or others may write, or that holds a secret and
/// that others may read. There is no warning that a file of a password or token is empty, because that is an error of
/// [`unreadable`]. A file whose metadata cannot be read gets no warning.
#[must_use]
pub fn file_warnings(plan: &Plan) -> Vec<String> {
    let warning = |(key, path): (String, &Path)| {
        let metadata = path.metadata().ok()?;
        let is_read = SECRET_FILES.iter().any(|(suffix, _)| key.ends_with(suffix));
        if metadata.is_file() && metadata.len() == 0 && !is_read {
            return Some(format!("{key}: {} is empty", path.display()));
        }
        let permissions = metadata.permissions();
        let is_secret = !PUBLIC_FILES.iter().any(|public| key.ends_with(public));
        let (what, remedy) = excess_access(&permissions, is_secret)?;
        let mode = permissions.mode() & 0o7777;
        Some(format!(
            "{key}: other users may {what} {} (mode {mode:04o}): `chmod {remedy}` it",
            path.display()
        ))
    };
    plan.files().into_iter().filter_map(warning).collect()
}

/// The warning about the file of a private key, if its mode gives the group or others too much access.
pub(super) fn key_file_warning(path: &Path) -> Option<String> {
    let permissions = path.metadata().ok()?.permissions();
    let is_secret = true;
    let (what, remedy) = excess_access(&permissions, is_secret)?;
    let (path, mode) = (path.display(), permissions.mode() & 0o7777);
    Some(format!(
        "other users may {what} the key in {path} (mode {mode:04o}): `chmod {remedy}` it"
    ))
}

/// What the group or others may do with a file but should not, and the chmod(1) mode that prevents it.
fn excess_access(permissions: &Permissions, is_secret: bool) -> Option<(&'static str, &'static str)> {
    let mode = permissions.mode();
    let (mask, remedy) = if is_secret {
        (SECRET_MASK, "go-w,o-r")
    } else {
        (WRITE_MASK, "go-w")
    };
    let excess = mode & mask;
    let (can_read, can_write) = (excess & 0o044 != 0, excess & 0o022 != 0);
    let what = match (can_read, can_write) {
        (true, true) => "read and write",
        (true, false) => "read",
        (false, true) => "write",
        (false, false) => return None,
    };
    Some((what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_should_not_read_secrets_and_neither_group_nor_others_should_write_files() {
        let access = |mode, is_secret| excess_access(&Permissions::from_mode(mode), is_secret).map(|(what, _)| what);
        assert_eq!([0o600, 0o640, 0o400, 0o700].map(|mode| access(mode, true)), [None; 4]);
        assert_eq!(access(0o644, true), Some("read"));
        assert_eq!(access(0o660, true), Some("write"));
        assert_eq!(access(0o666, true), Some("read and write"));
        assert_eq!([0o644, 0o444].map(|mode| access(mode, false)), [None; 2]);
        assert_eq!(access(0o664, false), Some("write"));
        let remedy = excess_access(&Permissions::from_mode(0o644), true).map(|(_, remedy)| remedy);
        assert_eq!(remedy, Some("go-w,o-r"), "the group keeps its access");
    }
}
