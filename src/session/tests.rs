//! Sessions over loopback.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::account::access_log::{self, AccessLogWriter, AccessTarget, LogFormat};
use crate::account::{Ending, Metrics, Record};
use crate::addr::{ClientAddr, ListenAddr};
use crate::capacity::{Capacity, ConnectionLimits};
use crate::dial::{ConnectFailure, REUSED_BYTES_MAX};
use crate::listen::{Bound, Listener, QueueOwner};
use crate::live::Live;
use crate::proxy_protocol::{ProxyAddresses, ProxyHeader};
use crate::refuse::PostgresError;
use crate::sniff::HelloMemory;
use crate::sniff::alert::Alert;
use crate::sniff::postgres::SSL_REQUEST;
use crate::socket::SocketOptions;

/// A listener, the server of its pool, and what a worker needs to serve the listener's clients.
struct Setup {
    listener: Listener,
    address: std::net::SocketAddr,
    server: TcpListener,
    state: Arc<ListenerState>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    log_writer: AccessLogWriter,
}

impl Setup {
    async fn new(log: AccessTarget) -> Self {
        Self::with_listener("pool = \"p\"", log).await
    }

    async fn with_protocol(protocol: &str, log: AccessTarget) -> Self {
        Self::with_listener(&format!("protocol = \"{protocol}\"\npool = \"p\""), log).await
    }

    /// `keys`: those of the listener, and any tables of guards.
    async fn with_listener(keys: &str, log: AccessTarget) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\n{keys}\n\
             [pools.p]\nservers = [\"{}\"]\nhealth = {{ check = \"off\" }}",
            server.local_addr().unwrap()
        );
        let plan = crate::config::read("test.toml", &text).ok().unwrap().plan;
        let in_force = Live::new(plan, Vec::new()).in_force();
        let plan = Arc::clone(&in_force.plan.listeners[0]);
        let metrics = Arc::new(Metrics::new());
        let series = metrics.listener(&plan.name);
        let limits = ConnectionLimits::new(None, Capacity::new(None));
        let (log, log_writer) = access_log::start(&log, LogFormat::Json, metrics.lines_dropped()).unwrap();
        let options = SocketOptions {
            keepalive: None,
            user_timeout: None,
        };
        let bound = Bound::new(plan.bind[0], &options).unwrap();
        Self {
            address: bound.address().socket().unwrap(),
            listener: Listener::new(bound.listen(1, 16).unwrap().sockets.remove(0), QueueOwner::Process).unwrap(),
            server,
            state: Arc::new(ListenerState::new(
                plan,
                &in_force,
                limits,
                series,
                HelloMemory::new(1 << 20),
                Default::default(),
            )),
            ledger: Arc::new(Ledger::new(Arc::clone(&metrics), log)),
            metrics,
            log_writer,
        }
    }

    /// A client and its session, which is not running yet.
    async fn session(&mut self) -> (TcpStream, impl Future<Output = ()> + use<>) {
        let client = TcpStream::connect(self.address).await.unwrap();
        let accepted = self.listener.accept(&self.state.limits, |_| {}).await.unwrap();
        (client, serve(accepted, Arc::clone(&self.state), &self.ledger))
    }

    /// A client of PostgreSQL that has asked for TLS, the server that has received the request, and the session.
    async fn asked_for_tls(&mut self) -> (TcpStream, TcpStream, JoinHandle<()>) {
        let (mut client, session) = self.session().await;
        let session = tokio::spawn(session);
        client.write_all(&SSL_REQUEST).await.unwrap();
        let (mut server, _) = self.server.accept().await.unwrap();
        server.read_exact(&mut [0; 8]).await.unwrap();
        (client, server, session)
    }
}

const STARTUP: [u8; 16] = *b"\0\0\0\x10\0\x03\0\0user\0a\0\0";

async fn is_reset(socket: &mut TcpStream) -> bool {
    let read = socket.read(&mut [0]).await;
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_panicking_session_returns_its_permits_and_disturbs_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut setup = Setup::new(AccessTarget::File(path.clone())).await;
    let (mut other_client, session) = setup.session().await;
    let other_session = tokio::spawn(session);
    let (mut other_server, _) = setup.server.accept().await.unwrap();
    let (mut client, session) = setup.session().await;
    let (trigger, triggered) = tokio::sync::oneshot::channel::<()>();
    // The panic is not in a step of the session, but it drops the same values.
    let panics = tokio::spawn(async move {
        let (mut session, mut triggered) = (pin!(session), pin!(triggered));
        poll_fn(|cx| {
            assert!(triggered.as_mut().poll(cx).is_pending(), "a bug of ours");
            session.as_mut().poll(cx)
        })
        .await;
    });
    let (mut server, _) = setup.server.accept().await.unwrap();
    client.write_all(b"ping").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(setup.state.limits.in_use(), 2);
    trigger.send(()).unwrap();
    assert!(panics.await.unwrap_err().is_panic());
    assert!(is_reset(&mut client).await && is_reset(&mut server).await);
    assert_eq!(setup.state.limits.in_use(), 1);
    let text = setup
        .metrics
        .render([], [&***setup.state.pools.first().unwrap()], [], [], &[]);
    let line = format!(
        "acequia_server_sessions_active{{pool=\"p\",server=\"{}\"}} 1\n",
        setup.server.local_addr().unwrap()
    );
    assert!(text.contains(&line), "{line}{text}");
    let counted = text.lines().find(|line| line.contains("ending=\"internal\""));
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{text}");
    other_client.write_all(b"ping").await.unwrap();
    other_server.read_exact(&mut [0; 4]).await.unwrap();
    drop((other_client, other_server));
    other_session.await.unwrap();
    let Setup { ledger, log_writer, .. } = setup;
    drop(ledger);
    assert!(log_writer.finish());
    let log = std::fs::read_to_string(path).unwrap();
    let ends = [
        "\"bytes_up\":4,\"bytes_down\":0,\"ending\":\"internal\"",
        "\"ending\":\"client_closed\"",
    ];
    assert!(
        log.lines().count() == 2 && ends.iter().all(|end| log.contains(end)),
        "{log}"
    );
}

#[tokio::test]
async fn a_client_whose_server_denies_tls_and_then_goes_down_gets_an_error() {
    let mut setup = Setup::with_protocol("postgres", AccessTarget::Off).await;
    let (mut client, mut server, session) = setup.asked_for_tls().await;
    server.write_all(b"N").await.unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"N");
    client.write_all(&STARTUP).await.unwrap();
    server.read_exact(&mut [0; STARTUP.len()]).await.unwrap();
    setup.ledger.records()[0].cut(Ending::ServerDown);
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).await.unwrap();
    assert_eq!(reply, PostgresError::NoServer.response(None));
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn a_network_that_is_denied_while_a_client_is_being_refused_does_not_change_the_reason() {
    let keys = "guards = [\"g\"]\n[[listeners.l.routes]]\nsni = \"a.example\"\npool = \"p\"\n\
                [guards.g]\ndeny = [\"192.0.2.0/24\"]\n";
    let mut setup = Setup::with_listener(keys, AccessTarget::Off).await;
    let (mut client, session) = setup.session().await;
    let session = tokio::spawn(session);
    client.write_all(&[0x16, 3, 1, 0, 0]).await.unwrap(); // an empty record is not valid
    let mut alert = Vec::new();
    client.read_to_end(&mut alert).await.unwrap();
    let record = Arc::clone(&setup.ledger.records()[0]); // the session waits for the client to close
    assert!(!record.cut_denied(&"g".into(), "127.0.0.0/8".parse().unwrap()));
    assert_eq!(record.cut_ending(), Ending::HelloInvalid);
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn a_client_whose_server_goes_down_before_answering_its_request_for_tls_gets_an_alert() {
    let mut setup = Setup::with_protocol("postgres", AccessTarget::Off).await;
    let (mut client, _server, session) = setup.asked_for_tls().await;
    setup.ledger.records()[0].cut(Ending::ServerDown);
    let mut answer = [0];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"S");
    client.write_all(&[22]).await.unwrap(); // its ClientHello begins
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).await.unwrap();
    assert_eq!(reply, Alert::InternalError.record(None));
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn a_session_whose_login_the_server_does_not_begin_does_not_count_as_served() {
    const REFUSAL: &[u8] = b"E\0\0\0\x1fC57P03\0Mit is starting up\0\0";
    for (client_begins, answer) in [
        ("with a request for TLS", &b""[..]),
        ("after a denial of TLS", REFUSAL),
        ("in the clear", REFUSAL),
        ("in the clear", b""),
        ("in the clear", b"E\0\0\0\x40SFATAL"),
    ] {
        let mut setup = Setup::with_protocol("postgres", AccessTarget::Off).await;
        let (mut client, mut server, session) = if client_begins == "in the clear" {
            let (client, session) = setup.session().await;
            let session = tokio::spawn(session);
            client.try_write(&STARTUP).unwrap();
            (client, setup.server.accept().await.unwrap().0, session)
        } else {
            setup.asked_for_tls().await
        };
        if client_begins == "after a denial of TLS" {
            server.write_all(b"N").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            client.write_all(&STARTUP).await.unwrap();
        }
        if client_begins != "with a request for TLS" {
            server.read_exact(&mut [0; STARTUP.len()]).await.unwrap();
        }
        server.write_all(answer).await.unwrap();
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, answer, "{client_begins}");
        drop(client);
        session.await.unwrap();
        let served = setup.state.pools.first().unwrap().servers()[0].served();
        assert_eq!(served, 0, "{client_begins}: {}", answer.escape_ascii());
    }
}

/// The block that tokio allocates for the task of a session is 112 bytes larger than the future of the session, and its
/// size is a multiple of 128. With this maximum the block has 512 bytes, which every idle session costs.
const SESSION_BYTES_MAX: usize = 400;

#[tokio::test]
async fn an_idle_sessions_future_stays_small() {
    let mut setup = Setup::new(AccessTarget::Off).await;
    let (_client, session) = setup.session().await;
    let bytes = size_of_val(&session);
    assert!(
        bytes <= SESSION_BYTES_MAX,
        "expected at most {SESSION_BYTES_MAX} bytes, got {bytes}"
    );
}

/// tokio aligns its blocks (a session's task, and one for each socket) to 128 bytes, which leaves gaps in the heap. A
/// record of at most this size fits into such a gap. Measured in a release build: a session costs 1,857 bytes with a
/// record of this size, 1,923 with 288 bytes and 1,952 with 336.
const RECORD_BYTES_MAX: usize = 280;

#[test]
fn an_idle_sessions_record_fits_between_the_aligned_blocks_of_the_heap() {
    let bytes = size_of::<Record>();
    assert!(
        bytes <= RECORD_BYTES_MAX,
        "expected at most {RECORD_BYTES_MAX} bytes, got {bytes}"
    );
}

#[tokio::test]
async fn the_client_that_a_proxy_header_names_is_known_after_the_end_of_the_session() {
    let mut setup = Setup::new(AccessTarget::Off).await;
    let _client = TcpStream::connect(setup.address).await.unwrap();
    let Accepted { peer, at, .. } = setup.listener.accept(&setup.state.limits, |_| {}).await.unwrap();
    let entry = setup.ledger.open(&setup.state.series, peer, at);
    let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
    entry.info().extras.get_or_insert_default().forwarded = Some(Box::new(ProxyHeader {
        addresses: ProxyAddresses::Tcp {
            client,
            local: ListenAddr::new("192.0.2.2:2".parse().unwrap()),
        },
        authority: None,
        alpn: None,
        unique_id: None,
        ssl: None,
    }));
    let record = Arc::clone(entry.record());
    assert_eq!(record.view().client, client);
    entry.close(Ending::Killed);
    assert_eq!(record.view().client, client);
}

#[tokio::test]
async fn a_session_that_goes_on_to_a_fallback_no_longer_has_the_server_that_failed() {
    let mut setup = Setup::new(AccessTarget::Off).await;
    let _client = TcpStream::connect(setup.address).await.unwrap();
    let Accepted { peer, at, .. } = setup.listener.accept(&setup.state.limits, |_| {}).await.unwrap();
    let mut entry = setup.ledger.open(&setup.state.series, peer, at);
    entry.pool_chosen(&"p".into());
    entry.attempt_started(&setup.state.pools.first().unwrap().servers()[0]);
    entry.attempt_finished(Duration::ZERO, Some(ConnectFailure::Refused));
    entry.pool_chosen(&"f".into());
    let record = Arc::clone(entry.record());
    assert_eq!(record.view().server, None);
    entry.close(Ending::QueueFull);
    let text = setup.metrics.render([], [], [], [], &[]);
    let ended = text.lines().find(|line| line.contains("ending=\"queue_full\""));
    let labels = |line: &str| line.contains("pool=\"f\"") && line.contains("server=\"\"");
    assert!(ended.is_some_and(labels), "{text}");
}

#[tokio::test]
async fn the_future_of_the_first_steps_fits_into_a_block_of_the_tcache_of_glibc() {
    let mut setup = Setup::new(AccessTarget::Off).await;
    let _client = TcpStream::connect(setup.address).await.unwrap();
    let Accepted { socket, peer, at, .. } = setup.listener.accept(&setup.state.limits, |_| {}).await.unwrap();
    let entry = setup.ledger.open(&setup.state.series, peer, at);
    let bytes = size_of_val(&link(socket, Arc::clone(&setup.state), at, entry));
    assert!(
        bytes <= REUSED_BYTES_MAX,
        "expected at most {REUSED_BYTES_MAX} bytes, got {bytes}"
    );
}

#[tokio::test]
async fn the_last_ack_of_the_connect_waits_for_the_first_bytes() {
    let hello = include_bytes!("../../tests/data/hello/curl-h2.bin");
    let mut setup = Setup::with_listener("routes = [{ sni = \"*\", pool = \"p\" }]", AccessTarget::Off).await;
    let mut was_ack_held_back = false;
    // The kernel sends the ACK alone if it takes us too long to send bytes, so one session whose ACK was held back is
    // enough.
    for _ in 0..20 {
        let mut client = TcpStream::connect(setup.address).await.unwrap();
        client.write_all(hello).await.unwrap();
        let Accepted { socket, peer, at, .. } = setup.listener.accept(&setup.state.limits, |_| {}).await.unwrap();
        let entry = setup.ledger.open(&setup.state.series, peer, at);
        let linked = Box::pin(link(socket, Arc::clone(&setup.state), at, entry)).await;
        // On loopback an ACK is delivered before the call that sends it returns.
        let accepted = rustix::net::accept(&setup.server);
        drop(linked);
        if accepted.is_err_and(|error| error == Errno::AGAIN) {
            was_ack_held_back = true;
            setup.server.accept().await.unwrap(); // the ACK has come with the end of the stream
        }
    }
    assert!(was_ack_held_back);
}
