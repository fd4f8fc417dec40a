//! Clients that wait in the accept queue of a listener.

use std::io::{self, Read};
use std::net::SocketAddr;

use super::client::Client;
use super::wait_for;

/// So many clients, each of which has sent a ping.
pub fn waiting_clients(address: SocketAddr, count: usize) -> Vec<Client> {
    let asker = |_| {
        let mut client = Client::connect(address);
        client.send(b"ping");
        client.0.set_nonblocking(true).unwrap();
        client
    };
    (0..count).map(asker).collect()
}

/// Takes out those of [`askers`] that have their answer.
pub fn take_answered(waiting: &mut Vec<Client>) -> Vec<Client> {
    let answered = |client: &mut Client| match client.0.read(&mut [0; 4]) {
        Ok(4) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        other => panic!("a client that waits is told {other:?}"),
    };
    waiting.extract_if(.., answered).collect()
}

/// Whoever of [`askers`] has its answer leaves, until all have been served. Returns how many were at once, at most.
pub fn serve_in_turn(mut waiting: Vec<Client>) -> usize {
    let mut most = 0;
    while !waiting.is_empty() {
        let served = wait_for("one of them is served", || {
            Some(take_answered(&mut waiting)).filter(|served| !served.is_empty())
        });
        most = most.max(served.len());
    }
    most
}
