//! A reset in any phase ends the session: a client's at once, a server's when the client has got what the server had
//! sent. The ending names the side that has sent the reset, and the other side is reset, too.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::scope;

use crate::over_each_path;
use crate::support::client::Client;
use crate::support::configs::two_listeners;
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::hello::Hello;
use crate::support::path::{OpenPath, Path};
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, hanging};
use crate::support::stream::{fill, read_to_end, reset};
use crate::support::wait_for;

const TRANSFER_BYTES: usize = 1 << 20;

/// What the other side sees of a reset.
#[derive(Clone, Copy)]
enum Seen {
    Reset,
    /// The end of stream that was sent before the reset, and then the reset.
    ResetAfterTheEnd,
}
use Seen::{Reset, ResetAfterTheEnd};

over_each_path! {
    a_clients_reset_in_any_phase_resets_the_server,
    a_servers_reset_in_any_phase_resets_the_client,
}

/// Brings a connected client and server into a phase.
type Enter = fn(&mut TcpStream, &mut TcpStream);

/// For each phase: its name, how to enter it, what the server then sees of a client's reset, and what the client sees
/// of a server's reset.
const PHASES: &[(&str, Enter, Seen, Seen)] = &[
    ("before the first byte", |_, _| {}, Reset, Reset),
    ("idle after an exchange", exchange, Reset, Reset),
    ("in the middle of a request", half_way, Reset, Reset),
    (
        "in the middle of an answer",
        |client, server| half_way(server, client),
        Reset,
        Reset,
    ),
    ("while the server does not read", |client, _| fill(client), Reset, Reset),
    ("while the client does not read", |_, server| fill(server), Reset, Reset),
    ("after the client's end", finish, ResetAfterTheEnd, Reset),
    (
        "after the server's end",
        |client, server| finish(server, client),
        Reset,
        ResetAfterTheEnd,
    ),
    (
        "after the client's end, while the client does not read",
        |client, server| {
            finish(client, server);
            fill(server);
        },
        ResetAfterTheEnd,
        Reset,
    ),
    (
        "after the server's end, while the server does not read",
        |client, server| {
            finish(server, client);
            fill(client);
        },
        Reset,
        ResetAfterTheEnd,
    ),
];

fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut [0; 4]).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

/// One side sends, and the other reads half of it.
fn half_way(from: &mut TcpStream, to: &mut TcpStream) {
    scope(|both| {
        both.spawn(|| to.read_exact(&mut vec![0; TRANSFER_BYTES / 2]).unwrap());
        from.write_all(&vec![1; TRANSFER_BYTES]).unwrap();
    });
}

fn finish(one: &mut TcpStream, other: &mut TcpStream) {
    one.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(other), (vec![], Ok(())));
}

fn sees(mut other: TcpStream, seen: Seen, phase: &str) {
    let end = read_to_end(&mut other).1;
    match seen {
        Reset => assert_eq!(end, Err(ErrorKind::ConnectionReset), "{phase}"),
        ResetAfterTheEnd => {
            // A read returns only the end of stream; the reset is the socket's pending error.
            let fault = end.err().or_else(|| Some(pending_error(&other, phase)));
            assert!(
                matches!(fault, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)),
                "{phase}: {fault:?}"
            );
        }
    }
}

fn pending_error(socket: &TcpStream, phase: &str) -> ErrorKind {
    wait_for(phase, || socket.take_error().unwrap()).kind()
}

/// An established session. (A server's reset before that would be a failed connect.)
fn established(manual: &ManualServer, proxy: &OpenPath) -> (Client, TcpStream) {
    let client = Client::connect(proxy.at("plain"));
    let server = manual.session();
    wait_for("acequia has counted the connect", || {
        let connected = proxy.metrics().sum("acequia_connect_duration_seconds_count", &[]);
        (connected == 1.0).then_some(())
    });
    (client, server)
}

fn a_clients_reset_in_any_phase_resets_the_server(path: Path) {
    for (phase, enter, seen, _) in PHASES {
        let manual = ManualServer::new();
        let proxy = path.open(manual.server.address, "");
        let (mut client, mut server) = established(&manual, &proxy);
        enter(&mut client.0, &mut server);
        client.reset();
        sees(server, *seen, phase);
        // A client's reset counts as a close if the client has half-closed and no bytes for it are left to be sent.
        let ending = if *phase == "after the client's end" {
            "client_closed"
        } else {
            "client_reset"
        };
        wait_for_ended_sessions(&proxy, ending, 1);
        wait_for_active_sessions(&proxy, 0);
    }
}

fn a_servers_reset_in_any_phase_resets_the_client(path: Path) {
    for (phase, enter, _, seen) in PHASES {
        let manual = ManualServer::new();
        let proxy = path.open(manual.server.address, "");
        let (mut client, mut server) = established(&manual, &proxy);
        enter(&mut client.0, &mut server);
        reset(server);
        sees(client.0, *seen, phase);
        wait_for_ended_sessions(&proxy, "server_reset", 1);
        wait_for_active_sessions(&proxy, 0);
    }
}

#[test]
fn a_clients_reset_during_its_hello_reaches_no_server() {
    let manual = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(manual.server.address, "hello_timeout = \"1h\""));
    let hello = Hello::named("good.example").bytes();
    for part in [0, 1, 5, hello.len() - 1] {
        let mut client = Client::connect(proxy.at("tls"));
        client.send(&hello[..part]);
        wait_for_active_sessions(&proxy, 1);
        client.reset();
        wait_for_active_sessions(&proxy, 0);
    }
    wait_for_ended_sessions(&proxy, "client_reset", 4);
    assert_eq!(manual.server.sessions(), 0);
}

#[test]
fn a_clients_reset_cancels_the_connect_to_the_server_and_counts_no_connect_failure() {
    let hanging = hanging();
    let config = two_listeners(hanging.address, "") + "connect_timeout = \"1h\"\n";
    let proxy = Proxy::start(&config);
    let connecting = || proxy.metrics().sum("acequia_server_sessions_active", &[]);
    for listener in ["plain", "tls"] {
        let mut client = Client::connect(proxy.at(listener));
        client.send(&Hello::named("good.example").bytes());
        wait_for("the connect is under way", || (connecting() == 1.0).then_some(()));
        client.reset();
        wait_for_active_sessions(&proxy, 0);
        assert_eq!(connecting(), 0.0);
    }
    wait_for_ended_sessions(&proxy, "client_reset", 2);
    assert_eq!(proxy.metrics().sum("acequia_connect_failures_total", &[]), 0.0);
}
