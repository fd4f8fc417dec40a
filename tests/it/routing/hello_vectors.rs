//! ClientHellos from public captures of real clients. They are not part of the project: `ACEQUIA_VECTORS` names their
//! directory. Its `index.tsv` has a row per file: file, source, server name, ALPN, class, notes.

use std::path::Path;

use acequia::name::ServerName;
use acequia::sniff::hello::{Hello, HelloReader, HelloVerdict};

const BYTES_MAX: usize = 64 << 10;

#[test]
fn every_captured_hello_yields_its_listed_name_and_alpn_unless_it_is_malformed() {
    let Some(directory) = std::env::var_os("ACEQUIA_VECTORS") else {
        eprintln!("skipped: ACEQUIA_VECTORS names no directory of ClientHellos");
        return;
    };
    let directory = Path::new(&directory);
    let index = std::fs::read_to_string(directory.join("index.tsv")).expect("the directory has an index");
    let mut rows = 0;
    for row in index.lines().skip(1) {
        let [file, _, name, alpn, class, ..] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("a row with too few columns: {row}");
        };
        let wire = std::fs::read(directory.join(file)).expect("the index lists files that are there");
        let verdict = HelloReader::new(BYTES_MAX).advance(&wire);
        assert_same_at_every_split(file, &wire, &verdict);
        match (class, &verdict) {
            // A malformed hello may be listed with the name that another reader found in it.
            ("MALFORMED/AMBIGUOUS", HelloVerdict::Malformed(malformed)) => eprintln!("{file}: {malformed}"),
            // `GATE`: a hello that must be read as listed.
            ("GATE" | "MALFORMED/AMBIGUOUS", HelloVerdict::Hello(hello)) => {
                assert_name_and_alpn(file, hello, name, alpn)
            }
            _ => panic!("{file} ({class}): {verdict:?}"),
        }
        rows += 1;
    }
    assert!(rows > 100, "only {rows} vectors");
}

/// Asserts the hello's name and ALPN. A valid name is normalized; an invalid one is kept as raw name.
fn assert_name_and_alpn(file: &str, hello: &Hello, name: &str, alpn: &str) {
    let valid = ServerName::from_wire(name.as_bytes()).ok();
    let kept = (valid.is_none() && !name.is_empty()).then_some(name);
    assert_eq!(hello.server_name(), valid.as_ref(), "{file}");
    assert_eq!(hello.raw_name.as_deref(), kept, "{file}");
    let offered: Vec<_> = hello
        .alpn
        .iter()
        .map(|protocol| protocol.escape_ascii().to_string())
        .collect();
    assert_eq!(offered.join(","), alpn, "{file}");
}

/// Asserts that the verdict is the same wherever the bytes are split.
fn assert_same_at_every_split(file: &str, wire: &[u8], whole: &HelloVerdict) {
    for cut in 0..wire.len() {
        let mut reader = HelloReader::new(BYTES_MAX);
        let early = reader.advance(&wire[..cut]);
        assert!(
            early == HelloVerdict::NeedMore || early == *whole,
            "{file} cut at {cut}: {early:?}"
        );
        assert_eq!(reader.advance(wire), *whole, "{file} cut at {cut}");
    }
}
