//! What series there are, and the text of those that the exporter does not keep.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::LineKey;
use crate::account::exposition::{Kind, head, pairs, sample};
use crate::account::series::{LineSeries, ListenerSeries, PoolSeries, ServerSeries};
use crate::account::{Ending, names};
use crate::pool::Pool;

/// How long counters stay after what they count has left. Longer than Prometheus looks back for a sample by default
/// (5 minutes), nobody needs them.
pub(super) const LINGER: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Book {
    pub(super) listeners: HashMap<Arc<str>, Shown<ListenerSeries>>,
    /// Those of sessions that reached no pool under the empty name.
    pub(super) pools: HashMap<Arc<str>, Shown<PoolSeries>>,
    /// By pool and by what they are called.
    pub(super) servers: HashMap<[Arc<str>; 2], Shown<ServerSeries>>,
    pub(super) lines: HashMap<LineKey, Shown<LineSeries>>,
}

/// Series, and since when what they are about is known to have left.
pub(super) struct Shown<T> {
    pub(super) series: Arc<T>,
    left: Option<Instant>,
}

impl<T> Shown<T> {
    fn new(series: T) -> Self {
        Self {
            series: Arc::new(series),
            left: None,
        }
    }

    /// Whether they are still to be shown; `is_there`: what they are about.
    fn stays(&mut self, is_there: bool, now: Instant) -> bool {
        if is_there {
            self.left = None;
            return true;
        }
        now < *self.left.get_or_insert(now) + LINGER
    }
}

/// The series of a key, made if they are not there.
pub(super) fn opened<K: Hash + Eq + Clone, V>(
    map: &mut HashMap<K, Shown<V>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let shown = map.entry(key.clone()).or_insert_with(|| Shown::new(make()));
    Arc::clone(&shown.series)
}

impl Book {
    /// Finds what has left, and drops what left long ago.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.lines.retain(|_, line| {
            let is_there = !line.series.is_over();
            line.stays(is_there, now)
        });
        let lines = self.lines.iter().filter(|(_, line)| line.left.is_none());
        let in_use: HashSet<Arc<str>> = lines.map(|(key, _)| Arc::clone(&key.pool)).collect();
        self.pools.retain(|name, pool| {
            let is_there = pool.series.is_configured() || in_use.contains(name);
            pool.stays(is_there, now)
        });
        self.servers.retain(|_, server| {
            let is_there = !server.series.is_over();
            server.stays(is_there, now)
        });
        self.listeners.retain(|_, listener| {
            let is_there = Arc::strong_count(&listener.series) > 1;
            listener.stays(is_there, now)
        });
    }

    /// Keeps the exporter from forgetting the counters of what is here.
    pub(super) fn touch(&self) {
        self.listeners.values().for_each(|listener| listener.series.touch());
        self.servers.values().for_each(|server| server.series.touch());
        self.lines.values().for_each(|line| line.series.touch());
    }

    pub(super) fn write_gauges<'a>(
        &self,
        sessions: impl IntoIterator<Item = (Arc<str>, usize)>,
        pools: impl IntoIterator<Item = &'a Pool>,
        text: &mut String,
    ) {
        head(text, names::SESSIONS_ACTIVE, Kind::Gauge, "Sessions now.");
        for (name, active) in sessions {
            sample(text, names::SESSIONS_ACTIVE, &pairs(&[("listener", &name)]), active);
        }
        let (mut up, mut active, mut certificates) = (String::new(), String::new(), String::new());
        let mut shown = HashSet::new();
        for pool in pools {
            for server in pool.servers().iter() {
                let name = [pool.name(), &server.spec().label].map(Arc::clone);
                let labels = of_server(&name);
                let series = self.servers.get(&name).map(|shown| &shown.series);
                if !shown.insert(name) {
                    continue;
                }
                sample(&mut up, names::SERVER_UP, &labels, u8::from(server.is_up()));
                let others = series.map_or(0, |series| series.live_but(server.id()));
                let live = server.live() + others;
                sample(&mut active, names::SERVER_SESSIONS_ACTIVE, &labels, live);
                if let Some(end) = series.and_then(|series| series.certificate_end()) {
                    sample(&mut certificates, names::CERTIFICATE_EXPIRY, &labels, end);
                }
            }
        }
        // Of servers that are configured no more, and still have sessions.
        for (name, server) in self.servers.iter().filter(|(name, _)| !shown.contains(*name)) {
            let live = server.series.live();
            if live > 0 {
                sample(&mut active, names::SERVER_SESSIONS_ACTIVE, &of_server(name), live);
            }
        }
        for (name, help, samples) in [
            (names::SERVER_SESSIONS_ACTIVE, SERVER_SESSIONS_ACTIVE_HELP, active),
            (names::SERVER_UP, SERVER_UP_HELP, up),
            (names::CERTIFICATE_EXPIRY, CERTIFICATE_EXPIRY_HELP, certificates),
        ] {
            if !samples.is_empty() {
                head(text, name, Kind::Gauge, help);
                *text += &samples;
            }
        }
    }

    pub(super) fn write_pools(&self, text: &mut String) {
        let help =
            "Sessions that are over, by pool and how they ended; those that reached no pool under an empty name.";
        head(text, names::POOL_SESSIONS, Kind::Counter, help);
        for (name, pool) in &self.pools {
            for ending in Ending::ALL {
                let labels = pairs(&[("pool", name), ("ending", ending.as_str())]);
                sample(text, names::POOL_SESSIONS, &labels, pool.series.sessions(*ending));
            }
        }
        let help = "From accept to the end of a session.";
        head(text, names::SESSION_DURATION, Kind::Histogram, help);
        for (name, pool) in &self.pools {
            let labels = pairs(&[("pool", name)]);
            pool.series.duration.write(names::SESSION_DURATION, &labels, text);
        }
    }

    pub(super) fn write_handshakes(&self, text: &mut String) {
        let help = "From accept until it was known what the client wants.";
        head(text, names::HELLO_DURATION, Kind::Histogram, help);
        for (name, listener) in &self.listeners {
            let labels = pairs(&[("listener", name)]);
            listener.series.hello.write(names::HELLO_DURATION, &labels, text);
        }
        let help = "Connecting to a server, successful attempts.";
        head(text, names::CONNECT_DURATION, Kind::Histogram, help);
        for (name, server) in &self.servers {
            server
                .series
                .connect
                .write(names::CONNECT_DURATION, &of_server(name), text);
        }
    }
}

fn of_server([pool, server]: &[Arc<str>; 2]) -> String {
    pairs(&[("pool", pool), ("server", server)])
}

const SERVER_SESSIONS_ACTIVE_HELP: &str = "Sessions on a server now, those being connected included.";
const SERVER_UP_HELP: &str =
    "Whether a server is up: its checks say so, or it has none, and failed connects have not taken it out.";
const CERTIFICATE_EXPIRY_HELP: &str =
    "When the certificate ends that a server showed at its latest check, in seconds since the epoch.";
