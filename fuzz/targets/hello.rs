//! The ClientHello parser gives the same result however the bytes are split, and the same as rustls.
#![no_main]

use acequia::name::ServerName;
use acequia::sniff::hello::{Hello, HelloReader, HelloVerdict, RAW_NAME_BYTES_MAX};
use libfuzzer_sys::fuzz_target;
use rustls::server::{Accepted, Acceptor};

const BYTES_MAX: usize = 128 << 10;

/// How many prefixes are also parsed by a fresh reader, which takes time in proportion to the prefix.
const FRESH_READERS_MAX: usize = 32;

fuzz_target!(|wire: &[u8]| {
    let whole = HelloReader::new(BYTES_MAX).advance(wire);
    bytes_one_by_one(wire, &whole);
    bytes_in_pieces(wire, &whole);
    let strict = HelloReader::new(wire.len() / 2).advance(wire);
    assert!(
        strict == whole || strict == HelloVerdict::TooLong,
        "{strict:?}, but {whole:?}"
    );
    if let HelloVerdict::Hello(hello) = &whole {
        assert_bounds(hello, wire.len());
        if let Some(accepted) = rustls(wire) {
            assert_same_as_rustls(hello, &accepted);
        }
    }
});

/// Feeds single bytes: the verdict may change only once, from undecided to the final one. A reader that started over
/// with each byte would exceed the time limit.
fn bytes_one_by_one(wire: &[u8], whole: &HelloVerdict) {
    let mut reader = HelloReader::new(BYTES_MAX);
    let verdicts = (0..=wire.len()).map(|cut| reader.advance(&wire[..cut]));
    let decided = verdicts.into_iter().find(|verdict| *verdict != HelloVerdict::NeedMore);
    assert_eq!(decided.as_ref().unwrap_or(&HelloVerdict::NeedMore), whole);
    assert_eq!(reader.advance(wire), *whole, "expected the verdict to stay");
}

/// Feeds pieces whose lengths are derived from the bytes themselves.
fn bytes_in_pieces(wire: &[u8], whole: &HelloVerdict) {
    let mut reader = HelloReader::new(BYTES_MAX);
    let mut cut = 0;
    for piece in 0.. {
        let verdict = reader.advance(&wire[..cut]);
        if piece < FRESH_READERS_MAX {
            assert_eq!(
                verdict,
                HelloReader::new(BYTES_MAX).advance(&wire[..cut]),
                "after {cut} bytes"
            );
        }
        if verdict != HelloVerdict::NeedMore || cut == wire.len() {
            assert_eq!(verdict, *whole, "after {cut} bytes");
            break;
        }
        cut = wire.len().min(cut + 1 + usize::from(wire[cut]));
    }
}

fn assert_bounds(hello: &Hello, wire_bytes: usize) {
    let escaped_bytes = hello.raw_name.as_ref().map_or(0, |raw| raw.len());
    assert!(
        escaped_bytes <= 4 * RAW_NAME_BYTES_MAX,
        "expected at most {} bytes of an invalid name, got {escaped_bytes}",
        4 * RAW_NAME_BYTES_MAX
    );
    assert!(hello.raw_name.is_none() || hello.server_name().is_none());
    assert!(hello.alpn.wire_bytes() < wire_bytes);
    assert!(hello.alpn.iter().all(|protocol| (1..=255).contains(&protocol.len())));
}

/// The ClientHello as rustls reads it; `None`: rustls rejects it, or it is incomplete.
fn rustls(mut wire: &[u8]) -> Option<Accepted> {
    let mut acceptor = Acceptor::default();
    while !wire.is_empty() {
        acceptor.read_tls(&mut wire).ok().filter(|read| *read > 0)?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(accepted) => return accepted,
            Err(_) => return None,
        }
    }
    None
}

/// Asserts the same name and ALPN as rustls reads: a client routed by one name and served by another would bypass
/// routes.
fn assert_same_as_rustls(hello: &Hello, accepted: &Accepted) {
    let theirs = accepted.client_hello();
    let name = theirs
        .server_name()
        .and_then(|name| ServerName::from_wire(name.as_bytes()).ok());
    assert_eq!(hello.server_name(), name.as_ref());
    let offered: Vec<&[u8]> = theirs.alpn().into_iter().flatten().collect();
    assert!(hello.alpn.iter().eq(offered.iter().copied()), "{offered:?}");
}
