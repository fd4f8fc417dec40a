//! Compares clients, servers, access log and metrics, and lists what does not agree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::access::Line;
use crate::cost::Cost;
use crate::kinds::{KINDS, Kind};
use crate::load::Outcome;
use crate::operator::OperatorWork;
use crate::records::{End, Record, address_in_header};
use crate::servers::Server;
use crate::site::{MOVING, QUEUED, QUEUED_SESSIONS_MAX, is_denied};
use crate::support::metrics::Metrics;

/// Everything that was recorded in a run.
pub struct Evidence {
    pub servers: Vec<Arc<Server>>,
    pub records: HashMap<u32, Record>,
    pub lines: Vec<Line>,
    /// Lines of the access log that cannot be parsed.
    pub broken_lines: Vec<String>,
    pub metrics: Metrics,
    pub operator_work: OperatorWork,
    pub outcome: Outcome,
    /// The cost before the load.
    pub before: Cost,
    /// The cost after the load.
    pub after: Cost,
    /// The diagnostic log.
    pub log: Vec<serde_json::Value>,
    /// The exit code of the process.
    pub code: Option<i32>,
}

/// Endings that any session may have, because a server dies or the operator interferes.
const EXTERNAL_ENDINGS: [&str; 6] = [
    "server_reset",
    "connect_failed",
    "no_server",
    "killed",
    "server_drained",
    "server_down",
];

const WELL_ENDINGS: [&str; 2] = ["client_closed", "server_closed"];

/// Endings that the client may see as an early end of the stream.
const SHORT_ENDINGS: [&str; 15] = [
    "hello_timeout",
    "hello_too_long",
    "hello_invalid",
    "client_left_early",
    "no_route",
    "refused",
    "no_server",
    "connect_failed",
    "idle_timeout",
    "denied",
    "limited",
    "servers_full",
    "queue_full",
    "queue_timeout",
    "proxy_invalid",
];

/// Endings of sessions that a guard refuses. The access log has lines for only some of these sessions.
const REFUSED_BY_GUARD: [&str; 2] = ["denied", "limited"];

/// The violations found.
#[derive(Default)]
struct Violations(Vec<String>);

impl Violations {
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

impl Evidence {
    pub fn violations(&self) -> Vec<String> {
        let mut found = Violations::default();
        found
            .0
            .extend(self.operator_work.wrong.iter().chain(&self.outcome.wrong).cloned());
        found.0.extend(
            self.broken_lines
                .iter()
                .map(|line| format!("not an access log line: {line}")),
        );
        found.must(self.code == Some(0), || format!("exit code {:?}", self.code));
        self.sessions(&mut found);
        self.unlogged(&mut found);
        self.sums(&mut found);
        self.gauges(&mut found);
        self.limits(&mut found);
        self.costs(&mut found);
        self.log(&mut found);
        found.0
    }

    /// Compares the client, the server and the access log line of each session.
    fn sessions(&self, found: &mut Violations) {
        let mut seen = HashSet::new();
        for line in &self.lines {
            let Some(record) = line.session.and_then(|session| self.records.get(&session)) else {
                found.0.push(format!("a line of an unknown session: {line:?}"));
                continue;
            };
            found.must(seen.insert(line.session), || {
                format!("two lines of one session: {line:?}")
            });
            for wrong in judge(line, record) {
                found.0.push(format!("{wrong}: {line:?} {record:?}"));
            }
        }
        for (session, record) in &self.records {
            let ends = [
                record.client.map(|(_, side)| side.end),
                record.server.map(|side| side.end),
            ];
            let is_bad = |end: &Option<End>| matches!(end, Some(End::Wrong | End::Stalled));
            found.must(!ends.iter().any(is_bad), || {
                format!("wrong content or stalled: session {session} {record:?}")
            });
        }
        let killed = self.lines_with_ending("killed");
        let kills = self.operator_work.counts.get("kill").copied().unwrap_or(0);
        found.must(killed <= kills, || format!("{killed} killed, {kills} kills"));
    }

    fn lines_with_ending(&self, ending: &str) -> u64 {
        self.lines.iter().filter(|line| line.ending == ending).count() as u64
    }

    fn dropped(&self) -> u64 {
        self.metrics.sum("acequia_log_lines_dropped_total", &[]) as u64
    }

    pub fn connections(&self) -> u64 {
        self.metrics.sum("acequia_connections_total", &[]) as u64
    }

    /// The number of sessions for which no line was written: they were empty, or a guard refused them.
    pub fn sessions_without_line(&self) -> u64 {
        self.connections()
            .saturating_sub(self.lines.len() as u64 + self.dropped())
    }

    /// A session may lack a line only if all of these are true:
    /// - No server read its order.
    /// - Its client received nothing.
    /// - Its client left by itself, or a guard may have refused it.
    fn unlogged(&self, found: &mut Violations) {
        let logged: HashSet<u32> = self.lines.iter().filter_map(|line| line.session).collect();
        let unlogged: Vec<_> = self
            .records
            .iter()
            .filter(|(session, _)| !logged.contains(session))
            .collect();
        let of_clients = unlogged.iter().filter(|(_, record)| record.client.is_some()).count() as u64;
        let (without_line, dropped) = (self.sessions_without_line(), self.dropped());
        found.must(self.connections() >= self.lines.len() as u64 + dropped, || {
            "more lines than sessions".to_owned()
        });
        found.must(without_line <= of_clients, || {
            format!("{without_line} sessions without a line, but only {of_clients} clients without one")
        });
        if dropped == 0 {
            for (session, record) in unlogged {
                let client = record.client.map(|(_, side)| side);
                let is_refused = may_be_refused(*session, record);
                let may_lack_line =
                    client.is_some_and(|side| (side.end == End::Left || is_refused) && side.received == 0);
                found.must(may_lack_line && record.server.is_none(), || {
                    format!("no line: {session} {record:?}")
                });
            }
        }
    }

    /// Compares the metrics with the access log, which [`Self::sessions`] has compared with both sides. Leaves out
    /// [`MOVING`], the name of a pool and its listener, whose series may have been removed.
    fn sums(&self, found: &mut Violations) {
        let is_log_complete = self.dropped() == 0;
        let mut sessions = BTreeMap::<_, u64>::new();
        let mut bytes = BTreeMap::<_, u64>::new();
        for line in &self.lines {
            let key = [&line.listener, &line.pool, &line.server];
            *sessions.entry((key, line.ending.as_str())).or_default() += 1;
            *bytes.entry((key, "up")).or_default() += line.up;
            *bytes.entry((key, "down")).or_default() += line.down;
        }
        let mut unlogged = 0;
        for (name, label, of_log) in [
            ("acequia_sessions_total", "ending", &sessions),
            ("acequia_bytes_total", "direction", &bytes),
        ] {
            for ((key, value), logged) in of_log.iter().filter(|((key, _), _)| key[1] != MOVING) {
                let labels = [("listener", key[0]), ("pool", key[1]), ("server", key[2])];
                let labels = labels.map(|(key, value)| (key, value.as_str()));
                let counted = self.metrics.sum(name, &[&labels[..], &[(label, value)]].concat()) as u64;
                let may_lack_line = ["client_closed", "client_reset", "client_left_early"].contains(value)
                    || REFUSED_BY_GUARD.contains(value);
                if may_lack_line {
                    unlogged += counted.saturating_sub(*logged);
                }
                let holds = counted == *logged || counted > *logged && (may_lack_line || !is_log_complete);
                found.must(holds, || {
                    format!("{name} {key:?} {value}: {counted}, but {logged} in the log")
                });
            }
        }
        for listener in self.metrics.series("acequia_connections_total", &[]) {
            let name = listener.labels["listener"].as_str();
            let ended = self.metrics.sum("acequia_sessions_total", &[("listener", name)]);
            let holds = name == MOVING || ended == listener.value;
            found.must(holds, || {
                format!("{name}: {} connections, {ended} sessions", listener.value)
            });
        }
        for (direction, logged) in [
            ("up", self.bytes(|line| line.up)),
            ("down", self.bytes(|line| line.down)),
        ] {
            let labels = [("direction", direction)];
            let all = self.metrics.sum("acequia_bytes_total", &labels) as u64;
            let moving = [labels[0], ("listener", MOVING)];
            let counted = all - self.metrics.sum("acequia_bytes_total", &moving) as u64;
            found.must(counted == logged || counted > logged && !is_log_complete, || {
                format!("{counted} bytes {direction}, but {logged} in the log")
            });
        }
        let without_line = self.sessions_without_line();
        found.must(unlogged <= without_line, || {
            format!("{unlogged} sessions more than lines, {without_line} without a line")
        });
        found.must(
            self.metrics.sum("acequia_sessions_total", &[("ending", "internal")]) == 0.0,
            || "sessions ended as internal".to_owned(),
        );
    }

    /// Bytes of all lines, except lines of [`MOVING`].
    fn bytes(&self, of: fn(&Line) -> u64) -> u64 {
        self.lines.iter().filter(|line| line.pool != MOVING).map(of).sum()
    }

    fn gauges(&self, found: &mut Violations) {
        for name in [
            "acequia_sessions_active",
            "acequia_server_sessions_active",
            "acequia_guard_sessions",
            "acequia_guard_sources",
            "acequia_pool_queue",
        ] {
            for gauge in self.metrics.series(name, &[]) {
                found.must(gauge.value == 0.0, || format!("not 0: {gauge:?}"));
            }
        }
        let down = servers_down(&self.metrics);
        found.must(down.is_empty(), || format!("not up again: {down:?}"));
    }

    /// No server of [`QUEUED`] has more sessions than it takes. Clients were denied, were limited and waited too long
    /// in a queue, and the guard that only reports has reported. The metrics of guards and those of sessions count the
    /// same number of refusals; the log shows at most as many.
    fn limits(&self, found: &mut Violations) {
        for server in self.servers.iter().filter(|server| server.pool == QUEUED) {
            found.must(server.most_open() <= QUEUED_SESSIONS_MAX, || {
                format!(
                    "{} sessions at a server that takes {QUEUED_SESSIONS_MAX}",
                    server.most_open()
                )
            });
        }
        for ending in REFUSED_BY_GUARD.iter().chain(&["queue_timeout"]) {
            let ended = self.metrics.sum("acequia_sessions_total", &[("ending", ending)]);
            found.must(ended > 0.0, || format!("{ending}: nobody ended so"));
        }
        let refusals = self.metrics.sum("acequia_guard_refusals_total", &[]) as u64;
        let sessions = |ending: &&str| self.metrics.sum("acequia_sessions_total", &[("ending", ending)]) as u64;
        let refused = REFUSED_BY_GUARD.iter().map(sessions).sum::<u64>();
        found.must(refusals == refused, || {
            format!("{refusals} refusals by guards, {refused} sessions")
        });
        let logged = REFUSED_BY_GUARD
            .iter()
            .map(|ending| self.lines_with_ending(ending))
            .sum::<u64>();
        let suppressed = self.lines.iter().map(|line| line.suppressed).sum::<u64>();
        // Refusals that were suppressed after the last line are in no line.
        found.must(logged + suppressed <= refusals, || {
            format!("{refusals} refusals, but {logged} logged and {suppressed} suppressed")
        });
        let reports = self
            .metrics
            .sum("acequia_guard_reports_total", &[("guard", "reporting")]);
        found.must(reports > 0.0, || {
            "a guard that only reports has nothing to report".to_owned()
        });
    }

    fn costs(&self, found: &mut Violations) {
        let (before, after) = (self.before, self.after);
        found.must(after.sockets <= before.sockets, || {
            format!("sockets left: {before:?} {after:?}")
        });
        found.must(after.other_descriptors <= before.other_descriptors, || {
            format!("descriptors left: {before:?} {after:?}")
        });
        found.must(after.pipes <= before.pipes + PIPE_ENDS_KEPT, || {
            format!("pipes left: {before:?} {after:?}")
        });
        found.must(after.threads <= before.threads, || {
            format!("threads left: {before:?} {after:?}")
        });
        found.must(after.blocking_threads <= BLOCKING_THREADS_MAX, || {
            format!("blocking threads left: {before:?} {after:?}")
        });
        let (early, late) = self.memory();
        found.must(late <= early + early / 10 + GROWTH_KIB_MAX, || {
            format!("memory grows: {early} KiB early, {late} KiB late")
        });
    }

    /// The median of resident memory in KiB: in the second quarter of the run (after the warm-up), and in the last one.
    pub fn memory(&self) -> (u64, u64) {
        let all: Vec<u64> = self.operator_work.costs.iter().map(|cost| cost.rss_kib).collect();
        let quarter = all.len() / 4;
        let median = |part: &[u64]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part.get(part.len() / 2).copied().unwrap_or(0)
        };
        (median(&all[quarter..2 * quarter]), median(&all[all.len() - quarter..]))
    }

    fn log(&self, found: &mut Violations) {
        let errors: Vec<_> = self.log.iter().filter(|line| line["level"] == "ERROR").collect();
        let is_refused_reload = |line: &serde_json::Value| line["message"].to_string().contains("not reloaded");
        for line in errors.iter().filter(|line| !is_refused_reload(line)) {
            found.0.push(format!("an unexpected error in the log: {line}"));
        }
        let refused_reloads = errors.iter().filter(|line| is_refused_reload(line)).count() as u64;
        found.must(refused_reloads == self.operator_work.invalid_reloads, || {
            format!(
                "{refused_reloads} refused reloads in the log, {} done",
                self.operator_work.invalid_reloads
            )
        });
        for line in self.log.iter().filter(|line| line.is_string()) {
            found.0.push(format!("not a log line: {line}"));
        }
        let (lines, bound) = (self.log.len() as u64, self.log_lines_max());
        found.must(lines <= bound, || format!("{lines} lines in the log, {bound} at most"));
    }

    /// The most lines of the diagnostic log: a few for each death of a server and each operation, none for a session.
    pub fn log_lines_max(&self) -> u64 {
        100 + 3 * (self.outcome.deaths + self.operator_work.counts.values().sum::<u64>())
    }
}

/// Allowed growth of memory after the warm-up, in addition to a tenth: for larger session tables and log queues.
const GROWTH_KIB_MAX: u64 = 1024;

/// The most threads of the blocking pool after the load. They render the metrics that are read until all has settled.
const BLOCKING_THREADS_MAX: usize = 8;

/// Allowed pipe ends that stay open: all workers together keep at most 256 pipes for later use, with two ends each.
const PIPE_ENDS_KEPT: usize = 2 * 256;

/// The violations of one session.
fn judge(line: &Line, record: &Record) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let Some((kind, client)) = record.client else {
        return vec!["a session without a client"];
    };
    let kind = KINDS
        .iter()
        .find(|of| of.name == kind)
        .expect("every kind is in the list");
    let ending = line.ending.as_str();
    let is_well = WELL_ENDINGS.contains(&ending);
    let mut must = |holds: bool, what| {
        if !holds {
            wrong.push(what);
        }
    };
    must(
        kind.endings.contains(&ending) || EXTERNAL_ENDINGS.contains(&ending),
        "an ending that this kind must not have",
    );
    must(line.listener == kind.listener, "another listener");
    if let Some(session) = line.session {
        let is_denied = kind.listener == "denying" && is_denied(session);
        must((ending == "denied") == is_denied, "denied, or not, by mistake");
        if kind.listener == "fronted" && (is_well || record.server.is_some()) {
            let prefix = format!("{}:", address_in_header(session));
            must(
                line.client.starts_with(&prefix),
                "another client than its PROXY header names",
            );
        }
    }
    // acequia counts the bytes of a PROXY header only if the header is incomplete or invalid. A client that leaves
    // while it sends its header may not have counted them.
    let may_include_header = kind.listener == "fronted" && line.server.is_empty();
    must(
        may_include_header || line.up <= client.sent,
        "more bytes up than the client sent",
    );
    // A client that is refused may get an alert from acequia itself, which is not counted.
    must(
        client.received <= line.down || line.down == 0,
        "more bytes received by the client than down",
    );
    if let Some(server) = record.server {
        must(server.received <= line.up, "more bytes received by the server than up");
        must(line.down <= server.sent, "more bytes down than the server sent");
        if is_well && client.end == End::Well && server.end == End::Well {
            let all = [
                (client.sent, line.up),
                (line.up, server.received),
                (server.sent, line.down),
                (line.down, client.received),
            ];
            must(all.iter().all(|(one, other)| one == other), "byte counts that differ");
        }
    }
    must(
        !is_well || client.end == End::Well || client.end == End::Left,
        "ended well, but not for the client",
    );
    must(
        client.end != End::Short || SHORT_ENDINGS.contains(&ending),
        "a cut session that looks complete to the client",
    );
    must(
        ending != "client_reset" || client.end == End::Left,
        "client_reset without a reset by the client",
    );
    must(
        ending != "server_reset" || server_reset_is_explained(kind, record, client.end),
        "server_reset without a reset by the server",
    );
    wrong
}

/// Whether a guard may have refused this client.
fn may_be_refused(session: u32, record: &Record) -> bool {
    let listener = record
        .client
        .and_then(|(name, _)| KINDS.iter().find(|kind| kind.name == name))
        .map(|kind| kind.listener);
    match listener {
        Some("denying") => is_denied(session),
        Some("limited") => true,
        _ => false,
    }
}

fn server_reset_is_explained(kind: &Kind, record: &Record, client: End) -> bool {
    let is_in_script = kind.endings.contains(&"server_reset");
    // A server also resets when its client leaves early, and when it dies. A server without a record died before it had
    // read the client's order (see `order.rs`).
    is_in_script || client == End::Left || record.server.is_none_or(|server| server.end == End::Died)
}

/// The servers that are not up, except those that never are.
pub fn servers_down(metrics: &Metrics) -> Vec<String> {
    let servers_with = |name, value| {
        let servers = metrics.series(name, &[]).into_iter();
        servers.filter(move |server| server.value == value)
    };
    let down = servers_with("acequia_server_healthy", 0.0).chain(servers_with("acequia_server_ejected", 1.0));
    let down = down.map(|server| &server.labels["server"]);
    let can_be_up = |name: &&String| !name.contains("refusing") && !name.contains("hanging");
    down.filter(can_be_up).cloned().collect()
}
