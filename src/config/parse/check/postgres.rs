//! The keys of `check = "postgres"`.

use std::sync::Arc;

use super::super::value;
use super::Problems;
use super::reader::{KindReader, Sections};
use super::role::role_requirement;
use crate::check::postgres::{KIND, PostgresCheck, PostgresLogin};
use crate::check::{Check, Role, RoleRequirement};
use crate::config::file::Node;

/// The longest name of a user or database, in bytes: the limit of PostgreSQL (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(sections: &Sections<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let section = sections.health;
    let user = section.get("user").and_then(|node| name(node, problems));
    let password_file = section
        .get("password_file")
        .and_then(|node| value::path(node, problems));
    let database = section.get("database").and_then(|node| name(node, problems));
    let required = role_requirement(sections.pool, problems);
    if section.is_missing("user") {
        keys_without_user(sections, required, problems);
    }
    let login = user.map(|user| PostgresLogin {
        database: database.unwrap_or(user).into(),
        user: user.into(),
        password_file,
    });
    Arc::new(PostgresCheck { login, required })
}

/// Reports keys that have an effect only with a login.
fn keys_without_user(sections: &Sections<'_>, required: RoleRequirement, problems: &mut Problems<'_>) {
    let Sections { pool, health } = *sections;
    for (key, section, needs_login) in [
        ("password_file", health, true),
        ("database", health, true),
        ("role", pool, required.role != Role::Any),
        ("max_lag", pool, required.max_lag.is_some()),
    ] {
        if let (Some((position, _)), true) = (section.entry(key), needs_login) {
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
