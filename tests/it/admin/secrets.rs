//! No log, API answer, metric or command reveals a password or a token, whatever fails.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::support::api::{tcp, unix};
use crate::support::client::ask;
use crate::support::eventually;
use crate::support::process::{finished, must};
use crate::support::proxy::{Proxy, acequia, config_directory};
use crate::support::server::Server;
use serde_json::Value;

// Error reports never quote a line that contains a word such as `password`. If a secret contained such a word, this
// would hide a leak of it. So neither secret contains one.
const PASSWORD: &str = "xyzzy-open-sesame";
const TOKEN: &str = "plugh-let-me-in";

/// What the user `checker` sends to prove that it knows the password, for the salt `salt`.
const PROOF: &[u8] = b"md55ae17172e7a5e472248e5c8625a63e3a\0";

/// A server that speaks as much PostgreSQL as a check needs. It asks for a proof of the password, and answers each
/// query with `f` (false): the check asks whether the server is a replica.
fn postgres() -> Server {
    // An error means that the check has closed its connection.
    Server::run(|mut stream| drop(serve_as_primary(&mut stream)))
}

fn serve_as_primary(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; 8])?; // SSLRequest
    stream.write_all(b"N")?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    read_body(stream, length)?; // StartupMessage
    write_message(stream, b'R', b"\0\0\0\x05salt")?; // AuthenticationMD5Password
    if read_message(stream)? != PROOF {
        return write_message(stream, b'E', b"SFATAL\0C28P01\0Mthat is not the password\0\0");
    }
    write_message(stream, b'R', &[0; 4])?;
    write_message(stream, b'Z', b"I")?;
    loop {
        read_message(stream)?; // a query
        write_message(stream, b'T', b"\0\x01role\0\0\0\0\0\0\0\0\0\0\x10\0\x01\0\0\0\0\0\0")?;
        write_message(stream, b'D', b"\0\x01\0\0\0\x01f")?;
        write_message(stream, b'C', b"SELECT 1\0")?;
        write_message(stream, b'Z', b"I")?;
    }
}

fn write_message(stream: &mut TcpStream, kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(4 + body.len()).unwrap().to_be_bytes();
    stream.write_all(&[&[kind], &length[..], body].concat())
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    read_body(stream, [head[1], head[2], head[3], head[4]])
}

fn read_body(stream: &mut TcpStream, length: [u8; 4]) -> io::Result<Vec<u8>> {
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).map(|()| body)
}

/// A configuration that names the files `password` and `token` of this directory, which hold the secrets.
fn config(server: &Server, directory: &Path) -> String {
    format!(
        "[log]\nlevel = \"trace\"\n[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = {:?}\n\
         [listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"{}\", name = \"s\" }}]\nrole = \"primary\"\n\
         [pools.p.health]\ncheck = \"postgres\"\nuser = \"checker\"\npassword_file = {:?}\ninterval = \"50ms\"\nfall = 1\n",
        directory.join("token"),
        server.address,
        directory.join("password"),
    )
}

/// Everything that acequia has shown.
#[derive(Default)]
struct Output(Vec<String>);

impl Output {
    fn collect(&mut self, what: impl std::fmt::Debug) {
        self.0.push(format!("{what:?}"));
    }

    /// Collects the answers to requests and commands that change nothing.
    fn collect_reads(&mut self, proxy: &Proxy) {
        for path in [
            "/live",
            "/ready",
            "/metrics",
            "/api/v1/state",
            "/api/v1/sessions",
            "/api/v1/route?listener=l",
        ] {
            self.collect(tcp(proxy, "GET", path, &[], ""));
        }
        // Over the Unix socket, because over TCP `/reload` needs a token.
        for path in [
            "/api/v1/process",
            "/api/v1/servers/p/s",
            "/api/v1/certificates",
            "/api/v1/reload",
            "/api/v1/endings",
            "/api/v1/history",
        ] {
            let answer = unix(proxy, "GET", path, "");
            assert_eq!(answer.0, 200, "{path}: {answer:?}");
            self.collect(answer);
        }
        for words in [
            &["status"][..],
            &["servers"],
            &["sessions"],
            &["check"],
            &["route", "--listener", "l"],
        ] {
            self.collect(proxy.command(words));
        }
        self.collect(proxy.answer(&["servers"]));
    }

    fn collect_write(&mut self, proxy: &Proxy, token: &str, status: u16) {
        let headers = [
            &format!("Authorization: Bearer {token}"),
            "Content-Type: application/json",
        ];
        let answer = tcp(proxy, "POST", "/api/v1/servers/p/s", &headers, "{\"weight\": 2}");
        assert_eq!(answer.0, status, "{answer:?}");
        self.collect(answer);
    }
}

/// The server, as the API shows it.
fn server_state(proxy: &Proxy) -> Value {
    unix(proxy, "GET", "/api/v1/state", "").1["pools"][0]["servers"][0].clone()
}

/// Waits until the server has this health, for this reason.
fn wait_for_health(proxy: &Proxy, health: &str, reason: &str) {
    eventually(reason, || {
        let server = server_state(proxy);
        server["health"] == health && server["reason"].to_string().contains(reason)
    });
}

#[test]
fn no_output_contains_a_secret_whether_requests_succeed_or_fail() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("password", &format!("{PASSWORD}-wrong\n"));
    write("token", TOKEN);
    let server = postgres();
    let proxy = Proxy::start(&config(&server, directory.path()));
    let mut output = Output::default();
    wait_for_health(&proxy, "check refused", "that is not the password");
    output.collect_reads(&proxy);
    write("password", &format!("{PASSWORD}\n"));
    eventually("the password is right", || server_state(&proxy)["health"] == "up");
    ask(proxy.at("l"), b"");
    output.collect_write(&proxy, TOKEN, 200);
    output.collect_write(&proxy, &format!("{TOKEN}-wrong"), 401);
    output.collect_reads(&proxy);
    // Both files exceed the limit for secrets, 4 KiB.
    write("password", &PASSWORD.repeat(300));
    write("token", &TOKEN.repeat(300));
    wait_for_health(&proxy, "check refused", "it is longer than 4KiB");
    output.collect_write(&proxy, TOKEN, 503);
    output.collect_reads(&proxy);
    // Now the configuration contains the secrets beside the names of their files.
    let written = format!("password = \"{PASSWORD}\"\nPASSWORD = \"{PASSWORD}\"\nuser =");
    let wrong = config(&server, directory.path()).replace("user =", &written);
    proxy.rewrite(&wrong.replace("token_file", &format!("token = \"{TOKEN}\"\ntoken_file")));
    output.collect(proxy.command(&["check"]));
    output.collect(proxy.command(&["reload"]));
    output.collect_reads(&proxy);
    let stopped = proxy.stop();
    assert!(!stopped.access.is_empty() && stopped.log.len() > 20, "{stopped:#?}");
    output.collect(stopped);
    for text in &output.0 {
        assert!(!text.contains(PASSWORD) && !text.contains(TOKEN), "{text}");
    }
    let names_the_right_key = |text: &String| text.contains("`password_file`: a file that contains it");
    assert!(output.0.iter().any(names_the_right_key), "{:?}", output.0);
}

#[test]
fn a_fifo_in_place_of_a_secret_is_an_error_and_blocks_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let fifo = |name: &str| {
        let _ = std::fs::remove_file(path(name));
        must(Command::new("mkfifo").args(["-m", "600"]).arg(path(name)));
    };
    std::fs::write(path("password"), PASSWORD).unwrap();
    std::fs::write(path("token"), TOKEN).unwrap();
    let server = postgres();
    let text = config(&server, directory.path());
    let proxy = Proxy::start(&text);
    eventually("the check passes", || server_state(&proxy)["health"] == "up");
    fifo("password");
    wait_for_health(&proxy, "check refused", "password: not a regular file");
    fifo("token");
    Output::default().collect_write(&proxy, TOKEN, 503);
    let reload = proxy.command(&["reload"]);
    assert!(reload.stderr.contains("not a regular file"), "{reload:#?}");
    let check = proxy.command(&["check"]);
    assert!(check.stderr.contains("token: not a regular file"), "{check:#?}");
    drop(proxy);
    let second = config_directory("acequia.toml", &text);
    let started = finished(acequia(&["run"]).current_dir(second.path()));
    assert_eq!(started.code, Some(3), "a secret cannot be read: {started:#?}");
}
