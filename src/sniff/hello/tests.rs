use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::name::{ServerName, Sni};

mod captured;
mod crafted;

use self::captured::Captured;
use self::crafted::{crafted, extension, in_records, message, server_name};

const BYTES_MAX: usize = 128 << 10;

fn inspect(wire: &[u8]) -> HelloVerdict {
    HelloReader::new(BYTES_MAX).advance(wire)
}

fn read(wire: &[u8]) -> Hello {
    match inspect(wire) {
        HelloVerdict::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn captured_hellos_have_the_name_and_alpn_of_their_client() {
    for hello in captured::all() {
        let Captured { file, wire, .. } = &hello;
        let found = read(wire);
        assert_eq!(
            found.server_name().map(ServerName::as_str),
            hello.name.as_deref(),
            "{file}"
        );
        assert_eq!(found.raw_name.as_deref(), hello.raw_name.as_deref(), "{file}");
        assert!(
            found.alpn.iter().eq(hello.alpn.iter().map(|name| &**name)),
            "{file}: {:?}",
            found.alpn
        );
        assert_eq!(found.ech, hello.has("ech"), "{file}");
        assert_eq!(found.tls13_offered, hello.has("tls1.3"), "{file}");
        let first_record_bytes = 5 + usize::from(u16::from_be_bytes([wire[3], wire[4]]));
        assert_eq!(first_record_bytes < wire.len(), hello.has("records"), "{file}");
    }
}

#[test]
fn a_hello_is_undecided_until_its_last_byte() {
    for Captured { file, wire, .. } in captured::all() {
        let whole = inspect(&wire);
        for cut in 0..wire.len() {
            let mut reader = HelloReader::new(BYTES_MAX);
            assert_eq!(
                reader.advance(&wire[..cut]),
                HelloVerdict::NeedMore,
                "{file} cut at {cut}"
            );
            assert_eq!(reader.advance(&wire), whole, "{file} cut at {cut}");
        }
    }
}

#[test]
fn bytes_after_a_hello_change_nothing() {
    for Captured { file, mut wire, .. } in captured::all() {
        let mut reader = HelloReader::new(BYTES_MAX);
        let whole = reader.advance(&wire);
        wire.extend_from_slice(b"\x14\x03\x03\0\x01\x01 and early data");
        assert_eq!(inspect(&wire), whole, "{file}");
        assert_eq!(reader.advance(&wire), whole, "{file}: decided is decided");
    }
    let mut message = crafted(&[server_name(b"a.example")]);
    let alone = read(&in_records(&message, &[usize::MAX]));
    message.extend_from_slice(b"\x0b another message in the same record");
    assert_eq!(read(&in_records(&message, &[usize::MAX])), alone);
    assert_eq!(read(&in_records(&message, &[7])), alone);
}

#[test]
fn hellos_of_rustls_are_parsed_whole_and_in_records() {
    for record_bytes_max in [None, Some(32), Some(100)] {
        let wire = captured::rustls("Shop.Example.COM", record_bytes_max);
        let hello = read(&wire);
        assert_eq!(hello.server_name().unwrap().as_str(), "shop.example.com");
        assert_eq!(hello.alpn, ProtocolList::new(["h2", "http/1.1"]));
        assert!(hello.tls13_offered);
    }
}

#[test]
fn other_protocols_are_recognized_by_their_first_bytes() {
    for opening in [
        b"GET / HTTP/1.1".as_slice(),
        b"\x80\x2e\x01\x03\x01",             // SSLv2-compatible ClientHello
        b"\0\0\0\x08\x04\xd2\x16\x2f",       // PostgreSQL's SSLRequest
        b"\x15\x03\x01\0\x02\x02\x28",       // an alert
        b"\x16\x02\0\0\x05",                 // no such major version
        b"\x16\xfe\xfd\0\0\0\0\0\0\0\0\0\0", // DTLS
    ] {
        assert_eq!(inspect(opening), HelloVerdict::NotTls, "{opening:?}");
    }
    assert_eq!(inspect(b"G"), HelloVerdict::NotTls);
    assert_eq!(inspect(b"\x16\x02"), HelloVerdict::NotTls);
    for undecided in [b"".as_slice(), b"\x16", b"\x16\x03", b"\x16\x03\xff\0"] {
        assert_eq!(inspect(undecided), HelloVerdict::NeedMore, "{undecided:?}");
    }
}

#[test]
fn broken_framing_is_refused_at_once() {
    use Alert::{DecodeError, RecordOverflow, UnexpectedMessage};
    for (wire, alert) in [
        (b"\x16\x03\x01\0\0".as_slice(), UnexpectedMessage), // an empty first record
        (b"\x16\x03\x01\0\x01\x01\x16\x03\x01\0\0", UnexpectedMessage), // an empty later record
        (b"\x16\x03\x01\x40\x01", RecordOverflow),           // 2^14 + 1
        (b"\x16\x03\x01\0\x01\x01\x16\x03\x01\xff\xff", RecordOverflow),
        (b"\x16\x03\x01\0\x01\x02", UnexpectedMessage), // a ServerHello
        (b"\x16\x03\x01\0\x02\x01\0\x17", UnexpectedMessage), // application data inside the hello
        (b"\x16\x03\x01\0\x02\x01\0\x16\x02", UnexpectedMessage), // another major version inside the hello
        (b"\x16\x03\x01\0\x04\x01\0\0\0", DecodeError), // a ClientHello of no bytes
    ] {
        assert!(
            matches!(inspect(wire), HelloVerdict::Malformed(malformed) if malformed.alert == alert),
            "{wire:02x?}: {:?}",
            inspect(wire)
        );
        assert_eq!(inspect(&wire[..wire.len() - 1]), HelloVerdict::NeedMore, "{wire:02x?}");
    }
    assert_eq!(inspect(b"\x16\x03\x01\x40\0"), HelloVerdict::NeedMore); // 2^14
}

#[test]
fn an_oversized_hello_is_refused_by_its_header() {
    let message = message(&crafted::body(Some(&extension(21, &[0; 1000]))));
    for sizes in [&[usize::MAX][..], &[100], &[1]] {
        let wire = in_records(&message, sizes);
        assert!(matches!(
            HelloReader::new(wire.len()).advance(&wire),
            HelloVerdict::Hello(_)
        ));
        assert_eq!(HelloReader::new(wire.len() - 1).advance(&wire), HelloVerdict::TooLong);
    }
    let whole = in_records(&message, &[usize::MAX]);
    let headers = 5 + 4; // of the record and of the message, in bytes
    assert_eq!(
        HelloReader::new(whole.len() - 1).advance(&whole[..headers]),
        HelloVerdict::TooLong
    );
    assert_eq!(
        HelloReader::new(whole.len() - 1).advance(&whole[..headers - 1]),
        HelloVerdict::NeedMore
    );
    assert_eq!(inspect(b"\x16\x03\x01\0\x04\x01\xff\xff\xff"), HelloVerdict::TooLong);
}

#[test]
fn work_is_linear_however_the_bytes_come() {
    let padding = extension(21, &vec![0; 10_850]);
    let wire = in_records(&message(&crafted::body(Some(&padding))), &[1]);
    assert!((65_000..=64 << 10).contains(&wire.len()), "{}", wire.len());
    let mut reader = HelloReader::new(BYTES_MAX);
    let mut steps = 0;
    for received in 1..=wire.len() {
        let verdict = loop {
            steps += 1;
            if let Some(verdict) = reader.step(&wire[..received]) {
                break verdict;
            }
        };
        assert_eq!(matches!(verdict, HelloVerdict::Hello(_)), received == wire.len());
    }
    let records = wire.len() / 6; // 5 bytes of header, and 1 byte of the hello
    // Each header and each fragment takes one step. Each received byte takes one more, which returns the verdict.
    assert!(
        steps <= wire.len() + 2 * records,
        "{steps} steps for {} bytes",
        wire.len()
    );
}

#[test]
fn a_mutated_hello_causes_no_panic_and_has_the_same_verdict_whole_and_in_parts() {
    let mut random = fastrand::Rng::with_seed(20_260_101);
    for Captured { wire, .. } in captured::all() {
        for _ in 0..400 {
            let mut mutant = wire.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..mutant.len());
                match random.u8(..4) {
                    0 => mutant[at] = random.u8(..),
                    1 => mutant[at] ^= 1 << random.u8(..8),
                    2 => drop(mutant.remove(at)),
                    _ => mutant.insert(at, random.u8(..)),
                }
            }
            let whole = inspect(&mutant);
            if let HelloVerdict::Hello(hello) = &whole {
                assert!(hello.alpn.wire_bytes() < mutant.len());
                assert!(
                    hello
                        .raw_name
                        .as_ref()
                        .is_none_or(|raw| raw.len() <= r"\xff".len() * RAW_NAME_BYTES_MAX)
                );
            }
            let mut reader = HelloReader::new(BYTES_MAX);
            let early = reader.advance(&mutant[..random.usize(..mutant.len())]);
            assert!(
                early == HelloVerdict::NeedMore || early == whole,
                "{early:?}, then {whole:?}"
            );
            assert_eq!(reader.advance(&mutant), whole);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_split_hello_parses_like_a_whole_one(
        which in any::<prop::sample::Index>(),
        records in prop::collection::vec(1_usize..400, 1..20),
        reads in prop::collection::vec(1_usize..400, 1..20),
    ) {
        let all = captured::all();
        let Captured { wire, .. } = &all[which.index(all.len())];
        let recut = in_records(&captured::message(wire), &records);
        let mut reader = HelloReader::new(BYTES_MAX);
        let (mut received, mut reads) = (0, reads.iter().cycle());
        let verdict = loop {
            received = recut.len().min(received + reads.next().unwrap());
            let verdict = reader.advance(&recut[..received]);
            if received == recut.len() {
                break verdict;
            }
            prop_assert_eq!(verdict, HelloVerdict::NeedMore);
        };
        prop_assert_eq!(verdict, inspect(wire));
    }
}
