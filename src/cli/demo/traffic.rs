//! A few clients, so that there is something to see: requests over TLS, TCP sessions that last a while, and visitors
//! who come and go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::net::TcpStream;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::configuration::ListenerAddresses;
use crate::tls::unverified_config;

/// The names that TLS clients ask for, in turn. The last one is refused.
const NAMES: [&str; 8] = [
    "a.demo.test",
    "x.b.demo.test",
    "a.demo.test",
    "c.demo.test",
    "y.b.demo.test",
    "a.demo.test",
    "other.demo.test",
    "closed.demo.test",
];

/// The interval between two TLS clients.
const REQUEST_INTERVAL: Duration = Duration::from_millis(300);

/// The number of TCP sessions at a time, without those of visitors.
const SESSIONS: u64 = 7;

/// The interval between two messages of a TCP session.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(200);

/// Every message is shorter than this, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The number of visitors: clients of the pool `app`, which grows with them. They come one after the other, and stay so
/// long that for some seconds all of them are there at once.
const VISITORS: u64 = 10;

/// The interval between two visitors.
const VISITOR_INTERVAL: Duration = Duration::from_millis(500);

/// The messages of a visitor: ten seconds of them.
const VISITOR_MESSAGES: u32 = 50;

/// The pause before visitors come again, when all have left.
const VISIT_PAUSE: Duration = Duration::from_secs(15);

/// The wait after a failure, such as a server that was disabled.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Makes traffic until a signal ends the demo. Then the sessions of this traffic end, so that the load balancer waits
/// only for the sessions of other clients.
pub(super) async fn run(listeners: ListenerAddresses) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut clients = JoinSet::new();
    clients.spawn(make_requests(listeners.tls));
    for number in 0..SESSIONS {
        clients.spawn(make_sessions(listeners.tcp, number));
    }
    clients.spawn(make_visits(listeners.app));
    select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(()) // dropping `clients` ends their sessions
}

async fn make_requests(address: SocketAddr) {
    let config = unverified_config();
    for name in NAMES.iter().cycle() {
        sleep(REQUEST_INTERVAL).await;
        let _ = request(address, name, Arc::clone(&config)).await; // errors are expected: one of the names is refused
    }
}

async fn request(address: SocketAddr, name: &'static str, config: Arc<ClientConfig>) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let asked = ServerName::try_from(name).map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(config).connect(asked, stream).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    copy(&mut stream, &mut sink()).await?;
    stream.shutdown().await
}

/// Makes one session after the other. The number of messages and their lengths are random, with `number` as the seed.
async fn make_sessions(address: SocketAddr, number: u64) {
    let mut random = fastrand::Rng::with_seed(number);
    loop {
        let messages = random.u32(20..100);
        if make_session(address, &mut random, messages).await.is_err() {
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Visitors come, stay a while and leave; then there is a pause.
async fn make_visits(address: SocketAddr) {
    loop {
        let mut visitors = JoinSet::new();
        for number in 0..VISITORS {
            let mut random = fastrand::Rng::with_seed(number);
            visitors.spawn(async move { make_session(address, &mut random, VISITOR_MESSAGES).await });
            sleep(VISITOR_INTERVAL).await;
        }
        while visitors.join_next().await.is_some() {}
        sleep(VISIT_PAUSE).await;
    }
}

/// Sends messages, and reads the answers.
async fn make_session(address: SocketAddr, random: &mut fastrand::Rng, messages: u32) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.read_line(&mut String::new()).await?; // the greeting; a close with unread bytes would be a reset
    let mut received = vec![0; MESSAGE_BYTES_MAX];
    for _ in 0..messages {
        let message = vec![b'a'; random.usize(1..MESSAGE_BYTES_MAX)];
        stream.write_all(&message).await?;
        stream.read_exact(&mut received[..message.len()]).await?;
        sleep(MESSAGE_INTERVAL).await;
    }
    stream.shutdown().await
}
