//! Records what a client's first bytes contain, for the access log.

use std::sync::Arc;

use super::listener_state::ListenerState;
use super::refusal::Refusal;
use crate::account::Entry;
use crate::name::ServerName;
use crate::sniff::hello::ProtocolList;
use crate::sniff::{SniffError, Sniffed};

/// Records what the first bytes contain, and counts them.
pub(super) fn record_sniffed(sniffed: &Sniffed, state: &ListenerState, entry: &Entry) {
    entry.traffic().up.add(sniffed.bytes_read());
    if let Some(request) = sniffed.stray_postgres_request() {
        entry.info().detail = Some(request);
        state.log_postgres_request(request);
    }
    if let Some(hello) = sniffed.hello() {
        let mut info = entry.info();
        info.has_hello = true;
        info.sni = hello
            .server_name()
            .map(ServerName::shared)
            .or_else(|| hello.raw_name.as_deref().map(Arc::from));
        info.ech = hello.ech;
        info.alpn = alpn_text(&hello.alpn);
    }
    if let Some(startup) = sniffed.startup() {
        entry.info().protocol.get_or_insert_default().startup = Some(startup.clone());
    }
}

/// Counts the bytes of a client whose first bytes could not be used. Returns its refusal.
pub(super) fn count_unsniffed(error: SniffError, entry: &Entry) -> Refusal {
    entry.traffic().up.add(error.bytes_read);
    Refusal::Sniff(error)
}

/// The protocols offered, as text for the log: `h2,http/1.1`. Bounded, because it is kept as long as the session.
fn alpn_text(alpn: &ProtocolList) -> Option<Box<str>> {
    const TEXT_BYTES_MAX: usize = 255;
    let mut text = String::new();
    for (number, name) in alpn.iter().enumerate() {
        let name = name.escape_ascii().to_string();
        if text.len() + name.len() > TEXT_BYTES_MAX {
            text.push_str(if number == 0 { "…" } else { ",…" });
            break;
        }
        text.push_str(if number == 0 { "" } else { "," });
        text.push_str(&name);
    }
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_are_listed_in_a_text_of_bounded_length() {
        let names = |names: &[&str]| ProtocolList::new(names);
        assert_eq!(alpn_text(&ProtocolList::default()), None);
        assert_eq!(alpn_text(&names(&["h2", "http/1.1"])).as_deref(), Some("h2,http/1.1"));
        let many = ProtocolList::new(vec![[0; 255]; 255]);
        assert_eq!(alpn_text(&many).as_deref(), Some("…"));
        let mixed = alpn_text(&names(&["h2", &"x".repeat(255), "h3"]));
        assert_eq!(mixed.as_deref(), Some("h2,…"));
    }
}
