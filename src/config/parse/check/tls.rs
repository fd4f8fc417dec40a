//! The keys of `check = "tls"`.

use std::sync::Arc;

use super::super::{route, value};
use super::Mistakes;
use super::reader::{KindReader, Sections};
use crate::check::Check;
use crate::check::tls::{KIND, TlsCheck};
use crate::config::file::Node;
use crate::name::ServerName;

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(sections: &Sections<'_>, m: &mut Mistakes<'_>) -> Arc<dyn Check> {
    let section = sections.health;
    let sni = section.get("sni").and_then(|node| server_name(node, m));
    let alpn = route::entries(section, "alpn", m, |text| {
        route::protocol(text).map(|_| Box::<str>::from(text))
    });
    let verify = section.get("verify").and_then(|node| value::truth(node, m));
    let check = TlsCheck {
        sni,
        alpn,
        verify: verify.unwrap_or(false),
        ca_file: section.get("ca_file").and_then(|node| value::path(node, m)),
    };
    if let (Some((place, _)), false) = (section.entry("ca_file"), check.verify) {
        m.warn(
            place,
            "`ca_file` is never used",
            "no certificate is verified without verify = true",
        );
    }
    Arc::new(check)
}

fn server_name(node: &Node, m: &mut Mistakes<'_>) -> Option<Box<str>> {
    let text = value::text(node, m)?;
    match ServerName::from_config(text) {
        Ok(name) => Some(name.as_str().into()),
        Err(error) => {
            let label = "write a host's name, as in \"shop.example.com\"";
            m.say(&node.place, format!("`{text}`: {error}"), label);
            None
        }
    }
}
