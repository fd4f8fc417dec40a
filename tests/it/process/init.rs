//! `acequia init` writes a first configuration.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::process::{Finished, finished};
use crate::support::proxy::{BINARY, acequia};

/// Runs `acequia init --output FILE` with these further arguments, and answers its questions.
fn answered(file: &Path, answers: &str, arguments: &str) -> Finished {
    let pipe = format!("printf '{answers}' | \"$0\" init --output \"$1\" {arguments}");
    finished(Command::new("sh").args(["-c", &pipe, BINARY]).arg(file))
}

#[test]
fn answers_and_flags_give_the_same_valid_file() {
    let directory = tempfile::tempdir().unwrap();
    for service in ["tcp", "tls", "postgres", "mysql", "redis"] {
        let [asked, flagged] = ["asked", "flagged"].map(|name| directory.path().join(format!("{service}-{name}.toml")));
        let answers = format!("127.0.0.1:5000\\n10.0.0.1:5432, db.internal:5432\\n{service}\\n");
        let flags = format!("--listen 127.0.0.1:5000 --servers 10.0.0.1:5432,db.internal:5432 --service {service}");
        for (file, done) in [
            (&asked, answered(&asked, &answers, "")),
            (&flagged, answered(&flagged, "", &flags)),
        ] {
            assert_eq!(done.code, Some(0), "{done:?}");
            assert!(
                done.stdout.contains(&format!("acequia check -c {}", file.display())),
                "{done:?}"
            );
            let checked = finished(&mut acequia(&["check", "-c", file.to_str().unwrap()]));
            assert_eq!(checked.code, Some(0), "{service}: {checked:?}");
        }
        let text = fs::read_to_string(&asked).unwrap();
        assert_eq!(text, fs::read_to_string(&flagged).unwrap());
        assert!(
            ["127.0.0.1:5000", "10.0.0.1:5432", "db.internal:5432"]
                .iter()
                .all(|word| text.contains(word)),
            "{text}"
        );
    }
}

#[test]
fn init_keeps_an_existing_file_and_writes_none_if_the_input_ends_before_a_valid_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, absent) = (directory.path().join("kept.toml"), directory.path().join("absent.toml"));
    fs::write(&kept, "mine").unwrap();
    let right = "127.0.0.1:5000\\n10.0.0.1:5432\\ntcp\\n";
    let done = answered(&kept, right, "");
    assert!(
        done.code == Some(1) && done.stderr.contains("exists: name another file"),
        "{done:?}"
    );
    assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
    for (answers, error) in [
        ("127.0.0.1\\n", "`127.0.0.1` has no port"),
        ("127.0.0.1:5000\\n10.0.0.1\\n", "`10.0.0.1` has no port"),
        ("127.0.0.1:5000\\n10.0.0.1:5432\\nftp\\n", "`ftp` is none of these"),
        ("127.0.0.1:5000\\n", ""),
    ] {
        let done = answered(&absent, answers, "");
        assert!(
            done.code == Some(1) && done.stderr.contains(error),
            "{answers}: {done:?}"
        );
        assert!(!absent.exists());
    }
}

#[test]
fn a_question_is_repeated_after_a_wrong_answer_and_a_file_named_minus_is_standard_output() {
    let answers = "5000\\n127.0.0.1:5000\\n10.0.0.1:5432, db internal:1\\n10.0.0.1:5432\\nftp\\ntcp\\n";
    let done = answered(Path::new("-"), answers, "");
    assert_eq!(done.code, Some(0), "{done:?}");
    for why in [
        "`5000` is only a port: write",
        "`db internal`",
        "`ftp` is none of these",
    ] {
        assert!(done.stderr.contains(why), "{why}: {done:?}");
    }
    assert!(
        done.stdout.contains("bind = \"127.0.0.1:5000\"") && !Path::new("-").exists(),
        "{done:?}"
    );
    let done = answered(Path::new("-"), "", "--listen 5000 --servers 10.0.0.1:1 --service tcp");
    assert!(
        done.code == Some(2) && done.stderr.contains("'--listen <ADDRESS:PORT>': `5000` is only a port"),
        "{done:?}"
    );
}
