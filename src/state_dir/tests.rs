use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

fn primaries() -> BTreeMap<Box<str>, KnownPrimary> {
    let known = KnownPrimary {
        server: "10.0.0.1:5432".into(),
        system_identifier: Some(u64::MAX - 1),
        timeline: Some(4),
        ..KnownPrimary::default()
    };
    BTreeMap::from([("writers".into(), known)])
}

#[test]
fn saved_state_is_loaded_again_and_only_the_owner_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir::open(&directory.path().join("new")).unwrap();
    assert!(state_dir.remembered().unwrap().primaries.is_empty());
    state_dir
        .save(PRIMARIES, &BTreeMap::<Box<str>, KnownPrimary>::new())
        .unwrap();
    state_dir.save(PRIMARIES, &primaries()).unwrap();
    assert_eq!(state_dir.remembered().unwrap().primaries, primaries());
    let path = directory.path().join("new").join(PRIMARIES);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let left = fs::read_dir(directory.path().join("new")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [LOCK, PRIMARIES], "no other file is left");
}

#[test]
fn a_file_of_an_earlier_or_later_version_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir::open(directory.path()).unwrap();
    let written_by_earlier = ""; // has no `overruled`
    let written_by_later = r#", "later": {}"#;
    for more in [written_by_earlier, written_by_later] {
        let contents = format!(
            r#"{{"writers": {{"server": "10.0.0.1:5432", "system_identifier": {}, "timeline": 4{more}}}}}"#,
            u64::MAX - 1
        );
        fs::write(directory.path().join(PRIMARIES), contents).unwrap();
        assert_eq!(state_dir.remembered().unwrap().primaries, primaries());
    }
}

#[test]
fn an_invalid_file_of_listed_servers_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir::open(directory.path()).unwrap();
    for contents in ["", "{", "[]", r#"{"p": {"server": 1}}"#] {
        fs::write(directory.path().join(SERVERS), contents).unwrap();
        assert!(state_dir.remembered().unwrap().servers.is_empty());
        assert!(!directory.path().join(SERVERS).exists());
        let kept = fs::read_to_string(directory.path().join("servers.json.invalid")).unwrap();
        assert_eq!(kept, contents);
    }
}

#[tokio::test]
async fn an_unwritable_file_is_listed_as_unsaved_until_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir::open(&directory.path().join("state")).unwrap();
    fs::remove_dir_all(directory.path().join("state")).unwrap();
    assert!(!state_dir.try_save(PRIMARIES, primaries()).await);
    let listed = state_dir.unsaved().list();
    assert!(
        listed.len() == 1 && listed[0].contains("primaries.json: No such file"),
        "{listed:?}"
    );
    fs::create_dir(directory.path().join("state")).unwrap();
    assert!(state_dir.try_save(PRIMARIES, primaries()).await);
    assert!(state_dir.unsaved().list().is_empty());
}

#[test]
fn invalid_primaries_are_an_error_and_the_file_stays() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = StateDir::open(directory.path()).unwrap();
    for contents in ["", "{", "[]", r#"{"p": {"server": 1}}"#] {
        fs::write(directory.path().join(PRIMARIES), contents).unwrap();
        let error = state_dir.remembered().unwrap_err().to_string();
        assert!(
            error.contains("primaries.json are not valid: restore the file"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(directory.path().join(PRIMARIES)).unwrap(), contents);
    }
}

#[test]
fn what_is_not_a_regular_file_is_an_error_with_its_name_and_stays() {
    for (make, name) in [
        ("mkfifo", PRIMARIES),
        ("mkdir", SERVERS),
        ("mkfifo", ADDED),
        ("mkdir", TEXTS),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(name);
        assert!(Command::new(make).arg(&file).status().unwrap().success());
        let error = StateDir::open(directory.path()).unwrap().remembered().unwrap_err();
        assert_eq!(error.to_string(), file.display().to_string());
        assert_eq!(chain(&error), format!("{}: not a regular file", file.display()));
        assert!(file.exists());
    }
}

#[test]
fn an_unusable_directory_is_an_error_with_its_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = StateDir::open(file.path()).unwrap_err().to_string();
    assert!(error.contains(&file.path().display().to_string()), "{error}");
}

#[test]
fn a_directory_in_use_is_an_error_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let open = StateDir::open(directory.path()).unwrap();
    let error = chain(&StateDir::open(directory.path()).unwrap_err());
    let expected = format!("{}: another acequia uses it", directory.path().display());
    assert!(error.starts_with(&expected), "{error}");
    // A save that is still under way keeps the lock.
    let writing = open.clone();
    drop(open);
    let error = chain(&StateDir::open(directory.path()).unwrap_err());
    assert!(error.starts_with(&expected), "{error}");
    drop(writing);
    StateDir::open(directory.path()).unwrap();
}
