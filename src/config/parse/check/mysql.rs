//! The keys of `check = "mysql"`.

use std::sync::Arc;

use super::super::value;
use super::login::{keys_without_user, name};
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::mysql::{DonorUse, KIND, MysqlCheck, MysqlLogin};

/// The longest name of a user, in bytes: MariaDB allows 128 characters, MySQL 32.
const NAME_BYTES_MAX: usize = 128;

const DONOR_USES: [(&str, DonorUse); 2] = [("use", DonorUse::Use), ("avoid", DonorUse::Avoid)];

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let user = section
        .get("user")
        .and_then(|node| name(node, NAME_BYTES_MAX, problems));
    let password_file = section
        .get("password_file")
        .and_then(|node| value::path(node, problems));
    let donor = section.one_of("donor", &DONOR_USES, problems);
    keys_without_user(section, &["password_file", "donor"], problems);
    Arc::new(MysqlCheck {
        login: user.map(|user| MysqlLogin {
            user: user.into(),
            password_file,
        }),
        donor: donor.unwrap_or(DonorUse::Use),
    })
}
