//! The keys of `check = "postgres"`.

use std::sync::Arc;

use super::super::value;
use super::login::{keys_without_user, name};
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::postgres::{KIND, PostgresCheck, PostgresLogin};

/// The longest name of a user or database, in bytes: the limit of PostgreSQL (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let user = section
        .get("user")
        .and_then(|node| name(node, NAME_BYTES_MAX, problems));
    let password_file = section
        .get("password_file")
        .and_then(|node| value::path(node, problems));
    let database = section
        .get("database")
        .and_then(|node| name(node, NAME_BYTES_MAX, problems));
    keys_without_user(section, &["password_file", "database"], problems);
    let login = user.map(|user| PostgresLogin {
        database: database.unwrap_or(user).into(),
        user: user.into(),
        password_file,
    });
    Arc::new(PostgresCheck { login })
}
