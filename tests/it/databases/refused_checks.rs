//! A server that refuses the check is alive: none of its sessions is cut, and the refusal is reported everywhere.

use std::io::{Read, Write};
use std::path::Path;

use crate::health::roles::{create_checker, password_file};
use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::counts::{ended_sessions, log_count, log_lines, wait_for_ended_sessions};
use crate::support::database::{Postgres, psql};
use crate::support::process::must;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

const SESSIONS: usize = 60;

const USED_AS_BEFORE: &str = "check refused: the server lives, and is used as before";
const NO_NEW_SESSIONS: &str = "check refused: the server lives, and gets no new sessions";

/// A configuration with which one failed check takes the server out and cuts its sessions at once.
fn config(server: &Postgres, password: &Path, more: &str) -> String {
    format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\npool = \"db\"\n[pools.db]\nservers = [\"{}\"]\nrole = \"primary\"\n\
         on_down = \"close\"\nclose_over = \"0s\"\n{more}\n[pools.db.health]\ncheck = \"postgres\"\nuser = \"checker\"\n\
         password_file = {password:?}\ndatabase = \"checks\"\ninterval = \"200ms\"\ntimeout = \"8s\"\nfall = 1",
        server.address()
    )
}

/// Starts a server and a proxy with [`config`], and waits until the check finds the server up.
fn start(more: &str) -> (Postgres, Proxy) {
    let server = Postgres::start_with(&["max_connections=70"]);
    create_checker(&server);
    run(&server, "CREATE DATABASE checks");
    let (directory, password) = password_file();
    let proxy = Proxy::start(&config(&server, &password, more));
    eventually("the server is up", || health(&proxy, &server)["health"] == "up");
    // The file is read at each check: it must stay.
    std::mem::forget(directory);
    (server, proxy)
}

fn run(server: &Postgres, statement: &str) {
    must(&mut psql(server.address(), statement));
}

fn health(proxy: &Proxy, server: &Postgres) -> serde_json::Value {
    proxy.server("db", &server.address().to_string())
}

/// A session of PostgreSQL, without TLS.
struct Session(Client);

impl Session {
    /// The session, or the message of the server's error.
    fn open(address: std::net::SocketAddr) -> Result<Self, String> {
        let mut client = Client::connect(address);
        let parameters = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(parameters.len() + 4).unwrap();
        client.send(&length.to_be_bytes()).send(parameters);
        let mut session = Self(client);
        session.until_ready().map(|()| session)
    }

    /// Reads messages until ReadyForQuery.
    fn until_ready(&mut self) -> Result<(), String> {
        loop {
            let header = self.0.read(5);
            let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
            let body = self.0.read(length - 4);
            match header[0] {
                b'E' => return Err(String::from_utf8_lossy(&body).replace('\0', " ")),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    fn query(&mut self) {
        self.0.send(b"Q\0\0\0\x0dSELECT 1\0");
        self.until_ready().unwrap();
    }
}

/// Waits until the check is refused for this reason, and then for some more checks.
fn wait_until_refused(proxy: &Proxy, server: &Postgres, reason: &str) {
    // While a server fills up, the reason is another one at first: that the last connections are reserved.
    wait_for(reason, || {
        let state = health(proxy, server);
        let is_reason = |text: &str| text.contains(reason);
        (state["health"] == "check refused" && state["reason"].as_str().is_some_and(is_reason)).then_some(())
    });
    let checks = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "refused")])
    };
    let before = checks();
    eventually("it is refused again", || checks() >= before + 3.0);
    assert_eq!(proxy.metrics().sum("acequia_health_check_refused", &[]), 1.0);
}

fn wait_until_accepted(proxy: &Proxy, server: &Postgres) {
    eventually("the check passes again", || health(proxy, server)["health"] == "up");
    assert_eq!(proxy.metrics().sum("acequia_health_check_refused", &[]), 0.0);
}

#[test]
fn while_checks_are_refused_sessions_go_on_and_new_ones_are_tried() {
    let (server, proxy) = start("");
    let open = || Session::open(proxy.at("db"));
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| open().ok().unwrap()).collect();

    // All connections are used up.
    let mut others = Vec::new();
    let full = loop {
        match Session::open(server.address()) {
            Ok(other) => others.push(other),
            Err(full) => break full,
        }
    };
    wait_until_refused(&proxy, &server, "too many clients");
    assert!(full.contains("53300"), "{full}");
    let answer = open().err().expect("the server is full");
    assert!(answer.contains("53300"), "expected the server's own answer: {answer}");
    drop(others);
    wait_until_accepted(&proxy, &server);

    // The server has another password for the role of the checks.
    run(&server, "ALTER ROLE checker PASSWORD 'something else'");
    wait_until_refused(&proxy, &server, "password authentication failed");
    open().expect("a new session").query();
    restore_password(&server);
    wait_until_accepted(&proxy, &server);

    // The database of the check is gone.
    run(&server, "DROP DATABASE checks WITH (FORCE)");
    wait_until_refused(&proxy, &server, "database \"checks\" does not exist");
    open().expect("a new session").query();

    sessions.iter_mut().for_each(Session::query);
    assert_eq!(ended_sessions(&proxy, "server_down"), 0.0);
    log_lines(&proxy, USED_AS_BEFORE, 3); // one for each of the three causes
    log_lines(&proxy, "checks are no longer refused", 2);
    assert_eq!(log_count(&proxy, "server is down"), 0);
}

/// An operator who disables and enables a server begins its checks anew.
#[test]
fn a_first_check_that_is_refused_cuts_no_session() {
    let (server, proxy) = start("role_trust = \"1ms\"");
    let mut session = Session::open(proxy.at("db")).ok().unwrap();
    run(&server, "DROP DATABASE checks WITH (FORCE)");
    let missing = "database \"checks\" does not exist";
    wait_until_refused(&proxy, &server, missing);
    for word in ["disable", "enable"] {
        let named = ["server", word, &format!("db/{}", server.address())];
        assert_eq!(proxy.command(&named).code, Some(0));
    }
    wait_until_refused(&proxy, &server, missing);
    session.query();
    assert_eq!(ended_sessions(&proxy, "server_down"), 0.0);
}

#[test]
fn with_an_unreadable_password_only_a_server_that_is_gone_is_down() {
    let server = Postgres::start();
    create_checker(&server);
    run(&server, "CREATE DATABASE checks");
    let (_directory, file) = password_file();
    let proxy = Proxy::start(&config(&server, &file, "role_trust = \"1h\""));
    eventually("the server is up", || health(&proxy, &server)["health"] == "up");
    let mut session = Session::open(proxy.at("db")).ok().unwrap();
    let secret = std::fs::read(&file).unwrap();

    std::fs::write(&file, "").unwrap();
    wait_until_refused(&proxy, &server, "the password cannot be read: password_file");
    Session::open(proxy.at("db")).expect("a new session").query();
    let reload = proxy.command(&["reload"]);
    assert_ne!(reload.code, Some(0), "a file without a password is an error");
    assert!(reload.stderr.contains("it is empty"), "{}", reload.stderr);

    std::fs::remove_file(&file).unwrap();
    wait_until_refused(&proxy, &server, "No such file");
    Session::open(proxy.at("db")).expect("a new session").query();
    session.query();

    std::fs::write(&file, secret).unwrap();
    wait_until_accepted(&proxy, &server);
    session.query();
    assert_eq!(ended_sessions(&proxy, "server_down"), 0.0);
    log_lines(
        &proxy,
        "check refused: this host cannot make it, and the server is used as before",
        1,
    );
    assert_eq!(log_count(&proxy, "server is down"), 0);

    std::fs::write(&file, "").unwrap();
    wait_until_refused(&proxy, &server, "the password cannot be read");
    let name = server.address().to_string();
    drop(server);
    eventually("it is down", || proxy.server("db", &name)["health"] == "down");
}

/// Gives the role of the checks its password back.
fn restore_password(server: &Postgres) {
    run(server, "DROP ROLE checker");
    create_checker(server);
}

#[test]
fn after_role_trust_a_server_that_refuses_the_check_keeps_its_sessions_and_gets_no_new_ones() {
    let (server, proxy) = start("role_trust = \"1s\"");
    let mut session = Session::open(proxy.at("db")).ok().unwrap();
    run(&server, "ALTER ROLE checker PASSWORD 'something else'");
    eventually("it gets no new sessions", || log_count(&proxy, NO_NEW_SESSIONS) == 1);
    log_lines(&proxy, USED_AS_BEFORE, 1); // it was trusted before
    let state = health(&proxy, &server);
    assert_eq!(
        (&state["health"], &state["up"], &state["usable"]),
        (&"check refused".into(), &true.into(), &false.into())
    );
    assert_eq!(Client::connect(proxy.at("db")).read_all(), b"");
    wait_for_ended_sessions(&proxy, "no_server", 1);
    session.query();
    restore_password(&server);
    wait_until_accepted(&proxy, &server);
    Session::open(proxy.at("db")).expect("a new session").query();
}

#[test]
fn a_server_that_refuses_its_first_check_is_not_logged_as_down() {
    let server = Server::run(|mut stream| {
        let mut request = [0; 8];
        stream.read_exact(&mut request).unwrap(); // SSLRequest
        stream.write_all(b"N").unwrap();
        let fields = b"SFATAL\0C53300\0Msorry, too many clients already\0\0";
        let length = u32::try_from(4 + fields.len()).unwrap().to_be_bytes();
        stream.write_all(&[b"E", &length[..], fields].concat()).unwrap();
        let _ = stream.read(&mut [0; 1024]); // the StartupMessage
    });
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "x").unwrap();
    let health = format!("health = {{ check = \"postgres\", user = \"checker\", password_file = {password:?} }}");
    let text = format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n{}",
        one_pool(&[server.address], &health)
    );
    let proxy = Proxy::start(&text);
    eventually("the check is refused", || log_count(&proxy, USED_AS_BEFORE) == 1);
    eventually("the first check has a result", || {
        log_count(&proxy, "server is up") == 1
    });
    assert_eq!(log_count(&proxy, "server is down"), 0);
}

#[test]
fn a_password_is_never_sent_in_clear_text_over_tcp_without_tls() {
    let (server, proxy) = start("");
    let file = server.directory().join("data/pg_hba.conf");
    let rules = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("host all checker 127.0.0.1/32 password\n{rules}")).unwrap();
    run(&server, "SELECT pg_reload_conf()");
    let reason = "the server asks for the password in clear text, and the connection is not encrypted: switch on TLS at the \
                  server, or let its pg_hba.conf ask for scram-sha-256";
    wait_until_refused(&proxy, &server, reason);
    std::fs::write(&file, rules).unwrap();
    run(&server, "SELECT pg_reload_conf()");
    wait_until_accepted(&proxy, &server);
}

#[test]
fn error_answers_to_checks_cut_no_session() {
    let (server, proxy) = start("");
    let mut session = Session::open(proxy.at("db")).ok().unwrap();
    for (refuse, accept, reason, is_used_as_before) in [
        (
            "ALTER DATABASE checks ALLOW_CONNECTIONS false",
            "ALTER DATABASE checks ALLOW_CONNECTIONS true",
            "not currently accepting connections",
            true,
        ),
        (
            "ALTER ROLE checker SET local_preload_libraries = 'absent'",
            "ALTER ROLE checker RESET local_preload_libraries",
            "could not access file",
            false, // the message might mean that the server lacks files of its own
        ),
    ] {
        run(&server, refuse);
        wait_until_refused(&proxy, &server, reason);
        if is_used_as_before {
            Session::open(proxy.at("db")).expect("a new session").query();
        } else {
            assert_eq!(Client::connect(proxy.at("db")).read_all(), b"", "{refuse}");
        }
        run(&server, accept);
        wait_until_accepted(&proxy, &server);
    }

    // The server cannot start a process for a connection.
    server.limit_processes(Some(1));
    wait_until_refused(&proxy, &server, "cannot start a process for the connection");
    server.limit_processes(None);
    wait_until_accepted(&proxy, &server);

    session.query();
    assert_eq!(ended_sessions(&proxy, "server_down"), 0.0);
    assert_eq!(log_count(&proxy, "server is down"), 0);
}

#[test]
fn login_notices_of_a_server_are_not_logged() {
    let (server, proxy) = start("");
    run(
        &server,
        "UPDATE pg_database SET datcollversion = '1' WHERE datname = 'checks'",
    );
    let warned = psql(server.address(), "SELECT 1")
        .env("PGDATABASE", "checks")
        .output()
        .unwrap();
    let warned = String::from_utf8_lossy(&warned.stderr);
    assert!(warned.contains("WARNING") && warned.contains("collation"), "{warned}");
    let passed = || {
        let labels = [("pool", "db"), ("result", "pass")];
        proxy.metrics().sum("acequia_health_checks_total", &labels)
    };
    let before = passed();
    eventually("it is checked again", || passed() >= before + 3.0);
    let log = format!("{:?}", proxy.log());
    assert!(!log.contains("collation"), "{log}");
}
