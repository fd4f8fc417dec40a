//! Who waits costs nothing, and nobody waits for the bulk of others.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use tokio::task::LocalSet;
use tokio::time::sleep;

use super::*;
use crate::relay::splice;

/// A relay whose polls are counted.
struct Watched {
    client: TcpStream,
    server: TcpStream,
    polls: Rc<Cell<u32>>,
    relay: JoinHandle<Closed>,
}

impl Watched {
    async fn new(limits: RelayLimits) -> Self {
        let (client, inner_client) = connected(None, None).await;
        let (server, inner_server) = connected(None, None).await;
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        let relay = tokio::task::spawn_local(async move {
            let traffic = Traffic::default();
            let never = std::future::pending();
            let mut relay = pin!(relay(&inner_client, &inner_server, Vec::new(), limits, &traffic, never));
            poll_fn(|cx| {
                counted.set(counted.get() + 1);
                relay.as_mut().poll(cx)
            })
            .await
        });
        Self {
            client,
            server,
            polls,
            relay,
        }
    }

    /// How often it is polled in half a second in which nobody does anything.
    async fn polls_at_rest(&self) -> u32 {
        let before = self.polls.get();
        sleep(Duration::from_millis(500)).await;
        self.polls.get() - before
    }
}

const PATIENT: RelayLimits = RelayLimits {
    idle_timeout: Some(Duration::from_secs(60)),
    half_close_timeout: Some(Duration::from_secs(60)),
};

async fn watched<F: Future<Output = ()>>(test: impl FnOnce(Watched) -> F) {
    LocalSet::new()
        .run_until(async { test(Watched::new(PATIENT).await).await })
        .await;
}

#[tokio::test]
async fn an_idle_relay_sleeps() {
    watched(|mut session| async move {
        session.client.write_all(b"ping").await.unwrap();
        read_some(&mut session.server, 4).await;
        assert!(session.polls_at_rest().await <= 2);
    })
    .await;
}

#[tokio::test]
async fn one_that_is_blocked_sleeps() {
    watched(|mut session| async move {
        fill(&mut session.client).await;
        fill(&mut session.server).await;
        assert!(session.polls_at_rest().await <= 2);
    })
    .await;
}

#[tokio::test]
async fn one_that_is_half_closed_sleeps() {
    watched(|mut session| async move {
        session.client.shutdown().await.unwrap();
        assert!(read_all(&mut session.server).await.1.is_ok());
        assert!(session.polls_at_rest().await <= 2);
        fill(&mut session.server).await;
        assert!(session.polls_at_rest().await <= 2, "and blocked");
    })
    .await;
}

#[tokio::test]
async fn one_whose_peer_ended_behind_a_blocked_stream_sleeps() {
    watched(|mut session| async move {
        fill(&mut session.client).await;
        session.server.shutdown().await.unwrap();
        assert!(read_all(&mut session.client).await.1.is_ok());
        session.client.shutdown().await.unwrap();
        assert!(session.polls_at_rest().await <= 2);
    })
    .await;
}

#[tokio::test]
async fn a_message_costs_few_polls() {
    watched(|mut session| async move {
        let before = session.polls.get();
        for _ in 0..100 {
            session.client.write_all(b"ping").await.unwrap();
            read_some(&mut session.server, 4).await;
            session.server.write_all(b"pong").await.unwrap();
            read_some(&mut session.client, 4).await;
        }
        let polls = session.polls.get() - before;
        assert!(polls <= 400, "{polls} polls for 200 messages");
    })
    .await;
}

#[tokio::test]
async fn delivery_looks_now_and_then_and_does_not_spin() {
    watched(|mut session| async move {
        fill(&mut session.server).await;
        reset(session.server);
        let before = session.polls.get();
        sleep(Duration::from_millis(500)).await;
        let polls = session.polls.get() - before;
        assert!(polls <= 200, "{polls} polls");
        drop(session.client);
        within(session.relay).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_idle_session_holds_no_pipe() {
    let mut session = Session::new().await;
    let bytes = vec![9; 8 << 20];
    let (mut client, mut server) = (session.client, session.server);
    let sent = tokio::spawn(async move {
        client.write_all(&bytes).await.unwrap();
        client
    });
    read_some(&mut server, 8 << 20).await;
    session.client = sent.await.unwrap();
    let pipes = splice::pipes();
    assert!(pipes.made > 0, "it was bulk");
    assert_eq!(pipes.free, pipes.made);
    assert!(!session.relay.is_finished());
}

#[tokio::test]
async fn a_pipe_with_bytes_in_it_is_not_lent_again() {
    let mut session = Session::new().await;
    fill(&mut session.client).await;
    let held = splice::pipes();
    reset(session.client);
    sees_reset(&session.server).await;
    within(session.relay).await.unwrap();
    let after = splice::pipes();
    assert_eq!(after.made, after.free, "all that are left are empty ones");
    assert!(after.made <= held.made);
}

/// Bulk both ways by threads of their own, as fast as the machine goes, beside one client that waits for each answer.
#[tokio::test]
async fn bulk_leaves_turns_to_others() {
    const BULK_BYTES: u64 = 400 << 20;
    let bulk = Session::new().await;
    let talk = Session::new().await;
    let read = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let [client, server, mut pinger, mut ponger] = [bulk.client, bulk.server, talk.client, talk.server].map(blocking);
    let mut threads = Vec::new();
    for socket in [client, server] {
        let (mut writes, mut reads) = (socket.try_clone().unwrap(), socket);
        let (read, is_over, is_over_too) = (Arc::clone(&read), Arc::clone(&is_over), Arc::clone(&is_over));
        threads.push(thread::spawn(move || {
            while !is_over.load(Relaxed) && writes.write_all(&[1; 1 << 18]).is_ok() {}
            let _ = writes.shutdown(std::net::Shutdown::Both);
        }));
        threads.push(thread::spawn(move || {
            let mut room = vec![0; 1 << 18];
            while !is_over_too.load(Relaxed) {
                match reads.read(&mut room) {
                    Ok(bytes @ 1..) => read.fetch_add(bytes as u64, Relaxed),
                    _ => break,
                };
            }
        }));
    }
    let (pong, bulk_read) = (Arc::clone(&is_over), Arc::clone(&read));
    threads.push(thread::spawn(move || {
        let mut room = [0; 4];
        while !pong.load(Relaxed) && ponger.read_exact(&mut room).is_ok() && ponger.write_all(&room).is_ok() {}
    }));
    let turns = tokio::task::spawn_blocking(move || {
        let (mut room, mut turns) = ([0; 4], 0);
        while bulk_read.load(Relaxed) < BULK_BYTES {
            pinger.write_all(b"ping").unwrap();
            pinger.read_exact(&mut room).unwrap();
            turns += 1;
        }
        is_over.store(true, Relaxed);
        turns
    });
    let turns: u64 = timeout(Duration::from_secs(60), turns).await.unwrap().unwrap();
    let bytes_a_turn = read.load(Relaxed) / turns.max(1);
    println!("{turns} turns, one in {bytes_a_turn} bytes");
    assert!(bytes_a_turn < 8 << 20, "one turn in {bytes_a_turn} bytes of bulk");
    bulk.cut.cancel();
    for one in threads {
        tokio::task::spawn_blocking(|| one.join().unwrap()).await.unwrap();
    }
}

fn blocking(socket: TcpStream) -> std::net::TcpStream {
    let socket = socket.into_std().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket
}
