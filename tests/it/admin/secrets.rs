//! A password and a token are used, and told nobody: not by a log, an answer, a metric or a command, whatever fails.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::support::api::{tcp, unix};
use crate::support::client::ask;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

// Neither has a word in it that a line of a configuration is hidden for.
const PASSWORD: &str = "xyzzy-open-sesame";
const TOKEN: &str = "plugh-let-me-in";

/// A server that speaks as much PostgreSQL as a check needs: it wants the password in clear, and says that it is a
/// primary.
fn postgres() -> Server {
    Server::run(|mut stream| drop(primary(&mut stream))) // a check that is over is not interested in the rest
}

fn primary(stream: &mut TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; 8])?; // SSLRequest
    stream.write_all(b"N")?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    rest(stream, length)?; // StartupMessage
    say(stream, b'R', &[0, 0, 0, 3])?; // AuthenticationCleartextPassword
    if hear(stream)? != [PASSWORD.as_bytes(), b"\0"].concat() {
        return say(stream, b'E', b"SFATAL\0C28P01\0Mthat is not the password\0\0");
    }
    say(stream, b'R', &[0; 4])?;
    say(stream, b'Z', b"I")?;
    hear(stream)?; // the question
    say(stream, b'T', b"\0\x01role\0\0\0\0\0\0\0\0\0\0\x10\0\x01\0\0\0\0\0\0")?;
    say(stream, b'D', b"\0\x01\0\0\0\x01f")?;
    say(stream, b'C', b"SELECT 1\0")?;
    say(stream, b'Z', b"I")
}

fn say(stream: &mut TcpStream, kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(4 + body.len()).unwrap().to_be_bytes();
    stream.write_all(&[&[kind], &length[..], body].concat())
}

fn hear(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    rest(stream, [head[1], head[2], head[3], head[4]])
}

fn rest(stream: &mut TcpStream, length: [u8; 4]) -> io::Result<Vec<u8>> {
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).map(|()| body)
}

/// In a folder with a file `password` and a file `token`.
fn config(server: &Server, folder: &Path) -> String {
    format!(
        "[log]\nlevel = \"trace\"\n[admin]\nbind = \"127.0.0.1:0\"\ntoken_file = {:?}\n\
         [listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [{{ address = \"{}\", name = \"s\" }}]\nrole = \"primary\"\n\
         [pools.p.health]\ncheck = \"postgres\"\nuser = \"checker\"\npassword_file = {:?}\ninterval = \"50ms\"\nfall = 1\n",
        folder.join("token"),
        server.address,
        folder.join("password"),
    )
}

/// All that anybody is told.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    fn hear(&mut self, what: impl std::fmt::Debug) {
        self.0.push(format!("{what:?}"));
    }

    /// What can be asked by anybody who may ask.
    fn hear_all(&mut self, proxy: &Proxy) {
        for path in [
            "/live",
            "/ready",
            "/metrics",
            "/api/v1/state",
            "/api/v1/sessions",
            "/api/v1/route?listener=l",
        ] {
            self.hear(tcp(proxy, "GET", path, &[], ""));
        }
        for words in [
            &["status"][..],
            &["servers"],
            &["sessions"],
            &["check"],
            &["route", "--listener", "l"],
        ] {
            self.hear(proxy.command(words));
        }
        self.hear(proxy.answer(&["servers"]));
    }

    fn writes(&mut self, proxy: &Proxy, token: &str, status: u16) {
        let headers = [
            &format!("Authorization: Bearer {token}"),
            "Content-Type: application/json",
        ];
        let answer = tcp(proxy, "POST", "/api/v1/servers/p/s", &headers, "{\"weight\": 2}");
        assert_eq!(answer.0, status, "{answer:?}");
        self.hear(answer);
    }
}

fn health(proxy: &Proxy) -> (String, String) {
    let state = unix(proxy, "GET", "/api/v1/state", "").1;
    let server = &state["pools"][0]["servers"][0];
    (server["health"].to_string(), server["reason"].to_string())
}

fn goes_down(proxy: &Proxy, reason: &str) {
    wait_for(reason, || {
        let (health, why) = health(proxy);
        (health == "\"down\"" && why.contains(reason)).then_some(())
    });
}

#[test]
fn no_secret_is_told_whatever_goes_well_or_fails() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("password", &format!("{PASSWORD}-wrong\n"));
    write("token", TOKEN);
    let server = postgres();
    let proxy = Proxy::start(&config(&server, folder.path()));
    let mut told = Told::default();
    goes_down(&proxy, "that is not the password");
    told.hear_all(&proxy);
    write("password", &format!("{PASSWORD}\n"));
    eventually("the password is right", || health(&proxy).0 == "\"up\"");
    ask(proxy.at("l"), b"");
    told.writes(&proxy, TOKEN, 200);
    told.writes(&proxy, &format!("{TOKEN}-wrong"), 401);
    told.hear_all(&proxy);
    // Files that hold more than the secret.
    write("password", &PASSWORD.repeat(300));
    write("token", &TOKEN.repeat(300));
    goes_down(&proxy, "too long");
    told.writes(&proxy, TOKEN, 503);
    told.hear_all(&proxy);
    // A configuration into which somebody has written what belongs into files.
    let written = format!("password = \"{PASSWORD}\"\nPASSWORD = \"{PASSWORD}\"\nuser =");
    let wrong = config(&server, folder.path()).replace("user =", &written);
    proxy.rewrite(&wrong.replace("token_file", &format!("token = \"{TOKEN}\"\ntoken_file")));
    told.hear(proxy.command(&["check"]));
    told.hear(proxy.command(&["reload"]));
    told.hear_all(&proxy);
    let stopped = proxy.stop();
    assert!(!stopped.access.is_empty() && stopped.log.len() > 20, "{stopped:#?}");
    told.hear(stopped);
    for said in &told.0 {
        assert!(!said.contains(PASSWORD) && !said.contains(TOKEN), "{said}");
    }
    assert!(
        told.0
            .iter()
            .any(|said| said.contains("`password_file`, which holds it")),
        "{:?}",
        told.0
    );
}
