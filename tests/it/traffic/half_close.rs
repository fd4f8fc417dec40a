//! A half-close is relayed in both directions, and so is everything that the other side sends afterwards.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::thread::spawn;

use crate::over_each_path;
use crate::support::client::{Client, small_buffer_client};
use crate::support::configs::two_listeners;
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::path::Path;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::stream::read_to_end;
use crate::support::usage::{pipes, tcp_sockets};

over_each_path! {
    a_server_that_half_closes_after_its_answer_gets_the_whole_late_upload,
    bytes_that_acequia_still_holds_arrive_after_the_server_closes,
    a_greeting_from_the_server_arrives_before_the_client_sends_anything,
    a_client_that_half_closes_after_its_request_gets_the_whole_late_answer,
}

const LATE_BYTES: usize = 1 << 20;

/// The number of sockets with this local port that have received this many bytes and the end of the stream, all unread.
/// The end counts as one more byte.
fn unread_at(port: u16, bytes: usize) -> usize {
    let all = tcp_sockets(&format!("sport = :{port}"));
    all.iter()
        .filter(|socket| **socket == ("CLOSE-WAIT".to_owned(), bytes + 1))
        .count()
}

fn a_client_that_half_closes_after_its_request_gets_the_whole_late_answer(path: Path) {
    // Until the server accepts, the kernel holds everything.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = path.open(address, "");
    let request = [Hello::named("good.example").bytes(), vec![5; 40_000]].concat();
    let listeners = match path {
        Path::Plain => ["tls", "plain"], // other paths have no listener `tls`
        _ => ["plain"; 2],
    };
    let mut clients = listeners.map(|listener| Client::connect(proxy.at(listener)));
    for client in &mut clients {
        client.send(&request).finish();
    }
    eventually("both requests and their ends have reached the server's sockets", || {
        unread_at(address.port(), request.len()) == 2
    });
    let server = spawn(move || {
        [(); 2].map(|()| {
            let (mut stream, _) = listener.accept().unwrap();
            let received = read_to_end(&mut stream);
            stream.write_all(&[7; LATE_BYTES]).unwrap();
            received
        })
    });
    for mut client in clients {
        assert!(client.read_all() == [7; LATE_BYTES]);
    }
    for (received, end) in server.join().unwrap() {
        assert!(received == request && end.is_ok());
    }
    let lines = proxy.access_lines(2);
    assert!(lines.iter().all(|line| line["ending"] == "client_closed"), "{lines:#?}");
    assert!(
        lines
            .iter()
            .all(|line| line["bytes_up"] == request.len() && line["bytes_down"] == LATE_BYTES)
    );
}

fn a_server_that_half_closes_after_its_answer_gets_the_whole_late_upload(path: Path) {
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = manual.session();
    let answer = vec![9; 40_000];
    server.write_all(&answer).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let port = client.0.local_addr().unwrap().port();
    eventually("the answer and its end have reached the client's socket", || {
        unread_at(port, answer.len()) == 1
    });
    assert!(client.read_all() == answer);
    let upload = spawn(move || client.send(&[3; LATE_BYTES]).finish().read_all());
    let (received, end) = read_to_end(&mut server);
    assert!(received == [3; LATE_BYTES] && end.is_ok());
    drop(server);
    assert_eq!(upload.join().unwrap(), b"");
    let line = proxy.access_line();
    assert_eq!(line["ending"], "server_closed");
    assert_eq!(
        (&line["bytes_up"], &line["bytes_down"]),
        (&LATE_BYTES.into(), &answer.len().into())
    );
}

fn bytes_that_acequia_still_holds_arrive_after_the_server_closes(path: Path) {
    // Bulk data to a client with a small receive buffer. The data does not repeat at the length of a buffer, so
    // that a lost or repeated buffer is noticed.
    let bytes: Vec<u8> = (0..LATE_BYTES).map(|n| (n % 251) as u8).collect();
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let pipes_before = pipes(&proxy);
    for _ in 0..3 {
        let mut client = small_buffer_client(proxy.at("plain"), 4_096);
        let mut server = manual.session();
        let content = bytes.clone();
        let sent = spawn(move || server.write_all(&content)); // then drops the socket
        // Only cleartext can be spliced.
        if path == Path::Plain {
            eventually("a pipe is in use", || pipes(&proxy) > pipes_before);
        }
        // The client reads slowly, so that acequia still holds bytes when the server closes.
        let mut received = Vec::new();
        eventually("everything is sent", || {
            received.extend(client.read(1));
            sent.is_finished()
        });
        received.extend(client.read_all());
        assert!(
            received == bytes,
            "expected {} bytes, got {}",
            bytes.len(),
            received.len()
        );
    }
    wait_for_ended_sessions(&proxy, "server_closed", 3);
}

fn a_greeting_from_the_server_arrives_before_the_client_sends_anything(path: Path) {
    let server = Server::named("220 ready when you are");
    let proxy = path.open(server.address, "hello_timeout = \"1h\"");
    let mut client = Client::connect(proxy.at("plain"));
    assert_eq!(client.read_some(), "220 ready when you are");
}

#[test]
fn a_client_that_half_closes_without_sending_is_served_unless_a_hello_is_needed() {
    let server = Server::named("bye");
    let proxy = Proxy::start(&two_listeners(server.address, ""));
    let mut client = Client::connect(proxy.at("plain"));
    client.finish();
    assert_eq!(client.read_all(), b"bye");
    let mut client = Client::connect(proxy.at("tls"));
    client.finish();
    assert_eq!(
        client.read_all(),
        b"",
        "expected a close without an answer: there was no hello"
    );
    wait_for_active_sessions(&proxy, 0);
}
