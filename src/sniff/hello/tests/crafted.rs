//! Hellos that honest clients send seldom or never.

use super::*;

/// A handshake message with these extensions.
pub(super) fn crafted(extensions: &[Vec<u8>]) -> Vec<u8> {
    message(&body(Some(&extensions.concat())))
}

/// A ClientHello of TLS 1.2 with one cipher suite, without its handshake header. `extensions`: `None` if it ends where
/// they would begin.
pub(super) fn body(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = [b"\x03\x03".as_slice(), &[7; 32], b"\0", b"\0\x02\x13\x01", b"\x01\0"].concat();
    body.extend(extensions.map(vector16).unwrap_or_default());
    body
}

pub(super) fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], body].concat()
}

/// The message in records. `sizes` are the lengths of their fragments in bytes, repeated as often as needed; a length
/// over 2^14 is reduced to 2^14.
pub(super) fn in_records(mut message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    for &size in sizes.iter().cycle() {
        let (fragment, rest) = message.split_at(size.min(message.len()).min(FRAGMENT_BYTES_MAX));
        wire.extend_from_slice(b"\x16\x03\x01");
        wire.extend(vector16(fragment));
        message = rest;
        if rest.is_empty() {
            break;
        }
    }
    wire
}

pub(super) fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(data)].concat()
}

pub(super) fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector16(&host_name(name)))
}

fn host_name(name: &[u8]) -> Vec<u8> {
    [b"\0".as_slice(), &vector16(name)].concat()
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    extension(
        16,
        &vector16(&protocols.iter().flat_map(|name| vector8(name)).collect::<Vec<_>>()),
    )
}

fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn hello(extensions: &[Vec<u8>]) -> Hello {
    read(&in_records(&crafted(extensions), &[usize::MAX]))
}

/// Why a message is malformed; its alert must be `DecodeError`.
fn malformed(message: &[u8]) -> &'static str {
    malformed_with_alert(message, Alert::DecodeError)
}

fn malformed_with_alert(message: &[u8], alert: Alert) -> &'static str {
    match inspect(&in_records(message, &[usize::MAX])) {
        HelloVerdict::Malformed(malformed) => {
            assert_eq!(malformed.alert, alert, "{malformed}");
            malformed.what
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_may_have_no_extensions() {
    let old = read(&in_records(&message(&body(None)), &[usize::MAX]));
    assert_eq!(old, hello(&[]));
    assert_eq!((old.name, old.raw_name, old.newest_version), (None, None, 0x0303));
}

#[test]
fn an_invalid_name_is_kept_for_the_log() {
    for (sent, kept) in [
        (b"".as_slice(), ""),
        (b"10.0.0.1", "10.0.0.1"),
        (b"::1", "::1"),
        (b"a\0b.example", "a\\x00b.example"),
        (b"\xff\n\"", "\\xff\\n\\\""),
        (b"a..b", "a..b"),
    ] {
        let hello = hello(&[server_name(sent)]);
        assert_eq!((hello.server_name(), hello.raw_name.as_deref()), (None, Some(kept)));
        assert_eq!(hello.name, Sni::from_wire(sent), "as `Sni::from_wire` decides");
    }
    let long = hello(&[server_name(&[0xff; 60_000])]).raw_name.unwrap();
    assert_eq!(long.len(), r"\xff".len() * RAW_NAME_BYTES_MAX);
}

#[test]
fn a_name_type_may_occur_only_once() {
    let server_names = |names: &[&[u8]]| extension(0, &vector16(&names.concat()));
    let name_of_type = |kind: u8| [&[kind][..], &vector16(b"x")].concat();
    let found = hello(&[server_names(&[
        &name_of_type(7),
        &host_name(b"A.example."),
        &name_of_type(8),
    ])]);
    assert_eq!(found.server_name().unwrap().as_str(), "a.example");
    assert_eq!(found.raw_name, None);
    let none = hello(&[server_names(&[&name_of_type(7)])]);
    assert_eq!((none.name, none.raw_name), (None, None));
    for twice in [
        server_names(&[&host_name(b"a.example"), &host_name(b"b.example")]),
        server_names(&[&host_name(b""), &host_name(b"b.example")]),
        server_names(&[&name_of_type(7), &host_name(b"a.example"), &name_of_type(7)]),
    ] {
        assert_eq!(
            malformed_with_alert(&crafted(&[twice]), Alert::IllegalParameter),
            "two names of one type in server_name"
        );
    }
}

#[test]
fn an_extension_that_tls_parser_cannot_read_does_not_hide_later_ones() {
    // tls-parser's own parser of extensions would stop here (except at 1, 15 and 0x0a0a), because it expects other data
    // than this byte.
    for kind in [1, 10, 11, 13, 15, 22, 23, 42, 45, 48, 49, 0x0a0a, 13172, 0xff01, 0xffce] {
        let odd = extension(kind, b"\xff");
        let found = hello(&[odd, server_name(b"a.example")]);
        assert_eq!(
            found.server_name().expect("a name").as_str(),
            "a.example",
            "after extension {kind}"
        );
    }
}

#[test]
fn thousands_of_extensions_are_accepted_but_none_twice() {
    let mut all: Vec<_> = (100..3_000).map(|kind| extension(kind, b"")).collect();
    all.push(server_name(b"a.example"));
    assert_eq!(hello(&all).server_name().unwrap().as_str(), "a.example");
    // `SeenExtensions` has types below 256 in words of 64 bits, the others in a set.
    for kind in [9, 63, 64, 100, 255, 256, 319, 2_999, 0x0a0a, 0xffff] {
        let twice = [&[extension(kind, b"")], &all[..], &[extension(kind, b"x")]].concat();
        assert_eq!(
            malformed_with_alert(&crafted(&twice), Alert::IllegalParameter),
            "an extension twice",
            "{kind}"
        );
    }
}

#[test]
fn broken_extensions_are_malformed() {
    let name = server_name(b"a.example");
    let whole = crafted(std::slice::from_ref(&name));
    assert_eq!(
        malformed_with_alert(&crafted(&[name.clone(), name.clone()]), Alert::IllegalParameter),
        "an extension twice"
    );
    assert_eq!(
        malformed(&crafted(&[name, b"\0\x10\0\x01".to_vec()])),
        "an extension cut short"
    );
    let trailing = message(&[&whole[4..], b"\0"].concat());
    assert_eq!(malformed(&trailing), "extensions that do not end with the ClientHello");
    let short = message(&whole[4..whole.len() - 1]);
    assert_eq!(malformed(&short), "extensions that do not end with the ClientHello");
    for data in [
        b"".as_slice(),       // no list
        b"\0\x05\0\0\x01a",   // a list longer than the extension
        b"\0\x04\0\0\x01a\0", // a list shorter than the extension
        b"\0\x05\0\0\x01a\0", // an entry cut short
        b"\0\x04\0\0\x02a",   // a name cut short
    ] {
        assert_eq!(
            malformed(&crafted(&[extension(0, data)])),
            "a broken server_name extension",
            "{data:?}"
        );
    }
    for data in [b"".as_slice(), b"\0\x02\x02a", b"\0\x02\x01a\0", b"\0\x01\0"] {
        assert_eq!(
            malformed(&crafted(&[extension(16, data)])),
            "a broken ALPN extension",
            "{data:?}"
        );
    }
    for data in [b"".as_slice(), b"\x03\x03", b"\x03\x03\x03\x03", b"\x02\x03\x03\x03"] {
        let reason = malformed(&crafted(&[extension(43, data)]));
        assert_eq!(reason, "a broken supported_versions extension", "{data:?}");
    }
}

#[test]
fn broken_fields_are_malformed() {
    let whole = body(None);
    for cut in 1..whole.len() {
        malformed(&message(&whole[..cut]));
    }
    for (at, byte) in [
        (34, 33), // a session_id of more than 32 bytes
        (36, 3),  // an odd number of bytes of cipher suites
        (39, 2),  // more compression methods than there are
    ] {
        let mut broken = whole.clone();
        broken[at] = byte;
        malformed(&message(&broken));
    }
    // In `whole`, two bytes of length and one cipher suite begin at 35, then a byte of length and one compression
    // method.
    let no_ciphers = [&whole[..35], &[0, 0], &whole[39..]].concat();
    let no_compression = [&whole[..39], &[0], &whole[41..]].concat();
    for empty in [no_ciphers, no_compression] {
        assert_eq!(malformed(&message(&empty)), "no cipher suite or no compression method");
    }
}

#[test]
fn a_client_may_offer_as_many_protocols_as_the_extension_holds() {
    let many = vec![b"x".as_slice(); 32_764];
    let found = hello(&[alpn(&many)]).alpn;
    assert_eq!(found.wire_bytes(), 65_528);
    assert!(found.iter().eq(many.iter().copied()));
    let found = hello(&[alpn(&[b"\x0a\x0a", &[b'y'; 255]])]).alpn;
    assert_eq!(found, ProtocolList::new([b"\x0a\x0a".as_slice(), &[b'y'; 255]]));
    assert_eq!(found.iter().last().unwrap().len(), 255);
}

#[test]
fn a_protocol_list_leaves_out_names_that_cannot_be_offered() {
    let list = ProtocolList::new(["", "h2", &"x".repeat(256)]);
    assert_eq!(list.iter().collect::<Vec<_>>(), [b"h2"]);
    assert!(ProtocolList::new(["", ""]).is_empty());
}

#[test]
fn the_debug_form_of_a_protocol_list_is_escaped() {
    assert_eq!(format!("{:?}", ProtocolList::new([&b"a\n"[..]])), r#"["a\\n"]"#);
}

#[test]
fn the_largest_extension_block_fits_the_default_bound() {
    let block = extension(21, &[0; 65_531]);
    let wire = in_records(&crafted(&[block]), &[usize::MAX]);
    assert!(matches!(inspect(&wire), HelloVerdict::Hello(_)));
    let config = "[listeners.l]\nbind = \"127.0.0.1:9\"\nroutes = [{ sni = \"a.example\", pool = \"p\" }]\n\
                  [pools.p]\nservers = [\"127.0.0.1:8\"]\n";
    let plan = crate::config::read("a.toml", config).unwrap().plan;
    assert!(wire.len() <= plan.listeners[0].sniff.hello_bytes_max);
}

#[test]
fn the_newest_offered_version_is_found() {
    for (legacy, supported, newest, tls13) in [
        (0x0301_u16, None, 0x0301, false),
        (0x0303, None, 0x0303, false),
        (0x0304, None, 0x0304, false), // only supported_versions offers TLS 1.3
        (0x0303, Some(b"\x03\x04\x03\x03".as_slice()), 0x0304, true),
        (0x0303, Some(b"\x03\x03\x0a\x0a\x03\x04".as_slice()), 0x0304, true),
        (0x0303, Some(b"\x03\x01\xfa\xfa".as_slice()), 0x0301, false), // GREASE is not a version
        (0x0301, Some(b"\x03\x03".as_slice()), 0x0303, false),
        (0x0303, Some(b"\xfa\xfa".as_slice()), 0x0303, false),
        (0x0303, Some(b"\x7f\x17".as_slice()), 0x7f17, false), // a draft of TLS 1.3
    ] {
        let mut body = body(Some(
            &supported.map(|list| extension(43, &vector8(list))).unwrap_or_default(),
        ));
        body[..2].copy_from_slice(&legacy.to_be_bytes());
        let hello = read(&in_records(&message(&body), &[usize::MAX]));
        assert_eq!(
            (hello.newest_version, hello.tls13_offered),
            (newest, tls13),
            "{legacy:04x} {supported:?}"
        );
    }
}

#[test]
fn encrypted_client_hello_is_recognized() {
    assert!(hello(&[extension(0xfe0d, b"")]).ech);
    assert!(!hello(&[extension(0xffce, b"")]).ech); // ESNI, an abandoned draft
}
