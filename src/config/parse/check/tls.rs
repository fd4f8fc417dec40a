//! The keys of `check = "tls"`.

use std::sync::Arc;

use super::super::{list, pool_tls::server_name};
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::tls::{KIND, TlsCheck};

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    Arc::new(settings(section, problems))
}

/// The TLS settings of a check whose kind has TLS as an option; `None`: the check does not use TLS, or `tls` is not
/// valid.
pub(super) fn optional_tls(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<TlsCheck> {
    let hint_without_tls = match section.boolean("tls", problems) {
        Some(true) => {
            return Some(TlsCheck {
                alpn: Vec::new(), // the key `alpn` belongs to `check = "tls"` only
                ..settings(section, problems)
            });
        }
        Some(false) => "set tls = true",
        None if section.is_missing("tls") => "add tls = true to [pools.NAME.health]",
        None => return None, // `tls` is misspelt or not a boolean, which is reported
    };
    for key in ["sni", "verify", "ca_file"] {
        if let Some((position, _)) = section.entry(key) {
            problems.error(position, format!("`{key}` needs TLS"), hint_without_tls);
        }
    }
    None
}

fn settings(section: &Section<'_>, problems: &mut Problems<'_>) -> TlsCheck {
    let sni = section.get("sni").and_then(|node| server_name(node, problems));
    let alpn = list::entries(section, "alpn", problems, |text| {
        list::alpn_protocol(text).map(|_| Box::<str>::from(text))
    });
    let verify = section.boolean("verify", problems);
    let check = TlsCheck {
        sni,
        alpn,
        verify,
        ca_file: section.path("ca_file", problems),
    };
    if let (Some((position, _)), Some(false)) = (section.entry("ca_file"), check.verify) {
        problems.warning(
            position,
            "`ca_file` is never used",
            "certificates are not verified with verify = false",
        );
    }
    check
}
