use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::addr::ClientAddr;
use crate::live::Live;
use crate::pool::Server;
use crate::probe::tests::{plan, pool};

/// Lookups at once: of the largest [`crate::descriptors::DescriptorShares`].
const PLACES: usize = 128;

const ONE_NAME: &str = r#"servers = ["a.test:7"]"#;

/// A resolver that says what this says.
#[derive(Clone, Default)]
struct Zone(Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>);

impl Zone {
    /// From now on the name is at these addresses; without any it does not resolve.
    fn put(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(name.to_owned(), addresses);
    }

    fn resolver(&self) -> Resolver {
        let zone = self.clone();
        Resolver::new(PLACES, move |host, port, _| match zone.0.lock().unwrap().get(host) {
            Some(addresses) if !addresses.is_empty() => {
                Ok(addresses.iter().map(|address| (*address, port).into()).collect())
            }
            _ => Err(io::Error::other("no such name")),
        })
    }
}

/// A pool with names, tended by hand.
struct Tended {
    pool: Arc<PoolPlan>,
    answers: Answers,
    roster: Roster,
    zone: Zone,
}

impl Tended {
    fn new(lines: &str) -> Self {
        Self {
            pool: pool(lines),
            answers: Answers::new(),
            roster: Roster::default(),
            zone: Zone::default(),
        }
    }

    /// The labels of its servers after another resolution.
    async fn renewed(&mut self) -> Vec<Arc<str>> {
        renew(&mut self.answers, &self.pool, &self.zone.resolver(), &self.roster).await;
        labels(&self.pool)
    }

    fn server(&self, label: &str) -> Arc<Server> {
        let servers = self.pool.pool.servers();
        let found = servers.iter().find(|server| &*server.spec().label == label);
        Arc::clone(found.expect("it is in the pool"))
    }
}

/// Asks for all names, and waits for what is said until there is nothing more to wait for.
async fn renew(answers: &mut Answers, pool: &PoolPlan, resolver: &Resolver, roster: &Roster) {
    answers.adopt(pool);
    let now = Instant::now();
    for answer in answers.names.values_mut() {
        answer.alarm = Some(if answer.lookup.is_some() { now + PATIENCE } else { now });
    }
    let is_open = |answer: &Answer| answer.alarm == Some(now) || answer.lookup.is_some() && answer.alarm.is_some();
    while answers.names.values().any(is_open) {
        answers.step(pool, resolver, roster).await;
    }
}

fn labels(pool: &PoolPlan) -> Vec<Arc<str>> {
    let servers = pool.pool.servers();
    servers.iter().map(|server| Arc::clone(&server.spec().label)).collect()
}

#[tokio::test]
async fn each_address_is_a_server_and_one_that_stays_is_carried_over() {
    let mut tended = Tended::new(r#"servers = ["10.0.0.9:7", "a.test:7"]"#);
    tended.zone.put("a.test", &["10.0.0.2", "10.0.0.1"]);
    let both = ["10.0.0.9:7", "a.test:7@10.0.0.1", "a.test:7@10.0.0.2"].map(Arc::from);
    assert_eq!(tended.renewed().await, both);
    let (fixed, stays) = (tended.server(&both[0]).id(), tended.server(&both[2]).id());
    tended.zone.put("a.test", &["10.0.0.3", "10.0.0.2"]);
    assert_eq!(
        tended.renewed().await,
        ["10.0.0.9:7", "a.test:7@10.0.0.2", "a.test:7@10.0.0.3"].map(Arc::from)
    );
    assert_eq!(
        (tended.server(&both[0]).id(), tended.server(&both[2]).id()),
        (fixed, stays)
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve_keeps_its_last_answer() {
    let mut tended = Tended::new(r#"servers = ["a.test:7", "b.test:7"]"#);
    tended.zone.put("a.test", &["10.0.0.1"]);
    tended.zone.put("b.test", &["10.0.0.2"]);
    let before = tended.renewed().await;
    let id = tended.server("a.test:7@10.0.0.1").id();
    tended.zone.put("a.test", &[]);
    for _ in 0..3 {
        assert_eq!(tended.renewed().await, before);
        assert_eq!(tended.server("a.test:7@10.0.0.1").id(), id);
    }
    tended.zone.put("a.test", &["10.0.0.3"]);
    assert_eq!(
        tended.renewed().await,
        ["a.test:7@10.0.0.3", "b.test:7@10.0.0.2"].map(Arc::from)
    );
}

#[tokio::test]
async fn an_address_that_returns_is_the_server_that_its_sessions_are_on() {
    let mut tended = Tended::new(&format!("{ONE_NAME}\nhealth = {{ check = \"off\" }}"));
    tended.zone.put("a.test", &["10.0.0.1"]);
    tended.renewed().await;
    let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
    let lease = tended.pool.pool.pick(client, &[], Instant::now()).unwrap();
    for _ in 0..2 {
        tended.zone.put("a.test", &["10.0.0.2"]);
        for _ in 0..3 {
            assert_eq!(tended.renewed().await, ["a.test:7@10.0.0.2".into()]);
        }
        tended.zone.put("a.test", &["10.0.0.1"]);
        tended.renewed().await;
        let back = tended.server("a.test:7@10.0.0.1");
        assert!(Arc::ptr_eq(lease.server(), &back));
        assert_eq!(back.live(), 1);
    }
    tended.zone.put("a.test", &["10.0.0.2"]);
    tended.renewed().await;
    let gone = Arc::downgrade(lease.server());
    drop(lease);
    assert_eq!(gone.strong_count(), 0, "nobody but its sessions held it");
}

#[tokio::test]
async fn a_name_with_too_many_addresses_has_the_same_servers_however_they_are_turned() {
    let mut tended = Tended::new(ONE_NAME);
    let mut all: Vec<String> = (0..=ADDRESSES_MAX)
        .map(|number| format!("10.0.{}.{}", number / 256, number % 256))
        .collect();
    let mut first = None;
    for _ in 0..4 {
        all.rotate_left(100);
        let addresses: Vec<&str> = all.iter().map(String::as_str).collect();
        tended.zone.put("a.test", &addresses);
        let servers = tended.renewed().await;
        assert_eq!(servers.len(), ADDRESSES_MAX);
        assert_eq!(*first.get_or_insert_with(|| servers.clone()), servers);
    }
}

/// Lets the clock run: by itself it stands still as long as a thread is busy.
async fn while_time_passes<T>(waits: impl Future<Output = T>) -> T {
    let clock = async {
        loop {
            tokio::time::advance(PATIENCE / 100).await;
        }
    };
    tokio::select! {
        done = waits => done,
        never = clock => never,
    }
}

/// A resolver that has nothing to say of a `hangs.test` before it is let go, and of all others that they are here.
fn hanging() -> (Resolver, Sender<()>) {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let resolver = Resolver::new(PLACES, move |host, port, _| {
        if host.ends_with("hangs.test") {
            let _ = gate.lock().unwrap().recv(); // an error is the end of the waiting
        }
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    (resolver, go)
}

#[tokio::test]
async fn what_is_said_of_a_name_is_used_while_another_hangs() {
    let pool = pool(r#"servers = ["hangs.test:7", "a.test:8", "hangs.test:9", "b.test:10"]"#);
    let (resolver, go) = hanging();
    let (mut answers, roster) = (Answers::new(), Roster::default());
    answers.adopt(&pool);
    while labels(&pool).len() < 2 {
        answers.step(&pool, &resolver, &roster).await;
    }
    assert_eq!(
        labels(&pool),
        ["a.test:8@10.0.0.1", "b.test:10@10.0.0.1"].map(Arc::from)
    );
    assert!(!pool.pool.is_resolved(), "of the others something may be said yet");
    drop(go);
    while labels(&pool).len() < 4 {
        answers.step(&pool, &resolver, &roster).await;
    }
    assert!(pool.pool.is_resolved());
}

#[tokio::test(start_paused = true)]
async fn what_is_said_too_late_is_used_at_once() {
    let pool = pool("servers = [\"hangs.test:7\"]\nresolve_interval = \"1h\"");
    let (resolver, go) = hanging();
    let (mut answers, roster) = (Answers::new(), Roster::default());
    while_time_passes(renew(&mut answers, &pool, &resolver, &roster)).await;
    assert!(pool.pool.is_resolved() && labels(&pool).is_empty());
    drop(go);
    let began = Instant::now();
    while labels(&pool).is_empty() {
        answers.step(&pool, &resolver, &roster).await;
    }
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_plan_begins_with_what_is_said_in_time_of_its_new_names() {
    let live = Live::new(plan(r#"servers = ["a.test:7"]"#));
    let mut next = plan(r#"servers = ["a.test:7", "hangs.test:8", "b.test:9"]"#);
    let (resolver, _go) = hanging();
    let now = live.plan();
    let time_is_over = async {
        let open = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        while open() != 1 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(PATIENCE).await;
        std::future::pending().await
    };
    tokio::select! {
        () = ask_ahead(&next, &now, &resolver, Instant::now() + PATIENCE) => {}
        () = time_is_over => {}
    }
    assert!(labels(&next.pools[0]).is_empty(), "nothing has changed yet");
    live.settle(&mut next);
    assert_eq!(
        labels(&next.pools[0]),
        ["b.test:9@10.0.0.1".into()],
        "the first was asked for before"
    );
}

/// A pool with so many names that are not answered, before one that is.
fn pool_of_hanging(number: usize, keys: &str) -> Arc<PoolPlan> {
    let hanging = (0..number).map(|number| format!("{number}.hangs.test:7"));
    let names: Vec<String> = hanging.chain(["a.test:8".to_owned()]).collect();
    pool(&format!("servers = {names:?}\n{keys}"))
}

#[tokio::test]
async fn names_that_hang_cost_another_at_most_a_second_for_each_32_of_them() {
    for (hanging_names, most) in [(20, PATIENCE / 10), (120, PATIENCE / 2)] {
        let pool = pool_of_hanging(hanging_names, "");
        let (resolver, go) = hanging();
        let (mut answers, roster) = (Answers::new(), Roster::default());
        answers.adopt(&pool);
        let began = Instant::now();
        while labels(&pool).is_empty() {
            answers.step(&pool, &resolver, &roster).await;
        }
        assert!(began.elapsed() < most, "{hanging_names}: {:?}", began.elapsed());
        drop(go);
    }
}

#[tokio::test]
async fn names_that_hung_before_leave_half_of_the_places_to_the_others() {
    let pool = pool_of_hanging(3 * PLACES, "");
    let begun = Arc::new(Mutex::new(Vec::new()));
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let heard = Arc::clone(&begun);
    let resolver = Resolver::new(PLACES, move |host, port, _| {
        heard.lock().unwrap().push(host.to_owned());
        if host.ends_with("hangs.test") {
            let _ = gate.lock().unwrap().recv();
        }
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    let (mut answers, roster) = (Answers::new(), Roster::default());
    answers.adopt(&pool);
    for (name, answer) in &mut answers.names {
        answer.was_prompt = !name.contains("hangs.test");
    }
    let began = Instant::now();
    while labels(&pool).is_empty() {
        answers.step(&pool, &resolver, &roster).await;
    }
    assert!(began.elapsed() < PATIENCE / 10, "{:?}", began.elapsed());
    assert!(begun.lock().unwrap().len() <= PLACES / 2 + 1);
    drop(go);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_hangs_is_not_asked_for_again_before_it_is_answered() {
    let pool = pool("servers = [\"a.hangs.test:7\"]\nresolve_interval = \"1s\"");
    let asked = Arc::new(Mutex::new(0));
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let heard = Arc::clone(&asked);
    let resolver = Resolver::new(PLACES, move |_, port, _| {
        *heard.lock().unwrap() += 1;
        let _ = gate.lock().unwrap().recv();
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    let (mut answers, roster) = (Answers::new(), Roster::default());
    answers.adopt(&pool);
    let step = async {
        loop {
            answers.step(&pool, &resolver, &roster).await;
        }
    };
    // The clock stands still as long as the lookup is under way.
    let is_asked = async {
        while *asked.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        while_time_passes(tokio::time::sleep(5 * PATIENCE)).await;
    };
    tokio::select! {
        () = step => {}
        () = is_asked => {}
    }
    assert!(pool.pool.is_resolved(), "it is waited for no longer");
    assert_eq!(*asked.lock().unwrap(), 1);
    drop(go);
}

#[tokio::test(start_paused = true)]
async fn a_name_of_which_nothing_is_known_is_asked_for_again_soon_and_then_less_often() {
    let pool = pool(&format!("{ONE_NAME}\nresolve_interval = \"30s\""));
    let began = Instant::now();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let resolver = Resolver::new(PLACES, move |_, port, _| {
        let mut asked = heard.lock().unwrap();
        asked.push(began.elapsed().as_secs());
        if asked.len() < 8 {
            return Err(io::Error::other("not yet"));
        }
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    let (mut answers, roster) = (Answers::new(), Roster::default());
    answers.adopt(&pool);
    while asked.lock().unwrap().len() < 9 {
        answers.step(&pool, &resolver, &roster).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(*asked.lock().unwrap(), [0, 1, 3, 7, 15, 31, 61, 91, 121]);
}

#[tokio::test]
async fn other_addresses_are_asked_for_as_soon_as_they_are_wanted() {
    let text = |family: &str| format!("{ONE_NAME}\nresolve = \"{family}\"");
    let resolver = Resolver::new(PLACES, |_, port, family| {
        let all = ["10.0.0.1", "2001:db8::1"].map(|address| address.parse::<IpAddr>().unwrap());
        let wanted = all.into_iter().filter(|address| family.includes(*address));
        Ok(wanted.map(|address| (address, port).into()).collect())
    });
    let (mut answers, roster) = (Answers::new(), Roster::default());
    for (family, expected) in [
        ("both", &["a.test:7@10.0.0.1", "a.test:7@2001:db8::1"][..]),
        ("ipv4", &["a.test:7@10.0.0.1"]),
        ("ipv6", &["a.test:7@2001:db8::1"]),
    ] {
        let pool = pool(&text(family));
        answers.adopt(&pool);
        while labels(&pool).len() < expected.len() {
            answers.step(&pool, &resolver, &roster).await;
        }
        assert_eq!(
            labels(&pool),
            expected.iter().map(|label| Arc::from(*label)).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_plan_begins_with_addresses_that_it_wants() {
    let live = Live::new(plan(ONE_NAME));
    let both = ["10.0.0.1:7", "[2001:db8::1]:7"].map(|address| ServerAddr::new(address.parse().unwrap()));
    live.plan().pools[0].entries[0].addresses.store(Arc::new(both.to_vec()));
    let mut next = plan(&format!("{ONE_NAME}\nresolve = \"ipv6\""));
    live.settle(&mut next);
    assert_eq!(labels(&next.pools[0]), ["a.test:7@2001:db8::1".into()]);
    let mut next = plan(&format!("{ONE_NAME}\nresolve = \"ipv4\""));
    let resolver = Resolver::new(PLACES, |_, port, _| Ok(vec![SocketAddr::from(([10, 0, 0, 9], port))]));
    ask_ahead(&next, &live.plan(), &resolver, Instant::now() + PATIENCE).await;
    live.settle(&mut next);
    assert_eq!(labels(&next.pools[0]), ["a.test:7@10.0.0.9".into()], "asked for before");
}
