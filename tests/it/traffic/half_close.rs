//! Half-close passes through, both ways, and what comes after it does too.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::thread::spawn;

use crate::support::client::{Client, small_buffer_client};
use crate::support::configs::two_listeners;
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::{ManualServer, Server};
use crate::support::stream::read_to_end;
use crate::support::usage::{pipes, tcp_sockets};

const LATE_BYTES: usize = 1 << 20;

/// Sockets with this port at which so many bytes and the end of the stream have arrived, none of it read.
fn waiting_at(port: u16, bytes: usize) -> usize {
    let all = tcp_sockets(&format!("sport = :{port}"));
    all.iter()
        .filter(|told| **told == ("CLOSE-WAIT".to_owned(), bytes + 1))
        .count()
}

#[test]
fn who_finishes_right_behind_its_request_gets_the_whole_answer_of_a_server_that_is_late() {
    // Until the server's program accepts, everything is in the kernel's hands.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Proxy::start(&two_listeners(address, ""));
    let request = [Hello::named("good.example").bytes(), vec![5; 40_000]].concat();
    let mut clients = ["tls", "plain"].map(|listener| Client::connect(proxy.at(listener)));
    for client in &mut clients {
        client.send(&request).finish();
    }
    eventually("both requests and their ends wait at its door", || {
        waiting_at(address.port(), request.len()) == 2
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

#[test]
fn a_server_that_finishes_right_behind_its_answer_hears_all_of_a_client_that_is_late() {
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = hand.session();
    let answer = vec![9; 40_000];
    server.write_all(&answer).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let port = client.0.local_addr().unwrap().port();
    eventually("the answer and its end are there", || {
        waiting_at(port, answer.len()) == 1
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

#[test]
fn a_tail_that_is_in_the_pipe_when_the_server_ends_arrives() {
    // Of bulk, towards a client with hardly any room; nothing in it repeats at the length of a buffer.
    let bytes: Vec<u8> = (0..LATE_BYTES).map(|n| (n % 251) as u8).collect();
    let hand = ManualServer::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let without = pipes(&proxy);
    for _ in 0..3 {
        let mut client = small_buffer_client(proxy.at("plain"), 4_096);
        let mut server = hand.session();
        let said = bytes.clone();
        let sent = spawn(move || server.write_all(&said)); // and the end
        eventually("a pipe is in use", || pipes(&proxy) > without);
        let mut heard = Vec::new();
        eventually("all is sent", || {
            heard.extend(client.read(1));
            sent.is_finished()
        });
        heard.extend(client.read_all());
        assert!(heard == bytes, "{} of {}", heard.len(), bytes.len());
    }
    wait_for_ended_sessions(&proxy, "server_closed", 3);
}

#[test]
fn a_server_that_speaks_first_is_heard_without_a_byte_of_the_client() {
    let server = Server::named("220 ready when you are");
    let proxy = Proxy::start(&two_listeners(server.address, "hello_timeout = \"1h\""));
    let mut client = Client::connect(proxy.at("plain"));
    assert_eq!(client.read_some(), "220 ready when you are");
}

#[test]
fn a_client_that_says_nothing_at_all_is_an_end_too() {
    let server = Server::named("bye");
    let proxy = Proxy::start(&two_listeners(server.address, ""));
    let mut client = Client::connect(proxy.at("plain"));
    client.finish();
    assert_eq!(client.read_all(), b"bye");
    let mut client = Client::connect(proxy.at("tls"));
    client.finish();
    assert_eq!(client.read_all(), b"", "it left before it said where to");
    wait_for_active_sessions(&proxy, 0);
}
