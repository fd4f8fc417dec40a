//! An open session as other threads see it, and their requests to end it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Ending, SessionInfo};
use crate::addr::{ClientAddr, PeerAddr};
use crate::pool::{CountId, ServerId};
use crate::relay::{DeliveryNotes, EndRequest, Traffic};
use crate::tcp_info::TcpInfo;

/// The record of an open session. The session's entry in the ledger holds the record, and other threads may hold it to
/// show the session or to end it.
pub struct Record {
    /// The byte counters of the session.
    pub(super) traffic: Traffic,
    id: u64,
    accepted_at: Instant,
    requests: SessionRequests,
    rates: ByteRates,
    // A blocking mutex, locked for a few statements at a time: by every reader, and by the session before and
    // after its relay.
    info: Mutex<SessionInfo>,
}

impl Record {
    pub(super) fn new(id: u64, accepted_at: Instant, info: SessionInfo) -> Self {
        Self {
            id,
            accepted_at,
            traffic: Traffic::default(),
            requests: SessionRequests::default(),
            rates: ByteRates::default(),
            info: Mutex::new(info),
        }
    }

    pub(super) fn info(&self) -> MutexGuard<'_, SessionInfo> {
        self.info.lock()
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

    /// The server that it is connected to.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        let info = self.info();
        if !info.is_connected() {
            return None;
        }
        info.server.as_ref().map(|server| server.id())
    }

    /// When the session was connected to its server, up to a millisecond late. Until it is connected: when it was
    /// accepted.
    fn connected_at(&self) -> Instant {
        let after = self.info().connected_after.map(Duration::from);
        self.accepted_at + after.unwrap_or_default()
    }

    /// Whether it was connected to its server after this moment. Until it is connected, the time of accept counts.
    #[must_use]
    pub fn is_connected_after(&self, at: Instant) -> bool {
        self.connected_at() > at
    }

    /// The time since it was connected to its server; until it is connected, since it was accepted.
    #[must_use]
    pub fn age_on_server(&self) -> Duration {
        self.connected_at().elapsed()
    }

    /// Whether the relay runs, and the server has sent a byte. The relay does not run yet while acequia reads the login
    /// of a PostgreSQL session.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.traffic.down.bytes() > 0 && self.info().endpoints.is_some()
    }

    /// The name of the pool that it was meant for, if it is on the servers of that pool's fallback.
    #[must_use]
    pub fn fallback_from(&self) -> Option<Arc<str>> {
        let info = self.info();
        info.fallback_from.as_ref().map(|origin| Arc::clone(origin.pool()))
    }

    /// Ends the session; a relay by resetting both sides. Only the first ending counts; returns whether it is this.
    pub fn cut(&self, ending: Ending) -> bool {
        self.requests.cut(ending)
    }

    /// Decides the ending of a session that ends by itself: that of an earlier cut, or else `ending`. Later cuts have
    /// no effect: they would contradict what the client is being told.
    #[must_use]
    pub fn settle(&self, ending: Ending) -> Ending {
        self.requests.settle(ending)
    }

    /// Ends the session as denied if it has passed this guard and its client is in the network. Returns whether this
    /// call ended it.
    pub fn cut_denied(&self, guard: &Arc<str>, network: IpNet) -> bool {
        let mut info = self.info();
        let client = info.client();
        let extras = info.extras.as_mut();
        let Some(extras) = extras.filter(|extras| extras.has_passed_from(guard, network, client)) else {
            return false;
        };
        // The access log record is built under the same lock. So it has the reason if the session ends by this cut.
        let is_first = self.cut(Ending::Denied);
        if is_first {
            extras.note_denial(guard);
        }
        is_first
    }

    /// Asks the session to end with this ending if it is at rest now ([`EndRequest::IfAtRest`]). If it is not, it goes
    /// on. If bytes are on their way to either side, [`Self::deliveries`] changes.
    pub fn end_at_rest(&self, ending: Ending) {
        self.requests.end_at_rest(ending);
    }

    /// Asks the session whether bytes are on their way to either side. If so, [`Self::deliveries`] changes.
    pub fn look_for_deliveries(&self) {
        self.requests.look();
    }

    /// A counter that changes when the session is asked to end, or to look, while bytes are on their way to either
    /// side.
    #[must_use]
    pub fn deliveries(&self) -> u8 {
        self.requests.deliveries.count()
    }

    /// The ending of a session that was cut.
    #[must_use]
    pub fn cut_ending(&self) -> Ending {
        self.requests.cut_ending().unwrap_or(Ending::Internal)
    }

    /// The ending of a session that has ended at rest.
    #[must_use]
    pub fn ending_at_rest(&self) -> Ending {
        self.requests.ending_at_rest()
    }

    /// The pool that it relays to, and the [`count_id`](crate::pool::Server::count_id) of the server; `None` until the
    /// relay has started, and when it has ended.
    #[must_use]
    pub fn relays_to(&self) -> Option<(Arc<str>, CountId)> {
        let info = self.info();
        info.endpoints.as_ref()?; // set while the relay runs
        let pool = Arc::clone(info.pool.as_ref()?);
        Some((pool, info.server.as_ref()?.count_id()))
    }

    /// Whether the server has ended its side of the session. The last bytes may still be on their way to the client.
    #[must_use]
    pub fn has_server_ended(&self) -> bool {
        self.traffic.down.has_ended()
    }

    /// Bytes that it has relayed so far, in both directions together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.traffic.up.bytes() + self.traffic.down.bytes()
    }

    /// Ready at each request to the session: to be cut, to end at rest, or to look for deliveries. Only one task at a
    /// time may poll this or await [`Self::until_cut`], because only one waker is kept.
    pub fn poll_end_request(&self, cx: &mut Context<'_>) -> Poll<EndRequest<'_>> {
        self.requests.poll_request(cx)
    }

    /// Waits until [`Self::cut`] is called. Only one task at a time may await this: that of the session.
    pub fn until_cut(&self) -> impl Future<Output = Ending> + Unpin {
        std::future::poll_fn(|cx| self.requests.poll_cut(cx))
    }

    /// Its current state, except what only the kernel knows ([`Self::tcp_info`]).
    #[must_use]
    pub fn view(&self) -> SessionView {
        let info = self.info();
        let age = self.age();
        let idle = age.saturating_sub(Duration::from_millis(self.rates.active_at_ms.load(Relaxed)));
        SessionView {
            id: self.id,
            peer: info.peer,
            client: info.client(),
            sni: info.sni.clone(),
            alpn: info.alpn.clone(),
            database: info.database(),
            user: info.user(),
            listener: Arc::clone(info.listener.name()),
            route: info.route.as_ref().map(|route| Arc::clone(route.name())),
            pool: info.pool.clone(),
            server: info.server.as_ref().map(|server| Arc::clone(&server.spec().label)),
            age,
            idle,
            bytes_up: self.traffic.up.bytes(),
            bytes_down: self.traffic.down.bytes(),
            rate_up: self.rates.up.load(Relaxed),
            rate_down: self.rates.down.load(Relaxed),
        }
    }

    /// The kernel's figures for its sockets, the client's first; `None` unless it relays. For a socket without figures,
    /// such as a Unix socket, the element is `None`. Makes two system calls.
    #[must_use]
    pub fn tcp_info(&self) -> Option<[Option<TcpInfo>; 2]> {
        // If the session ends meanwhile, its sockets are closed when `endpoints` is dropped.
        let endpoints = self.info().endpoints.as_ref()?.upgrade()?;
        Some([&endpoints.client, &endpoints.server].map(|socket| TcpInfo::read(socket.as_fd())))
    }

    /// Records the bytes that were relayed since the last call, if any. `elapsed`: since the ledger's last publication.
    pub(super) fn record_rates(&self, up: u64, down: u64, elapsed: Duration) {
        let rate = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        if up + down > 0 {
            self.rates
                .active_at_ms
                .store(u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX), Relaxed);
        }
        self.rates.up.store(rate(up), Relaxed);
        self.rates.down.store(rate(down), Relaxed);
    }
}

/// The rates of a session between the latest two calls of [`Record::record_rates`], which are about a second apart.
#[derive(Debug, Default)]
struct ByteRates {
    /// Bytes a second.
    up: AtomicU64,
    /// Bytes a second.
    down: AtomicU64,
    /// The age of the session when it last relayed a byte, up to a second late.
    active_at_ms: AtomicU64,
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
    /// The database that it asked for, if it is a PostgreSQL session whose StartupMessage could be read.
    pub database: Option<String>,
    /// The user that it named, under the same condition.
    pub user: Option<String>,
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
    /// The time since it last relayed a byte, up to a second too short. A byte counts from the next publication on,
    /// within a second. Before the first byte: the time since it was accepted.
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

/// The requests of other threads to the session: to be cut, to end at rest, to look for deliveries. The session polls
/// them. It can be cut only once.
///
/// The requests are four bytes and a waker inside the record. A `CancellationToken` for each session would be an
/// allocation and a mutex.
#[derive(Debug, Default)]
struct SessionRequests {
    /// The ending of the cut: 1 + its index in [`Ending::ALL`]; 0: not cut.
    ending: AtomicU8,
    /// The ending that is asked for at rest, encoded like `ending`; with [`TAKEN`] once the session has seen the
    /// request.
    at_rest: AtomicU8,
    /// Whether the session is asked to look for bytes on their way.
    look: AtomicBool,
    deliveries: DeliveryNotes,
    /// Wakes the session.
    waker: AtomicWaker,
}

/// The flag in [`SessionRequests::at_rest`]. The numbers of endings are far below it.
const TAKEN: u8 = 0x80;

/// The ending of this number, from 1; `None` for 0.
fn ending_of(number: u8) -> Option<Ending> {
    let index = usize::from(number).checked_sub(1)?;
    Some(Ending::ALL[index])
}

impl SessionRequests {
    /// Returns whether this is the first cut.
    fn cut(&self, ending: Ending) -> bool {
        let is_first = self
            .ending
            .compare_exchange(0, ending as u8 + 1, Release, Relaxed)
            .is_ok();
        self.waker.wake();
        is_first
    }

    /// As [`Self::cut`], by the session itself, which need not be woken. Returns the ending of the first cut.
    fn settle(&self, ending: Ending) -> Ending {
        let earlier = self
            .ending
            .compare_exchange(0, ending as u8 + 1, Release, Acquire)
            .err();
        earlier.and_then(ending_of).unwrap_or(ending)
    }

    fn end_at_rest(&self, ending: Ending) {
        self.at_rest.store(ending as u8 + 1, Release);
        self.waker.wake();
    }

    fn look(&self) {
        self.look.store(true, Release);
        self.waker.wake();
    }

    /// The ending that was asked for at rest; [`Ending::Internal`] if none was.
    fn ending_at_rest(&self) -> Ending {
        ending_of(self.at_rest.load(Acquire) & !TAKEN).unwrap_or(Ending::Internal)
    }

    fn poll_request(&self, cx: &Context<'_>) -> Poll<EndRequest<'_>> {
        if self.poll_cut(cx).is_ready() {
            return Poll::Ready(EndRequest::Cut);
        }
        if self.look.load(Relaxed) && self.look.swap(false, Acquire) {
            return Poll::Ready(EndRequest::NoteDelivery(&self.deliveries));
        }
        let at_rest = self.at_rest.load(Acquire);
        if at_rest == 0 || at_rest & TAKEN != 0 {
            return Poll::Pending;
        }
        self.at_rest.fetch_or(TAKEN, Relaxed);
        Poll::Ready(EndRequest::IfAtRest(&self.deliveries))
    }

    fn poll_cut(&self, cx: &Context<'_>) -> Poll<Ending> {
        self.waker.register(cx.waker()); // before the load, so that a cut in between is not missed
        self.cut_ending().map_or(Poll::Pending, Poll::Ready)
    }

    fn cut_ending(&self) -> Option<Ending> {
        ending_of(self.ending.load(Acquire))
    }
}
