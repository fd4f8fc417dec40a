//! No byte lost, added or reordered: pseudo-random conversations, both ways at once.

use std::future::pending;

use fastrand::Rng;
use rustix::net::sockopt::tcp_quickack;
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::sleep;

use super::*;
use crate::relay::engine::poll::pipes;
use crate::socket::delay_acks;

/// How many bytes a stream has before it repeats: a prime, so that no buffer's size hides a shift.
const PATTERN_BYTES: usize = 65_521;

/// The bytes of one stream, known by position.
#[derive(Clone)]
struct Pattern(Arc<[u8]>);

impl Pattern {
    fn new(rng: &mut Rng) -> Self {
        Self((0..PATTERN_BYTES).map(|_| rng.u8(..)).collect())
    }

    /// At most `bytes` bytes from a position on.
    fn at(&self, position: usize, bytes: usize) -> &[u8] {
        let start = position % PATTERN_BYTES;
        &self.0[start..PATTERN_BYTES.min(start + bytes)]
    }

    fn first(&self, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| self.0[n % PATTERN_BYTES]).collect()
    }
}

/// How one side writes and reads. It writes phases of talk, bulk and silence, and then ends its stream.
#[derive(Debug)]
struct Script {
    phases: Vec<Phase>,
    /// The most bytes that it reads at once.
    read_max: usize,
    /// The number of bytes after which it stops reading for 1 ms; `None`: it never stops.
    rests_every: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Talk { messages: usize },
    Bulk { bytes: usize }, // roughly: the size of each write is random
    Pause(Duration),
}

impl Script {
    fn new(rng: &mut Rng) -> Self {
        let phases = (0..rng.usize(0..7)).map(|_| match rng.u8(0..4) {
            0 => Phase::Talk {
                messages: rng.usize(1..20),
            },
            1 => Phase::Pause(Duration::from_millis(rng.u64(1..5))),
            2 => Phase::Bulk {
                bytes: rng.usize(1..100_000),
            },
            _ => Phase::Bulk {
                bytes: rng.usize(300_000..1_500_000),
            },
        });
        Self {
            phases: phases.collect(),
            read_max: *rng.choice(&[100, 1_448, 16_384, 65_536, 300_000]).unwrap(),
            rests_every: rng.bool().then(|| rng.usize(20_000..200_000)),
        }
    }
}

/// Plays the writing part of a script from `position` on; returns the length of the stream.
async fn write(socket: OwnedWriteHalf, script: Arc<Script>, pattern: Pattern, mut position: usize, seed: u64) -> usize {
    let mut socket = socket;
    let mut rng = Rng::with_seed(seed);
    for phase in &script.phases {
        let (writes, size_max, yields) = match *phase {
            Phase::Pause(time) => {
                sleep(time).await;
                continue;
            }
            Phase::Talk { messages } => (messages, 300, true),
            Phase::Bulk { bytes } => (bytes.div_ceil(50_000), 100_000, false),
        };
        for _ in 0..writes {
            let mut left = rng.usize(1..=size_max);
            while left > 0 {
                let piece = pattern.at(position, left);
                socket.write_all(piece).await.unwrap();
                position += piece.len();
                left -= piece.len();
            }
            if yields {
                tokio::task::yield_now().await;
            }
        }
    }
    socket.shutdown().await.unwrap();
    position
}

/// Reads to the end and compares the bytes with the pattern; returns the length of the stream.
async fn read(socket: OwnedReadHalf, script: Arc<Script>, pattern: Pattern) -> usize {
    let mut socket = socket;
    let mut buffer = vec![0; script.read_max];
    let (mut position, mut rested_at) = (0, 0);
    loop {
        let read = socket.read(&mut buffer).await.unwrap();
        if read == 0 {
            return position;
        }
        let mut bytes = &buffer[..read];
        while !bytes.is_empty() {
            let expected = pattern.at(position, bytes.len());
            assert!(bytes[..expected.len()] == *expected, "differs after byte {position}");
            position += expected.len();
            bytes = &bytes[expected.len()..];
        }
        if script.rests_every.is_some_and(|every| position - rested_at > every) {
            rested_at = position;
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// One conversation: both scripts at once.
async fn converse(seed: u64) -> Closed {
    let mut rng = Rng::with_seed(seed);
    let patterns = [Pattern::new(&mut rng), Pattern::new(&mut rng)];
    let scripts = [(); 2].map(|()| Arc::new(Script::new(&mut rng)));
    let buffers = Buffers {
        outer: *rng.choice(&[None, Some(2_048), Some(10_000), Some(100_000)]).unwrap(),
        inner: *rng.choice(&[None, Some(2_048), Some(30_000)]).unwrap(),
    };
    // The number of bytes that were read from the client before the relay starts.
    let early = *rng.choice(&[0, 1, 517, 20_000, 700_000]).unwrap();
    let session = Session::with(Setup {
        first: patterns[0].first(early),
        buffers,
        ..Setup::default()
    })
    .await;
    let (client_reads, client_writes) = session.client.into_split();
    let (server_reads, server_writes) = session.server.into_split();
    let [up, down] = patterns;
    let [of_client, of_server] = scripts;
    let (sent_up, got_up, sent_down, got_down, closed) = within(async {
        tokio::join!(
            tokio::spawn(write(client_writes, Arc::clone(&of_client), up.clone(), early, seed)),
            tokio::spawn(read(server_reads, Arc::clone(&of_server), up)),
            tokio::spawn(write(server_writes, of_server, down.clone(), 0, !seed)),
            tokio::spawn(read(client_reads, of_client, down)),
            session.relay,
        )
    })
    .await;
    let (sent_up, sent_down) = (sent_up.unwrap(), sent_down.unwrap());
    assert_eq!((got_up.unwrap(), got_down.unwrap()), (sent_up, sent_down));
    let counted = (session.traffic.up.bytes(), session.traffic.down.bytes());
    assert_eq!(counted, ((sent_up - early) as u64, sent_down as u64), "bytes counted");
    closed.unwrap()
}

/// Says which seed failed, because the panic of a task does not.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed that failed: {}", self.0);
        }
    }
}

async fn converse_with_seeds(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let named_on_panic = Seed(seed);
        assert!(matches!(converse(seed).await, Closed::Finished(_)), "seed {seed}");
        drop(named_on_panic);
    }
}

#[tokio::test]
async fn the_ack_of_the_first_answer_is_not_delayed() {
    let (mut client, inner_client) = connected(None, None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner_server = TcpSocket::new_v4().unwrap();
    delay_acks(&inner_server);
    let inner_server = inner_server.connect(listener.local_addr().unwrap()).await.unwrap();
    let traffic = Traffic::default();
    let first = b"head".to_vec();
    let relaying = relay(
        &inner_client,
        &inner_server,
        first,
        NO_LIMITS,
        &traffic,
        None,
        pending(),
    );
    let outside = async {
        let (mut server, _) = listener.accept().await.unwrap();
        server.read_exact(&mut [0; 4]).await.unwrap();
        // When the relay writes `body` to the server, within 40 ms of the connect, the kernel delays ACKs again. So the
        // relay must end the delay at the answer: to end it after `first` is not enough.
        client.write_all(b"body").await.unwrap();
        server.read_exact(&mut [0; 4]).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        client.read_exact(&mut [0; 6]).await.unwrap();
        assert!(tcp_quickack(&inner_server).unwrap());
    };
    tokio::select! {
        closed = relaying => panic!("{closed:?}"),
        () = within(outside) => {}
    }
}

#[tokio::test]
async fn random_conversations_arrive_complete() {
    converse_with_seeds(0..60).await;
    let pipes = pipes();
    assert!(pipes.open > 0, "no bytes were spliced");
    assert_eq!(pipes.free, pipes.open, "not all pipes are free again");
}

#[tokio::test]
async fn random_conversations_arrive_complete_without_pipes() {
    limit_pipes(0);
    converse_with_seeds(1_000..1_020).await;
    assert_eq!(pipes().open, 0);
}

#[tokio::test]
async fn sessions_of_a_thread_share_its_few_pipes() {
    limit_pipes(2);
    let many: Vec<_> = (2_000..2_016)
        .map(|seed| tokio::spawn(async move { converse_with_seeds(seed..seed + 1).await }))
        .collect();
    for one in many {
        one.await.unwrap();
    }
    let pipes = pipes();
    assert!((1..=2).contains(&pipes.open), "{}", pipes.open);
}

#[tokio::test]
async fn bulk_is_spliced_and_small_messages_after_it_are_copied() {
    let session = Session::new().await;
    let (_client_reads, mut client_writes) = session.client.into_split();
    let (mut server_reads, _server_writes) = session.server.into_split();
    let (mut rng, bulk) = (Rng::with_seed(7), 20 << 20);
    let pattern = Pattern::new(&mut rng);
    let bytes = pattern.first(bulk);
    let sent = async { client_writes.write_all(&bytes).await.unwrap() };
    let mut received = vec![0; bulk];
    let got = async { server_reads.read_exact(&mut received).await.unwrap() };
    within(async { tokio::join!(sent, got) }).await;
    assert!(received == bytes);
    let spliced = pipes().spliced;
    assert!(spliced > (bulk / 2) as u64, "{spliced} of {bulk} bytes");
    // After a few small messages, the relay no longer splices: it copies.
    let mut spliced = Vec::new();
    for message in 0..10_u8 {
        client_writes.write_all(&[message; 100]).await.unwrap();
        let mut received = [0; 100];
        within(server_reads.read_exact(&mut received)).await.unwrap();
        assert_eq!(received, [message; 100]);
        spliced.push(pipes().spliced);
    }
    assert_eq!(spliced[4], spliced[9], "still splicing: {spliced:?}");
}
