//! `acequia check` refuses the files that a start refuses, with the same exit code, and changes nothing.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::commands::{FINE, run_with};
use crate::support::is_root_for;
use crate::support::process::{NOBODY, finished, must};
use crate::support::proxy::{BINARY, Proxy, acequia, config_directory};
use tempfile::TempDir;

/// A directory with files that cannot be read (`fifo`, `directory`), and files whose contents are wrong (`empty`,
/// `text`, `long`).
struct BadFiles(TempDir);

impl BadFiles {
    fn new() -> Self {
        let bad = Self(tempfile::tempdir().unwrap());
        must(Command::new("mkfifo").args(["-m", "600"]).arg(bad.path("fifo")));
        fs::DirBuilder::new().mode(0o700).create(bad.path("directory")).unwrap();
        let long = "x".repeat(5000);
        for (name, text) in [("empty", ""), ("text", "not what is expected\n"), ("long", &long)] {
            fs::write(bad.path(name), text).unwrap();
            fs::set_permissions(bad.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        bad
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// An upgrade of the package, and operators before a restart, rely on `check`: it fails where `run` would.
#[test]
fn check_and_run_exit_with_3_if_a_file_cannot_be_read_and_with_1_if_its_contents_are_wrong() {
    let bad = BadFiles::new();
    let login = |file: PathBuf| {
        format!("{FINE}[pools.p.health]\ncheck = \"postgres\"\nuser = \"checker\"\npassword_file = {file:?}\n")
    };
    let tls =
        |file: PathBuf| format!("{FINE}[listeners.l.tls]\ncertificates = [{{ cert = {file:?}, key = {file:?} }}]\n");
    let token = |file: PathBuf| format!("[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = {file:?}\n{FINE}");
    let kinds: [(&dyn Fn(PathBuf) -> String, &str); 3] = [
        (&login, "pools.p.health.password_file"),
        (&tls, "listeners.l.tls"),
        (&token, "admin.token_file"),
    ];
    let unreadable = kinds.iter().flat_map(|(text, key)| {
        let names = ["missing", "fifo", "directory"].into_iter();
        names.map(|name| (text(bad.path(name)), *key, name, 3))
    });
    let wrong = [
        (login(bad.path("empty")), kinds[0].1, "empty", 1),
        (login(bad.path("long")), kinds[0].1, "long", 1),
        (tls(bad.path("text")), kinds[1].1, "text", 1),
        (token(bad.path("empty")), kinds[2].1, "empty", 1),
        (token(bad.path("long")), kinds[2].1, "long", 1),
    ];
    for (text, key, name, code) in unreadable.chain(wrong) {
        let [run, check] = ["run", "check"].map(|command| run_with(&text, &[command]));
        assert_eq!(
            (run.code, check.code),
            (Some(code), Some(code)),
            "{text}: {run:#?} {check:#?}"
        );
        let errors: Vec<&str> = check.stderr.lines().collect();
        let is_named = [key, &*bad.path(name).to_string_lossy()]
            .iter()
            .all(|part| errors[0].contains(part));
        let helps = errors.get(1).is_some_and(|line| line.contains("--without-files"));
        assert!(is_named && helps == (code == 3), "{check:#?}");
        assert!(errors.len() < 3 && !check.stdout.contains("fine"), "{check:#?}");
        let unread = run_with(&text, &["check", "--without-files"]);
        assert_eq!((unread.code, &*unread.stderr), (Some(0), ""), "{text}");
    }
}

/// A list of networks is part of the configuration, so `--without-files` reads it, too.
#[test]
fn a_list_of_networks_that_cannot_be_read_has_the_exit_code_of_other_files() {
    let bad = BadFiles::new();
    for (name, code) in [("missing", 3), ("fifo", 3), ("directory", 3), ("text", 1)] {
        let guard = |more: &str| {
            let listener = FINE.replace("pool = \"p\"\n", "pool = \"p\"\nguards = \"g\"\n");
            format!("{listener}[guards.g]\ndeny_file = {:?}\n{more}", bad.path(name))
        };
        for command in [&["run"][..], &["check"], &["check", "--without-files"]] {
            let failed = run_with(&guard(""), command);
            assert_eq!(failed.code, Some(code), "{name}: {failed:#?}");
            assert!(
                failed.stderr.contains(&*bad.path(name).to_string_lossy()),
                "{failed:#?}"
            );
            let wrong = run_with(&guard("sessions = \"many\""), command);
            assert_eq!(wrong.code, Some(1), "{name}: the text is wrong, too: {wrong:#?}");
        }
    }
}

#[test]
fn check_refuses_logs_and_state_that_run_cannot_use() {
    let bad = BadFiles::new();
    let log = |path: &str| format!("[log]\naccess = {:?}\n{FINE}", bad.path(path));
    let state = |path: &str| format!("[runtime]\nstate_dir = {:?}\n{FINE}", bad.path(path));
    let acme = |path: &str| {
        let acme = format!(
            "[acme.a]\ndirectory = \"https://127.0.0.1:1/\"\nstate_dir = {:?}\n",
            bad.path(path)
        );
        let tls = "[listeners.l.tls]\ncertificates = [{ acme = \"a\", names = [\"a.example\"] }]\n";
        format!("{acme}{FINE}{tls}")
    };
    fs::create_dir(bad.path("invalid")).unwrap();
    fs::write(bad.path("invalid/primaries.json"), "{").unwrap();
    fs::create_dir(bad.path("unread")).unwrap();
    must(Command::new("mkfifo").arg(bad.path("unread/servers.json")));
    let _socket = UnixListener::bind(bad.path("socket")).unwrap();
    for (text, path, remedy) in [
        (log("missing/access.log"), "missing/access.log", "create its directory"),
        (log("directory"), "directory", "name another path"),
        (log("socket"), "socket", "a socket cannot be used"),
        (log("text/access.log"), "text/access.log", "name another path"),
        (state("text"), "text", "name another path"),
        (state("text/state"), "text/state", "name another path"),
        (state("invalid"), "invalid/primaries.json", "restore the file"),
        (state("unread"), "unread/servers.json", "not a regular file"),
        (acme("text"), "text", "name another path"),
    ] {
        for command in ["run", "check"] {
            let failed = run_with(&text, &[command]);
            assert_eq!(failed.code, Some(3), "{text}: {failed:#?}");
            let path = bad.path(path);
            let has_all = [&*path.to_string_lossy(), remedy]
                .iter()
                .all(|part| failed.stderr.contains(part));
            assert!(has_all, "{text}: {failed:#?}");
        }
        let unread = run_with(&text, &["check", "--without-files"]);
        assert_eq!((unread.code, &*unread.stderr), (Some(0), ""), "{text}");
    }
    assert!(!bad.path("missing").exists());
}

#[test]
fn check_refuses_what_the_user_may_not_write() {
    if !is_root_for("another user") {
        return;
    }
    let private = tempfile::tempdir().unwrap(); // mode 0700
    let file = private.path().join("access.log");
    fs::write(&file, "").unwrap();
    let of_root = tempfile::tempdir().unwrap();
    fs::set_permissions(of_root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let new = |name: &str| of_root.path().join(name);
    for text in [
        format!("[log]\naccess = {file:?}\n{FINE}"),
        format!("[log]\naccess = {:?}\n{FINE}", new("access.log")),
        format!("[runtime]\nstate_dir = {:?}\n{FINE}", of_root.path()),
        format!("[runtime]\nstate_dir = {:?}\n{FINE}", new("new/state")),
    ] {
        let directory = config_directory("acequia.toml", &text);
        for command in ["run", "check"] {
            let mut as_nobody = Command::new(NOBODY[0]);
            as_nobody.args(&NOBODY[1..]).args([BINARY, command, "-c"]);
            let failed = finished(as_nobody.arg(directory.path().join("acequia.toml")));
            assert_eq!(failed.code, Some(3), "{text}: {failed:#?}");
            let remedy = "Permission denied (os error 13): let the user that runs acequia write there";
            assert!(failed.stderr.contains(remedy), "{text}: {failed:#?}");
        }
        let as_root = finished(acequia(&["check", "-c"]).arg(directory.path().join("acequia.toml")));
        assert_eq!(as_root.code, Some(0), "{as_root:#?}");
    }
}

/// The names in a directory, sorted.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn check_passes_and_creates_nothing_also_beside_a_process_that_runs() {
    let text = format!("[log]\naccess = \"./access.log\"\n[runtime]\nstate_dir = \"state\"\n{FINE}");
    let directory = config_directory("acequia.toml", &text);
    let check = || must(acequia(&["check"]).current_dir(directory.path()));
    check();
    assert_eq!(names_in(directory.path()), ["acequia.toml"]);
    let proxy = Proxy::setup(&text).launch();
    let files = names_in(proxy.directory());
    assert!(files.contains(&String::from("state")), "{files:?}");
    let checked = proxy.command(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    assert_eq!(names_in(proxy.directory()), files);
}

/// The service manager may create the directory, or pass the socket.
#[test]
fn a_missing_directory_of_a_socket_is_only_a_warning() {
    let socket = FINE.replace("127.0.0.1:0", "unix:/nowhere/socket");
    let check = run_with(&socket, &["check"]);
    let expected = "warning: listeners.l.bind: no socket can be created in /nowhere now: ";
    assert!(
        check.code == Some(0) && check.stderr.starts_with(expected),
        "{check:#?}"
    );
}
