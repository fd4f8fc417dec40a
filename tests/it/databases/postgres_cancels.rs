//! Ctrl-C in psql cancels the query of its own session, on whichever server the session runs.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::authority::Authority;
use crate::support::client::Client;
use crate::support::database::{Postgres, psql};
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, list};

/// A CancelRequest with a key that no session has.
const STRAY: [u8; 16] = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 1, 2, 3, 4];

fn config(servers: [SocketAddr; 2], listener_lines: &str) -> String {
    let [a, b] = servers;
    format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\npool = \"db\"\nprotocol = \"postgres\"\n{listener_lines}\n\
         [pools.db]\nservers = [\"{a}\", \"{b}\"]\n"
    )
}

/// Starts `count` sessions with this `sslmode`, half of them on each of two servers. Then each cancels its own query.
/// `placement` is how acequia finds the servers for these cancels, as in the access log.
fn cancels_reach_their_own_sessions(count: usize, sslmode: &str, placement: &str, listener_lines: &str) {
    let servers = [Postgres::start_with_tls(), Postgres::start_with_tls()];
    let proxy = Proxy::start(&config([servers[0].address(), servers[1].address()], listener_lines));
    let sleep = || Process::start(psql(proxy.at("db"), "SELECT pg_sleep(600)").env("PGSSLMODE", sslmode));
    let mut sessions: Vec<_> = (0..count).map(|_| sleep()).collect();
    eventually("half of the queries run on each server", || {
        servers.iter().all(|server| server.sleepers() == count / 2)
    });
    for left in (0..count).rev() {
        let mut session = sessions.pop().unwrap();
        session.signal(Signal::INT);
        session.wait();
        let stderr = session.stderr.lines().join("\n");
        assert!(stderr.contains("canceling statement due to user request"), "{stderr}");
        let running = || servers.iter().map(Postgres::sleepers).sum::<usize>();
        eventually("the other queries go on", || running() == left);
    }
    let lines = proxy.access_lines(2 * count);
    let cancels = lines
        .iter()
        .filter(|line| line["ending"] == "cancel" && line["detail"] == placement);
    assert_eq!(cancels.count(), count, "{lines:#?}");
}

#[test]
fn a_cancel_reaches_a_cleartext_session_by_its_key() {
    cancels_reach_their_own_sessions(6, "disable", "by_key", "");
}

#[test]
fn a_cancel_of_a_passed_through_session_reaches_the_servers_of_its_client() {
    // Two sessions: acequia forwards at most two CancelRequests with an unknown key a second for a client address.
    cancels_reach_their_own_sessions(2, "require", "by_client", "");
}

#[test]
fn a_cancel_reaches_a_session_with_terminated_tls() {
    let directory = tempfile::tempdir().unwrap();
    Authority::new("test authority")
        .issue(&["db.example"])
        .write(directory.path(), "db");
    let tls = format!(
        "[listeners.db.tls]\ncertificates = {{ directory = {:?} }}",
        directory.path()
    );
    cancels_reach_their_own_sessions(6, "require", "by_key", &tls);
}

#[test]
fn a_cancel_that_cannot_be_placed_is_dropped_or_goes_to_all_servers() {
    let servers = [Postgres::start(), Postgres::start()];
    let addresses = [servers[0].address(), servers[1].address()];
    for (listener_lines, detail, attempts) in [("", "unplaced", 0), ("cancel_unplaced = \"fanout\"", "fanout", 2)] {
        let proxy = Proxy::start(&config(addresses, listener_lines));
        let mut client = Client::connect(proxy.at("db"));
        assert_eq!(client.send(&STRAY).read_all(), b"");
        let line = proxy.access_line();
        assert_eq!(
            (&line["ending"], &line["detail"], &line["attempts"]),
            (&"cancel".into(), &detail.into(), &attempts.into())
        );
    }
    for server in &servers {
        let has_pid_1 = |line: &String| line.contains("PID 1 in cancel request did not match any process");
        eventually("the server got the request", || server.log().iter().any(has_pid_1));
    }
}

/// A server that records a CancelRequest, and closes.
fn recording() -> Server {
    Server::run_on(TcpListener::bind("127.0.0.1:0").unwrap(), |mut stream, received| {
        let mut request = [0; STRAY.len()];
        if stream.read_exact(&mut request).is_ok() {
            received.lock().unwrap().push(request.to_vec());
        }
    })
}

/// A proxy that sends a CancelRequest with an unknown key to at most 64 of `servers`, a list as in a configuration.
fn fanout(servers: &str) -> Proxy {
    Proxy::start(&format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\npool = \"db\"\nprotocol = \"postgres\"\ncancel_unplaced = \"fanout\"\n\
         [pools.db]\nservers = [{servers}]\nhealth = {{ interval = \"20ms\", fall = 1 }}\n"
    ))
}

/// One after another, six would use up the 10 s that all servers together may take, and the seventh would get nothing.
#[test]
fn six_silent_servers_do_not_keep_a_cancel_from_the_seventh() {
    let silent: Vec<_> = (0..6).map(|_| Server::silent()).collect();
    let right = recording();
    let servers: Vec<_> = silent.iter().chain([&right]).collect();
    let proxy = fanout(&list(&servers));
    let mut client = Client::connect(proxy.at("db"));
    assert_eq!(client.send(&STRAY).read_all(), b"");
    assert_eq!(right.received(), [STRAY.to_vec()]);
    let line = proxy.access_line();
    assert_eq!((&line["ending"], &line["attempts"]), (&"cancel".into(), &7.into()));
    // Each connect took no time; the silence of the servers after it counts neither as a failure nor as a slow connect.
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_connect_failures_total", &[("pool", "db")]), 0.0);
    assert_eq!(
        metrics.sum("acequia_connect_duration_seconds_count", &[("pool", "db")]),
        7.0
    );
    let took = metrics.sum("acequia_connect_duration_seconds_sum", &[("pool", "db")]);
    assert!(took < 2.0, "{took} s: includes the 2 s wait for a silent server");
}

#[test]
fn a_cancel_is_sent_to_up_servers_before_64_down_ones() {
    let right = recording();
    let down: String = (1..=64).map(|host| format!("\"127.0.1.{host}:1\", ")).collect();
    let proxy = fanout(&format!("{down}\"{}\"", right.address));
    eventually("one server is up, and the others are down", || {
        let metrics = proxy.metrics();
        let transitions = |to| metrics.sum("acequia_health_transitions_total", &[("pool", "db"), ("to", to)]);
        transitions("down") == 64.0 && metrics.sum("acequia_server_up", &[("pool", "db")]) == 1.0
    });
    let mut client = Client::connect(proxy.at("db"));
    assert_eq!(client.send(&STRAY).read_all(), b"");
    assert_eq!(right.received().iter().filter(|request| **request == STRAY).count(), 1);
    assert_eq!(proxy.access_line()["attempts"], 64, "and not to more than 64");
}

#[test]
fn cancel_requests_never_exhaust_the_descriptors() {
    const REQUESTS: usize = 10; // the most that a listener forwards in a second; each from its own address
    const SERVERS: usize = 8;
    let slow = || {
        Server::run_on(TcpListener::bind("127.0.0.1:0").unwrap(), |mut stream, received| {
            let mut request = [0; STRAY.len()];
            let _ = stream.read_exact(&mut request);
            received.lock().unwrap().push(request.to_vec());
            std::thread::sleep(Duration::from_millis(150));
        })
    };
    let servers: Vec<_> = (0..SERVERS).map(|_| slow()).collect();
    let servers: Vec<_> = servers.iter().collect();
    let proxy = Proxy::setup(&format!(
        "runtime.workers = 2\n[listeners.db]\nbind = \"127.0.0.1:0\"\npool = \"db\"\nprotocol = \"postgres\"\n\
         cancel_unplaced = \"fanout\"\n[pools.db]\nservers = [{}]\nhealth.check = \"off\"\n",
        list(&servers)
    ));
    // Fewer descriptors than `REQUESTS * SERVERS`.
    let proxy = proxy.under(&["bash", "-c", r#"ulimit -n 64; exec "$0" "$@""#]).launch();
    let source = |number| Client::connect_from(&format!("127.0.1.{number}"), proxy.at("db"));
    let mut clients: Vec<_> = (1..=REQUESTS).map(source).collect();
    for client in &mut clients {
        client.send(&STRAY);
    }
    for client in &mut clients {
        assert_eq!(client.read_all(), b"");
    }
    let lines = proxy.access_lines(REQUESTS);
    assert!(lines.iter().all(|line| line["attempts"] == SERVERS), "{lines:#?}");
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("acequia_connect_failures_total", &[]), 0.0);
    let pauses = [("reason", "descriptors")];
    assert_eq!(metrics.sum("acequia_accept_pauses_total", &pauses), 0.0);
    assert!(servers.iter().all(|server| server.received().len() == REQUESTS));
}
