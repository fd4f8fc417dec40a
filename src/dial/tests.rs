//! Dialling over loopback: servers that accept, refuse, or drop connections.

mod went_down;

use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::task::Poll;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::*;
use crate::addr::ServerAddr;
use crate::pool::{
    CheckOutcome, EjectLimits, MemberConfig, Policy, PoolRules, QueueLimits, RETURN_WAIT, ServerSpec, Thresholds,
};
use crate::socket::{Keepalive, SocketOptions, reset};

const EJECT: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
    on_reset: false,
};

const OPTIONS: DialOptions = DialOptions {
    connect: TEST_CONNECT,
    retries: 2,
};

/// For servers that drop SYNs.
const SHORT_TIMEOUT: DialOptions = DialOptions {
    connect: ConnectOptions {
        timeout: Duration::from_millis(300),
        ..TEST_CONNECT
    },
    ..OPTIONS
};

/// A socket that is bound but does not listen: its port refuses connections.
fn refusing() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket
}

/// A listening socket.
fn listening() -> Socket {
    let socket = refusing();
    socket.listen(16).unwrap();
    socket
}

/// A listening socket whose backlog is full, so that it drops SYNs; and the clients that fill it.
fn dropping() -> (Socket, Vec<Socket>) {
    let socket = refusing();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap();
    let clients = (0..4).map(|_| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address); // in progress
        client
    });
    let clients = clients.collect();
    (socket, clients)
}

/// A pool whose servers are these sockets, in this order.
fn pool(sockets: &[&Socket]) -> Pool {
    pool_of(sockets, MemberConfig::default())
}

/// As `pool`, with this configuration for each server.
fn pool_of(sockets: &[&Socket], member_config: MemberConfig) -> Pool {
    let member = |socket: &&Socket| Member::new(Arc::new(Server::new(spec(socket), false)), member_config);
    pool_with(sockets.iter().map(member).collect(), None)
}

/// The specification of the server that is this socket.
fn spec(socket: &Socket) -> ServerSpec {
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let label: Arc<str> = address.to_string().into();
    ServerSpec {
        label: Arc::clone(&label),
        identity: label,
        address: ServerAddr::new(address),
        resolved_from: None,
    }
}

/// A pool with these servers.
fn pool_with(servers: Vec<Member>, panic_threshold: Option<u8>) -> Pool {
    let rules = PoolRules {
        policy: Policy::RoundRobin,
        eject: EJECT,
        connect_timeout: TEST_CONNECT.timeout,
        slow_start: None,
        panic_threshold,
        queue: None,
        wake: None,
        waits_for_return: false,
    };
    Pool::new("pool".into(), rules, servers)
}

/// A client, and the accepted socket of its connection.
async fn client() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn dial_client(accepted: &TcpStream) -> DialClient<'_> {
    DialClient {
        socket: accepted,
        address: ClientAddr::new(accepted.peer_addr().unwrap()),
        may_half_close: true,
        awaits_answer: false,
        last_ack: LastAck::AtOnce,
    }
}

/// An attempt that was reported: the index of the server in the pool, and the failure, if it failed.
type ReportedAttempt = (usize, Option<ConnectFailure>);

struct Reported {
    result: Result<(TcpStream, HeldLease), DialError>,
    attempts: Vec<ReportedAttempt>,
    /// For how long each attempt ejected its server; `None`: not at all.
    ejected_for: Vec<Option<Duration>>,
}

async fn dialled(pool: &Pool, options: &DialOptions, accepted: &TcpStream) -> Reported {
    dialled_while(pool, options, accepted, |_| {}).await
}

/// As `dialled`; `at_attempt` is called when an attempt to connect to a server begins.
async fn dialled_while(
    pool: &Pool,
    options: &DialOptions,
    accepted: &TcpStream,
    mut at_attempt: impl FnMut(&Server) + Send,
) -> Reported {
    let (mut attempts, mut ejected_for) = (Vec::new(), Vec::new());
    let (servers, client) = (pool.servers(), dial_client(accepted));
    let mut trying = None;
    let result = dial(pool, options, None, client, &mut Search::default(), |progress| {
        let attempt = match progress {
            Progress::Trying(server) => {
                at_attempt(server);
                trying = Some(server.id());
                return;
            }
            Progress::Ended(attempt) => attempt,
            Progress::Queued { .. } | Progress::Dequeued => return,
        };
        assert_eq!(trying.take(), Some(attempt.server.id()), "its beginning was reported");
        let index = servers.iter().position(|server| Arc::ptr_eq(server, attempt.server));
        attempts.push((index.expect("a server of this pool"), attempt.failure));
        ejected_for.push(attempt.ejected_for);
        assert_eq!(
            attempt.server.live(),
            1,
            "the lease is held until the attempt is reported"
        );
    })
    .await;
    Reported {
        result: result.map(|dialled| (dialled.socket, dialled.lease)),
        attempts,
        ejected_for,
    }
}

fn live(pool: &Pool) -> Vec<u32> {
    pool.servers().iter().map(|server| server.live()).collect()
}

const REFUSED: Option<ConnectFailure> = Some(ConnectFailure::Refused);
const TIMEOUT: Option<ConnectFailure> = Some(ConnectFailure::Timeout);

#[tokio::test]
async fn the_future_of_a_dial_fits_into_a_block_of_the_tcache_of_glibc() {
    let ((_client, accepted), pool) = (client().await, pool(&[]));
    let mut search = Search::default();
    let bytes = size_of_val(&dial(
        &pool,
        &OPTIONS,
        None,
        dial_client(&accepted),
        &mut search,
        |_| {},
    ));
    let captured = 2 * size_of::<&()>(); // by the closure of a session; the closure above captures nothing
    assert!(bytes + captured <= REUSED_BYTES_MAX, "{bytes} bytes");
}

#[tokio::test]
async fn after_a_refusal_another_server_is_tried() {
    let (closed, open) = (refusing(), listening());
    let (pool, (_client, accepted)) = (pool(&[&closed, &open]), client().await);
    let done = dialled(&pool, &OPTIONS, &accepted).await;
    let (socket, lease) = done.result.unwrap();
    assert_eq!(done.attempts, [(0, REFUSED), (1, None)]);
    assert_eq!(socket.peer_addr().ok(), lease.server().spec().address.socket());
    assert_eq!(live(&pool), [0, 1]);
    drop(lease);
    assert_eq!(live(&pool), [0, 0]);
}

#[tokio::test]
async fn attempts_are_bounded_and_each_is_to_another_server() {
    let (_client, accepted) = client().await;
    for (servers, retries, tried) in [(5, 2, 3), (5, 0, 1), (2, 2, 2), (1, 9, 1)] {
        let sockets: Vec<_> = (0..servers).map(|_| refusing()).collect();
        let pool = pool(&sockets.iter().collect::<Vec<_>>());
        let done = dialled(&pool, &DialOptions { retries, ..OPTIONS }, &accepted).await;
        assert_eq!(done.result.unwrap_err(), DialError::ConnectFailed);
        let mut indices: Vec<_> = done.attempts.iter().map(|(index, _)| *index).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), tried, "{:?}", done.attempts);
        assert_eq!(done.attempts.len(), tried, "{:?}", done.attempts);
        assert!(live(&pool).iter().all(|live| *live == 0));
    }
}

#[tokio::test]
async fn an_empty_pool_has_no_server() {
    let (_client, accepted) = client().await;
    let done = dialled(&pool(&[]), &OPTIONS, &accepted).await;
    assert_eq!(done.result.unwrap_err(), DialError::NoServer);
    assert!(done.attempts.is_empty());
}

#[tokio::test]
async fn an_attempt_is_bounded_in_time() {
    let ((silent, _held), open) = (dropping(), listening());
    let (pool, (_client, accepted)) = (pool(&[&silent, &open]), client().await);
    let began = Instant::now();
    let done = dialled(&pool, &SHORT_TIMEOUT, &accepted).await;
    assert_eq!(done.attempts, [(0, TIMEOUT), (1, None)]);
    assert!(began.elapsed() >= SHORT_TIMEOUT.connect.timeout);
    assert!(done.result.is_ok());
}

#[tokio::test]
async fn failures_in_a_row_eject_a_server_and_the_ejection_is_reported() {
    let (closed, open) = (refusing(), listening());
    let (pool, (_client, accepted)) = (pool(&[&closed, &open]), client().await);
    let mut ejections_of_closed = Vec::new();
    for _ in 0..10 {
        let done = dialled(&pool, &OPTIONS, &accepted).await;
        assert!(done.result.is_ok());
        let of_closed = done
            .attempts
            .iter()
            .zip(done.ejected_for)
            .filter(|((server, _), _)| *server == 0);
        ejections_of_closed.extend(of_closed.map(|(_, ejected_for)| ejected_for));
    }
    assert_eq!(
        ejections_of_closed,
        [None, None, Some(EJECT.first)],
        "an ejected server is not tried"
    );
}

#[tokio::test]
async fn a_client_of_a_pool_with_a_queue_waits_until_its_only_server_can_be_connected_to() {
    let socket = refusing();
    let limited = MemberConfig {
        sessions_max: NonZeroU32::new(1),
        ..MemberConfig::default()
    };
    let without_queue = pool_of(&[&socket], limited);
    let queue = QueueLimits {
        clients_max: 1,
        timeout: Duration::from_secs(60),
    };
    let rules = PoolRules {
        queue: Some(queue),
        waits_for_return: true,
        ..*without_queue.rules()
    };
    let pool = Pool::new("pool".into(), rules, without_queue.servers().to_vec());
    let (_client, accepted) = client().await;
    let mut attempts = 0;
    let done = dialled_while(&pool, &OPTIONS, &accepted, |_| {
        attempts += 1;
        if attempts == 2 {
            socket.listen(1).unwrap();
        }
    })
    .await;
    assert!(done.result.is_ok());
    assert_eq!(done.attempts, [(0, REFUSED), (0, None)]);
    assert_eq!(done.ejected_for, [Some(RETURN_WAIT), None]);
}

#[tokio::test]
async fn a_client_reset_ends_dialling() {
    let (silent, _held) = dropping();
    let (pool, (client, accepted)) = (pool(&[&silent]), client().await);
    client.try_write(b"request").unwrap();
    let (done, ()) = tokio::join!(dialled(&pool, &OPTIONS, &accepted), async { reset(client) });
    assert_eq!(done.result.unwrap_err(), DialError::ClientFault(Fault::Reset));
    assert!(done.attempts.is_empty(), "nothing is known of the server");
    assert_eq!(live(&pool), [0]);
    assert!(!pool.servers()[0].is_ejected());
}

#[tokio::test]
async fn the_end_of_the_client_stream_stays_readable_after_dialling() {
    let ((silent, _held), open) = (dropping(), listening());
    let (pool, (mut client, mut accepted)) = (pool(&[&silent, &open]), client().await);
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let done = dialled(&pool, &SHORT_TIMEOUT, &accepted).await;
    assert!(done.result.is_ok());
    assert_eq!(done.attempts.len(), 2);
    let mut read = Vec::new();
    accepted.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"request");
}

#[tokio::test]
async fn dropping_the_future_drops_the_lease() {
    let (silent, _held) = dropping();
    let (pool, (_client, accepted)) = (pool(&[&silent]), client().await);
    let mut dialling = Box::pin(dialled(&pool, &OPTIONS, &accepted));
    std::future::poll_fn(|cx| {
        assert!(dialling.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(live(&pool), [1]);
    drop(dialling);
    assert_eq!(live(&pool), [0]);
}

/// The kernel may have connected before the session sees it: then the server has accepted a connection.
#[tokio::test(start_paused = true)]
async fn a_place_on_a_limited_server_is_kept_for_a_second_if_the_connect_is_given_up() {
    let (silent, _held) = dropping();
    let member_config = MemberConfig {
        sessions_max: Some(NonZeroU32::MIN),
        ..MemberConfig::default()
    };
    let (pool, (_client, accepted)) = (pool_of(&[&silent], member_config), client().await);
    let mut dialling = Box::pin(dialled(&pool, &OPTIONS, &accepted));
    std::future::poll_fn(|cx| {
        assert!(dialling.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(dialling);
    sleep(HOLD_TIME_MAX - Duration::from_millis(100)).await;
    assert_eq!(live(&pool), [1]);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(live(&pool), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_place_on_a_limited_server_is_freed_when_the_server_closes_or_after_a_second() {
    const HALF: Duration = Duration::from_millis(500);
    let socket = refusing();
    for (is_limited, is_connecting, end, expected) in [
        (true, true, drop as fn(HeldLease), HALF * 2),
        (true, true, |lease| lease.give_back_after(pending()), HALF * 2),
        (true, true, |lease| lease.give_back_after(sleep(HALF)), HALF),
        (true, true, |lease| lease.end(), Duration::ZERO),
        (true, true, HeldLease::give_back, Duration::ZERO),
        (true, false, drop, Duration::ZERO),
        (false, true, drop, Duration::ZERO),
    ] {
        let sessions_max = is_limited.then_some(NonZeroU32::MIN);
        let pool = pool_of(
            &[&socket],
            MemberConfig {
                sessions_max,
                ..MemberConfig::default()
            },
        );
        let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
        let mut lease = HeldLease::new(pool.pick(client, &[], Instant::now()).unwrap());
        if is_connecting {
            lease.set_connecting();
        }
        let began = Instant::now();
        end(lease);
        while live(&pool) != [0] {
            sleep(HALF / 10).await;
        }
        let took = began.elapsed();
        assert!(took >= expected && took < expected + HALF / 2, "{took:?} {expected:?}");
    }
}

#[tokio::test]
async fn sockets_have_nodelay_and_the_options_of_the_pool_but_sessions_set_keepalive_later() {
    let keepalive = Keepalive {
        idle: Duration::from_secs(7),
        interval: Duration::from_secs(5),
        probes: 3,
    };
    let socket = SocketOptions {
        keepalive: Some(keepalive),
        user_timeout: Some(Duration::from_millis(4_321)),
    };
    let open = listening();
    let (pool, (_client, accepted)) = (pool(&[&open]), client().await);
    let connect = ConnectOptions { socket, ..TEST_CONNECT };
    let options = DialOptions { connect, ..OPTIONS };
    let done = dialled(&pool, &options, &accepted).await;
    let (of_session, _lease) = done.result.unwrap();
    let server = ServerAddr::new(open.local_addr().unwrap().as_socket().unwrap());
    let of_check = connect_for_check(&server, &options.connect).await.unwrap();
    for stream in [&of_session, &of_check] {
        let socket = SockRef::from(stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(4_321)));
    }
    let of_check = SockRef::from(&of_check);
    assert!(of_check.keepalive().unwrap());
    assert_eq!(of_check.tcp_keepalive_time().unwrap(), keepalive.idle);
    assert_eq!(of_check.tcp_keepalive_interval().unwrap(), keepalive.interval);
    assert_eq!(of_check.tcp_keepalive_retries().unwrap(), keepalive.probes);
    let is_set = SockRef::from(&of_session).keepalive().unwrap();
    assert!(!is_set, "a session sets keepalive later");
}

#[test]
fn local_errors_are_not_blamed_on_the_server() {
    for (number, failure, is_blamed_on_server) in [
        (libc::EADDRNOTAVAIL, ConnectFailure::NoPorts, false),
        (libc::EMFILE, ConnectFailure::NoResources, false),
        (libc::ENFILE, ConnectFailure::NoResources, false),
        (libc::ENOBUFS, ConnectFailure::NoResources, false),
        (libc::ENOMEM, ConnectFailure::NoResources, false),
        (libc::EPERM, ConnectFailure::Other, false),
        (libc::ECONNREFUSED, ConnectFailure::Refused, true),
        (libc::ECONNRESET, ConnectFailure::Refused, true),
        (libc::ETIMEDOUT, ConnectFailure::Timeout, true),
        (libc::EHOSTUNREACH, ConnectFailure::Unreachable, true),
        (libc::ENETUNREACH, ConnectFailure::Unreachable, true),
    ] {
        let found = ConnectFailure::classify(&io::Error::from_raw_os_error(number));
        assert_eq!(
            (found, found.is_blamed_on_server()),
            (failure, is_blamed_on_server),
            "errno {number}"
        );
    }
}
