//! `backlog` limits how many clients wait in the kernel's accept queue. They are served in the end.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::served_client;
use crate::support::proxy::Proxy;
use crate::support::queue::{close_when_served, waiting_clients};
use crate::support::server::Server;

#[test]
fn the_accept_queue_holds_one_client_more_than_backlog_and_all_are_served_one_by_one() {
    const BACKLOG: usize = 5;
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[runtime]\nworkers = 1\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         max_connections = 1\nbacklog = {BACKLOG}\n[pools.p]\nservers = [\"{}\"]",
        server.address
    ));
    let served = served_client(proxy.at("l"));
    // The kernel's queue is full once it holds one more than the backlog.
    let waiting = waiting_clients(proxy.at("l"), BACKLOG + 1);
    let one_more = TcpStream::connect_timeout(&proxy.at("l"), Duration::from_millis(500));
    assert_eq!(one_more.unwrap_err().kind(), ErrorKind::TimedOut);
    drop(served);
    let most_served_at_once = close_when_served(waiting);
    assert_eq!(most_served_at_once, 1);
}
