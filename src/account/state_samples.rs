//! The samples that are read from the state of the process when metrics are rendered. So the samples of a server
//! disappear when the server is removed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::exposition::{
    GaugeFamily, MetricType, format_families, format_labels, seconds_since_epoch, write_header, write_sample,
};
use super::names;
use crate::pool::{AdminState, Member, MemberState, Pool};

/// The state of a configured pool.
#[derive(Clone, Copy)]
pub struct PoolStateSample<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// Whether it has a server for new sessions, or starts one for them; a fallback does not count.
    pub serves: bool,
    /// Whether a server can be unusable because of its role or lag although it answers.
    pub role_matters: bool,
}

/// Writes the states of pools and their servers.
#[must_use]
pub fn write_states<'a>(pools: impl IntoIterator<Item = PoolStateSample<'a>>, now: Instant) -> String {
    let mut usable = GaugeFamily::new(
        names::POOL_USABLE,
        "Whether a pool has a server for new sessions, or starts one for them; a fallback does not count.",
    );
    let mut counts = GaugeFamily::new(
        names::POOL_SERVERS,
        "Servers of a pool, by state; each server is in one state.",
    );
    let mut servers = ServerFamilies::new();
    for PoolStateSample {
        pool,
        serves,
        role_matters,
    } in pools
    {
        usable.add(&format_labels(&[("pool", pool.name())]), u64::from(serves));
        let mut by_state = [0; MemberState::ALL.len()];
        let mut seen = HashSet::new();
        for member in pool.servers().iter() {
            // Two servers have one label while a name moves to another address.
            if !seen.insert(&*member.spec().label) {
                continue;
            }
            by_state[member.state(now) as usize] += 1;
            servers.add(pool, member, role_matters, now);
        }
        for state in MemberState::ALL {
            let labels = format_labels(&[("pool", pool.name()), ("state", state.as_str())]);
            counts.add(&labels, by_state[state as usize]);
        }
    }
    format_families([&usable, &counts].into_iter().chain(servers.all()))
}

/// The families with a sample for each server.
struct ServerFamilies {
    healthy: GaugeFamily,
    role_ok: GaugeFamily,
    admin_states: GaugeFamily,
    ejected: GaugeFamily,
    usable: GaugeFamily,
    weight: GaugeFamily,
    lag: GaugeFamily,
}

impl ServerFamilies {
    fn new() -> Self {
        Self {
            healthy: GaugeFamily::new(
                names::SERVER_HEALTHY,
                "Whether a server answers its health checks, or has no checks; its role does not matter.",
            ),
            role_ok: GaugeFamily::new(
                names::SERVER_ROLE_OK,
                "Whether a server of a pool with role, max_lag or wrong_role has the role, and is not too far behind.",
            ),
            admin_states: GaugeFamily::new(
                names::SERVER_USE,
                "What an operator, the agent, the source or failback has set for a server; one of the states is 1.",
            ),
            ejected: GaugeFamily::new(
                names::SERVER_EJECTED,
                "Whether a server is ejected because sessions to it failed.",
            ),
            usable: GaugeFamily::new(
                names::SERVER_USABLE,
                "Whether a server gets new sessions, if no better tier is usable.",
            ),
            weight: GaugeFamily::new(names::SERVER_WEIGHT, "The weight in force for a server."),
            lag: GaugeFamily::new(
                names::SERVER_LAG,
                "How long a replica has been behind its primary at the latest check, if that is known.",
            ),
        }
    }

    fn add(&mut self, pool: &Pool, member: &Member, role_matters: bool, now: Instant) {
        let (pool_name, server) = (pool.name(), &*member.spec().label);
        let labels = format_labels(&[("pool", pool_name), ("server", server)]);
        self.healthy.add(&labels, u64::from(member.is_healthy()));
        if role_matters {
            self.role_ok.add(&labels, u64::from(!member.is_unfit()));
        }
        let admin_state = member.shown_overrides().admin_state;
        for state in [
            AdminState::Enabled,
            AdminState::Draining,
            AdminState::Disabled,
            AdminState::AwaitingFailback,
        ] {
            let word = state.as_str().replace(' ', "_"); // as in `acequia_pool_servers`
            let state_labels = format_labels(&[("pool", pool_name), ("server", server), ("state", &word)]);
            self.admin_states.add(&state_labels, u64::from(state == admin_state));
        }
        self.ejected.add(&labels, u64::from(member.is_ejected()));
        self.usable.add(&labels, u64::from(pool.uses(member, now)));
        self.weight.add(&labels, u64::from(member.weight()));
        if let Some(lag) = member.lag() {
            self.lag.add(&labels, lag.as_secs_f64());
        }
    }

    fn all(&self) -> [&GaugeFamily; 7] {
        [
            &self.healthy,
            &self.role_ok,
            &self.admin_states,
            &self.ejected,
            &self.usable,
            &self.weight,
            &self.lag,
        ]
    }
}

/// Writes the maximum numbers of sessions: of each listener, and of the process.
#[must_use]
pub fn write_connection_limits(limits: impl IntoIterator<Item = (Arc<str>, usize)>, process_limit: usize) -> String {
    let mut family = GaugeFamily::new(
        names::MAX_CONNECTIONS,
        "The most sessions of a listener at once: its own limit, or that of the process.",
    );
    for (listener, limit) in limits {
        family.add(&format_labels(&[("listener", &listener)]), limit as u64);
    }
    let mut of_process = GaugeFamily::new(
        names::PROCESS_MAX_CONNECTIONS,
        "The most sessions of all listeners together at once.",
    );
    of_process.add("", process_limit as u64);
    format_families([&family, &of_process])
}

/// Writes how long each worker has been busy since the start.
#[must_use]
pub fn write_busy(workers: impl IntoIterator<Item = Duration>) -> String {
    let help = "Time for which a worker was not waiting for events. The value is up to a second late.";
    let mut text = String::new();
    write_header(&mut text, names::WORKER_BUSY, MetricType::Counter, help);
    for (number, busy) in workers.into_iter().enumerate() {
        let labels = format_labels(&[("worker", &number.to_string())]);
        write_sample(&mut text, names::WORKER_BUSY, &labels, busy.as_secs_f64());
    }
    text
}

/// The state of the source of a pool's servers.
#[derive(Clone, Copy, Debug)]
pub struct DiscoverySample<'a> {
    /// The name of the pool.
    pub pool: &'a str,
    /// Whether the latest answer of the source was usable.
    pub is_up: bool,
    /// When the source last gave a usable answer; `None`: never since the start.
    pub last_success: Option<SystemTime>,
}

/// Writes the states of the sources of servers.
#[must_use]
pub fn write_discovery<'a>(sources: impl IntoIterator<Item = DiscoverySample<'a>>) -> String {
    let mut up = GaugeFamily::new(
        names::DISCOVERY_UP,
        "Whether the latest answer of the source of a pool's servers was usable.",
    );
    let mut last_success = GaugeFamily::new(
        names::DISCOVERY_LAST_SUCCESS,
        "When the source of a pool's servers last gave a usable answer, in seconds since the Unix epoch.",
    );
    for sample in sources {
        let labels = format_labels(&[("pool", sample.pool)]);
        up.add(&labels, u64::from(sample.is_up));
        last_success.add(&labels, seconds_since_epoch(sample.last_success));
    }
    format_families([&up, &last_success])
}

/// The state of the configuration from the fleet's store.
#[derive(Clone, Copy, Debug)]
pub struct RemoteSample {
    /// Whether the store answers.
    pub is_up: bool,
    /// Whether the latest configuration is not in force, because its texts or the file of this machine were rejected.
    pub is_refused: bool,
    /// The revision in force; `None`: none is.
    pub revision: Option<i64>,
}

/// Writes the state of the configuration from a store, if it is from one.
#[must_use]
pub fn write_remote(sample: Option<RemoteSample>) -> String {
    let Some(sample) = sample else {
        return String::new();
    };
    let mut up = GaugeFamily::new(names::REMOTE_UP, "Whether the store of the configuration answers.");
    up.add("", u64::from(sample.is_up));
    let mut refused = GaugeFamily::new(
        names::REMOTE_REFUSED,
        "Whether the latest configuration, of the store or the local file, is not in force, because it was rejected.",
    );
    refused.add("", u64::from(sample.is_refused));
    let mut revision = GaugeFamily::new(
        names::REMOTE_REVISION,
        "The revision of the configuration of the store that is in force; 0 while none is.",
    );
    revision.add("", sample.revision.unwrap_or(0));
    format_families([&up, &refused, &revision])
}

/// Writes for how many files of `state_dir` the latest write failed; `None`: no `state_dir` is configured.
#[must_use]
pub fn write_unsaved(files: Option<usize>) -> String {
    let mut family = GaugeFamily::new(
        names::STATE_DIR_UNSAVED,
        "Files of `state_dir` whose latest write failed.",
    );
    if let Some(files) = files {
        family.add("", files);
    }
    format_families([&family])
}
