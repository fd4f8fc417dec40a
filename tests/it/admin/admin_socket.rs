//! The Unix admin socket: commands find it, only its owner may open it, and a running process keeps it.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::eventually;
use crate::support::process::{Finished, finished};
use crate::support::proxy::{Proxy, acequia, config_directory};
use crate::support::server::Server;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A configuration with this path of the socket, or `off`.
fn with_socket(server: &Server, socket: &str) -> String {
    let admin = format!("[admin]\nbind = \"127.0.0.1:0\"\nsocket = \"{socket}\"\n");
    admin + &one_pool(&[server.address], "")
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|there| there.file_type().is_socket())
}

#[test]
fn only_the_owner_may_open_the_socket_and_it_is_removed_at_exit() {
    let (server, directory) = (Server::echo(), tempfile::tempdir().unwrap());
    let path = directory.path().join("a.sock");
    let proxy = Proxy::start(&with_socket(&server, path.to_str().unwrap()));
    assert!(is_socket(&path));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Commands find the socket through the configuration, even a broken one, or by `--socket`.
    assert_eq!(proxy.command(&["status"]).code, Some(0));
    std::fs::write(
        proxy.directory().join("acequia.toml"),
        format!("[admin]\nsocket = {path:?}\n[listeners"),
    )
    .unwrap();
    assert_eq!(proxy.command(&["status"]).code, Some(0));
    assert_eq!(
        finished(&mut acequia(&["status", "--socket", path.to_str().unwrap()])).code,
        Some(0)
    );
    assert_eq!(proxy.stop().code, Some(0));
    assert!(!path.exists());
}

#[test]
fn a_command_that_finds_no_socket_says_whether_its_configuration_is_invalid_or_unreadable() {
    let directory = config_directory("acequia.json", "{ \"admin\": {");
    let status = |file: &str| {
        let file = directory.path().join(file);
        finished(acequia(&["status", "-c"]).arg(file))
    };
    let (invalid, absent) = (status("acequia.json"), status("absent.json"));
    assert_eq!(invalid.code, Some(1), "{invalid:?}");
    assert!(invalid.stderr.contains("has errors"), "{invalid:?}");
    assert_eq!(absent.code, Some(3), "{absent:?}");
    assert!(absent.stderr.contains("No such file or directory"), "{absent:?}");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_an_error() {
    let (server, directory) = (Server::echo(), tempfile::tempdir().unwrap());
    let path = directory.path().join("a.sock");
    let text = with_socket(&server, path.to_str().unwrap());
    let first = Proxy::start(&text);
    first.signal(Signal::KILL);
    first.wait();
    assert!(is_socket(&path), "a killed process leaves its socket");
    let second = Proxy::start(&text);
    let other = config_directory("acequia.toml", &text);
    let third = finished(acequia(&["run"]).current_dir(other.path()));
    assert_refused(&third, &second);
    assert_eq!(second.command(&["status"]).code, Some(0));
}

/// Asserts that a process has not started, and that its error names the running process and the remedy.
fn assert_refused(refused: &Finished, running: &Proxy) {
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    let file = running.directory().join("acequia.toml");
    let who = format!(
        "another acequia listens there (pid {}), which runs {}",
        running.pid(),
        file.display()
    );
    for words in [who.as_str(), "socket = ", "[admin]"] {
        assert!(refused.stderr.contains(words), "{words}: {refused:#?}");
    }
}

/// A configuration without a path of the socket: the default path is used.
fn with_default_socket(server: &Server) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]",
        server.address
    )
}

#[test]
fn a_second_process_on_the_default_socket_is_refused() {
    let server = Server::echo();
    let first = Proxy::start(&with_default_socket(&server));
    let other = config_directory("acequia.toml", &with_default_socket(&server));
    let second = finished(
        acequia(&["run"])
            .env("XDG_RUNTIME_DIR", first.directory())
            .current_dir(other.path()),
    );
    assert_refused(&second, &first);
    assert_eq!(first.command(&["status"]).code, Some(0));
}

#[test]
fn a_command_does_not_reach_a_process_with_another_configuration() {
    let server = Server::echo();
    let proxy = Proxy::start(&with_default_socket(&server));
    let name = format!("p/{}", server.address);
    let other = config_directory("second.toml", &with_default_socket(&server));
    let second = other.path().join("second.toml");
    let assert_rejected = |output: Finished| {
        let own = proxy.directory().join("acequia.toml");
        let expected = [
            &format!("(pid {}) runs {}", proxy.pid(), own.display()),
            second.to_str().unwrap(),
            "--socket",
        ];
        assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:#?}");
        assert!(
            expected.iter().all(|part| output.stderr.contains(part)),
            "{expected:?}: {output:#?}"
        );
    };
    for arguments in [
        &["server", "drain", &name][..],
        &["status"],
        &["reload"],
        &["servers", "--json"],
        &["sessions"],
    ] {
        assert_rejected(proxy.command(&[arguments, &["-c", second.to_str().unwrap()]].concat()));
    }
    assert_eq!(proxy.server("p", &server.address.to_string())["use"], "enabled");
    // The same if the command finds the configuration in its working directory.
    std::fs::rename(&second, other.path().join("acequia.toml")).unwrap();
    let from_there = finished(
        acequia(&["server", "drain", &name])
            .env("XDG_RUNTIME_DIR", proxy.directory())
            .current_dir(other.path()),
    );
    assert!(
        from_there.code == Some(1) && from_there.stderr.contains("--socket"),
        "{from_there:#?}"
    );
    assert_eq!(proxy.server("p", &server.address.to_string())["use"], "enabled");
    // A link to the process's file counts as the same configuration. `--socket` reaches the process from any directory.
    let link = other.path().join("link.toml");
    std::os::unix::fs::symlink(proxy.directory().join("acequia.toml"), &link).unwrap();
    assert_eq!(proxy.command(&["status", "-c", link.to_str().unwrap()]).code, Some(0));
    let socket = proxy.directory().join("acequia/admin.sock");
    let by_socket = finished(acequia(&["status", "--socket", socket.to_str().unwrap()]).current_dir(other.path()));
    assert_eq!(by_socket.code, Some(0), "{by_socket:#?}");
}

#[test]
fn the_directory_of_the_socket_is_created_with_mode_0700() {
    let (server, directory) = (Server::echo(), tempfile::tempdir().unwrap());
    let path = directory.path().join("new/a.sock");
    let proxy = Proxy::start(&with_socket(&server, path.to_str().unwrap()));
    assert!(is_socket(&path));
    let made = path.parent().unwrap().metadata().unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o700);
    assert_eq!(proxy.command(&["status"]).code, Some(0));
    drop(proxy);
    // Only this directory is created, none above it.
    let too_deep = directory.path().join("no/such/a.sock");
    let refused = run(&with_socket(&server, too_deep.to_str().unwrap()));
    assert!(
        refused.code == Some(3) && refused.stderr.contains("cannot create its directory"),
        "{refused:#?}"
    );
}

fn run(text: &str) -> Finished {
    let directory = config_directory("acequia.toml", text);
    finished(acequia(&["run"]).current_dir(directory.path()))
}

#[test]
fn a_directory_where_others_may_replace_the_socket_is_rejected() {
    let (server, directory) = (Server::echo(), tempfile::tempdir().unwrap());
    let inner = directory.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let text = with_socket(&server, inner.join("a.sock").to_str().unwrap());
    let set_mode = |mode| std::fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
    set_mode(0o777);
    let refused = run(&text);
    let message = format!("other users may write in its directory {} (mode 0777)", inner.display());
    assert!(
        refused.code == Some(3) && refused.stderr.contains(&message),
        "{refused:#?}"
    );
    set_mode(0o1777); // as /tmp: only its owner may replace a file
    drop(Proxy::start(&text));
    set_mode(0o755);
    if !rustix::process::geteuid().is_root() {
        return; // only root can change the owner of a directory
    }
    std::os::unix::fs::chown(&inner, Some(65534), None).unwrap();
    let refused = run(&text);
    assert!(
        refused.code == Some(3) && refused.stderr.contains("belongs to another user (uid 65534)"),
        "{refused:#?}"
    );
}

#[test]
fn other_files_in_the_directory_are_left_alone() {
    let (server, directory) = (Server::echo(), tempfile::tempdir().unwrap());
    let path = directory.path().join("a.sock");
    let text = with_socket(&server, path.to_str().unwrap());
    // Earlier versions used the file name `.PID` for a temporary socket. `exec` replaces the shell with acequia, so
    // `$$` is also the PID of acequia.
    let script = format!("echo precious > {}/.$$ && exec \"$@\"", directory.path().display());
    let proxy = Proxy::setup(&text).under(&["sh", "-c", &script, "sh"]).start();
    let beside = directory.path().join(format!(".{}", proxy.pid()));
    assert_eq!(std::fs::read_to_string(beside).unwrap(), "precious\n");
    assert_eq!(directory.path().read_dir().unwrap().count(), 2);
}

/// A fake process that answers each client with the next of these responses (status and body).
fn fake_process(path: &Path, answers: Vec<(u16, String)>) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut client, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let length = body.len();
            write!(client, "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        }
    })
}

#[test]
fn responses_cannot_control_the_terminal() {
    const EVIL: &str = "\u{1b}[31m\u{9b}2J\r\u{7}\u{202e}\u{2066}";
    let evil = json!(EVIL);
    let server = json!({
        "name": evil, "address": evil, "priority": 0, "weight": 1, "health": evil, "reason": evil,
        "since": "2026-11-24T02:16:06.530Z", "ejected": false, "use": evil, "close_over": evil, "weight_is_set": true,
        "set_by": evil, "set_at": evil, "sessions": 0, "sessions_so_far": 0,
    });
    let absent = json!({ "pool": evil, "name": evil, "use": evil, "close_over": evil, "weight": 1, "set_by": evil,
        "set_at": evil });
    let state = json!({
        "version": evil, "pid": 1, "configuration": evil, "started": evil, "uptime": 1, "draining": false,
        "last_reload": null,
        "totals": { "sessions": 0, "sessions_so_far": 0, "servers": 0, "servers_up": 0, "servers_usable": 0 },
        "listeners": [{ "name": evil, "addresses": [evil], "sessions": 0, "max_connections": null, "pool": evil,
            "routes": [], "more_routes": 0 }],
        "pools": [{ "name": evil, "balance": evil, "best_tier": 0, "panic": false, "servers": [server],
            "left_out": [{ "name": evil, "address": evil, "listener": evil }], "unresolved": [evil] }],
        "absent": [absent],
    });
    let session = json!({ "id": 1, "listener": evil, "peer": evil, "client": evil, "sni": evil, "alpn": evil,
        "route": evil, "pool": evil, "server": evil, "age_ms": 1, "idle_ms": 1, "bytes_up": 0, "bytes_down": 0,
        "rate_up": 0, "rate_down": 0, "client_rtt_us": null, "server_rtt_us": null });
    let sessions = json!({ "total": 1, "sessions": [session], "next": null });
    let difference = json!({ "added": [evil], "removed": [evil], "kept": [] });
    let changes = json!({ "listeners": difference, "pools": difference, "servers": difference,
        "needs_restart": [evil], "warnings": EVIL });
    // A command, its exit code, and the status and the body of the response. acequia itself would escape all unsafe
    // characters in a response. These bodies contain some: serde_json escapes only ASCII control characters.
    let cases: Vec<(&[&str], i32, u16, String)> = vec![
        (&["status"], 0, 200, state.to_string()),
        (&["servers"], 0, 200, state.to_string()),
        (&["status", "--json"], 0, 200, state.to_string()),
        (
            &["status", "--json"],
            0,
            200,
            format!("{{ \"of another version\": \"{}\"\r}}", "\u{9b}m\u{202e}"),
        ),
        (&["status", "--json"], 3, 200, EVIL.to_owned()),
        (&["status"], 3, 200, EVIL.to_owned()),
        (&["sessions"], 0, 200, sessions.to_string()),
        (&["server", "enable", "a/b"], 0, 200, server.to_string()),
        (&["server", "enable", "a/b"], 0, 200, absent.to_string()),
        (&["reload"], 0, 200, changes.to_string()),
        (&["status"], 1, 404, json!({ "error": evil }).to_string()),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fake.sock");
    let answers = cases.iter().map(|(_, _, status, body)| (*status, body.clone()));
    let fake_process = fake_process(&path, answers.collect());
    for (words, code, _, body) in cases {
        let output = finished(&mut acequia(&[words, &["--socket", path.to_str().unwrap()]].concat()));
        assert_eq!(output.code, Some(code), "{words:?}: {output:#?}");
        // The printable ASCII characters of `EVIL` do nothing without a control character before them.
        let is_harmless = |c: char| c == '\n' || !c.is_control() && (c.is_ascii() || !EVIL.contains(c));
        let all = format!("{}{}", output.stdout, output.stderr);
        assert!(all.chars().all(is_harmless), "{words:?}: {output:#?}");
        if words.contains(&"--json") && code == 0 {
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(read(&output.stdout), read(&body), "escapes do not change the values");
        }
    }
    fake_process.join().unwrap();
}

#[test]
fn an_unusable_default_path_is_only_a_warning_and_off_disables_the_socket() {
    let server = Server::echo();
    let config = with_default_socket(&server);
    let with_default = Proxy::start(&config);
    assert!(is_socket(&with_default.directory().join("acequia/admin.sock")));
    // A path that cannot be created, since /dev/null is not a directory.
    let without = Proxy::setup(&config)
        .under(&["env", "XDG_RUNTIME_DIR=/dev/null"])
        .start();
    let is_warning = |line: &Value| line["level"] == "WARN" && line["path"] == "/dev/null/acequia/admin.sock";
    eventually("the warning is logged", || without.log().iter().any(is_warning));
    assert_eq!(Client::connect(without.at("l")).send(b"hi").read(2), b"hi");
    let off = Proxy::start(&with_socket(&server, "off"));
    let failed = off.command(&["status"]);
    assert_eq!(failed.code, Some(3));
    assert!(failed.stderr.contains("\"off\""), "{failed:#?}");
}

#[test]
fn silent_connections_do_not_block_commands() {
    let server = Server::echo();
    let proxy = Proxy::start(&with_socket(&server, "a.sock"));
    let path = proxy.directory().join("a.sock");
    let _silent: Vec<_> = (0..40)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    for _ in 0..5 {
        assert_eq!(proxy.command(&["status"]).code, Some(0));
    }
}
