//! The ledger: one [`Entry`] a session, one [`Ending`] an entry.
//!
//! A worker has a [`Ledger`] of its own; the series it counts in are shared by all.

pub mod access_log;
mod ending;
mod episode;
mod exposition;
mod facts;
mod histogram;
mod metrics;
mod names;
mod record;
mod series;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

pub use self::metrics::{LineKey, Metrics};
pub use ending::Ending;
pub use facts::Facts;
pub use record::{Ends, Record, Seen};
pub use series::{CheckResult, LineSeries, ListenerId, ListenerSeries, ServerSeries};

use crate::addr::PeerAddr;
use crate::dial::ConnectFailure;
use crate::pool::Server;
use crate::relay::Traffic;
use crate::tcp_info::TcpInfo;
use access_log::AccessLog;

/// The number of the next session.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Sessions this process has had so far.
#[must_use]
pub fn sessions_so_far() -> u64 {
    NUMBER.load(Relaxed) - 1
}

/// A worker's book of sessions.
pub struct Ledger {
    metrics: Arc<Metrics>,
    log: AccessLog,
    // Std mutexes, a few lines each; the worker's own thread is nearly always alone with them.
    open: Mutex<Rows>,
    lines: Mutex<HashMap<LineKey, Arc<LineSeries>>>,
}

/// The open sessions.
struct Rows {
    rows: Slab<Row>,
    /// When they were last told of.
    told: Instant,
    /// Why all are cut, and whoever comes from now on.
    cut: Option<Ending>,
}

/// An open session, as far as its bytes are concerned.
struct Row {
    record: Arc<Record>,
    /// Known as soon as it is on a server.
    line: Option<Arc<LineSeries>>,
    /// What of its bytes is in the metrics already.
    told: (u64, u64),
}

impl Row {
    /// Tells its line what has been moved since this was last done; how much that is.
    fn tell(&mut self) -> Option<(u64, u64)> {
        let line = self.line.as_ref()?;
        let traffic = &self.record.traffic;
        let now = (traffic.up.bytes(), traffic.down.bytes());
        let (up, down) = (now.0 - self.told.0, now.1 - self.told.1);
        line.moved(up, down);
        self.told = now;
        Some((up, down))
    }
}

impl Ledger {
    /// An empty ledger that counts in these series.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, log: AccessLog) -> Self {
        let rows = Rows {
            rows: Slab::new(),
            told: Instant::now(),
            cut: None,
        };
        Self {
            metrics,
            log,
            open: Mutex::new(rows),
            lines: Mutex::default(),
        }
    }

    /// Opens a session's entry.
    pub fn open(self: &Arc<Self>, listener: &Arc<ListenerSeries>, peer: PeerAddr, at: Instant) -> Entry {
        let facts = Facts::new(Arc::clone(listener), peer);
        let record = Arc::new(Record::new(NUMBER.fetch_add(1, Relaxed), at, facts));
        let mut rows = self.rows();
        let row = rows.rows.insert(Row {
            record: Arc::clone(&record),
            line: None,
            told: (0, 0),
        });
        if let Some(ending) = rows.cut {
            record.cut(ending);
        }
        drop(rows);
        Entry {
            ledger: Arc::clone(self),
            row,
            record,
            line: None,
            ending: Ending::Internal,
        }
    }

    /// Tells the metrics what open sessions have moved, and forgets lines of servers that are gone. To be called once
    /// a second: a session that lasts for days shows its bytes while it lasts.
    pub fn tell(&self) {
        let mut rows = self.rows();
        let now = Instant::now();
        let over = now - std::mem::replace(&mut rows.told, now);
        for (_, row) in &mut rows.rows {
            if let Some((up, down)) = row.tell() {
                row.record.paced(up, down, over);
            }
        }
        drop(rows);
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, line| !line.is_over());
    }

    /// Ends every open session so, and whichever is opened from now on.
    pub fn cut_all(&self, ending: Ending) {
        let mut rows = self.rows();
        rows.cut = Some(ending);
        for (_, row) in &rows.rows {
            row.record.cut(ending);
        }
    }

    /// The open sessions. The worker is kept waiting for a few of them at a time only.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<Record>> {
        const AT_ONCE: usize = 256;
        let mut records = Vec::new();
        let mut from = 0;
        loop {
            let rows = self.rows();
            let end = rows.rows.capacity();
            let some = (from..end.min(from + AT_ONCE)).filter_map(|row| rows.rows.get(row));
            records.extend(some.map(|row| Arc::clone(&row.record)));
            drop(rows);
            from += AT_ONCE;
            if from >= end {
                return records;
            }
        }
    }

    fn line(&self, listener: &Arc<ListenerSeries>, pool: &Arc<str>, server: Option<&Arc<Server>>) -> Arc<LineSeries> {
        let key = LineKey {
            listener: listener.id(),
            pool: Arc::clone(pool),
            server: server.map(|server| server.id()),
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&key).filter(|line| !line.is_over()) {
            return Arc::clone(line);
        }
        let line = self.metrics.line(&key, listener, server);
        lines.insert(key, Arc::clone(&line));
        line
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's line in the book. Dropping it writes the line: on every path, exactly once.
#[must_use = "dropping the entry closes it"]
pub struct Entry {
    ledger: Arc<Ledger>,
    row: usize,
    record: Arc<Record>,
    line: Option<Arc<LineSeries>>,
    /// [`Ending::Internal`] unless the session says otherwise: a panic must not look well.
    ending: Ending,
}

impl Entry {
    /// Where the session counts its bytes.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.record.traffic
    }

    /// The session as others see it.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// What is known so far.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.record.facts()
    }

    /// It is known now what the client wants.
    pub fn heard(&mut self) {
        let took = self.record.age();
        let mut facts = self.facts();
        facts.hello = Some(took);
        facts.listener.heard(took);
    }

    /// A pool was chosen.
    pub fn routed(&mut self, pool: &Arc<str>) {
        self.facts().pool = Some(Arc::clone(pool));
    }

    /// A server of the pool is being tried.
    pub fn trying(&mut self, server: &Arc<Server>) {
        let mut facts = self.record.facts();
        facts.attempts += 1;
        facts.server = Some(Arc::clone(server));
        let pool = facts.pool.clone().unwrap_or_else(|| Arc::from(""));
        self.line = Some(self.ledger.line(&facts.listener, &pool, Some(server)));
    }

    /// That took so long, and failed or not. Without a failure the session is on the server.
    pub fn tried(&mut self, took: Duration, failure: Option<ConnectFailure>) {
        if let Some(series) = self.line.as_ref().and_then(|line| line.server()) {
            series.dialled(took, failure);
        }
        if failure.is_none() {
            self.facts().connect = Some(took);
            if let Some(row) = self.ledger.rows().rows.get_mut(self.row) {
                row.line.clone_from(&self.line);
            }
        }
    }

    /// Its bytes flow between these, from now on.
    pub fn flows(&mut self, ends: &Arc<Ends>) {
        self.facts().flows(ends);
    }

    /// Its bytes flow no more; what the kernel knows of the two is asked while they are open.
    pub fn flowed(&mut self, ends: &Ends) {
        let tcp_info = if self.ledger.log.is_on() {
            [&ends.client, &ends.server].map(|end| TcpInfo::of(end.as_fd()))
        } else {
            [None; 2]
        };
        let mut facts = self.facts();
        facts.ends = None;
        facts.tcp_info = tcp_info;
    }

    /// The session is over.
    pub fn close(mut self, ending: Ending) {
        self.ending = ending;
    }

    fn is_worth_a_line(&self) -> bool {
        let moved = self.traffic().up.bytes() + self.traffic().down.bytes();
        moved > 0 || !self.ending.is_probe_like() || self.ledger.log.is_logging_empty_sessions()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let line = self.line.take();
        let facts = self.record.facts();
        let took = self.record.age();
        let line = line.unwrap_or_else(|| {
            let pool = facts.pool.clone().unwrap_or_else(|| Arc::from(""));
            self.ledger.line(&facts.listener, &pool, None)
        });
        let mut row = self.ledger.rows().rows.remove(self.row);
        row.line = Some(Arc::clone(&line));
        row.tell();
        line.ended(self.ending, took);
        if self.ledger.log.is_on() && self.is_worth_a_line() {
            self.ledger.log.write(facts.line(&self.record, self.ending, took));
        }
    }
}
