//! Binding, listening and accepting.

use std::future::poll_fn;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::accept::{AcceptOutcome, LATE_MAX, accept, outcome_of};
use super::*;
use crate::capacity::{Capacity, ConnectionLimits};

const OPTIONS: SocketOptions = SocketOptions {
    keepalive: None,
    user_timeout: None,
};

fn loopback() -> ListenAddr {
    ListenAddr::new("127.0.0.1:0".parse().unwrap())
}

fn limits(listener: Option<usize>, process: usize) -> ConnectionLimits {
    ConnectionLimits::new(listener, Capacity::new(Some(process)))
}

#[test]
fn an_address_with_a_listener_is_not_bound_again() {
    let first = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = first.address();
    let sockets = first.listen(2, 16).unwrap().sockets;
    assert_eq!(sockets.len(), 2);
    let error = Bound::new(address, &OPTIONS).unwrap_err();
    assert_eq!(error.cause.error.raw_os_error(), Some(libc::EADDRINUSE));
    assert!(
        crate::error::chain(&error).contains("another process listens there"),
        "{error}"
    );
}

#[test]
fn only_one_of_two_processes_with_a_bound_address_listens() {
    let first = Bound::new(loopback(), &OPTIONS).unwrap();
    let second = Bound::new(first.address(), &OPTIONS).unwrap(); // nobody listens yet
    let _sockets = first.listen(2, 16).unwrap();
    let error = second.listen(2, 16).unwrap_err();
    assert_eq!(error.cause.error.raw_os_error(), Some(libc::EADDRINUSE));
}

#[test]
fn the_kernel_distributes_clients_among_the_sockets() {
    let bound = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = bound.address().socket().unwrap();
    let sockets = bound.listen(2, 256).unwrap().sockets;
    let _clients: Vec<_> = (0..200)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    for socket in &sockets {
        let waiting = std::iter::from_fn(|| acceptfrom_with(socket, SocketFlags::CLOEXEC).ok()).count();
        assert!(waiting > 50, "{waiting} of 200 on one of two sockets");
    }
}

#[test]
fn a_shortage_is_a_reason_to_pause_and_another_error_is_a_failure() {
    let pause = |error| match outcome_of(error) {
        Ok(AcceptOutcome::Pause(reason)) => Some(reason),
        _ => None,
    };
    for error in [Errno::MFILE, Errno::NFILE] {
        assert_eq!(pause(error), Some(AcceptPause::Descriptors), "{error}");
    }
    for error in [Errno::NOBUFS, Errno::NOMEM] {
        assert_eq!(pause(error), Some(AcceptPause::Memory), "{error}");
    }
    for error in [
        Errno::CONNABORTED,
        Errno::PERM,
        Errno::PROTO,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::HOSTUNREACH,
    ] {
        assert!(matches!(outcome_of(error), Ok(AcceptOutcome::Failed(_))), "{error}");
    }
    assert_eq!(
        outcome_of(Errno::AGAIN).map(|_| ()).unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "an empty queue is neither"
    );
}

/// Runs `what` on another thread, because it may keep its thread busy for ever. `None`: it has not ended in 20 s, or it
/// has panicked.
fn on_a_thread<T: Send + 'static>(what: impl AsyncFnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, result) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        sender.send(runtime.unwrap().block_on(what()))
    });
    result.recv_timeout(Duration::from_secs(20)).ok()
}

/// A socket on which accept always fails (EINVAL) although it was not shut down, and its peer, which keeps it open.
fn socket_that_cannot_accept() -> (OwnedFd, std::os::unix::net::UnixStream) {
    let (socket, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    other.write_all(b"readable").unwrap();
    (socket.into(), other)
}

#[test]
fn a_persistent_accept_error_does_not_block_the_worker() {
    let times_out = on_a_thread(async || {
        let (socket, _other) = socket_that_cannot_accept();
        let mut listener = Listener::new(socket, QueueOwner::Process).unwrap();
        let limits = limits(None, 1);
        timeout(Duration::from_millis(50), listener.accept(&limits, |_| {}))
            .await
            .is_err()
    });
    assert_eq!(times_out, Some(true), "expected the timeout to end accept");
}

#[tokio::test(start_paused = true)]
async fn an_accept_that_keeps_failing_is_tried_about_ten_times_a_second() {
    let (socket, _other) = socket_that_cannot_accept();
    let mut listener = Listener::new(socket, QueueOwner::Process).unwrap();
    let (limits, mut failures) = (limits(None, 1), 0);
    let outcome = timeout(Duration::from_secs(10), async {
        let mut accepting = pin!(listener.accept(&limits, |_| {}));
        poll_fn(|cx| {
            failures += 1; // each poll ends with a failure and a pause
            accepting.as_mut().poll(cx).map(|_| ())
        })
        .await;
    });
    assert!(outcome.await.is_err());
    assert!((90..120).contains(&failures), "{failures} failures in 10 s");
}

/// The sockets of a TCP and of a Unix listener, each with a function that shuts it down as another program could.
fn sockets_to_shut_down() -> [(OwnedFd, impl FnOnce()); 2] {
    let directory = tempfile::tempdir().unwrap();
    let tcp = Bound::new(loopback(), &OPTIONS).unwrap().listen(1, 16).unwrap().sockets;
    let unix = UnixListener::bind(directory.path().join("socket")).unwrap();
    unix.set_nonblocking(true).unwrap();
    [tcp.into_iter().next().unwrap(), unix.into()].map(|socket| {
        let copy = Socket::from(socket.try_clone().unwrap());
        (socket, move || copy.shutdown(std::net::Shutdown::Both).unwrap())
    })
}

#[test]
fn a_socket_that_was_shut_down_is_reported_and_does_not_listen_again() {
    for (socket, shut_down) in sockets_to_shut_down() {
        let outcomes = on_a_thread(async move || {
            let limits = limits(None, 1);
            let mut listener = Listener::new(socket, QueueOwner::Process).unwrap();
            assert!(listener.accept(&limits, |_| {}).now_or_never().is_none());
            shut_down();
            listener.adjust(&OPTIONS, 16); // calls listen(2) only if the socket was not shut down
            let patience = Duration::from_millis(200);
            let first = timeout(patience, listener.accept(&limits, |_| {})).await;
            listener.adjust(&OPTIONS, 16);
            let second = timeout(patience, listener.accept(&limits, |_| {})).await;
            listener.close_queue();
            let waiting = timeout(patience, listener.accept_waiting(&limits, |_| {})).await;
            (
                first.map(|accepted| accepted.map(drop)),
                second.map(|accepted| accepted.map(drop)),
                waiting.map(|accepted| accepted.is_none()),
            )
        });
        let expected = (Ok(Err(NotListening)), Ok(Err(NotListening)), Ok(true));
        assert_eq!(outcomes, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_shut_down_while_its_clients_wait_for_a_permit_is_reported() {
    let bound = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = bound.address().socket().unwrap();
    let socket = bound.listen(1, 16).unwrap().sockets.remove(0);
    let copy = Socket::from(socket.try_clone().unwrap());
    let (mut listener, limits) = (Listener::new(socket, QueueOwner::Process).unwrap(), limits(Some(1), 9));
    let _permit = limits.try_acquire().unwrap();
    let _client = std::net::TcpStream::connect(address).unwrap();
    let accepting = listener.accept(&limits, |_| copy.shutdown(std::net::Shutdown::Both).unwrap());
    let outcome = timeout(Duration::from_secs(5), accepting).await;
    assert_eq!(outcome.map(|accepted| accepted.map(drop)), Ok(Err(NotListening)));
}

/// A listener was shut down and, before anybody noticed, listens again: the runtime reports it as readable for ever.
#[test]
fn a_socket_that_is_always_readable_does_not_keep_the_worker_busy() {
    let [(socket, shut_down), _] = sockets_to_shut_down();
    let outcome = on_a_thread(async move || {
        let limits = limits(None, 1);
        let copy = Socket::from(socket.try_clone().unwrap());
        let mut listener = Listener::new(socket, QueueOwner::Process).unwrap();
        shut_down();
        tokio::time::sleep(Duration::from_millis(1)).await; // the runtime polls epoll
        copy.listen(16).unwrap();
        let accepting = timeout(Duration::from_millis(200), listener.accept(&limits, |_| {})).await;
        accepting.map(|accepted| accepted.map(drop))
    });
    assert_eq!(outcome, Some(Ok(Err(NotListening))));
}

/// The length of a queue is read from TCP_INFO, which a Unix socket does not have.
#[tokio::test]
async fn a_unix_listener_accepts_all_clients_though_the_length_of_its_queue_is_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    unix.set_nonblocking(true).unwrap();
    let (mut listener, limits) = (
        Listener::new(unix.into(), QueueOwner::Process).unwrap(),
        limits(None, 99),
    );
    let (mut clients, mut accepted) = (Vec::new(), Vec::new());
    for batch in 1..=5 {
        for _ in 0..batch {
            clients.push(UnixStream::connect(&path).await.unwrap());
        }
        for _ in 0..batch {
            accepted.push(listener.accept(&limits, |_| {}).await.unwrap());
        }
        assert!(listener.accept(&limits, |_| {}).now_or_never().is_none());
    }
}

#[test]
fn a_client_that_the_runtime_cannot_watch_pauses_accepting() {
    let bound = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = bound.address().socket().unwrap();
    let socket = bound.listen(1, 16).unwrap().sockets.remove(0);
    let _client = std::net::TcpStream::connect(address).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _within = handle.enter(); // a runtime that is gone registers no socket, like one whose epoll is full
    assert!(matches!(accept(&socket), Ok(AcceptOutcome::Pause(AcceptPause::Memory))));
}

#[tokio::test]
async fn clients_beyond_the_limit_wait_until_a_session_ends() {
    let bound = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = bound.address().socket().unwrap();
    let socket = bound.listen(1, 16).unwrap().sockets.remove(0);
    let (mut listener, limits) = (Listener::new(socket, QueueOwner::Process).unwrap(), limits(Some(1), 9));
    let _clients = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let first = listener
        .accept(&limits, |_| unreachable!("there is a permit"))
        .await
        .unwrap();
    let mut pauses = Vec::new();
    let mut second = Box::pin(listener.accept(&limits, |pause| pauses.push(pause)));
    poll_fn(|cx| {
        assert!(second.as_mut().poll(cx).is_pending(), "no permit yet");
        std::task::Poll::Ready(())
    })
    .await;
    drop(first);
    drop(second.await.unwrap());
    assert_eq!(pauses, [AcceptPause::Limit]);
}

#[tokio::test]
async fn a_listener_at_its_limit_does_not_pause_while_nobody_waits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let bound = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = bound.address().socket().unwrap();
    let tcp = bound.listen(1, 16).unwrap().sockets.remove(0);
    let _clients = (
        UnixStream::connect(&path).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    );
    for socket in [unix.into(), tcp] {
        let (mut listener, limits) = (Listener::new(socket, QueueOwner::Process).unwrap(), limits(Some(1), 9));
        let never = |pause| panic!("{pause:?}");
        let _first = listener.accept(&limits, never).await.unwrap();
        assert!(listener.accept(&limits, never).now_or_never().is_none());
    }
}

#[tokio::test]
async fn a_closed_accept_queue_accepts_queued_clients_and_few_later_ones() {
    let bound = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = bound.address().socket().unwrap();
    let socket = bound.listen(1, 16).unwrap().sockets.remove(0);
    let (mut listener, limits) = (Listener::new(socket, QueueOwner::Process).unwrap(), limits(None, 9));
    let mut clients = vec![TcpStream::connect(address).await.unwrap()];
    clients.push(TcpStream::connect(address).await.unwrap());
    listener.close_queue();
    assert!(listener.accept_waiting(&limits, |_| {}).await.is_some());
    let mut accepted = 1;
    while listener.accept_waiting(&limits, |_| {}).await.is_some() {
        accepted += 1;
        clients.push(TcpStream::connect(address).await.unwrap()); // a closed queue that is empty lets a client join
    }
    assert_eq!((accepted, listener.clients_to_reset()), (2 + LATE_MAX, 1));
}

/// Two workers, or two processes, share a socket in this way if the service manager has passed it.
#[tokio::test]
async fn a_client_that_another_listener_of_the_socket_has_accepted_is_not_waited_for() {
    let bound = Bound::new(loopback(), &OPTIONS).unwrap();
    let address = bound.address().socket().unwrap();
    let socket = bound.listen(1, 16).unwrap().sockets.pop().unwrap();
    let copy = socket.try_clone().unwrap();
    let [mut first, mut second] = [socket, copy].map(|socket| Listener::new(socket, QueueOwner::Process).unwrap());
    let (limits, mut clients) = (limits(None, 16), Vec::new());
    for _ in 0..3 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    let mut accepted = vec![first.accept(&limits, |_| {}).await.unwrap()]; // `first` has counted three clients
    accepted.push(second.accept(&limits, |_| {}).await.unwrap());
    accepted.push(second.accept(&limits, |_| {}).await.unwrap());
    {
        let mut next = pin!(first.accept(&limits, |_| {}));
        assert!((&mut next).now_or_never().is_none(), "none is left");
        clients.push(TcpStream::connect(address).await.unwrap());
        accepted.push(next.await.unwrap());
    }
    let mut peers: Vec<_> = accepted.iter().map(|accepted| accepted.peer.to_string()).collect();
    let mut own: Vec<_> = clients
        .iter()
        .map(|client| client.local_addr().unwrap().to_string())
        .collect();
    peers.sort();
    own.sort();
    assert_eq!(peers, own);
}
