//! The keys of `check = "tls"`.

use std::sync::Arc;

use super::super::{list, value};
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::tls::{KIND, TlsCheck};
use crate::config::file::Node;
use crate::name::ServerName;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let sni = section.get("sni").and_then(|node| server_name(node, problems));
    let alpn = list::entries(section, "alpn", problems, |text| {
        list::protocol(text).map(|_| Box::<str>::from(text))
    });
    let verify = section.get("verify").and_then(|node| value::boolean(node, problems));
    let check = TlsCheck {
        sni,
        alpn,
        verify: verify.unwrap_or(false),
        ca_file: section.get("ca_file").and_then(|node| value::path(node, problems)),
    };
    if let (Some((position, _)), false) = (section.entry("ca_file"), check.verify) {
        problems.warning(
            position,
            "`ca_file` is never used",
            "certificates are verified only with verify = true",
        );
    }
    Arc::new(check)
}

fn server_name(node: &Node, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let text = value::string(node, problems)?;
    match ServerName::from_config(text) {
        Ok(name) => Some(name.as_str().into()),
        Err(error) => {
            let hint = "write a host name, as in \"shop.example.com\"";
            problems.error(&node.position, format!("`{text}` is not a host name: {error}"), hint);
            None
        }
    }
}
