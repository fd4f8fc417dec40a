//! `user` and `password_file`, which several kinds of checks have.

use super::super::value;
use super::{Problems, Section};
use crate::check::PasswordLogin;
use crate::config::file::Node;

/// A name of a user, of a database or of a group of servers, of at most `bytes_max` bytes. It contains no zero
/// byte, because this byte ends a string in the protocols of PostgreSQL and MySQL.
pub(super) fn name<'a>(node: &'a Node, bytes_max: usize, problems: &mut Problems<'_>) -> Option<&'a str> {
    let hint = format!("write 1 to {bytes_max} bytes, as in \"acequia\"");
    let text = value::string(node, &hint, problems)?;
    if text.is_empty() || text.len() > bytes_max || text.contains('\0') {
        problems.error(&node.position, "invalid name", hint);
        return None;
    }
    Some(text)
}

/// A user, whose name has at most `bytes_max` bytes, and the file with its password. `None`: `user` is missing or
/// invalid.
pub(super) fn password_login(
    section: &Section<'_>,
    bytes_max: usize,
    problems: &mut Problems<'_>,
) -> Option<PasswordLogin> {
    let user = section.get("user").and_then(|node| name(node, bytes_max, problems));
    let password_file = section.path("password_file", problems);
    Some(PasswordLogin {
        user: user?.into(),
        password_file,
    })
}

/// Reports these keys of `[pools.NAME.health]` if `user` is missing: they have an effect only with a login.
pub(super) fn report_keys_without_user(section: &Section<'_>, keys: &[&str], problems: &mut Problems<'_>) {
    if !section.is_missing("user") {
        return;
    }
    for key in keys {
        if let Some((position, _)) = section.entry(key) {
            let hint = "add `user` to [pools.NAME.health]";
            problems.error(position, format!("`{key}` needs a login"), hint);
        }
    }
}
