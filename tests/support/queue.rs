//! Clients that wait in the accept queue of a listener.

use std::io::{self, Read};
use std::net::SocketAddr;

use super::client::Client;
use super::wait_for;

/// This many clients. Each has sent a ping, and its reads do not block.
pub fn waiting_clients(address: SocketAddr, count: usize) -> Vec<Client> {
    let connect = |_| {
        let mut client = Client::connect(address);
        client.send(b"ping");
        client.0.set_nonblocking(true).unwrap();
        client
    };
    (0..count).map(connect).collect()
}

/// Removes and returns the clients of [`waiting_clients`] that have their answer.
pub fn take_answered(waiting: &mut Vec<Client>) -> Vec<Client> {
    let answered = |client: &mut Client| match client.0.read(&mut [0; 4]) {
        Ok(4) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        other => panic!("expected an answer of 4 bytes or none yet, got {other:?}"),
    };
    waiting.extract_if(.., answered).collect()
}

/// Closes each of [`waiting_clients`] when it has its answer, until all are closed. Returns the largest number of
/// clients that were found to have their answers at the same time.
pub fn close_when_served(mut waiting: Vec<Client>) -> usize {
    let mut most = 0;
    while !waiting.is_empty() {
        let served = wait_for("a waiting client is served", || {
            Some(take_answered(&mut waiting)).filter(|served| !served.is_empty())
        });
        most = most.max(served.len());
    }
    most
}
