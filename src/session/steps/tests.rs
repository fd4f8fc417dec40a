//! The PROXY header and the texts of a session's steps.

use super::*;
use crate::account::Ending;

#[test]
fn without_a_local_address_there_is_no_session_where_a_proxy_header_is_expected() {
    let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
    for version in [Version::V1, Version::V2] {
        let gone = Err(io::ErrorKind::NotConnected.into());
        let refusal = proxy_header(version, client, gone, (None, None), None).unwrap_err();
        assert_eq!((refusal.ending(), refusal.reply()), (Ending::ClientReset, Reply::Reset));
    }
}

#[test]
fn the_text_of_the_protocols_is_bounded() {
    let names = |names: &[&str]| ProtocolList::of(names);
    assert_eq!(alpn_text(&ProtocolList::default()), None);
    assert_eq!(alpn_text(&names(&["h2", "http/1.1"])).as_deref(), Some("h2,http/1.1"));
    let many = ProtocolList::of(vec![[0; 255]; 255]);
    assert_eq!(alpn_text(&many).as_deref(), Some("…"));
    let mixed = alpn_text(&names(&["h2", &"x".repeat(255), "h3"]));
    assert_eq!(mixed.as_deref(), Some("h2,…"));
}
