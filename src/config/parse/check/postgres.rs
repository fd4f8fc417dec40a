//! The keys of `check = "postgres"`.

use std::sync::Arc;

use super::super::value;
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::postgres::{KIND, PostgresCheck, PostgresLogin};
use crate::config::file::Node;

/// The longest name of a user or database, in bytes: the limit of PostgreSQL (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let user = section.get("user").and_then(|node| name(node, problems));
    let password_file = section
        .get("password_file")
        .and_then(|node| value::path(node, problems));
    let database = section.get("database").and_then(|node| name(node, problems));
    if section.is_missing("user") {
        keys_without_user(section, problems);
    }
    let login = user.map(|user| PostgresLogin {
        database: database.unwrap_or(user).into(),
        user: user.into(),
        password_file,
    });
    Arc::new(PostgresCheck { login })
}

/// Reports keys that have an effect only with a login.
fn keys_without_user(section: &Section<'_>, problems: &mut Problems<'_>) {
    for key in ["password_file", "database"] {
        if let Some((position, _)) = section.entry(key) {
            let hint = "add `user` to [pools.NAME.health]";
            problems.error(position, format!("`{key}` needs a login"), hint);
        }
    }
}

/// A name that goes into a message of a protocol whose strings end with a zero byte.
fn name<'a>(node: &'a Node, problems: &mut Problems<'_>) -> Option<&'a str> {
    let text = value::string(node, problems)?;
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains('\0') {
        let hint = format!("write 1 to {NAME_BYTES_MAX} bytes");
        problems.error(&node.position, "invalid name of a user or database", hint);
        return None;
    }
    Some(text)
}
