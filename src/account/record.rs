//! An open session as other threads see it, and the handle that ends it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use ipnet::IpNet;
use tokio::time::Instant;

use super::{Ending, SessionInfo};
use crate::addr::{ClientAddr, PeerAddr};
use crate::pool::ServerId;
use crate::relay::Traffic;
use crate::tcp_info::TcpInfo;

/// An open session. Its entry in the ledger holds it, and other threads may hold it to show the session or to end it.
pub struct Record {
    /// Its byte counters.
    pub(super) traffic: Traffic,
    id: u64,
    accepted_at: Instant,
    cancel: CancelHandle,
    rates: ByteRates,
    // A std mutex, for a few lines at a time: the session takes it until its server is connected and at its end, and so
    // does every reader.
    info: Mutex<SessionInfo>,
}

impl Record {
    pub(super) fn new(id: u64, accepted_at: Instant, info: SessionInfo) -> Self {
        Self {
            id,
            accepted_at,
            traffic: Traffic::default(),
            cancel: CancelHandle::default(),
            rates: ByteRates::default(),
            info: Mutex::new(info),
        }
    }

    pub(super) fn info(&self) -> MutexGuard<'_, SessionInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number, which is unique among all sessions of this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The time since it was accepted.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.accepted_at.elapsed()
    }

    /// The server it relays to; `None` until the relay has started.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        let info = self.info();
        info.endpoints
            .as_ref()
            .and(info.server.as_ref())
            .map(|server| server.id())
    }

    /// The name of the pool that it was meant for, if it is on the servers of that pool's fallback.
    #[must_use]
    pub fn fallback_from(&self) -> Option<Arc<str>> {
        let info = self.info();
        info.fallback_from.as_ref().map(|origin| Arc::clone(origin.pool()))
    }

    /// Ends the session by resetting both sides. The first ending counts; returns whether this is the first.
    pub fn cut(&self, ending: Ending) -> bool {
        self.cancel.cancel(ending)
    }

    /// Ends the session as denied if it has passed this guard and its client is in the network. Returns whether this call
    /// ended it.
    pub fn cut_denied(&self, guard: &Arc<str>, network: IpNet) -> bool {
        let mut info = self.info();
        let client = info.client;
        let guards = info.guards.as_mut();
        let is_denied = guards.is_some_and(|guards| guards.deny(guard, network, client));
        drop(info);
        is_denied && self.cut(Ending::Denied)
    }

    /// Waits until [`Self::cut`] is called. Only one task at a time may await this: that of the session.
    pub fn until_cut(&self) -> impl Future<Output = Ending> + Unpin {
        std::future::poll_fn(|cx| self.cancel.poll(cx))
    }

    /// Its current state, without what only the kernel knows ([`Self::tcp_info`]).
    #[must_use]
    pub fn seen(&self) -> SessionView {
        let info = self.info();
        let age = self.age();
        let since_active = age.saturating_sub(Duration::from_millis(self.rates.active.load(Relaxed)));
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
            rate_up: self.rates.up.load(Relaxed),
            rate_down: self.rates.down.load(Relaxed),
        }
    }

    /// The kernel's figures for its sockets, the client's first; `None` unless it relays. Makes two system calls.
    #[must_use]
    pub fn tcp_info(&self) -> Option<[Option<TcpInfo>; 2]> {
        // If the session ends meanwhile, its sockets are closed when `ends` is dropped.
        let ends = self.info().endpoints.as_ref()?.upgrade()?;
        Some([&ends.client, &ends.server].map(|end| TcpInfo::of(end.as_fd())))
    }

    /// Records the bytes that were relayed since the last call, which was `elapsed` ago.
    pub(super) fn record_rates(&self, up: u64, down: u64, elapsed: Duration) {
        let rate = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        if up + down > 0 {
            self.rates
                .active
                .store(u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX), Relaxed);
        }
        self.rates.up.store(rate(up), Relaxed);
        self.rates.down.store(rate(down), Relaxed);
    }
}

/// The rates of a session in the last interval of [`Record::record_rates`] (a second).
#[derive(Debug, Default)]
struct ByteRates {
    /// Bytes a second.
    up: AtomicU64,
    /// Bytes a second.
    down: AtomicU64,
    /// The age of the session when it last relayed a byte, in milliseconds.
    active: AtomicU64,
}

/// The state of an open session at one moment.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its number.
    pub id: u64,
    /// The remote address of the client's socket.
    pub peer: PeerAddr,
    /// The client on whose behalf the peer connected, or the peer itself.
    pub client: ClientAddr,
    /// The server name in its ClientHello.
    pub sni: Option<Arc<str>>,
    /// The ALPN protocols it offered, separated by commas.
    pub alpn: Option<Box<str>>,
    /// The listener that accepted it.
    pub listener: Arc<str>,
    /// The route that was chosen.
    pub route: Option<Arc<str>>,
    /// The pool that was chosen.
    pub pool: Option<Arc<str>>,
    /// The label of its server, or of the one that is being tried.
    pub server: Option<Arc<str>>,
    /// The time since it was accepted.
    pub age: Duration,
    /// The time since it last relayed a byte, up to a second late.
    pub idle: Duration,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes from the server.
    pub bytes_down: u64,
    /// Bytes a second from the client, over about the last second.
    pub rate_up: u64,
    /// Bytes a second from the server, over about the last second.
    pub rate_down: u64,
}

/// Any thread may cancel it, once; the session waits for that.
///
/// It is a byte and a waker inside the record. A `CancellationToken` for each session would be an allocation and a mutex.
#[derive(Debug, Default)]
struct CancelHandle {
    /// 0: not cancelled; else 1 + the index of the ending.
    ending: AtomicU8,
    session: AtomicWaker,
}

impl CancelHandle {
    fn cancel(&self, ending: Ending) -> bool {
        let first = self
            .ending
            .compare_exchange(0, ending as u8 + 1, Release, Relaxed)
            .is_ok();
        self.session.wake();
        first
    }

    fn poll(&self, cx: &std::task::Context<'_>) -> Poll<Ending> {
        self.session.register(cx.waker()); // before the load, so that a cancel in between is not missed
        match self.ending.load(Acquire) {
            0 => Poll::Pending,
            number => Poll::Ready(Ending::ALL[usize::from(number) - 1]),
        }
    }
}
