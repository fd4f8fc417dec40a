//! A pool has one primary: no session goes to an old primary, in whatever order servers come back. Two servers that
//! both call themselves primary are reported.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::database::{Postgres, psql};
use crate::support::process::{Process, finished, must};
use crate::support::proxy::Proxy;
use crate::support::{eventually, wait_for};

/// A pool of writers and one of readers, both with these servers. `reader_keys` are further keys of the pool of
/// readers. The user of the check has no privileges.
pub(super) fn config(servers: [&Postgres; 2], reader_keys: &str, state_dir: Option<&TempDir>) -> String {
    let [a, b] = servers.map(|server| server.address());
    let health = "{ check = \"postgres\", user = \"watcher\", database = \"postgres\", interval = \"100ms\", \
                  timeout = \"5s\", rise = 1, fall = 2 }";
    let state = state_dir.map_or_else(String::new, |directory| {
        format!("[runtime]\nstate_dir = {:?}\n", directory.path())
    });
    format!(
        "{state}[listeners.write]\nbind = \"127.0.0.1:0\"\npool = \"writers\"\n[listeners.read]\nbind = \"127.0.0.1:0\"\n\
         pool = \"readers\"\n[pools.writers]\nservers = [{{ name = \"a\", address = \"{a}\" }}, {{ name = \"b\", address = \"{b}\" }}]\n\
         role = \"primary\"\nretries = 0\nhealth = {health}\n[pools.readers]\n\
         servers = [{{ name = \"a\", address = \"{a}\" }}, {{ name = \"b\", address = \"{b}\" }}]\n\
         role = \"replica\"\n{reader_keys}\nhealth = {health}\n"
    )
}

pub(super) fn primary_and_replica() -> (Postgres, Postgres) {
    let primary = Postgres::start();
    must(&mut psql(
        primary.address(),
        "CREATE ROLE watcher LOGIN; CREATE TABLE t (n int)",
    ));
    let replica = Postgres::replica_of(&primary);
    (primary, replica)
}

/// The port of the server that a session reaches; `None`: the session failed.
pub(super) fn reached(address: SocketAddr) -> Option<u16> {
    let done = finished(psql(address, "SELECT inet_server_port()").env("PGCONNECT_TIMEOUT", "10"));
    (done.code == Some(0)).then(|| done.stdout.trim().parse().unwrap())
}

pub(super) fn is_up(proxy: &Proxy, pool: &str, server: &str) -> bool {
    proxy.server(pool, server)["health"] == "up"
}

pub(super) fn reason(proxy: &Proxy, pool: &str, server: &str) -> String {
    proxy.server(pool, server)["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_returning_old_primary_gets_no_session_until_it_is_trusted() {
    let (a, b) = primary_and_replica();
    let state = tempfile::tempdir().unwrap();
    let text = config([&a, &b], "", Some(&state));
    let proxy = Proxy::start(&text);
    eventually("a is the primary", || is_up(&proxy, "writers", "a"));
    a.freeze();
    must(&mut psql(b.address(), "SELECT pg_promote()"));
    eventually("writers reach b", || is_up(&proxy, "writers", "b"));
    a.thaw();
    let why = "an old primary: timeline 1, and b is on 2";
    eventually("a is known to be an old primary", || {
        reason(&proxy, "writers", "a") == why
    });
    for _ in 0..10 {
        assert_eq!(reached(proxy.at("write")), Some(b.address().port()));
    }
    proxy.stop();
    b.freeze();
    let proxy = Proxy::start(&text);
    let why = "an old primary: timeline 1, and b was on 2";
    eventually("a is still known to be old", || reason(&proxy, "writers", "a") == why);
    for _ in 0..10 {
        assert_eq!(reached(proxy.at("write")), None);
    }
    let refused = proxy.command(&["pool", "trust", "writers/b"]);
    assert!(refused.stderr.contains("does not call itself primary"), "{refused:?}");
    assert_eq!(proxy.command(&["pool", "trust", "writers/a"]).code, Some(0));
    assert_eq!(reached(proxy.at("write")), Some(a.address().port()));
    let readers = &proxy.answer(&["status"])["pools"][1];
    assert_eq!(readers["primary"], "a", "the pool of readers knows the primary, too");
    let renamed = text.replace("pool = \"writers\"", "pool = \"orders\"");
    assert!(proxy.reload(&renamed.replace("[pools.writers]", "[pools.orders]")));
    eventually("the pool is renamed, and remembers its primary", || {
        is_up(&proxy, "orders", "a")
    });
    b.thaw();
    eventually("b is not used, although its timeline is higher", || {
        reason(&proxy, "orders", "b") == "an operator has decided against timeline 2: a is the primary"
    });
    assert_eq!(reached(proxy.at("write")), Some(a.address().port()));
}

#[test]
fn clients_of_a_hanging_old_primary_are_cut_before_it_resumes() {
    const CLIENTS_PER_WAY: usize = 5;
    let (a, b) = primary_and_replica();
    let writers = config([&a, &b], "", None).replace("role = \"primary\"", "role = \"primary\"\nclose_over = \"1h\"");
    let proxy = Proxy::start(&format!(
        "{writers}[listeners.postgres]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\npool = \"writers\"\n"
    ));
    eventually("a is the primary", || is_up(&proxy, "writers", "a"));
    let start = |listener: &str, mode: &str, statement: &str| {
        Process::start(psql(proxy.at(listener), statement).env("PGSSLMODE", mode))
    };
    let served: Vec<_> = (0..2)
        .map(|_| start("write", "disable", "SELECT pg_sleep(600)"))
        .collect();
    eventually("the first clients are served", || a.sleepers() == served.len());
    let passed = [("pool", "writers"), ("server", "a"), ("result", "pass")];
    let checks = || proxy.metrics().sum("acequia_health_checks_total", &passed);
    let before = checks();
    // When a goes down, sessions that began after its last passed check, or that it has not answered yet, are cut at
    // once, and the others over `close_over`. The sessions of the served clients must be older than that check, or they
    // would be cut even without the promotion. Of the two checks awaited here, the first one may have begun before
    // these sessions.
    eventually("a later check has passed", || checks() >= before + 2.0);
    a.freeze();
    let insert = "INSERT INTO t VALUES (1)";
    let ways = [
        ("write", "prefer"),    // a listener without `protocol`
        ("postgres", "prefer"), // asks whether the server speaks TLS, and a frozen server does not answer
        ("postgres", "disable"),
    ];
    let clients = ways.iter().cycle().take(CLIENTS_PER_WAY * ways.len());
    let mut waiting: Vec<_> = clients.map(|(listener, mode)| start(listener, mode, insert)).collect();
    let sessions = || proxy.server("writers", "a")["sessions"].as_u64().unwrap() as usize;
    eventually("all clients have a session on a", || {
        sessions() == waiting.len() + served.len()
    });
    must(&mut psql(b.address(), "SELECT pg_promote()"));
    eventually(
        "all clients are cut, also the served ones, because b is the primary",
        || sessions() == 0,
    );
    // A client that is still connected would go on, and insert its row.
    a.thaw();
    for client in &mut waiting {
        client.wait();
    }
    let errors = waiting.iter().map(|client| client.stderr.lines().join("\n"));
    let is_refused = |text: &String| text.contains("FATAL:  no server is available");
    assert!(
        errors.filter(is_refused).count() >= CLIENTS_PER_WAY,
        "expected the clients in clear text to print the refusal"
    );
    eventually("writers reach b", || {
        reached(proxy.at("write")) == Some(b.address().port())
    });
    let rows = finished(&mut psql(a.address(), "SELECT count(*) FROM t"));
    assert_eq!(rows.stdout.trim(), "0", "{rows:#?}");
}

/// One reload renames the pool before the promotion. Another reload, right after the promotion, renames the pool again
/// and removes the old primary from it.
#[test]
fn sessions_on_an_old_primary_are_cut_although_its_pool_was_renamed() {
    let (a, b) = primary_and_replica();
    let text = config([&a, &b], "", None).replace("role = \"primary\"", "role = \"primary\"\nclose_over = \"0s\"");
    let named = |pool: &str| {
        let text = text.replace("pool = \"writers\"", &format!("pool = \"{pool}\""));
        text.replace("[pools.writers]", &format!("[pools.{pool}]"))
    };
    let proxy = Proxy::start(&text);
    eventually("a is the primary", || is_up(&proxy, "writers", "a"));
    let session = || Process::start(&mut psql(proxy.at("write"), "SELECT pg_sleep(600)"));
    let mut early = session();
    eventually("the session is served", || a.sleepers() == 1);
    assert!(proxy.reload(&named("orders")));
    eventually("a is the primary of the renamed pool", || is_up(&proxy, "orders", "a"));
    let mut late = session();
    eventually("both are served", || a.sleepers() == 2);
    must(&mut psql(b.address(), "SELECT pg_promote()"));
    let why = "an old primary: timeline 1, and b is on 2";
    eventually("a is an old primary", || reason(&proxy, "orders", "a") == why);
    let only_b = named("third").replace(&format!("{{ name = \"a\", address = \"{}\" }}, ", a.address()), "");
    assert!(proxy.reload(&only_b));
    early.wait();
    late.wait();
    let endings: Vec<_> = proxy
        .access_lines(2)
        .iter()
        .map(|line| line["ending"].clone())
        .collect();
    assert_eq!(endings, ["server_down", "server_down"]);
}

#[test]
fn a_replica_that_still_follows_the_old_primary_serves_no_reader() {
    let (a, b) = primary_and_replica();
    let c = Postgres::replica_of(&a);
    let text = config([&a, &b], "", None);
    let third = format!("{{ name = \"c\", address = \"{}\" }}", c.address());
    let proxy = Proxy::start(&text.replace(" }]", &format!(" }}, {third}]")));
    eventually("both replicas serve readers", || {
        is_up(&proxy, "readers", "b") && is_up(&proxy, "readers", "c")
    });
    must(&mut psql(b.address(), "SELECT pg_promote()"));
    eventually("b is the primary", || is_up(&proxy, "writers", "b"));
    must(&mut psql(
        a.address(),
        "INSERT INTO t SELECT generate_series(1, 100000)",
    ));
    eventually("c has followed the old primary", || {
        reason(&proxy, "readers", "c").contains("not a replica of b: it has applied the WAL up to")
    });
    assert_eq!(reached(proxy.at("read")), None);
}

#[test]
fn two_living_primaries_are_reported_and_writers_stay_with_one() {
    let (a, b) = primary_and_replica();
    let proxy = Proxy::start(&config([&a, &b], "", None));
    eventually("a is the primary", || is_up(&proxy, "writers", "a"));
    must(&mut psql(b.address(), "SELECT pg_promote()"));
    let promoted = Instant::now();
    let reported = wait_for("two primaries are logged", || {
        let log = proxy.log();
        log.into_iter()
            .find(|line| line.to_string().contains("several servers call themselves primary"))
    });
    println!("reported after {:?}: {reported}", promoted.elapsed());
    eventually("the metric says so", || {
        proxy
            .get("/metrics")
            .1
            .contains("acequia_pool_primaries{pool=\"writers\"} 2")
    });
    eventually("b, with the higher timeline, is the primary", || {
        is_up(&proxy, "writers", "b")
    });
    let why = "an old primary: timeline 1, and b is on 2";
    eventually("a is an old primary", || reason(&proxy, "writers", "a") == why);
    for _ in 0..10 {
        assert_eq!(reached(proxy.at("write")), Some(b.address().port()));
    }
    let state = proxy.answer(&["status"]);
    assert_eq!(state["pools"][0]["primary"], "b");
    assert_eq!(state["pools"][0]["primaries"], serde_json::json!(["a", "b"]));
    let rivals = "writers: 2 servers call themselves primary (a, b): b is used\n";
    for command in ["status", "servers"] {
        let printed = proxy.command(&[command]).stdout;
        assert!(printed.contains(rivals), "{printed}");
    }
}

#[test]
fn a_foreign_database_in_the_list_never_takes_over() {
    let (a, other) = (Postgres::start(), Postgres::start());
    for server in [&a, &other] {
        must(&mut psql(server.address(), "CREATE ROLE watcher LOGIN"));
    }
    other.freeze();
    let proxy = Proxy::start(&config([&a, &other], "", None));
    eventually("a is the primary", || is_up(&proxy, "writers", "a"));
    other.thaw();
    let is_foreign = || reason(&proxy, "writers", "b").contains("another database: its system identifier is");
    eventually("the foreign database is reported", is_foreign);
    proxy.answer(&["server", "disable", "writers/a"]);
    let checks = || {
        let labels = [("pool", "writers"), ("server", "b"), ("result", "wrong_role")];
        proxy.metrics().sum("acequia_health_checks_total", &labels)
    };
    let before = checks();
    eventually("it is checked again", || checks() >= before + 3.0);
    assert!(is_foreign());
    assert_eq!(reached(proxy.at("write")), None);
    proxy.answer(&["server", "enable", "writers/a"]);
    eventually("writers reach a again", || {
        reached(proxy.at("write")) == Some(a.address().port())
    });
}

#[test]
fn a_bulk_load_removes_no_replica_and_a_cut_off_replica_leaves_after_max_lag() {
    let (a, b) = primary_and_replica();
    let proxy = Proxy::start(&config([&a, &b], "max_lag = \"2s\"", None));
    eventually("the replica is up", || is_up(&proxy, "readers", "b"));
    // The last transaction is older than `max_lag`, and then a large one comes.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let mut load = psql(a.address(), "INSERT INTO t SELECT generate_series(1, 300000)");
    must(&mut load);
    eventually("the replica has the rows", || {
        finished(&mut psql(b.address(), "SELECT count(*) FROM t")).stdout.trim() == "300000"
    });
    let departures = || {
        let labels = [("pool", "readers"), ("server", "b"), ("to", "wrong_role")];
        proxy.metrics().sum("acequia_health_transitions_total", &labels)
    };
    assert_eq!(departures(), 0.0, "the replica never left");
    // Without its receiver, the replica gets no more WAL.
    must(&mut psql(b.address(), "ALTER SYSTEM SET primary_conninfo = ''"));
    must(&mut psql(b.address(), "SELECT pg_reload_conf()"));
    eventually("the receiver ends", || {
        finished(&mut psql(b.address(), "SELECT count(*) FROM pg_stat_wal_receiver"))
            .stdout
            .trim()
            == "0"
    });
    std::thread::sleep(std::time::Duration::from_secs(3)); // without writes on the primary, a replica is never behind
    assert!(is_up(&proxy, "readers", "b"), "nothing was written");
    let mut session = psql(proxy.at("read"), "SELECT pg_sleep(6), 'served to the end'");
    let reader = std::thread::spawn(move || finished(&mut session));
    eventually("a reader is served", || proxy.server("readers", "b")["sessions"] == 1);
    let first_write = Instant::now();
    eventually("the replica is behind", || {
        must(&mut psql(a.address(), "INSERT INTO t VALUES (1)"));
        reason(&proxy, "readers", "b").contains("behind its primary, at most 2s are allowed")
    });
    eventually("the replica leaves", || !is_up(&proxy, "readers", "b"));
    assert_eq!(departures(), 1.0, "expected the departure to be counted");
    println!("left {:?} after the first write that it missed", first_write.elapsed());
    assert!(first_write.elapsed().as_secs() >= 2);
    assert!(
        reader.join().unwrap().stdout.contains("served to the end"),
        "no session is cut for lag"
    );
}
