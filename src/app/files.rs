//! The files that a plan names: whether they can be read, and whether others may use them too.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::Failure;
use crate::plan::Plan;

/// Others than the owner may write, or others than the owner and the group may read. A group is one the administrator
/// has chosen: `root:acequia` with mode 0640 is a usual way to hand a secret to a process.
const SECRET_MASK: u32 = 0o026;

/// Others than the owner may write.
const WRITE_MASK: u32 = 0o022;

/// Looks at the files at the start: whether they can be read, and, which only the log says, whether others may use them.
///
/// # Errors
/// As of [`readable`].
pub(super) fn look(plan: &Plan) -> Result<(), Failure> {
    readable(plan)?;
    for warning in exposed(plan) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Whether every file that the plan names can be read.
///
/// # Errors
/// The first one that cannot, and the key that names it.
pub(super) fn readable(plan: &Plan) -> Result<(), Failure> {
    for (key, path) in plan.files() {
        if let Err(cause) = File::open(path) {
            let path = path.to_owned();
            return Err(Failure::File { key, path, cause });
        }
    }
    Ok(())
}

/// A warning for each file that the plan names and others may write, or read if it holds a secret. A file that cannot be
/// looked at gets none.
#[must_use]
pub fn exposed(plan: &Plan) -> Vec<String> {
    let warning = |(key, path): (String, &std::path::Path)| {
        let mode = path.metadata().ok()?.permissions();
        let (what, remedy) = exposure(&mode, !key.ends_with("ca_file"))?;
        let mode = mode.mode() & 0o7777;
        Some(format!(
            "{key}: others may {what} {} (mode {mode:04o}): `chmod {remedy}` it",
            path.display()
        ))
    };
    plan.files().into_iter().filter_map(warning).collect()
}

/// What others may do with a file that they should not, and the mode that forbids it.
fn exposure(permissions: &Permissions, is_secret: bool) -> Option<(&'static str, &'static str)> {
    let mode = permissions.mode();
    let (mask, remedy) = if is_secret {
        (SECRET_MASK, "600")
    } else {
        (WRITE_MASK, "go-w")
    };
    let what = match (mode & mask & 0o044 != 0, mode & mask & 0o022 != 0) {
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
    fn what_others_may_do() {
        let of = |mode, is_secret| exposure(&Permissions::from_mode(mode), is_secret).map(|(what, _)| what);
        assert_eq!([0o600, 0o640, 0o400, 0o700].map(|mode| of(mode, true)), [None; 4]);
        assert_eq!(of(0o644, true), Some("read"));
        assert_eq!(of(0o660, true), Some("write"));
        assert_eq!(of(0o666, true), Some("read and write"));
        assert_eq!([0o644, 0o444].map(|mode| of(mode, false)), [None; 2]);
        assert_eq!(of(0o664, false), Some("write"));
    }
}
