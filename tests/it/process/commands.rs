//! The command line: exit codes, answers, warnings, and the errors of commands that cannot run.

use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::client::{ask, server_reached};
use crate::support::process::{Finished, NOBODY, Port, finished, must};
use crate::support::proxy::{BINARY, Proxy, acequia, config_directory};
use crate::support::server::Server;
use crate::support::{eventually, is_root_for};

/// Runs a command on this configuration to its end.
pub(super) fn run_with(config: &str, command: &[&str]) -> Finished {
    let directory = config_directory("acequia.toml", config);
    finished(acequia(command).arg("-c").arg(directory.path().join("acequia.toml")))
}

pub(super) const FINE: &str =
    "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]\n";

fn config_bound_to(addresses: &[String]) -> String {
    let listener = |(number, address)| format!("[listeners.l{number}]\nbind = \"{address}\"\npool = \"p\"\n");
    let listeners: String = (1..).zip(addresses).map(listener).collect();
    format!("{listeners}[pools.p]\nservers = [\"127.0.0.1:9\"]\n")
}

/// Asserts that the exit code is 3, that the error contains these words, and that no listener was opened.
fn assert_cannot_bind(finished: &Finished, words: &[&str]) {
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (Some(3), ""),
        "{finished:#?}"
    );
    for word in words {
        assert!(finished.stderr.contains(word), "{word}: {finished:#?}");
    }
    assert!(
        !finished.stderr.contains("listening"),
        "expected no listener to be open: {finished:#?}"
    );
}

#[test]
fn a_second_process_on_an_address_reports_the_address_and_opens_no_listener() {
    let server = Server::named("s1");
    let first = Proxy::start(&FINE.replace("127.0.0.1:9", &server.address.to_string()));
    let (taken, free) = (first.at("l").to_string(), Port::keep());
    let second = run_with(&config_bound_to(&[free.address.to_string(), taken.clone()]), &["run"]);
    assert_cannot_bind(
        &second,
        &[
            "listener `l2`",
            &taken,
            "Address already in use",
            "ss -ltnp",
            "bind another port",
        ],
    );
    assert!(!second.stderr.contains("listener `l1`"), "{second:#?}");
    for _ in 0..20 {
        assert_eq!(
            server_reached(first.at("l")),
            "s1",
            "expected the first process to keep all its clients"
        );
    }
}

#[test]
fn every_address_that_cannot_be_bound_is_reported() {
    let taken = [(); 2].map(|()| Server::silent());
    let addresses = taken.each_ref().map(|server| server.address.to_string());
    let failed = run_with(&config_bound_to(&addresses), &["run"]);
    assert_cannot_bind(
        &failed,
        &["listener `l1`", &addresses[0], "listener `l2`", &addresses[1]],
    );
}

#[test]
fn an_admin_port_in_use_is_reported() {
    let taken = Server::silent();
    let failed = run_with(&format!("{FINE}[admin]\nbind = \"{}\"", taken.address), &["run"]);
    assert_cannot_bind(
        &failed,
        &["[admin]", &taken.address.to_string(), "Address already in use"],
    );
}

#[test]
fn an_address_of_another_machine_is_reported() {
    let failed = run_with(&config_bound_to(&["192.0.2.1:0".to_owned()]), &["run"]);
    assert_cannot_bind(
        &failed,
        &[
            "listener `l1`",
            "192.0.2.1:0",
            "Cannot assign requested address",
            "ip address",
            "net.ipv4.ip_nonlocal_bind",
        ],
    );
}

#[test]
fn a_port_in_use_by_a_connection_is_reported() {
    let server = Server::silent();
    let connection = TcpStream::connect(server.address).unwrap();
    let taken = connection.local_addr().unwrap();
    for address in [taken, (Ipv4Addr::UNSPECIFIED, taken.port()).into()] {
        let failed = run_with(&config_bound_to(&[address.to_string()]), &["run"]);
        let words = ["Address already in use", "ss -tanp", "net.ipv4.ip_local_reserved_ports"];
        assert_cannot_bind(&failed, &words);
        assert!(!failed.stderr.contains("ss -ltnp"), "nobody listens there: {failed:#?}");
    }
}

#[test]
fn an_admin_port_on_a_listener_address_is_a_configuration_error() {
    let free = Port::keep();
    let admin = format!("[admin]\nbind = \"{}\"\n", free.address);
    let overlapping = FINE.replace("127.0.0.1:0", &format!("0.0.0.0:{}", free.number()));
    for command in ["check", "run"] {
        let failed = run_with(&format!("{admin}{overlapping}"), &[command]);
        assert_eq!(failed.code, Some(1), "{failed:#?}");
        assert!(failed.stderr.contains("overlaps with"), "{failed:#?}");
    }
}

#[test]
fn exposed_secrets_cause_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, mode| {
        let path = directory.path().join(name);
        std::fs::write(&path, "open sesame").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let (token, password) = (file("token", 0o644), file("password", 0o606));
    let text = format!(
        "[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = {token:?}\n{FINE}[pools.p.health]\ncheck = \"postgres\"\n\
         user = \"checker\"\npassword_file = {password:?}\n"
    );
    let warnings = [
        format!("admin.token_file: other users may read {} (mode 0644)", token.display()),
        format!(
            "pools.p.health.password_file: other users may read and write {} (mode 0606)",
            password.display()
        ),
    ];
    let checked = run_with(&text, &["check"]);
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    let proxy = Proxy::setup(&text).launch();
    let reloaded = proxy.command(&["reload"]);
    for warning in &warnings {
        assert!(checked.stderr.contains(&format!("warning: {warning}")), "{checked:#?}");
        assert!(reloaded.stdout.contains(warning.as_str()), "{reloaded:#?}");
        eventually("the warning is in the log of the start and of the reload", || {
            let log: String = proxy.log().iter().map(|line| line["message"].to_string()).collect();
            log.matches(warning.as_str()).count() == 2
        });
    }
    file("token", 0o600);
    file("password", 0o640);
    let checked = run_with(&text, &["check"]);
    assert!(checked.code == Some(0) && checked.stderr.is_empty(), "{checked:#?}");
}

#[test]
fn a_privileged_port_without_privileges_is_reported() {
    let directory = config_directory("acequia.toml", &config_bound_to(&["0.0.0.0:443".to_owned()]));
    // A new network namespace has no other listeners, and the default limit for privileged ports. A program that is
    // started in a new user namespace has no capabilities if its user is not mapped to root.
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--net", BINARY, "run", "-c"])
        .arg(directory.path().join("acequia.toml"));
    let failed = finished(&mut command);
    assert_cannot_bind(
        &failed,
        &[
            "listener `l1`",
            "0.0.0.0:443",
            "Permission denied",
            "CAP_NET_BIND_SERVICE",
        ],
    );
}

#[test]
fn acequia_runs_without_root() {
    if !is_root_for("another user") {
        return;
    }
    let server = Server::echo();
    let config = FINE.replace("127.0.0.1:9", &server.address.to_string());
    let proxy = Proxy::setup(&config).under(&NOBODY).start();
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
}

#[test]
fn an_invalid_configuration_exits_with_1_and_a_missing_one_with_3() {
    for command in [&["run"][..], &["check"], &["route", "--listener", "l"]] {
        let failed = run_with(&FINE.replace("pool = \"p\"", "pool = \"q\""), command);
        assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""), "{failed:#?}");
        assert!(
            failed.stderr.contains("acequia.toml:3:8") && failed.stderr.contains("^^^"),
            "{failed:#?}"
        );
    }
    let failed = finished(&mut acequia(&["run", "-c", "/nowhere/acequia.toml"]));
    assert!(
        failed.code == Some(3) && failed.stderr.contains("/nowhere/acequia.toml"),
        "{failed:#?}"
    );
}

#[test]
fn wrong_arguments_exit_with_2() {
    for arguments in [&["fly"][..], &["run", "--fast"], &[], &["route"]] {
        let failed = finished(&mut acequia(arguments));
        assert_eq!((failed.code, failed.stdout.as_str()), (Some(2), ""), "{failed:#?}");
    }
    let failed = run_with(FINE, &["route", "--listener", "other"]);
    assert_eq!(failed.code, Some(2));
    assert!(
        failed
            .stderr
            .contains("there is no listener `other`; known listeners: l"),
        "{failed:#?}"
    );
}

/// No process runs: a command that tried to connect would exit with 3.
#[test]
fn values_that_no_process_accepts_exit_with_2_at_once() {
    for (arguments, expected) in [
        (&["init", "--listen", "5000"][..], "`5000` is only a port"),
        (&["init", "--servers", "10.0.0.1:1,10.0.0.2"], "`10.0.0.2` has no port"),
        (&["init", "--servers", ""], "the address is empty"),
        (&["status", "--url", "ftp://127.0.0.1:1"], "write https://HOST:PORT"),
        (&["status", "--url", "127.0.0.1:1"], "write https://HOST:PORT"),
        (&["status", "--ca-file", "/nowhere/ca.pem"], "--url"),
        (&["sessions", "--sort", "age"], "`bytes`, `rate`, `idle`, `rtt`"),
        (&["sessions", "--filter", "zzz=1"], "unknown field `zzz`"),
        (&["sessions", "--filter", "min_bytes=x"], "min_bytes"),
        (&["sessions", "--filter", "min_idle=5"], "`min_idle` is not a duration"),
        (&["sessions", "--limit", "1001"], "1 to 1000"),
        (&["sessions", "--filter", "after=1", "--sort", "idle"], "remove `after`"),
        (&["server", "enable", "p/"], "expected POOL/SERVER"),
        (&["server", "weight", "p/s", "257"], "0 to 256"),
        (&["server", "drain", "p/s", "--close-over", "5"], "write \"5s\""),
        (&["server", "add", "p", "10.0.0.1"], "`10.0.0.1` has no port"),
        (
            &["server", "add", "p", "10.0.0.1:1", "--weight", "257"],
            "the largest is 256",
        ),
        (
            &["server", "add", "p", "10.0.0.1:1", "--name", "a/b"],
            "invalid name `a/b`",
        ),
        (&["server", "add", "p", "10.0.0.1:1", "--for", "0s"], "1ms to 8760h"),
        (&["guard", "deny", "g", "10.0.0.1/8"], "write \"10.0.0.0/8\""),
        (&["guard", "deny", "g", "10.0.0.1", "--for", "5"], "write \"5s\""),
        (&["guard", "undo", "g", "x"], "`x` is not a network"),
        (&["pool", "scale", "p", "many"], "expected a number"),
    ] {
        let failed = finished(&mut acequia(arguments));
        assert_eq!(
            (failed.code, &*failed.stdout),
            (Some(2), ""),
            "{arguments:?}: {failed:#?}"
        );
        assert!(failed.stderr.contains(expected), "{arguments:?}: {failed:#?}");
    }
    let long = format!("sni={}", "a".repeat(70_000));
    let failed = finished(&mut acequia(&["sessions", "--filter", &long]));
    assert!(failed.stderr.contains("the filters are too long"), "{failed:#?}");
    assert_eq!(failed.code, Some(2), "{failed:#?}");
    let valid = finished(&mut acequia(&["sessions", "--sort", "rtt", "--filter", "sni=a&b"]));
    assert_eq!(valid.code, Some(3), "{valid:#?}");
}

#[test]
fn version_and_help_exit_with_0() {
    assert_eq!(
        must(&mut acequia(&["--version"])),
        concat!("acequia ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let help = must(&mut acequia(&["--help"]));
    for command in ["run", "check", "route"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        assert!(must(&mut acequia(&[command, "--help"])).contains("--config <FILE>"));
    }
}

#[test]
fn check_accepts_a_valid_file_and_warns_of_an_unused_pool() {
    let checked = run_with(
        &format!("{FINE}[pools.unused]\nservers = [\"127.0.0.1:9\"]"),
        &["check"],
    );
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    assert!(
        checked.stdout.ends_with("1 listener, 2 pools, 2 servers: fine\n"),
        "{checked:#?}"
    );
    assert!(
        checked.stderr.contains("warning") && checked.stderr.contains("unused"),
        "{checked:#?}"
    );
}

#[test]
fn route_shows_where_a_connection_would_go() {
    let routes = "[[listeners.l.routes]]\nsni = \"*.example\"\nalpn = \"h2\"\nfrom = \"10.0.0.0/8\"\npool = \"p\"\n";
    let asked = [
        "route",
        "--listener",
        "l",
        "--sni",
        "a.example",
        "--alpn",
        "h2",
        "--from",
        "10.1.1.1",
    ];
    let matched = run_with(&format!("{FINE}{routes}"), &asked);
    assert!(
        matched.code == Some(0) && matched.stdout.contains("route l#1: pool p"),
        "{matched:#?}"
    );
    // Without `--alpn` and `--from`, on which the route depends too.
    let unmatched = run_with(&format!("{FINE}{routes}"), &asked[..5]);
    assert!(
        unmatched.stdout.contains("no route takes it: the listener's pool p"),
        "{unmatched:#?}"
    );
}

#[test]
fn without_the_config_option_acequia_toml_in_the_current_directory_is_read() {
    let directory = config_directory("acequia.toml", FINE);
    let output = must(acequia(&["check"]).current_dir(directory.path()));
    assert!(output.contains("acequia.toml: 1 listener"), "{output}");
}

#[test]
fn a_json_configuration_is_accepted() {
    let server = Server::echo();
    let json = format!(
        r#"{{ "listeners": {{ "l": {{ "bind": "127.0.0.1:0", "pool": "p" }} }}, "admin": {{ "bind": "127.0.0.1:0" }},
             "pools": {{ "p": {{ "servers": ["{}"] }} }} }}"#,
        server.address
    );
    let proxy = Proxy::start(&json);
    assert_eq!(ask(proxy.at("l"), b"ping"), b"ping");
    let directory = config_directory("acequia.json", &json.replace("\"pool\":", "\"pol\":"));
    let failed = finished(acequia(&["check", "-c"]).arg(directory.path().join("acequia.json")));
    assert!(
        failed.code == Some(1) && failed.stderr.contains("listeners.l.pol"),
        "{failed:#?}"
    );
}

#[test]
fn failing_to_write_the_answer_exits_with_1_and_a_closed_pipe_with_0() {
    let directory = config_directory("acequia.toml", FINE);
    let into = |out: &str| {
        let script = format!("{BINARY} \"$@\" {out}");
        let mut command = Command::new("bash");
        finished(
            command
                .args(["-c", &script, "acequia", "check", "-c"])
                .arg(directory.path().join("acequia.toml")),
        )
    };
    let full = into("> /dev/full");
    assert_eq!(full.code, Some(1), "{full:#?}");
    assert!(full.stderr.contains("cannot write the answer"), "{full:#?}");
    // The reader ends without reading, usually before the command writes.
    let gone = into("> >(exec true)");
    assert!(gone.code == Some(0) && gone.stderr.is_empty(), "{gone:#?}");
}

#[test]
fn a_path_that_cannot_be_opened_is_escaped_in_the_error() {
    let odd = "/nowhere/\\u001b[2J\\u009b\\u202e";
    let check = format!("{FINE}[pools.p.health]\ncheck = \"tls\"\nverify = true\nca_file = \"{odd}\"\n");
    let log = format!("{FINE}[log]\naccess = \"{odd}\"\n");
    for (config, command) in [(&check, "check"), (&check, "run"), (&log, "run")] {
        let stderr = run_with(config, &[command]).stderr;
        assert!(
            ["/nowhere/", "u{1b}[2J", "u{9b}", "u{202e}"]
                .iter()
                .all(|part| stderr.contains(part)),
            "{stderr}"
        );
        let is_unsafe = |c: char| c != '\n' && acequia::text::is_unsafe(c);
        assert!(!stderr.chars().any(is_unsafe), "{stderr:?}");
    }
}

#[test]
fn an_import_reads_a_pipe_and_reports_an_endless_and_a_missing_file() {
    let pipe = "printf 'listen a\\nmode tcp\\nbind :1\\nserver s 10.0.0.1:2\\n' | \"$0\" import haproxy /dev/stdin";
    let imported = must(Command::new("sh").args(["-c", pipe, BINARY]));
    assert!(imported.contains("\"10.0.0.1:2\""), "{imported}");
    let endless = finished(&mut acequia(&["import", "nginx", "/dev/zero"]));
    assert_eq!(endless.code, Some(1));
    assert!(
        endless.stderr.contains("/dev/zero: longer than 16 MiB"),
        "{}",
        endless.stderr
    );
    let missing = finished(&mut acequia(&["import", "nginx", "/nowhere/nginx.conf"]));
    assert_eq!(missing.code, Some(3), "{missing:#?}");
}

#[test]
fn the_explanation_of_a_route_names_what_containers_may_announce() {
    let text = "[listeners.l]\nbind = \"127.0.0.1:0\"\nannounce = { from = \"docker\", names = [\"*.apps.test\"] }\n\
                [[listeners.l.routes]]\nsni = \"own.apps.test\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]\n";
    for (sni, is_noted) in [("shop.apps.test", true), ("own.apps.test", false), ("shop.test", false)] {
        let explained = run_with(text, &["route", "--listener", "l", "--sni", sni]);
        let note = format!("note: containers may announce `{sni}` here");
        assert_eq!(
            (explained.code, explained.stdout.contains(&note)),
            (Some(0), is_noted),
            "{explained:#?}"
        );
    }
}
