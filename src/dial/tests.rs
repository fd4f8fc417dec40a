//! Dialling over loopback: servers that listen, refuse, or let nobody in.

use std::task::Poll;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use std::net::SocketAddr;

use super::*;
use crate::addr::ServerAddr;
use crate::pool::health::EjectLimits;
use crate::pool::{Member, MemberConfig, Policy, PoolRules, ServerSpec};
use crate::socket::{Keepalive, SocketOptions, reset};

const EJECT: EjectLimits = EjectLimits {
    after: 3,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    percent_max: 50,
    on_reset: false,
};

const LIMITS: DialLimits = DialLimits {
    connect: PLAIN,
    retries: 2,
};

/// For servers that swallow SYNs.
const HASTY: DialLimits = DialLimits {
    connect: ConnectOptions {
        timeout: Duration::from_millis(300),
        ..PLAIN
    },
    ..LIMITS
};

/// A socket on a port of its own; it refuses.
fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket
}

/// A listening socket.
fn listening() -> Socket {
    let socket = bound();
    socket.listen(16).unwrap();
    socket
}

/// A listening socket whose backlog is full, so that it drops SYNs; and those who fill it.
fn swallowing() -> (Socket, Vec<Socket>) {
    let socket = bound();
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

/// A pool of these, in this order.
fn pool(sockets: &[&Socket]) -> Pool {
    let servers = sockets.iter().map(|socket| {
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let label: Arc<str> = address.to_string().into();
        let spec = ServerSpec {
            label: Arc::clone(&label),
            identity: label,
            address: ServerAddr::new(address),
            resolved_from: None,
        };
        Member::new(Arc::new(Server::new(spec, false)), MemberConfig::default())
    });
    let servers = servers.collect();
    let rules = PoolRules {
        policy: Policy::RoundRobin,
        eject: EJECT,
        connect_timeout: PLAIN.timeout,
        slow_start: None,
        panic_threshold: None,
    };
    Pool::new("pool".into(), rules, servers)
}

/// A client and our socket towards it.
async fn client() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// What was told of one attempt: on which of the pool's servers, and what came of it.
type Told = (usize, Option<ConnectFailure>);

struct Dialled {
    result: Result<(TcpStream, Lease), NoConnection>,
    told: Vec<Told>,
    ejected: Vec<Option<Duration>>,
}

async fn dialled(pool: &Pool, limits: &DialLimits, ours: &TcpStream) -> Dialled {
    let (mut told, mut ejected) = (Vec::new(), Vec::new());
    let servers = pool.servers();
    let address = ClientAddr::new(ours.peer_addr().unwrap());
    let mut trying = None;
    let result = dial(pool, limits, ours, address, |progress| {
        let attempt = match progress {
            Progress::Trying(server) => return trying = Some(server.id()),
            Progress::Over(attempt) => attempt,
        };
        assert_eq!(trying.take(), Some(attempt.server.id()), "it was told when it began");
        let index = servers.iter().position(|server| Arc::ptr_eq(server, attempt.server));
        told.push((index.expect("a server of this pool"), attempt.failure));
        ejected.push(attempt.ejected_for);
        assert_eq!(attempt.server.live(), 1, "the place is held until the attempt is told");
    })
    .await;
    Dialled { result, told, ejected }
}

fn live(pool: &Pool) -> Vec<u32> {
    pool.servers().iter().map(|server| server.live()).collect()
}

const REFUSED: Option<ConnectFailure> = Some(ConnectFailure::Refused);
const TIMEOUT: Option<ConnectFailure> = Some(ConnectFailure::Timeout);

#[tokio::test]
async fn a_refusal_is_tried_again_on_another_server() {
    let (deaf, good) = (bound(), listening());
    let (pool, (_client, ours)) = (pool(&[&deaf, &good]), client().await);
    let done = dialled(&pool, &LIMITS, &ours).await;
    let (socket, lease) = done.result.unwrap();
    assert_eq!(done.told, [(0, REFUSED), (1, None)]);
    assert_eq!(socket.peer_addr().unwrap(), lease.server().spec().address.socket());
    assert_eq!(live(&pool), [0, 1]);
    drop(lease);
    assert_eq!(live(&pool), [0, 0]);
}

#[tokio::test]
async fn tries_are_bounded_and_each_on_another_server() {
    let (_client, ours) = client().await;
    for (servers, retries, tried) in [(5, 2, 3), (5, 0, 1), (2, 2, 2), (1, 9, 1)] {
        let sockets: Vec<_> = (0..servers).map(|_| bound()).collect();
        let pool = pool(&sockets.iter().collect::<Vec<_>>());
        let done = dialled(&pool, &DialLimits { retries, ..LIMITS }, &ours).await;
        assert_eq!(done.result.unwrap_err(), NoConnection::Failed);
        let mut indices: Vec<_> = done.told.iter().map(|(index, _)| *index).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), tried, "{:?}", done.told);
        assert_eq!(done.told.len(), tried, "{:?}", done.told);
        assert!(live(&pool).iter().all(|live| *live == 0));
    }
}

#[tokio::test]
async fn an_empty_pool_has_no_server() {
    let (_client, ours) = client().await;
    let done = dialled(&pool(&[]), &LIMITS, &ours).await;
    assert_eq!(done.result.unwrap_err(), NoConnection::NoServer);
    assert!(done.told.is_empty());
}

#[tokio::test]
async fn one_attempt_is_bounded_in_time() {
    let ((mute, _held), good) = (swallowing(), listening());
    let (pool, (_client, ours)) = (pool(&[&mute, &good]), client().await);
    let began = Instant::now();
    let done = dialled(&pool, &HASTY, &ours).await;
    assert_eq!(done.told, [(0, TIMEOUT), (1, None)]);
    assert!(began.elapsed() >= HASTY.connect.timeout);
    assert!(done.result.is_ok());
}

#[tokio::test]
async fn failures_in_a_row_take_a_server_out_and_that_is_told() {
    let (deaf, good) = (bound(), listening());
    let (pool, (_client, ours)) = (pool(&[&deaf, &good]), client().await);
    let mut back_offs = Vec::new();
    for _ in 0..10 {
        let done = dialled(&pool, &LIMITS, &ours).await;
        assert!(done.result.is_ok());
        let of_deaf = done
            .told
            .iter()
            .zip(done.ejected)
            .filter(|((server, _), _)| *server == 0);
        back_offs.extend(of_deaf.map(|(_, back_off)| back_off));
    }
    assert_eq!(
        back_offs,
        [None, None, Some(EJECT.first)],
        "and nobody tries it after that"
    );
}

#[tokio::test]
async fn a_clients_reset_ends_the_dialling() {
    let (mute, _held) = swallowing();
    let (pool, (client, ours)) = (pool(&[&mute]), client().await);
    client.try_write(b"request").unwrap();
    let (done, ()) = tokio::join!(dialled(&pool, &LIMITS, &ours), async { reset(client) });
    assert_eq!(done.result.unwrap_err(), NoConnection::ClientBroke(Fault::Reset));
    assert!(done.told.is_empty(), "nothing is known of the server");
    assert_eq!(live(&pool), [0]);
    assert!(!pool.servers()[0].is_ejected());
}

#[tokio::test]
async fn a_clients_end_is_kept_for_later() {
    let ((mute, _held), good) = (swallowing(), listening());
    let (pool, (mut client, mut ours)) = (pool(&[&mute, &good]), client().await);
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let done = dialled(&pool, &HASTY, &ours).await;
    assert!(done.result.is_ok());
    assert_eq!(done.told.len(), 2);
    let mut heard = Vec::new();
    ours.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"request");
}

#[tokio::test]
async fn a_place_goes_back_when_the_dialling_is_given_up() {
    let (mute, _held) = swallowing();
    let (pool, (_client, ours)) = (pool(&[&mute]), client().await);
    let mut dialling = Box::pin(dialled(&pool, &LIMITS, &ours));
    std::future::poll_fn(|cx| {
        assert!(dialling.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(live(&pool), [1]);
    drop(dialling);
    assert_eq!(live(&pool), [0]);
}

#[tokio::test]
async fn the_servers_socket_has_its_options() {
    let keepalive = Keepalive {
        idle: Duration::from_secs(7),
        interval: Duration::from_secs(5),
        probes: 3,
    };
    let socket = SocketOptions {
        keepalive: Some(keepalive),
        user_timeout: Some(Duration::from_millis(4_321)),
    };
    let good = listening();
    let (pool, (_client, ours)) = (pool(&[&good]), client().await);
    let connect = ConnectOptions { socket, ..PLAIN };
    let done = dialled(&pool, &DialLimits { connect, ..LIMITS }, &ours).await;
    let (stream, _lease) = done.result.unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), keepalive.probes);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(4_321)));
}

#[test]
fn our_own_shortages_are_nobodys_fault() {
    for (number, failure, is_the_servers) in [
        (libc::EADDRNOTAVAIL, ConnectFailure::NoPorts, false),
        (libc::EMFILE, ConnectFailure::NoDescriptors, false),
        (libc::ENFILE, ConnectFailure::NoDescriptors, false),
        (libc::ENOBUFS, ConnectFailure::NoDescriptors, false),
        (libc::ENOMEM, ConnectFailure::NoDescriptors, false),
        (libc::EPERM, ConnectFailure::Other, false),
        (libc::ECONNREFUSED, ConnectFailure::Refused, true),
        (libc::ECONNRESET, ConnectFailure::Refused, true),
        (libc::ETIMEDOUT, ConnectFailure::Timeout, true),
        (libc::EHOSTUNREACH, ConnectFailure::Unreachable, true),
        (libc::ENETUNREACH, ConnectFailure::Unreachable, true),
    ] {
        let told = ConnectFailure::of(&io::Error::from_raw_os_error(number));
        assert_eq!(
            (told, told.is_the_servers()),
            (failure, is_the_servers),
            "errno {number}"
        );
    }
}
