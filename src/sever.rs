//! Closes sessions of servers that should have none: servers that went down, are drained, are of a worse tier than the
//! best one that is up again, are those of a fallback whose pool is usable again, or have left their pool. The sessions
//! are closed over a time, so that their clients do not all reconnect at once.
//!
//! It compares states instead of handling events. So a reload, a session that connects late, and a server that is up again
//! early need no code of their own. All servers are looked at only after a change. Only the `GroupsToClose` are polled: the
//! groups that should have no sessions. If there are none, this module sleeps until something changes.

mod pace;
mod groups;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::account::{Ending, Ledger, Record};
use crate::live::{INTERVAL_MIN, Live, LivePool};
use crate::pool::{Server, ServerId};
use groups::{GroupsToClose, cause};
pub use pace::Pace;

/// Why sessions of a server are closed, and over what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cause {
    ending: Ending,
    over: Duration,
    /// When the server was last seen to serve sessions, if those that were connected to it since, or still wait for its first
    /// answer, are closed at once. They came to it while it hung. It must not serve them when it runs again: it may be an
    /// old primary by then.
    ends_since: Option<Instant>,
}

impl Cause {
    /// This cause, but no session is closed later than by the other cause.
    fn without_delay(self, other: Self) -> Self {
        let cause = if other.ends_since.is_some() { other } else { self };
        Self {
            over: self.over.min(other.over),
            ..cause
        }
    }
}

/// Sessions that are closed at one pace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Group {
    /// The sessions of a server.
    Server(ServerId),
    /// The sessions on the servers of a fallback that were meant for the pool of this name.
    OnFallback(Arc<str>),
}

/// The closing of a group's sessions.
#[derive(Clone, Copy, Debug)]
struct Severing {
    cause: Cause,
    pace: Pace,
}

impl Severing {
    fn new(cause: Cause, began: Instant, first: usize) -> Self {
        let over = cause.over;
        Self {
            cause,
            pace: Pace { over, began, first },
        }
    }

    /// Puts the cause of `anew` in force. The pace begins anew only with another ending or another time: a server that is
    /// seen to serve sessions now and then does not let its sessions go on for ever.
    fn update(&mut self, anew: Self) {
        let pace_of = |cause: &Cause| (cause.ending, cause.over);
        if pace_of(&self.cause) == pace_of(&anew.cause) {
            self.cause = anew.cause;
        } else {
            *self = anew;
        }
    }
}

/// Closes sessions where that is necessary, for as long as it is polled.
pub async fn run(live: Arc<Live>, ledgers: Vec<Arc<Ledger>>) {
    let mut changes = live.changes();
    let mut severer = Severer::default();
    let mut has_changed = true;
    loop {
        let next = severer.close_due(&live, &ledgers, has_changed, Instant::now());
        has_changed = changes.next(next).await;
    }
}

/// The state between two looks.
#[derive(Default)]
struct Severer {
    groups: GroupsToClose,
    severings: HashMap<Group, Severing>,
}

impl Severer {
    /// Closes the sessions that are due. Returns when to look again; `None`: not before something has changed.
    fn close_due(&mut self, live: &Live, ledgers: &[Arc<Ledger>], has_changed: bool, now: Instant) -> Option<Instant> {
        if has_changed || self.groups.change_at().is_some_and(|at| at <= now) {
            self.groups = GroupsToClose::find(live, &self.severings, now);
        }
        let wanted = self.groups.with_sessions(&self.severings);
        if wanted.is_empty() {
            self.severings.clear();
        } else {
            sever(&wanted, &mut self.severings, ledgers, now);
        }
        let poll = (!self.groups.is_empty()).then_some(now + INTERVAL_MIN);
        poll.into_iter().chain(self.groups.change_at()).min()
    }
}

/// The time over which the sessions of a server that has just gone down are closed; `None`: they go on, or there are none.
#[must_use]
pub fn closes_over(pool: &LivePool, server: &Server, now: Instant) -> Option<Duration> {
    if server.live() == 0 {
        return None; // before the search, which would take long where thousands of servers change at once
    }
    let servers = pool.servers();
    let member = servers.iter().find(|member| member.id() == server.id())?;
    Some(cause(pool, member, now)?.over)
}

/// Closes the sessions that are due: with `ends_since` all that were connected since or await their server, and of the others
/// the oldest first.
fn sever(
    wanted: &HashMap<Group, Cause>,
    severings: &mut HashMap<Group, Severing>,
    ledgers: &[Arc<Ledger>],
    now: Instant,
) {
    let mut sessions: HashMap<Group, Vec<Arc<Record>>> = HashMap::new();
    for record in ledgers.iter().flat_map(|ledger| ledger.records()) {
        let Some(server) = record.server().map(Group::Server) else {
            continue;
        };
        if record.has_server_ended() {
            continue; // its client may still have to get the last bytes
        }
        let ends_at_once = |cause: &&Cause| {
            let since = cause.ends_since;
            since.is_some_and(|since| record.is_connected_after(since) || record.awaits_server())
        };
        if let Some(cause) = wanted.get(&server).filter(ends_at_once) {
            record.cut(cause.ending);
            continue;
        }
        let on_fallback = || record.fallback_from().map(Group::OnFallback);
        let group = if wanted.contains_key(&server) {
            Some(server)
        } else {
            on_fallback().filter(|group| wanted.contains_key(group))
        };
        if let Some(group) = group {
            sessions.entry(group).or_default().push(record);
        }
    }
    severings.retain(|group, _| sessions.contains_key(group));
    for (group, mut there) in sessions {
        let anew = Severing::new(wanted[&group], now, there.len());
        let severing = severings.entry(group).or_insert(anew);
        severing.update(anew);
        there.sort_unstable_by_key(|record| record.id());
        let due = severing.pace.due(now, there.len());
        for record in there.iter().take(due) {
            record.cut(severing.cause.ending);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::account::Metrics;
    use crate::account::access_log::{self, AccessTarget, LogFormat};
    use crate::addr::{ClientAddr, PeerAddr};
    use crate::plan::Plan;
    use crate::pool::{Lease, Override};

    fn plan(servers: &[String], keys: &str) -> Plan {
        let text = format!(
            "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\n{keys}\nhealth = {{ check = \"off\" }}\n\
             servers = [{}]",
            servers.join(", ")
        );
        crate::config::read("a.toml", &text).ok().unwrap().plan
    }

    fn live(servers: &[String], keys: &str) -> Live {
        Live::new(plan(servers, keys), Vec::new())
    }

    fn pick(live: &Live, tried: &[ServerId]) -> Lease {
        let in_force = live.in_force();
        let pool = in_force.pool("p").unwrap();
        pool.pick(ClientAddr::new("192.0.2.1:1".parse().unwrap()), tried, Instant::now())
            .unwrap()
    }

    #[tokio::test]
    async fn ten_thousand_idle_servers_are_examined_only_after_a_change() {
        let server = |number: u32| format!("\"10.0.{}.{}:1\"", number / 250, number % 250);
        let servers: Vec<_> = (0..10_000).map(server).collect();
        let close = "on_down = \"close\"\non_recover = \"close\"\non_leave = \"close\"";
        let (live, mut severer) = (live(&servers, close), Severer::default());
        let _session = pick(&live, &[]);
        let now = Instant::now();
        assert_eq!(severer.close_due(&live, &[], true, now), None);
        assert!(severer.groups.is_empty());
    }

    #[tokio::test]
    async fn a_late_session_is_found_without_a_change() {
        let server = |number: u32| format!("{{ address = \"10.0.0.{number}:1\", priority = {number} }}");
        let (live, mut severer) = (live(&[0, 1].map(server), "on_recover = \"close\""), Severer::default());
        let now = Instant::now();
        assert_eq!(severer.close_due(&live, &[], true, now), Some(now + INTERVAL_MIN));
        assert!(severer.groups.with_sessions(&severer.severings).is_empty());
        let preferred = pick(&live, &[]);
        let retry = pick(&live, &[preferred.server().id()]);
        let wanted = severer.groups.with_sessions(&severer.severings);
        let group = Group::Server(retry.server().id());
        assert_eq!(wanted.keys().collect::<Vec<_>>(), [&group]);
        assert_eq!(wanted[&group].ending, Ending::FailedBack);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_flaps_does_not_begin_the_pace_anew() {
        let over = Duration::from_secs(10);
        let cause = |ending, over, ends_since| Cause {
            ending,
            over,
            ends_since: Some(ends_since),
        };
        let began = Instant::now();
        let first = Severing::new(cause(Ending::ServerDown, over, began), began, 100);
        let later = began + over / 2;
        let update = |ending, over| {
            let mut severing = first;
            severing.update(Severing::new(cause(ending, over, later), later, 50));
            assert_eq!(severing.cause, cause(ending, over, later));
            (severing.pace.began, severing.pace.first)
        };
        assert_eq!(update(Ending::ServerDown, over), (began, 100));
        assert_eq!(update(Ending::ServerDrained, over), (later, 50));
        assert_eq!(update(Ending::ServerDown, over * 2), (later, 50));
    }

    /// It may still have to deliver the last bytes to its client.
    #[tokio::test]
    async fn a_session_that_its_server_has_ended_is_not_cut() {
        let metrics = Arc::new(Metrics::new());
        let (log, _) = access_log::start(&AccessTarget::Off, LogFormat::Json, metrics.lines_dropped()).unwrap();
        let ledger = Arc::new(Ledger::new(Arc::clone(&metrics), log));
        let live = live(&["\"10.0.0.1:1\"".to_owned()], "");
        let (lease, now) = (pick(&live, &[]), Instant::now());
        let open = || {
            let peer = PeerAddr::new("192.0.2.1:1".parse().unwrap());
            let mut entry = ledger.open(&metrics.listener(&"l".into()), peer, now);
            entry.pool_chosen(&"p".into());
            entry.attempt_started(lease.server());
            entry.attempt_finished(Duration::ZERO, None);
            entry
        };
        let (ended, open) = (open(), open());
        ended.traffic().down.end();
        for ends_since in [Some(now), None] {
            let cause = Cause {
                ending: Ending::ServerDown,
                over: Duration::ZERO,
                ends_since,
            };
            let wanted = HashMap::from([(Group::Server(lease.server().id()), cause)]);
            sever(&wanted, &mut HashMap::new(), &[Arc::clone(&ledger)], now);
            let endings = [&ended, &open].map(|entry| entry.record().cut_ending());
            assert_eq!(endings, [Ending::Internal, Ending::ServerDown]);
        }
    }

    #[tokio::test]
    async fn sessions_of_before_a_rename_are_those_of_the_server() {
        let (live, now) = (live(&["\"10.0.0.1:1\"".to_owned()], ""), Instant::now());
        let session = pick(&live, &[]);
        let next = plan(&["{ address = \"10.0.0.1:1\", name = \"n1\" }".to_owned()], "");
        drop(live.apply(live.prepare(next, HashMap::new())));
        let renamed = live.in_force().pool("p").unwrap().servers()[0].id();
        let mut severer = Severer::default();
        assert_eq!(severer.close_due(&live, &[], true, now), None);
        let drain = Override::Drain {
            close_over: Some(Duration::ZERO),
        };
        live.apply_override(&("p".into(), "n1".into()), drain, "me".into(), SystemTime::now());
        assert!(severer.close_due(&live, &[], true, now).is_some());
        let wanted = severer.groups.with_sessions(&severer.severings);
        for server in [session.server().id(), renamed] {
            assert_eq!(wanted[&Group::Server(server)].ending, Ending::ServerDrained);
        }
    }

    #[tokio::test]
    async fn a_dropped_server_is_no_longer_polled() {
        let servers = ["\"10.0.0.1:1\"".to_owned(), "\"10.0.0.2:1\"".to_owned()];
        let (live, mut severer) = (live(&servers, "on_leave = \"close\""), Severer::default());
        let (session, now) = (pick(&live, &[]), Instant::now());
        let label = &session.server().spec().label;
        let rest: Vec<_> = servers
            .into_iter()
            .filter(|server| !server.contains(&**label))
            .collect();
        let next = plan(&rest, "on_leave = \"close\"");
        drop(live.apply(live.prepare(next, HashMap::new())));
        assert_eq!(severer.close_due(&live, &[], true, now), Some(now + INTERVAL_MIN));
        drop(session);
        assert_eq!(severer.close_due(&live, &[], false, now), None);
    }
}
