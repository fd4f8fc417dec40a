//! Beyond those who are served, as many clients wait in the kernel as `backlog` says, and are served in the end.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::served_client;
use crate::support::proxy::Proxy;
use crate::support::queue::{serve_in_turn, waiting_clients};
use crate::support::server::Server;

#[test]
fn as_many_wait_as_it_says_and_not_one_more() {
    const BACKLOG: usize = 5;
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[runtime]\nworkers = 1\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         max_connections = 1\nbacklog = {BACKLOG}\n[pools.p]\nservers = [\"{}\"]",
        server.address
    ));
    let served = served_client(proxy.at("l"));
    // The kernel's queue is full when it is longer than that.
    let waiting = waiting_clients(proxy.at("l"), BACKLOG + 1);
    let one_more = TcpStream::connect_timeout(&proxy.at("l"), Duration::from_millis(500));
    assert_eq!(one_more.unwrap_err().kind(), ErrorKind::TimedOut);
    drop(served);
    assert_eq!(serve_in_turn(waiting), 1);
}
