//! The ledger: one [`Entry`] a session, one [`Ending`] an entry.
//!
//! A worker has a [`Ledger`] of its own; the series it counts in are shared by all.

pub mod access_log;
mod ending;
mod episode;
mod histogram;
mod metrics;
mod series;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use slab::Slab;
use tokio::time::Instant;

pub use self::metrics::{LineKey, ListenerIndex, Metrics};
pub use ending::Ending;
pub use series::{CheckResult, LineSeries, ListenerSeries, ServerSeries};

use crate::addr::{ClientAddr, PeerAddr};
use crate::dial::ConnectFailure;
use crate::pool::Server;
use crate::relay::Traffic;
use crate::tcp_info::TcpInfo;
use access_log::{AccessLog, Line};

/// A worker's book of sessions.
pub struct Ledger {
    metrics: Arc<Metrics>,
    log: Option<AccessLog>,
    /// Whether a visit without a byte gets a line too.
    log_visits: bool,
    listeners: Vec<Arc<ListenerSeries>>,
    // Std mutexes, a few lines each; the worker's own thread is nearly always alone with them.
    open: Mutex<Slab<Row>>,
    lines: Mutex<HashMap<LineKey, Arc<LineSeries>>>,
}

/// An open session, as far as its bytes are concerned.
struct Row {
    traffic: Arc<Traffic>,
    /// Known as soon as it is on a server.
    line: Option<Arc<LineSeries>>,
    /// What of its bytes is in the metrics already.
    told: (u64, u64),
}

impl Row {
    /// Tells its line what has been moved since this was last done.
    fn tell(&mut self) {
        let Some(line) = &self.line else { return };
        let now = (self.traffic.up.bytes(), self.traffic.down.bytes());
        line.moved(now.0 - self.told.0, now.1 - self.told.1);
        self.told = now;
    }
}

impl Ledger {
    /// An empty ledger that counts in these series.
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        listeners: Vec<Arc<ListenerSeries>>,
        log: Option<AccessLog>,
        log_visits: bool,
    ) -> Self {
        Self {
            metrics,
            log,
            log_visits,
            listeners,
            open: Mutex::default(),
            lines: Mutex::default(),
        }
    }

    /// Opens a session's entry.
    pub fn open(self: &Arc<Self>, listener: ListenerIndex, peer: PeerAddr, at: Instant) -> Entry {
        let traffic = Arc::new(Traffic::default());
        let row = self.rows().insert(Row {
            traffic: Arc::clone(&traffic),
            line: None,
            told: (0, 0),
        });
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let facts = Box::new(Facts::new(NUMBER.fetch_add(1, Relaxed), listener, peer, at));
        Entry {
            ledger: Arc::clone(self),
            row,
            traffic,
            facts,
            line: None,
            ending: Ending::Internal,
        }
    }

    /// Tells the metrics what open sessions have moved, and forgets lines of servers that are gone. To be called once
    /// a second: a session that lasts for days shows its bytes while it lasts.
    pub fn tell(&self) {
        self.rows().iter_mut().for_each(|(_, row)| row.tell());
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, line| !line.is_over());
    }

    /// The series of the listeners, in the order of the plan.
    #[must_use]
    pub fn listeners(&self) -> &[Arc<ListenerSeries>] {
        &self.listeners
    }

    fn line(&self, listener: ListenerIndex, pool: &Arc<str>, server: Option<&Arc<Server>>) -> Arc<LineSeries> {
        let key = LineKey {
            listener,
            pool: Arc::clone(pool),
            server: server.map(|server| server.id()),
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&key) {
            return Arc::clone(line);
        }
        let line = self.metrics.line(&key, server);
        lines.insert(key, Arc::clone(&line));
        line
    }

    fn rows(&self) -> MutexGuard<'_, Slab<Row>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a session; for its line in the log.
#[derive(Debug)]
pub struct Facts {
    session: u64,
    listener: ListenerIndex,
    at: Instant,
    peer: PeerAddr,
    /// Whom the peer speaks for.
    pub client: ClientAddr,
    /// The server name asked for, as far as it can be shown.
    pub sni: Option<Arc<str>>,
    /// The protocols offered, separated by commas.
    pub alpn: Option<Box<str>>,
    /// Whether the ClientHello was an outer one.
    pub ech: bool,
    /// The route that was taken.
    pub route: Option<Arc<str>>,
    pool: Option<Arc<str>>,
    server: Option<Arc<str>>,
    attempts: u32,
    hello: Option<Duration>,
    connect: Option<Duration>,
    /// What the kernel knows of the client's side, at the end.
    pub client_info: Option<TcpInfo>,
    /// The same of the server's side.
    pub server_info: Option<TcpInfo>,
}

impl Facts {
    fn new(session: u64, listener: ListenerIndex, peer: PeerAddr, at: Instant) -> Self {
        Self {
            session,
            listener,
            at,
            peer,
            client: peer.into(),
            sni: None,
            alpn: None,
            ech: false,
            route: None,
            pool: None,
            server: None,
            attempts: 0,
            hello: None,
            connect: None,
            client_info: None,
            server_info: None,
        }
    }
}

/// A session's line in the book. Dropping it writes the line: on every path, exactly once.
#[must_use = "dropping the entry closes it"]
pub struct Entry {
    ledger: Arc<Ledger>,
    row: usize,
    traffic: Arc<Traffic>,
    /// What is known so far.
    pub facts: Box<Facts>,
    line: Option<Arc<LineSeries>>,
    /// [`Ending::Internal`] unless the session says otherwise: a panic must not look well.
    ending: Ending,
}

impl Entry {
    /// Where the session counts its bytes.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether anybody will read the facts.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.ledger.log.is_some()
    }

    /// It is known now what the client wants.
    pub fn heard(&mut self) {
        let took = self.facts.at.elapsed();
        self.facts.hello = Some(took);
        self.ledger.listeners[self.facts.listener].heard(took);
    }

    /// A pool was chosen.
    pub fn routed(&mut self, pool: &Arc<str>) {
        self.facts.pool = Some(Arc::clone(pool));
    }

    /// A server of the pool is being tried.
    pub fn trying(&mut self, server: &Arc<Server>) {
        self.facts.attempts += 1;
        self.facts.server = Some(Arc::clone(&server.spec().label));
        let pool = self.facts.pool.clone().unwrap_or_else(|| Arc::from(""));
        self.line = Some(self.ledger.line(self.facts.listener, &pool, Some(server)));
    }

    /// That took so long, and failed or not. Without a failure the session is on the server.
    pub fn tried(&mut self, took: Duration, failure: Option<ConnectFailure>) {
        if let Some(series) = self.line.as_ref().and_then(|line| line.server()) {
            series.dialled(took, failure);
        }
        if failure.is_none() {
            self.facts.connect = Some(took);
            if let Some(row) = self.ledger.rows().get_mut(self.row) {
                row.line.clone_from(&self.line);
            }
        }
    }

    /// The session is over.
    pub fn close(mut self, ending: Ending) {
        self.ending = ending;
    }

    fn is_worth_a_line(&self) -> bool {
        let moved = self.traffic.up.bytes() + self.traffic.down.bytes();
        moved > 0 || !self.ending.is_a_visit() || self.ledger.log_visits
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.facts.at.elapsed();
        let line = self.line.take().unwrap_or_else(|| {
            let pool = self.facts.pool.clone().unwrap_or_else(|| Arc::from(""));
            self.ledger.line(self.facts.listener, &pool, None)
        });
        let mut row = self.ledger.rows().remove(self.row);
        row.line = Some(Arc::clone(&line));
        row.tell();
        line.ended(self.ending, took);
        if let Some(log) = self.ledger.log.as_ref().filter(|_| self.is_worth_a_line()) {
            log.write(
                self.facts
                    .line(&self.ledger.listeners, self.ending, took, &self.traffic),
            );
        }
    }
}

impl Facts {
    fn line(&self, listeners: &[Arc<ListenerSeries>], ending: Ending, took: Duration, traffic: &Traffic) -> Line {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let text = |shared: &Option<Arc<str>>| shared.as_deref().map(str::to_owned);
        Line {
            time: Some(SystemTime::now()),
            session: self.session,
            listener: listeners[self.listener].name().to_string(),
            peer: self.peer.to_string(),
            client: self.client.to_string(),
            sni: text(&self.sni),
            alpn: self.alpn.as_deref().map(str::to_owned),
            ech: self.ech,
            route: text(&self.route),
            pool: text(&self.pool),
            server: text(&self.server),
            attempts: self.attempts,
            hello_ms: self.hello.map(ms),
            connect_ms: self.connect.map(ms),
            duration_ms: ms(took),
            bytes_up: traffic.up.bytes(),
            bytes_down: traffic.down.bytes(),
            ending: ending.as_str(),
            client_rtt_us: self.client_info.map(|info| info.rtt_us),
            server_rtt_us: self.server_info.map(|info| info.rtt_us),
            client_retrans: self.client_info.map(|info| info.retransmits),
            server_retrans: self.server_info.map(|info| info.retransmits),
        }
    }
}
