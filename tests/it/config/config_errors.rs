//! Every error in a configuration is reported, with its position and what to write instead if these are known.
//!
//! `tests/data/config` holds files with errors or warnings, each with its expected report in `NAME.expected`.
//! `BLESS=1 cargo test --test it config_errors` rewrites the reports; read the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};

use acequia::config::{self, report::ColorChoice};
use proptest::prelude::*;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config")
}

/// The files, sorted by name.
fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ending| ending != "expected"))
        .collect();
    cases.sort();
    cases
}

/// The report for a file: its errors, or its warnings if it has no errors.
fn report_for(case: &Path) -> String {
    let name = case.file_name().unwrap().to_str().unwrap();
    match config::read(name, &fs::read_to_string(case).unwrap()) {
        Ok(loaded) => loaded.warnings.render(ColorChoice::Never),
        Err(report) => report.render(ColorChoice::Never),
    }
}

#[test]
fn each_file_gets_exactly_its_expected_report() {
    let cases = cases();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut differing = String::new();
    for case in cases {
        let report = report_for(&case);
        let expected_file = case.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected_file, &report).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if report.is_empty() || report != expected {
            differing += &format!("=== {}: reported\n{report}--- expected\n{expected}\n", case.display());
        }
    }
    assert!(differing.is_empty(), "{differing}");
}

#[test]
fn all_errors_of_a_file_are_reported_in_order() {
    let text = fs::read_to_string(directory().join("a-dozen.toml")).unwrap();
    let report = config::read("a-dozen.toml", &text).unwrap_err();
    assert_eq!(report.error_count(), 12);
    let rendered = report.render(ColorChoice::Never);
    let places = rendered
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--> a-dozen.toml:"));
    let lines: Vec<u32> = places
        .map(|place| place.split(':').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(lines.len(), 12);
    assert!(lines.is_sorted(), "{lines:?}");
}

#[test]
fn guards_that_keep_an_acme_server_out_cause_a_warning_unless_another_listener_answers_the_server() {
    let read = |text: &str| {
        let loaded = config::read("a.toml", text).unwrap_or_else(|report| panic!("{report}"));
        loaded.warnings.render(ColorChoice::Never)
    };
    let guarded = fs::read_to_string(directory().join("warn-acme-guard.toml")).unwrap();
    let unguarded = "[listeners.b]\nbind = \"127.0.0.1:10\"\npool = \"p\"\n[listeners.b.tls]\n\
                     certificates = [{ acme = \"le\", names = [\"a.example\"] }]\n";
    assert_eq!(read(&format!("{guarded}{unguarded}")), "");
    assert_eq!(read(&format!("{unguarded}{guarded}")), "");
    // Both listeners for the certificate are guarded.
    let with_guard = unguarded.replace("pool =", "guards = \"office\"\npool =");
    let warned = read(&format!("{guarded}{with_guard}"));
    assert!(
        warned.contains("only clients in `allow` of `office` reach listener `a`") && warned.contains("\n1 warning\n"),
        "{warned}"
    );
    // The unguarded listener is for another certificate.
    let other = unguarded.replace("a.example", "b.example");
    for text in [format!("{guarded}{other}"), format!("{other}{guarded}")] {
        assert!(read(&text).contains("reach listener `a`"), "{text}");
    }
    // The guard allows all addresses of a family.
    for allow in ["[\"10.0.0.0/8\", \"0.0.0.0/0\"]", "\"::/0\""] {
        assert_eq!(read(&guarded.replace("\"10.0.0.0/8\"", allow)), "", "{allow}");
    }
    // If the ACME server is configured with an address, it is enough that this address is allowed.
    for (server, is_allowed) in [("10.0.0.5:9000", true), ("[::1]", false), ("192.0.2.1", false)] {
        let warned = read(&guarded.replace("acme.example", server));
        assert_eq!(warned.is_empty(), is_allowed, "{server}: {warned}");
    }
    // With http-01, every listener that redirects answers for all certificates.
    let redirects = "[listeners.c]\nbind = \"127.0.0.1:11\"\nguards = \"office\"\nredirect = { to = \"a\" }\n";
    let by_http = guarded.replace("[guards.office]", "challenge = \"http-01\"\n[guards.office]");
    let warned = read(&format!("{by_http}{redirects}"));
    assert!(
        warned.contains("listener `c`") && warned.contains("remove the guard from that listener"),
        "{warned}"
    );
    let second = redirects.replace("listeners.c", "listeners.d").replace(":11", ":12");
    let second = second.replace("guards = \"office\"\n", "");
    assert_eq!(read(&format!("{by_http}{redirects}{second}")), "");
}

#[test]
fn reports_contain_escape_sequences_only_with_colour() {
    let report = config::read("x.toml", "a = 1").unwrap_err();
    assert!(!report.render(ColorChoice::Never).contains('\x1b'));
    assert!(report.render(ColorChoice::Always).contains('\x1b'));
    let hostile = config::read("x.toml", "\"\\u001b[31m\" = 1").unwrap_err();
    assert!(
        !hostile.render(ColorChoice::Never).contains('\x1b'),
        "expected escape sequences of the file to be escaped"
    );
}

#[test]
fn unreadable_non_utf8_and_oversized_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let missing = config::load(&dir.path().join("none.toml")).unwrap_err();
    assert!(missing.to_string().contains("none.toml"), "{missing}");

    let garbage = dir.path().join("garbage.toml");
    fs::write(&garbage, b"a = 1\nb = \"\xff\"\n").unwrap();
    let report = config::load(&garbage).unwrap_err().to_string();
    assert!(report.contains("not UTF-8") && report.contains(":2:6"), "{report}");

    let long = dir.path().join("long.toml");
    let comment = |bytes: u64| "#".repeat(usize::try_from(bytes).unwrap());
    fs::write(&long, comment(config::FILE_BYTES_MAX)).unwrap();
    assert!(config::load(&long).unwrap_err().to_string().contains("no listener"));
    fs::write(&long, comment(config::FILE_BYTES_MAX + 1)).unwrap();
    assert!(config::load(&long).unwrap_err().to_string().contains("too long"));
}

const FULL: &str = include_str!("../../../conf/full.toml");

/// Pieces of configurations, so that random texts get past the syntax.
const PIECES: &[&str] = &[
    "[listeners.a]",
    "[[listeners.a.routes]]",
    "[pools.p]",
    "[pools.p.health]",
    "[defaults]",
    "[runtime]",
    "[log]",
    "[admin]",
    "\n",
    "\n",
    "\n",
    "bind",
    "pool",
    "servers",
    "sni",
    "alpn",
    "from",
    "refuse",
    "name",
    "weight",
    "keepalive",
    "idle_timeout",
    "hello_max",
    "hello_memory",
    "workers",
    "check",
    "=",
    "=",
    "=",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"a:1\"",
    "\"10.0.0.1:1\"",
    "\"p\"",
    "\"5s\"",
    "\"off\"",
    "\"10.0.0.0/8\"",
    "\"*.é\"",
    "\"\"",
    "-1",
    "5",
    "1e9",
    "true",
    "99999999999999999999999999999999999999999999",
    "1979-05-27",
    "é",
    "\t",
    "\r\n",
    "\u{feff}",
    "\0",
    "'",
    "\"\"\"",
];

proptest! {
    #[test]
    fn random_text_does_not_panic(text in ".{0,200}") {
        for name in ["x.toml", "x.json"] {
            read_and_render(name, &text);
        }
    }

    #[test]
    fn random_text_of_known_words_does_not_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        let text: String = pieces.iter().flat_map(|piece| [piece, " "]).collect();
        for name in ["x.toml", "x.json"] {
            read_and_render(name, &text);
        }
    }

    #[test]
    fn a_mutated_full_configuration_does_not_panic(at in 0..FULL.len(), cut in 0..40_usize, with in proptest::sample::select(PIECES)) {
        let on_a_character = |mut at: usize| {
            at = at.min(FULL.len());
            while !FULL.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (on_a_character(at), on_a_character(at + cut));
        read_and_render("x.toml", &format!("{}{with}{}", &FULL[..start], &FULL[end..]));
    }
}

/// Reads the text and renders the report; an invalid text must have at least one error.
fn read_and_render(name: &str, text: &str) {
    if let Err(report) = config::read(name, text) {
        assert!(report.error_count() > 0);
        assert!(report.render(ColorChoice::Always).contains("error"));
    }
}
