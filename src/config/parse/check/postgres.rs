//! The keys of `check = "postgres"`.

use std::sync::Arc;

use super::super::value;
use super::Mistakes;
use super::reader::{KindReader, Sections};
use super::role::role_requirement;
use crate::check::postgres::{KIND, PostgresCheck, PostgresLogin};
use crate::check::{Check, Role, RoleRequirement};
use crate::config::file::Node;

/// The longest name of a user or database, in bytes: PostgreSQL's own limit (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(sections: &Sections<'_>, m: &mut Mistakes<'_>) -> Arc<dyn Check> {
    let section = sections.health;
    let user = section.get("user").and_then(|node| name(node, m));
    let password_file = section.get("password_file").and_then(|node| value::path(node, m));
    let database = section.get("database").and_then(|node| name(node, m));
    let required = role_requirement(sections.pool, m);
    if section.lacks("user") {
        keys_without_user(sections, required, m);
    }
    let login = user.map(|user| PostgresLogin {
        database: database.unwrap_or(user).into(),
        user: user.into(),
        password_file,
    });
    Arc::new(PostgresCheck { login, required })
}

/// Reports keys that have an effect only with a login.
fn keys_without_user(sections: &Sections<'_>, required: RoleRequirement, m: &mut Mistakes<'_>) {
    let Sections { pool, health } = *sections;
    for (key, section, needs_login) in [
        ("password_file", health, true),
        ("database", health, true),
        ("role", pool, required.role != Role::Any),
        ("max_lag", pool, required.max_lag.is_some()),
    ] {
        if let (Some((place, _)), true) = (section.entry(key), needs_login) {
            let label = "add `user` to [pools.NAME.health]";
            m.say(place, format!("`{key}` needs somebody to log in as"), label);
        }
    }
}

/// A name that goes into a message of a protocol whose strings end with a zero byte.
fn name<'a>(node: &'a Node, m: &mut Mistakes<'_>) -> Option<&'a str> {
    let text = value::text(node, m)?;
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains('\0') {
        let label = format!("write 1 to {NAME_BYTES_MAX} bytes");
        m.say(&node.place, "this is not a name", label);
        return None;
    }
    Some(text)
}
