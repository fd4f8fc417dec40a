//! A session as others may see it while it lasts, and the cord by which they may end it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::time::Instant;

use super::{Ending, SessionInfo};
use crate::addr::{ClientAddr, PeerAddr};
use crate::pool::ServerId;
use crate::relay::Traffic;
use crate::tcp_info::TcpInfo;

/// What is known of an open session. Its entry holds it, and so may whoever looks.
pub struct Record {
    /// Where it counts its bytes.
    pub(super) traffic: Traffic,
    id: u64,
    at: Instant,
    cord: CancelHandle,
    pace: ByteRates,
    // A std mutex: a few lines, by the session while it is arranged and at its end, and by those who look.
    info: Mutex<SessionInfo>,
}

impl Record {
    pub(super) fn new(id: u64, at: Instant, info: SessionInfo) -> Self {
        Self {
            id,
            at,
            traffic: Traffic::default(),
            cord: CancelHandle::default(),
            pace: ByteRates::default(),
            info: Mutex::new(info),
        }
    }

    pub(super) fn info(&self) -> MutexGuard<'_, SessionInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number; no other session of this process ever had it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Since it was accepted.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }

    /// The server it is on, as soon as its bytes flow.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        let info = self.info();
        info.endpoints
            .as_ref()
            .and(info.server.as_ref())
            .map(|server| server.id())
    }

    /// Ends the session, by a reset of both sides. Of several endings the first counts; whether this is the first.
    pub fn cut(&self, ending: Ending) -> bool {
        self.cord.pull(ending)
    }

    /// Waits until somebody ends the session. To be awaited in one place at a time: by the session.
    pub fn until_cut(&self) -> impl Future<Output = Ending> + Unpin {
        std::future::poll_fn(|cx| self.cord.poll(cx))
    }

    /// What anybody may see of it now, but for what only the kernel knows.
    #[must_use]
    pub fn seen(&self) -> SessionView {
        let info = self.info();
        let age = self.age();
        let since_active = age.saturating_sub(Duration::from_millis(self.pace.active.load(Relaxed)));
        SessionView {
            id: self.id,
            peer: info.peer,
            client: info.client,
            sni: info.sni.clone(),
            alpn: info.alpn.clone(),
            listener: Arc::clone(info.listener.name()),
            route: info.route.clone(),
            pool: info.pool.clone(),
            server: info.server.as_ref().map(|server| Arc::clone(&server.spec().label)),
            age,
            idle: since_active,
            bytes_up: self.traffic.up.bytes(),
            bytes_down: self.traffic.down.bytes(),
            rate_up: self.pace.up.load(Relaxed),
            rate_down: self.pace.down.load(Relaxed),
        }
    }

    /// What the kernel knows of its two sides, the client's first, while its bytes flow. Two system calls.
    #[must_use]
    pub fn tcp_info(&self) -> Option<[Option<TcpInfo>; 2]> {
        // Should the session end at this very moment, its sockets are closed when this lets go of them.
        let ends = self.info().endpoints.as_ref()?.upgrade()?;
        Some([&ends.client, &ends.server].map(|end| TcpInfo::of(end.as_fd())))
    }

    /// Takes in what was moved since this was last called, `over` that time.
    pub(super) fn paced(&self, up: u64, down: u64, over: Duration) {
        let rate = |bytes: u64| (bytes as f64 / over.as_secs_f64().max(0.001)) as u64;
        if up + down > 0 {
            self.pace
                .active
                .store(u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX), Relaxed);
        }
        self.pace.up.store(rate(up), Relaxed);
        self.pace.down.store(rate(down), Relaxed);
    }
}

/// How fast a session has been lately, as of the last second's telling.
#[derive(Debug, Default)]
struct ByteRates {
    /// Bytes a second.
    up: AtomicU64,
    /// Bytes a second.
    down: AtomicU64,
    /// Age of the session when it had last moved a byte, milliseconds.
    active: AtomicU64,
}

/// What anybody may see of an open session.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its number.
    pub id: u64,
    /// The other end of the client's socket.
    pub peer: PeerAddr,
    /// Whom the peer speaks for.
    pub client: ClientAddr,
    /// The server name asked for.
    pub sni: Option<Arc<str>>,
    /// The protocols offered, separated by commas.
    pub alpn: Option<Box<str>>,
    /// Where it came in.
    pub listener: Arc<str>,
    /// The route that was taken.
    pub route: Option<Arc<str>>,
    /// The pool that was chosen.
    pub pool: Option<Arc<str>>,
    /// The label of the server it is on, or that is being tried.
    pub server: Option<Arc<str>>,
    /// Since it was accepted.
    pub age: Duration,
    /// Since it moved a byte, a second late at most.
    pub idle: Duration,
    /// From the client.
    pub bytes_up: u64,
    /// From the server.
    pub bytes_down: u64,
    /// Bytes a second from the client, over the last second or so.
    pub rate_up: u64,
    /// The same from the server.
    pub rate_down: u64,
}

/// Anybody may pull it once; the session waits for that.
///
/// Not a token per session: this is one word and one waker, made with the record and never locked.
#[derive(Debug, Default)]
struct CancelHandle {
    /// 0: not pulled; else 1 + the index of the ending.
    pulled: AtomicU8,
    waiting: AtomicWaker,
}

impl CancelHandle {
    fn pull(&self, ending: Ending) -> bool {
        let first = self
            .pulled
            .compare_exchange(0, ending as u8 + 1, Release, Relaxed)
            .is_ok();
        self.waiting.wake();
        first
    }

    fn poll(&self, cx: &std::task::Context<'_>) -> Poll<Ending> {
        self.waiting.register(cx.waker()); // before the look, so that a pull in between is not missed
        match self.pulled.load(Acquire) {
            0 => Poll::Pending,
            number => Poll::Ready(Ending::ALL[usize::from(number) - 1]),
        }
    }
}
