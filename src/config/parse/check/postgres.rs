//! The keys of `check = "postgres"`.

use std::sync::Arc;

use super::login::{name, password_login, report_keys_without_user};
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::postgres::{KIND, PostgresCheck, PostgresLogin};
use crate::sniff::postgres::NAME_BYTES_MAX;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let account = password_login(section, NAME_BYTES_MAX, problems);
    let database = section
        .get("database")
        .and_then(|node| name(node, NAME_BYTES_MAX, problems));
    report_keys_without_user(section, &["password_file", "database"], problems);
    let login = account.map(|account| PostgresLogin {
        database: database.map_or_else(|| account.user.clone(), Into::into),
        account,
    });
    Arc::new(PostgresCheck { login })
}
