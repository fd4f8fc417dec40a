//! Half-close passes through, both ways, and what comes after it does too.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

mod support;

#[path = "support/hard.rs"]
mod hard;

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::thread::{sleep, spawn};
use std::time::Duration;

use hard::{Hand, active_becomes, read_to_end, two_listeners};
use support::client::Client;
use support::hello::Hello;
use support::proxy::Proxy;
use support::server::Server;

const ANSWER_BYTES: usize = 1 << 20;

#[test]
fn who_finishes_right_behind_its_request_gets_the_whole_answer() {
    // The server's own program takes its time: until then everything is in the kernel's hands.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(move || {
        let mut received = Vec::new();
        for _ in 0..2 {
            sleep(Duration::from_secs(1));
            let (mut stream, _) = listener.accept().unwrap();
            received.push(read_to_end(&mut stream));
            stream.write_all(&[7; ANSWER_BYTES]).unwrap();
        }
        received
    });
    let proxy = Proxy::start(&two_listeners(address, ""));
    let request = [Hello::named("good.example").bytes(), vec![5; 40_000]].concat();
    let mut clients = ["tls", "plain"].map(|listener| Client::connect(proxy.at(listener)));
    for client in &mut clients {
        client.send(&request).finish();
    }
    for mut client in clients {
        assert!(client.read_all() == [7; ANSWER_BYTES]);
    }
    for (received, end) in server.join().unwrap() {
        assert!(received == request && end.is_ok());
    }
    let lines = proxy.access_lines(2);
    assert!(lines.iter().all(|line| line["ending"] == "client_closed"), "{lines:#?}");
    assert!(
        lines
            .iter()
            .all(|line| line["bytes_up"] == request.len() && line["bytes_down"] == ANSWER_BYTES)
    );
}

#[test]
fn a_server_may_finish_first_and_listen_on() {
    let hand = Hand::new();
    let proxy = Proxy::start(&two_listeners(hand.server.address, ""));
    let mut client = Client::connect(proxy.at("plain"));
    let mut server = hand.session();
    server.write_all(b"all I have to say").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_all(), b"all I have to say");
    let mut sends = client.0.try_clone().unwrap();
    let upload = spawn(move || {
        sends
            .write_all(&[3; ANSWER_BYTES])
            .and_then(|()| sends.shutdown(Shutdown::Write))
    });
    let (received, end) = read_to_end(&mut server);
    upload.join().unwrap().unwrap();
    assert!(received == [3; ANSWER_BYTES] && end.is_ok());
    assert_eq!(proxy.access_line()["ending"], "server_closed");
    active_becomes(&proxy, 0);
}

#[test]
fn a_server_that_speaks_first_is_heard_without_a_byte_of_the_client() {
    let server = Server::named("220 ready when you are");
    let proxy = Proxy::start(&two_listeners(server.address, "hello_timeout = \"1h\""));
    let mut client = Client::connect(proxy.at("plain"));
    assert_eq!(client.hear(), "220 ready when you are");
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
    active_becomes(&proxy, 0);
}
