//! The queue of a pool: clients wait for a server with room in the order in which they came.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;

use crate::support::client::{Client, served_client};
use crate::support::counts::{log_lines, wait_for_ended_sessions};
use crate::support::proxy::Proxy;
use crate::support::queue::take_answered;
use crate::support::server::{ManualServer, Server};
use crate::support::{configs, eventually, wait_for};

const QUEUE: &str = "max_sessions = 1\nqueue = { max = 100, timeout = \"60s\" }\nhealth = { check = \"off\" }";

fn config(servers: &[SocketAddr], pool: &str) -> String {
    format!("[runtime]\nworkers = 2\n{}", configs::one_pool(servers, pool))
}

fn queue_length(proxy: &Proxy) -> usize {
    proxy.metrics().sum("acequia_pool_queue", &[("pool", "p")]) as usize
}

/// A client that waits in the queue besides `before` others, has sent a ping, and does not block in reads.
fn waiting(proxy: &Proxy, before: usize) -> Client {
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"ping");
    client.0.set_nonblocking(true).unwrap();
    eventually("it is in the queue", || queue_length(proxy) == before + 1);
    client
}

/// Waits until one of these numbered clients has its answer; removes and returns it.
fn next_served(waiting: &mut Vec<(usize, Client)>) -> (usize, Client) {
    wait_for("one is served", || {
        let position = waiting.iter().position(|(_, client)| {
            let mut only_it = vec![Client(client.0.try_clone().unwrap())];
            !take_answered(&mut only_it).is_empty()
        })?;
        Some(waiting.remove(position))
    })
}

#[test]
fn queued_clients_are_served_in_order_across_workers() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&[server.address], QUEUE));
    let mut served = served_client(proxy.at("l"));
    let mut all: Vec<_> = (0..12).map(|number| (number, waiting(&proxy, number))).collect();
    let state = proxy.answer(&["status"]);
    assert_eq!(state["pools"][0]["queue"]["waiting"], 12, "{state:#}");
    let printed = proxy.command(&["status"]).stdout;
    assert!(printed.contains("12 of 100"), "{printed}");
    all.remove(4).1.reset(); // the clients after it move up
    for expected in (0..12).filter(|number| *number != 4) {
        drop(served);
        let (number, client) = next_served(&mut all);
        assert_eq!(number, expected);
        served = client;
    }
    drop(served);
    assert_eq!(queue_length(&proxy), 0);
    let lines = proxy.access_lines(13);
    let of_third = lines.iter().find(|line| line["queue_position"] == 3).unwrap();
    assert!(of_third["queue_ms"].as_f64().unwrap() > 0.0, "{of_third}");
    let at_once = lines.iter().filter(|line| line["queue_position"].is_null());
    assert_eq!(at_once.count(), 1, "the first has not waited");
    let waits = proxy
        .metrics()
        .sum("acequia_queue_wait_seconds_count", &[("pool", "p")]);
    assert!(waits >= 11.0, "{waits}");
}

#[test]
fn clients_beyond_the_queue_limit_or_timeout_are_refused() {
    let server = Server::echo();
    let pool = "max_sessions = 1\nqueue = { max = 1, timeout = \"1s\" }\nhealth = { check = \"off\" }";
    let proxy = Proxy::start(&config(&[server.address], pool));
    let _served = served_client(proxy.at("l"));
    let mut queued = waiting(&proxy, 0);
    assert!(Client::connect(proxy.at("l")).read_all().is_empty());
    queued.0.set_nonblocking(false).unwrap();
    queued.must_be_closed();
    let lines_by_session = proxy.access_lines(2);
    let endings: Vec<_> = lines_by_session.iter().map(|line| line["ending"].clone()).collect();
    assert_eq!(endings, ["queue_timeout", "queue_full"]);
    assert_eq!(queue_length(&proxy), 0);
}

#[test]
fn a_database_client_that_closes_or_resets_leaves_the_queue() {
    let manual = ManualServer::new();
    let keys = "protocol = \"redis\"";
    let text = configs::listener("l", "p", keys) + &configs::pool("p", &[manual.server.address], QUEUE);
    let proxy = Proxy::start(&text);
    let _first = Client::connect(proxy.at("l"));
    let _session = manual.session();
    let queued = waiting(&proxy, 0);
    drop(queued); // its ping stays unread
    eventually("it has left", || queue_length(&proxy) == 0);
    assert_eq!(proxy.access_line()["ending"], "client_left_early");
    waiting(&proxy, 0).reset();
    eventually("it has left", || queue_length(&proxy) == 0);
    wait_for_ended_sessions(&proxy, "client_reset", 1);
}

#[test]
fn a_half_closed_client_stays_in_the_queue_if_it_may_expect_an_answer() {
    let server = Server::keeping(b"answer");
    let proxy = Proxy::start(&config(&[server.address], QUEUE));
    let mut first = Client::connect(proxy.at("l"));
    eventually("it is connected", || server.sessions() == 1);
    let mut queued = waiting(&proxy, 0);
    queued.finish();
    first.finish();
    assert_eq!(first.read_all(), b"answer");
    queued.0.set_nonblocking(false).unwrap();
    assert_eq!(queued.read_all(), b"answer");
    assert_eq!(server.received(), [&b""[..], b"ping"]);
}

#[test]
fn on_a_unix_socket_a_closed_client_leaves_the_queue_and_a_half_closed_one_stays() {
    let (manual, directory) = (ManualServer::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("l");
    let bind = format!("\"127.0.0.1:0\", \"unix:{}\"", path.display());
    let text = configs::listener("l", "p", "").replace("\"127.0.0.1:0\"", &format!("[{bind}]"));
    let proxy = Proxy::start(&(text + &configs::pool("p", &[manual.server.address], QUEUE)));
    let first = Client::connect(proxy.at("l"));
    let session = manual.session();
    let join = |length_after| {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"ping").unwrap();
        eventually("it waits", || queue_length(&proxy) == length_after);
        client
    };
    let (half_closed, gone) = (join(1), join(2));
    half_closed.shutdown(Shutdown::Write).unwrap();
    drop(gone);
    eventually("it has left", || queue_length(&proxy) == 1);
    assert_eq!(proxy.access_line()["ending"], "client_left_early");
    drop((first, session));
    let mut read = Vec::new();
    manual.session().read_to_end(&mut read).unwrap();
    assert_eq!(read, b"ping", "expected the half-closed client to be served");
}

/// A client that has gone looks like one that has half-closed and waits for an answer. So it stays in the queue, behind
/// those that have not half-closed. With one worker, the departure of a client is noticed before later events.
#[test]
fn departed_clients_do_not_delay_a_waiting_one() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&[server.address], QUEUE).replace("workers = 2", "workers = 1"));
    let served = served_client(proxy.at("l"));
    (0..3).for_each(|number| drop(waiting(&proxy, number)));
    let mut all = vec![(0, waiting(&proxy, 3))];
    drop(served);
    let held = next_served(&mut all);
    assert_eq!(server.sessions(), 2, "none of the departed was served before");
    drop(held);
    eventually("the departed are served, too", || server.sessions() == 5);
}

#[test]
fn departed_clients_make_room_in_a_full_queue() {
    let server = Server::echo();
    let pool = QUEUE.replace("max = 100", "max = 2");
    let proxy = Proxy::start(&config(&[server.address], &pool).replace("workers = 2", "workers = 1"));
    let mut served = served_client(proxy.at("l"));
    (0..2).for_each(|number| drop(waiting(&proxy, number)));
    let mut all = Vec::new();
    for number in 0..2 {
        let mut client = Client::connect(proxy.at("l"));
        client.send(b"ping");
        client.0.set_nonblocking(true).unwrap();
        wait_for_ended_sessions(&proxy, "queue_full", number + 1); // those of departed clients
        all.push((number, client));
    }
    assert!(
        Client::connect(proxy.at("l")).read_all().is_empty(),
        "no departed client is left to make room"
    );
    wait_for_ended_sessions(&proxy, "queue_full", 3);
    for expected in 0..2 {
        drop(served);
        let (number, client) = next_served(&mut all);
        assert_eq!(number, expected);
        served = client;
    }
}

/// Clients that already wait when a pool becomes unusable get its fallback, as later clients do.
#[test]
fn clients_that_wait_for_a_pool_that_becomes_unusable_are_served_by_its_fallback() {
    let (first, of_fallback) = (Server::echo(), Server::echo());
    let pool = |name: &str, server: &Server, keys: &str| {
        configs::pool(
            name,
            &[server.address],
            &format!("health = {{ check = \"off\" }}\n{keys}"),
        )
    };
    let text = configs::listener("l", "p", "")
        + &pool(
            "p",
            &first,
            "max_sessions = 1\nqueue = { timeout = \"60s\" }\nfallback = \"f\"",
        )
        + &pool(
            "f",
            &of_fallback,
            "max_sessions = 2\nqueue = { max = 1, timeout = \"60s\" }",
        );
    let proxy = Proxy::start(&format!("[runtime]\nworkers = 2\n{text}"));
    let _busy = served_client(proxy.at("l"));
    let mut all: Vec<_> = (0..4).map(|number| (number, waiting(&proxy, number))).collect();
    let name = format!("p/{}", first.address);
    assert_eq!(proxy.command(&["server", "disable", &name]).code, Some(0));
    wait_for_ended_sessions(&proxy, "queue_full", 1); // the queue of the fallback has its own limit
    let queue_length_of = |pool| proxy.metrics().sum("acequia_pool_queue", &[("pool", pool)]) as usize;
    eventually("two have a server, one waits for the fallback", || {
        of_fallback.sessions() == 2 && (queue_length_of("p"), queue_length_of("f")) == (0, 1)
    });
    let line = proxy.access_line();
    assert_eq!(
        (&line["pool"], &line["fallback_from"]),
        (&"f".into(), &"p".into()),
        "{line}"
    );
    // Removes the refused client.
    all.retain(|(_, client)| match client.0.peek(&mut [0; 4]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    });
    let (_, served) = next_served(&mut all);
    drop(served);
    (0..2).for_each(|_| drop(next_served(&mut all)));
    assert!(all.is_empty() && first.sessions() == 1);
}

#[test]
fn a_reload_serves_queued_clients_by_its_new_servers_and_limits() {
    let (first, second) = (Server::echo(), Server::echo());
    let proxy = Proxy::start(&config(&[first.address], QUEUE));
    let _served = served_client(proxy.at("l"));
    let mut all: Vec<_> = (0..5).map(|number| (number, waiting(&proxy, number))).collect();
    // A server joins.
    assert!(proxy.reload(&config(&[first.address, second.address], QUEUE)));
    let (number, on_second) = next_served(&mut all);
    assert_eq!((number, queue_length(&proxy)), (0, 4));
    // It leaves. When its session ends, no waiting client gets this server.
    assert!(proxy.reload(&config(&[first.address], QUEUE)));
    drop(on_second);
    eventually("the session has ended", || {
        proxy.metrics().sum("acequia_sessions_active", &[]) == 5.0
    });
    assert_eq!((queue_length(&proxy), second.sessions()), (4, 1));
    // The limit is raised.
    assert!(proxy.reload(&config(
        &[first.address],
        &QUEUE.replace("max_sessions = 1", "max_sessions = 2")
    )));
    let (number, on_first) = next_served(&mut all);
    assert_eq!((number, queue_length(&proxy)), (1, 3));
    // The pool is renamed. A waiting client goes on waiting for the server of the old pool.
    let renamed =
        configs::listener("l", "q", "") + &configs::pool("q", &[second.address], "health = { check = \"off\" }");
    assert!(proxy.reload(&format!("[runtime]\nworkers = 2\n{renamed}")));
    drop(on_first);
    assert_eq!(next_served(&mut all).0, 2);
    let sessions = second.sessions();
    served_client(proxy.at("l"));
    assert_eq!(second.sessions(), sessions + 1);
}

#[test]
fn with_source_hash_a_client_waits_for_its_own_server() {
    let (a, b) = (Server::echo(), Server::echo());
    let pool = format!("{QUEUE}\nbalance = \"source-hash\"");
    let proxy = Proxy::start(&config(&[a.address, b.address], &pool));
    let served = served_client(proxy.at("l"));
    let mut all = vec![(0, waiting(&proxy, 0))]; // from the same address: for the same server
    assert_eq!(a.sessions() + b.sessions(), 1);
    let own = if a.sessions() == 1 { &a } else { &b };
    drop(served);
    let _served = next_served(&mut all);
    assert_eq!(own.sessions(), 2);
    // Its server is drained: the client no longer waits for it.
    let mut all = vec![(0, waiting(&proxy, 0))];
    assert!(proxy.command(&["server", "drain", &format!("p/{}", own.address)]).code == Some(0));
    next_served(&mut all);
    assert_eq!(a.sessions() + b.sessions(), 3);
}

#[test]
fn when_no_server_is_left_the_queue_is_emptied() {
    let server = Server::echo();
    let proxy = Proxy::start(&config(&[server.address], QUEUE));
    let _served = served_client(proxy.at("l"));
    let mut queued = waiting(&proxy, 0);
    assert!(
        proxy
            .command(&["server", "drain", &format!("p/{}", server.address)])
            .code
            == Some(0)
    );
    queued.0.set_nonblocking(false).unwrap();
    queued.must_be_closed();
    assert_eq!(proxy.access_line()["ending"], "no_server");
}

#[test]
fn clients_queued_at_a_drain_are_served_during_it_or_cut_at_its_end() {
    let server = Server::echo();
    let text = config(&[server.address], QUEUE).replace("workers = 2", "workers = 2\ndrain_timeout = \"2s\"");
    let proxy = Proxy::start(&text);
    let served = served_client(proxy.at("l"));
    let mut all: Vec<_> = (0..2).map(|number| (number, waiting(&proxy, number))).collect();
    proxy.signal(rustix::process::Signal::TERM);
    log_lines(&proxy, "draining", 1);
    drop(served);
    let _served = next_served(&mut all);
    let stopped = proxy.wait();
    let endings: Vec<_> = stopped.access.iter().map(|line| line["ending"].clone()).collect();
    assert_eq!(endings, ["client_closed", "drained", "drained"]);
}
