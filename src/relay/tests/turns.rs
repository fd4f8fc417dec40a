//! A session that waits costs almost nothing, and bulk of one session does not delay others much.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use tokio::task::LocalSet;
use tokio::time::sleep;

use super::*;
use crate::relay::engine::poll::pipes;
use crate::tls::tls12_pair_with_key_limit;

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
            let never = std::future::pending::<EndRequest<'_>>();
            let mut relay = pin!(relay(
                &inner_client,
                &inner_server,
                Vec::new(),
                limits,
                &traffic,
                None,
                never
            ));
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

    /// How often the relay is polled in half a second in which client and server do nothing.
    async fn polls_while_undisturbed(&self) -> u32 {
        let before = self.polls.get();
        sleep(Duration::from_millis(500)).await;
        self.polls.get() - before
    }
}

const PATIENT: RelayLimits = RelayLimits {
    idle_timeout: Some(Duration::from_secs(60)),
    half_close_timeout: Some(Duration::from_secs(60)),
    ends_with_server: false,
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
        read_exactly(&mut session.server, 4).await;
        assert!(session.polls_while_undisturbed().await <= 2);
    })
    .await;
}

#[tokio::test]
async fn a_blocked_relay_sleeps() {
    watched(|mut session| async move {
        fill(&mut session.client).await;
        fill(&mut session.server).await;
        assert!(session.polls_while_undisturbed().await <= 2);
    })
    .await;
}

#[tokio::test]
async fn a_half_closed_relay_sleeps() {
    watched(|mut session| async move {
        session.client.shutdown().await.unwrap();
        assert!(read_all(&mut session.server).await.1.is_ok());
        assert!(session.polls_while_undisturbed().await <= 2);
        fill(&mut session.server).await;
        assert!(session.polls_while_undisturbed().await <= 2, "while blocked");
    })
    .await;
}

#[tokio::test]
async fn a_blocked_relay_sleeps_after_both_sides_have_finished() {
    watched(|mut session| async move {
        fill(&mut session.client).await;
        session.server.shutdown().await.unwrap();
        assert!(read_all(&mut session.client).await.1.is_ok());
        session.client.shutdown().await.unwrap();
        assert!(session.polls_while_undisturbed().await <= 2);
    })
    .await;
}

#[tokio::test]
async fn a_message_costs_few_polls() {
    watched(|mut session| async move {
        let before = session.polls.get();
        for _ in 0..100 {
            session.client.write_all(b"ping").await.unwrap();
            read_exactly(&mut session.server, 4).await;
            session.server.write_all(b"pong").await.unwrap();
            read_exactly(&mut session.client, 4).await;
        }
        let polls = session.polls.get() - before;
        assert!(polls <= 400, "{polls} polls for 200 messages");
    })
    .await;
}

#[tokio::test]
async fn delivery_after_a_server_reset_checks_the_send_queue_at_intervals() {
    watched(|mut session| async move {
        fill(&mut session.server).await;
        reset(session.server);
        let before = session.polls.get();
        within(async {
            while session.polls.get() < before + 3 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
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
    read_exactly(&mut server, 8 << 20).await;
    session.client = sent.await.unwrap();
    let pipes = pipes();
    assert!(pipes.open > 0, "expected bulk to be spliced");
    assert_eq!(pipes.free, pipes.open);
    assert!(!session.relay.is_finished());
}

#[tokio::test]
async fn a_pipe_with_bytes_in_it_is_not_reused() {
    let mut session = Session::new().await;
    fill(&mut session.client).await;
    let held = pipes();
    assert!(held.open > held.free, "expected a pipe with bytes in it");
    reset(session.client);
    sees_reset(&session.server).await;
    within(session.relay).await.unwrap();
    let after = pipes();
    assert_eq!(after.open, after.free, "expected only empty pipes to be left");
    assert!(after.open < held.open);
}

#[tokio::test]
async fn bulk_does_not_delay_other_sessions() {
    let [bulk, talk] = [Session::new().await, Session::new().await];
    beside_bulk((bulk, Sealing(None)), (talk, Sealing(None)), 400 << 20).await;
}

#[tokio::test]
async fn bulk_over_tls_does_not_delay_other_sessions() {
    let (bulk_client, bulk_server) = tls12_pair_with_key_limit(u64::MAX);
    let (talk_client, talk_server) = tls12_pair_with_key_limit(u64::MAX);
    let bulk = Session::over_tls(bulk_server).await;
    let talk = Session::over_tls(talk_server).await;
    let (bulk_sealing, talk_sealing) = (Sealing(Some(bulk_client)), Sealing(Some(talk_client)));
    beside_bulk((bulk, bulk_sealing), (talk, talk_sealing), 100 << 20).await;
}

/// Encrypts what a peer sends; `None`: the peer does not use TLS.
struct Sealing(Option<TlsConnection>);

impl Sealing {
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let Some(tls) = &mut self.0 else {
            return plain.to_vec();
        };
        let mut sealed = Vec::new();
        tls.encrypt(plain, 1 << 14, &mut sealed).unwrap();
        sealed
    }
}

/// Runs two sessions at once: `bulk`, until it has relayed `bulk_bytes` in both directions together, and `talk`, which
/// must not be delayed much. The client and the server of `bulk` have threads of their own, and send as fast as the
/// machine goes; they do not decrypt what they receive. The client of `talk` waits for the answer to each message. The
/// client and the server of `talk` are on the relays' thread: so the test measures how the relays take turns, not how
/// the system divides its cores.
async fn beside_bulk(
    (bulk, bulk_sealing): (Session, Sealing),
    (talk, mut talk_sealing): (Session, Sealing),
    bulk_bytes: u64,
) {
    let read = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    let [client, server] = [bulk.client, bulk.server].map(blocking);
    for (socket, mut sealing) in [(client, bulk_sealing), (server, Sealing(None))] {
        let (mut writes, mut reads) = (socket.try_clone().unwrap(), socket);
        let read = Arc::clone(&read);
        threads.push(thread::spawn(move || {
            while writes.write_all(&sealing.seal(&[1; 1 << 18])).is_ok() {}
        }));
        threads.push(thread::spawn(move || {
            let mut buffer = vec![0; 1 << 18];
            while let Ok(bytes @ 1..) = reads.read(&mut buffer) {
                read.fetch_add(bytes as u64, Relaxed);
            }
        }));
    }
    let (mut pinger, mut ponger) = (talk.client, talk.server);
    tokio::spawn(async move {
        let mut buffer = [0; 4];
        while ponger.read_exact(&mut buffer).await.is_ok() && ponger.write_all(&buffer).await.is_ok() {}
    });
    let pings = async {
        let mut pings = 0;
        while read.load(Relaxed) < bulk_bytes {
            let mut message = talk_sealing.seal(b"ping");
            pinger.write_all(&message).await.unwrap();
            pinger.read_exact(&mut message).await.unwrap(); // the answer is as long as the message
            pings += 1;
        }
        pings
    };
    let pings: u64 = within(pings).await;
    let bytes_per_ping = read.load(Relaxed) / pings.max(1);
    println!("{pings} pings, one in {bytes_per_ping} bytes of bulk");
    assert!(bytes_per_ping < 8 << 20, "one ping in {bytes_per_ping} bytes of bulk");
    bulk.cut.cancel();
    within(bulk.relay).await.unwrap();
    for one in threads {
        tokio::task::spawn_blocking(|| one.join().unwrap()).await.unwrap();
    }
}

fn blocking(socket: TcpStream) -> std::net::TcpStream {
    let socket = socket.into_std().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket
}

/// Every idle session has such a future.
#[tokio::test]
async fn the_future_of_a_relay_stays_small() {
    let (socket, _peer) = connected(None, None).await;
    let traffic = Traffic::default();
    let never = std::future::pending::<EndRequest<'_>>();
    let relay = relay(&socket, &socket, Vec::new(), PATIENT, &traffic, None, never);
    let bytes = size_of_val(&relay);
    assert!(bytes <= 216, "{bytes} bytes");
}
