use std::time::SystemTime;

use super::*;
use crate::account::access_log::{self, AccessTarget, LogFormat};
use crate::account::{Ending, Metrics};
use crate::addr::{ClientAddr, PeerAddr};
use crate::plan::Plan;
use crate::pool::{CheckOutcome, Lease, Override, Role, ServerFacts, Thresholds};

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

/// Values of the parameter `has_changed` of [`Severer::close_due`].
const CHANGED: bool = true;
const UNCHANGED: bool = false;

fn pick(live: &Live, tried: &[ServerId]) -> Lease {
    let in_force = live.in_force();
    let pool = in_force.pool("p").unwrap();
    pool.pick(ClientAddr::new("192.0.2.1:1".parse().unwrap()), tried, Instant::now())
        .unwrap()
}

#[tokio::test]
async fn ten_thousand_servers_with_no_cause_to_close_are_not_polled() {
    let server = |number: u32| format!("\"10.0.{}.{}:1\"", number / 250, number % 250);
    let servers: Vec<_> = (0..10_000).map(server).collect();
    let close = "on_down = \"close\"\non_recover = \"close\"\non_leave = \"close\"";
    let (live, mut severer) = (live(&servers, close), Severer::default());
    let _session = pick(&live, &[]);
    let now = Instant::now();
    assert_eq!(severer.close_due(&live, &[], CHANGED, now), None);
    assert!(severer.groups.is_empty());
}

#[tokio::test]
async fn a_session_that_begins_after_the_latest_change_is_found() {
    let server = |number: u32| format!("{{ address = \"10.0.0.{number}:1\", priority = {number} }}");
    let (live, mut severer) = (live(&[0, 1].map(server), "on_recover = \"close\""), Severer::default());
    let now = Instant::now();
    assert_eq!(severer.close_due(&live, &[], CHANGED, now), Some(now + INTERVAL_MIN));
    assert!(severer.groups.causes_of_open_sessions().is_empty());
    let preferred = pick(&live, &[]);
    let retry = pick(&live, &[preferred.server().id()]);
    let causes = severer.groups.causes_of_open_sessions();
    let group = Group::Server(retry.server().id());
    assert_eq!(causes.keys().collect::<Vec<_>>(), [&group]);
    assert_eq!(causes[&group].ending, Ending::FailedBack);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_flaps_does_not_begin_the_pace_anew() {
    let over = Duration::from_secs(10);
    let cause = |ending, over, at_once_since| Cause {
        ending,
        over,
        at_once_since: Some(at_once_since),
    };
    let began = Instant::now();
    let first = Severing::new(cause(Ending::ServerDown, over, began), began, 100);
    let later = began + over / 2;
    let update = |ending, over| {
        let mut severing = first;
        severing.update(Severing::new(cause(ending, over, later), later, 50));
        assert_eq!(severing.cause, cause(ending, over, later));
        (severing.pace.began, severing.pace.initial)
    };
    assert_eq!(update(Ending::ServerDown, over), (began, 100));
    assert_eq!(update(Ending::ServerDrained, over), (later, 50));
    assert_eq!(update(Ending::ServerDown, over * 2), (later, 50));
}

/// The session may still have to deliver the last bytes to its client.
#[tokio::test]
async fn a_session_that_its_server_has_ended_is_not_cut() {
    let metrics = Arc::new(Metrics::new());
    let (log, _) = access_log::start(&AccessTarget::Off, LogFormat::Json, metrics.lines_dropped()).unwrap();
    let ledger = Arc::new(Ledger::new(Arc::clone(&metrics), log));
    let live = live(&["\"10.0.0.1:1\"".to_owned()], "");
    let (lease, now) = (pick(&live, &[]), Instant::now());
    let open_entry = || {
        let peer = PeerAddr::new("192.0.2.1:1".parse().unwrap());
        let mut entry = ledger.open(&metrics.listener(&"l".into()), peer, now);
        entry.pool_chosen(&"p".into());
        entry.attempt_started(lease.server());
        entry.attempt_finished(Duration::ZERO, None);
        entry
    };
    for at_once_since in [Some(now), None] {
        let (ended, open) = (open_entry(), open_entry());
        ended.traffic().down.end();
        let cause = Cause {
            ending: Ending::ServerDown,
            over: Duration::ZERO,
            at_once_since,
        };
        let causes = HashMap::from([(Group::Server(lease.server().id()), cause)]);
        sever(&causes, &mut HashMap::new(), &[Arc::clone(&ledger)], now);
        // A record that was not cut returns `Internal`.
        let endings = [&ended, &open].map(|entry| entry.record().cut_ending());
        assert_eq!(endings, [Ending::Internal, Ending::ServerDown]);
    }
}

#[tokio::test]
async fn sessions_that_a_server_had_before_its_rename_are_closed_with_its_present_ones() {
    let (live, now) = (live(&["\"10.0.0.1:1\"".to_owned()], ""), Instant::now());
    let session = pick(&live, &[]);
    let next = plan(&["{ address = \"10.0.0.1:1\", name = \"n1\" }".to_owned()], "");
    drop(live.apply(live.prepare(next, HashMap::new())));
    let renamed = live.in_force().pool("p").unwrap().servers()[0].id();
    let mut severer = Severer::default();
    assert_eq!(severer.close_due(&live, &[], CHANGED, now), None);
    let drain = Override::Drain {
        close_over: Some(Duration::ZERO),
    };
    live.apply_override(&("p".into(), "n1".into()), drain, "me".into(), SystemTime::now());
    assert!(severer.close_due(&live, &[], CHANGED, now).is_some());
    let causes = severer.groups.causes_of_open_sessions();
    for server in [session.server().id(), renamed] {
        assert_eq!(causes[&Group::Server(server)].ending, Ending::ServerDrained);
    }
}

#[tokio::test]
async fn a_server_that_has_left_is_polled_only_while_it_has_sessions() {
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
    assert_eq!(severer.close_due(&live, &[], CHANGED, now), Some(now + INTERVAL_MIN));
    drop(session);
    assert_eq!(severer.close_due(&live, &[], UNCHANGED, now), None);
}

const CHECKED: &str = "[pools.p]\non_down = \"close\"\nservers = [\"10.0.0.1:1\", \"10.0.0.2:1\"]";

/// Applies a configuration with these pools. The listener uses the first of them.
fn reload(live: &Live, pools: &str) {
    let first_pool = pools.trim_start_matches("[pools.").split(']').next().unwrap();
    let text = format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"{first_pool}\"\n{pools}");
    let plan = crate::config::read("a.toml", &text).ok().unwrap().plan;
    drop(live.apply(live.prepare(plan, HashMap::new())));
}

/// A pool with `on_down = "close"` and a session on its first server.
fn with_session() -> (Live, Lease) {
    let live = live(&["\"10.0.0.9:1\"".to_owned()], "");
    reload(&live, CHECKED);
    let second = live.in_force().pool("p").unwrap().servers()[1].id();
    let session = pick(&live, &[second]);
    (live, session)
}

/// Records a check of the first server of the pool.
fn check(live: &Live, pool: &str, outcome: &CheckOutcome) {
    let thresholds = Thresholds { rise: 1, fall: 1 };
    live.in_force().pool(pool).unwrap().servers()[0].record_check(outcome, thresholds);
}

fn down() -> CheckOutcome {
    CheckOutcome::Fail("gone".into())
}

/// The ending with which the sessions on the server of `session` are to be closed; `None`: they are not to be closed.
fn ending_on(live: &Live, session: &Lease) -> Option<Ending> {
    let mut groups = GroupsToClose::find(live, Instant::now());
    let causes = groups.causes_of_open_sessions();
    Some(causes.get(&Group::Server(session.server().id()))?.ending)
}

fn closes_at_once(live: &Live, session: &Lease) -> bool {
    let causes = GroupsToClose::find(live, Instant::now()).causes_of_open_sessions();
    causes[&Group::Server(session.server().id())].over.is_zero()
}

/// [`CHECKED`] with the pool renamed to `q`, and with these keys.
fn with_renamed_pool(keys: &str) -> String {
    CHECKED.replace("[pools.p]", &format!("[pools.q]\n{keys}"))
}

#[tokio::test]
async fn a_server_that_a_reload_renames_or_removes_keeps_the_reason_why_its_sessions_are_closed() {
    let without_on_down = CHECKED.replace("on_down = \"close\"", "");
    let reloads = [
        CHECKED.replace("\"10.0.0.1:1\", ", ""),
        without_on_down.replace("\"10.0.0.1:1\", ", ""),
        without_on_down.replace("\"10.0.0.1:1\"", "{ address = \"10.0.0.1:1\", name = \"n1\" }"),
        with_renamed_pool(""),
        without_on_down.replace("[pools.p]", "[pools.q]"),
        "[pools.other]\nservers = [\"10.0.0.9:1\"]".to_owned(),
    ];
    for next in reloads {
        for (outcome, ending) in [(down(), Some(Ending::ServerDown)), (CheckOutcome::Pass, None)] {
            let (live, session) = with_session();
            check(&live, "p", &outcome);
            reload(&live, &next);
            assert_eq!(ending_on(&live, &session), ending, "{next}");
            reload(&live, "[pools.third]\nservers = [\"10.0.0.9:1\"]");
            assert_eq!(ending_on(&live, &session), ending, "after another reload: {next}");
        }
    }
}

#[tokio::test]
async fn sessions_of_a_pool_follow_it_under_another_name() {
    let (live, session) = with_session();
    reload(&live, &with_renamed_pool("on_leave = \"close\""));
    assert_eq!(ending_on(&live, &session), None, "nothing has left");
    check(&live, "q", &down());
    assert_eq!(ending_on(&live, &session), Some(Ending::ServerDown));
    check(&live, "q", &CheckOutcome::Pass);
    assert_eq!(ending_on(&live, &session), None);
    reload(&live, &with_renamed_pool("").replace("[pools.q]", "[pools.r]"));
    check(&live, "r", &down());
    assert_eq!(ending_on(&live, &session), Some(Ending::ServerDown));
}

#[tokio::test]
async fn a_server_under_another_name_has_not_left() {
    let closing_on_leave = format!("{CHECKED}\non_leave = \"close\"");
    let with_renamed_server = closing_on_leave.replace("\"10.0.0.1:1\"", "{ address = \"10.0.0.1:1\", name = \"n1\" }");
    let (live, session) = with_session();
    reload(&live, &with_renamed_server);
    assert_eq!(ending_on(&live, &session), None);
    reload(&live, &closing_on_leave.replace("\"10.0.0.1:1\", ", ""));
    assert_eq!(ending_on(&live, &session), Some(Ending::ServerDrained));
}

#[tokio::test]
async fn a_pool_of_another_role_is_not_the_same_pool_renamed() {
    let (live, session) = with_session();
    let health = "role = \"replica\"\nhealth = { check = \"redis\" }";
    reload(&live, &with_renamed_pool(health));
    check(&live, "q", &down());
    assert_eq!(ending_on(&live, &session), None);
}

#[tokio::test]
async fn a_server_that_is_back_with_its_pool_has_only_the_causes_of_the_present() {
    for away in [
        with_renamed_pool(""),
        "[pools.other]\nservers = [\"10.0.0.9:1\"]".to_owned(),
    ] {
        let (live, session) = with_session();
        check(&live, "p", &down());
        reload(&live, &away);
        reload(&live, &format!("{CHECKED}\n{away}"));
        check(&live, "p", &CheckOutcome::Pass);
        assert_eq!(ending_on(&live, &session), None, "{away}");
    }
}

/// The timeline of a new primary of PostgreSQL shows that the primary that left is old, although that one is no
/// longer checked.
#[tokio::test]
async fn a_primary_that_leaves_is_old_once_another_one_is_promoted() {
    const HEALTH: &str = "role = \"primary\"\nhealth = { check = \"postgres\", user = \"u\", rise = 1 }";
    let pool = |name: &str, servers: &str| format!("[pools.{name}]\n{HEALTH}\nservers = [{servers}]");
    let (a, b) = ("\"10.0.0.1:1\"", "\"10.0.0.2:1\"");
    let found = |live: &Live, pool: &str, server: usize, role, system, timeline| {
        let facts = ServerFacts {
            role: Some(role),
            system_identifier: Some(system),
            timeline: (role == Role::Primary).then_some(timeline),
            ..ServerFacts::default()
        };
        let in_force = live.in_force();
        let pool = in_force.pool(pool).unwrap();
        let _ = pool.record_check(&pool.servers()[server], Ok(facts));
    };
    for (name, is_down) in [("p", false), ("q", false), ("p", true)] {
        let before = is_down.then_some(Ending::ServerDown);
        // The primary that leaves has system identifier 7 and timeline 1.
        for (system, timeline, ending) in [(7, 2, Some(Ending::ServerDown)), (7, 1, before), (8, 2, before)] {
            let live = live(&["\"10.0.0.9:1\"".to_owned()], "");
            reload(&live, &pool("p", &format!("{a}, {b}")));
            found(&live, "p", 1, Role::Replica, 7, 1);
            found(&live, "p", 0, Role::Primary, 7, 1);
            let session = pick(&live, &[]);
            assert_eq!(&*session.server().spec().label, "10.0.0.1:1");
            if is_down {
                check(&live, "p", &down());
            }
            reload(&live, &pool(name, b));
            assert_eq!(ending_on(&live, &session), before);
            if is_down {
                assert!(!closes_at_once(&live, &session), "it may come back");
            }
            found(&live, name, 0, Role::Primary, system, timeline);
            assert_eq!(ending_on(&live, &session), ending, "{name} {system} {timeline}");
            let is_old = (system, timeline) == (7, 2);
            if is_old {
                assert!(closes_at_once(&live, &session), "what it writes may be lost");
            }
        }
    }
}
