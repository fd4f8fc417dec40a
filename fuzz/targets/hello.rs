//! The ClientHello parser gives the same result however the bytes are split. If rustls accepts the
//! ClientHello, both find the same server name and the same ALPN protocols.
#![no_main]

use acequia::name::ServerName;
use acequia::sniff::hello::{Hello, HelloReader, HelloVerdict, RAW_NAME_BYTES_MAX};
use libfuzzer_sys::fuzz_target;
use rustls::server::{Accepted, Acceptor};

/// The longest ClientHello: the default of `hello_max`.
const BYTES_MAX: usize = 128 << 10;

/// How many prefixes of an input are also parsed by fresh readers. A fresh reader begins at the first byte: to do this
/// for all prefixes of a long input would take too long.
const FRESH_READERS_MAX: usize = 32;

fuzz_target!(|wire: &[u8]| {
    let whole = HelloReader::new(BYTES_MAX).advance(wire);
    bytes_one_by_one(wire, &whole);
    bytes_in_pieces(wire, &whole);
    // With half of the input as the limit, the verdict is the same, or that the ClientHello is too long.
    let limited = HelloReader::new(wire.len() / 2).advance(wire);
    assert!(
        limited == whole || limited == HelloVerdict::TooLong,
        "{limited:?} with the lower limit, but {whole:?}"
    );
    if let HelloVerdict::Hello(hello) = &whole {
        assert_bounds(hello, wire.len());
        if let Some(accepted) = read_by_rustls(wire) {
            assert_same_as_rustls(hello, &accepted);
        }
    }
});

/// Gives the reader one more byte in each call. The verdict may change only once, from undecided to the final one. The
/// reader must not begin at the first byte in each call: then a long input would exceed the `-timeout` of
/// `scripts/fuzz`, which reports that as a failure.
fn bytes_one_by_one(wire: &[u8], whole: &HelloVerdict) {
    let mut reader = HelloReader::new(BYTES_MAX);
    let verdicts = (0..=wire.len()).map(|cut| reader.advance(&wire[..cut]));
    let decided = verdicts.into_iter().find(|verdict| *verdict != HelloVerdict::NeedMore);
    assert_eq!(decided.as_ref().unwrap_or(&HelloVerdict::NeedMore), whole);
    assert_eq!(reader.advance(wire), *whole, "expected the verdict to stay");
}

/// Gives the reader more bytes in each call: 1 to 256, by the value of the first of them. So the input decides how it
/// is split.
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
    // An invalid name is kept for the log: its first bytes, each of which may be escaped, as in `\xff`.
    let escaped_bytes_max = r"\xff".len() * RAW_NAME_BYTES_MAX;
    let escaped_bytes = hello.raw_name.as_ref().map_or(0, |escaped| escaped.len());
    assert!(
        escaped_bytes <= escaped_bytes_max,
        "expected at most {escaped_bytes_max} bytes of an escaped name, got {escaped_bytes}"
    );
    assert!(hello.raw_name.is_none() || hello.server_name().is_none());
    assert!(hello.alpn.wire_bytes() < wire_bytes);
    assert!(hello.alpn.iter().all(|protocol| (1..=255).contains(&protocol.len())));
}

/// The ClientHello as rustls reads it; `None`: rustls rejects it, or it is incomplete.
fn read_by_rustls(mut wire: &[u8]) -> Option<Accepted> {
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

/// Asserts that our parser and rustls find the same name and ALPN protocols. A client that is routed by one name, and
/// then served by rustls by another name, would bypass the routes of the other name.
fn assert_same_as_rustls(hello: &Hello, accepted: &Accepted) {
    let theirs = accepted.client_hello();
    let name = theirs
        .server_name()
        .and_then(|name| ServerName::from_wire(name.as_bytes()).ok());
    assert_eq!(hello.server_name(), name.as_ref());
    let offered: Vec<&[u8]> = theirs.alpn().into_iter().flatten().collect();
    assert!(hello.alpn.iter().eq(offered.iter().copied()), "{offered:?}");
}
