//! The keys of `check = "mysql"`.

use std::sync::Arc;

use super::login::{password_login, report_keys_without_user};
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::mysql::{DonorUse, KIND, MysqlCheck};

/// The longest name of a user, in bytes: MariaDB allows 128 characters of up to 4 bytes, MySQL 32.
const NAME_BYTES_MAX: usize = 128 * 4;

const DONOR_USES: [(&str, DonorUse); 2] = [("use", DonorUse::Use), ("avoid", DonorUse::Avoid)];

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let login = password_login(section, NAME_BYTES_MAX, problems);
    let donor = section.one_of("donor", &DONOR_USES, problems);
    report_keys_without_user(section, &["password_file", "donor"], problems);
    Arc::new(MysqlCheck {
        login,
        donor: donor.unwrap_or(DonorUse::Use),
    })
}
