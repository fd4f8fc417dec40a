//! Lookups that take long or fail, and the waits between lookups.

use super::*;

/// Awaits `waits` and advances the paused clock, which would stand still while a blocking thread is busy.
async fn while_time_passes<T>(waits: impl Future<Output = T>) -> T {
    let clock = async {
        loop {
            tokio::time::advance(LOOKUP_TIMEOUT / 100).await;
        }
    };
    tokio::select! {
        done = waits => done,
        never = clock => never,
    }
}

/// A resolver and a sender. Lookups of names that end with `hangs.test` hang until the sender is dropped. Other lookups
/// find an address.
fn hanging() -> (Resolver, Sender<()>) {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let resolver = Resolver::new(CAPACITY, move |host, port, _| {
        if host.ends_with("hangs.test") {
            let _ = gate.lock().recv(); // fails when the sender is dropped
        }
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    (resolver, go)
}

#[tokio::test]
async fn an_answer_is_used_while_another_lookup_hangs() {
    let (live, pool) = pool(r#"servers = ["hangs.test:7", "a.test:8", "hangs.test:9", "b.test:10"]"#);
    let (resolver, go) = hanging();
    let mut names = PoolNames::default();
    names.adopt(&pool);
    while labels(&pool).len() < 2 {
        names.step(&pool, &resolver, &live).await;
    }
    assert_eq!(
        labels(&pool),
        ["a.test:8@10.0.0.1", "b.test:10@10.0.0.1"].map(Arc::from)
    );
    assert!(!pool.is_resolved(), "the other lookups have not ended");
    drop(go);
    while labels(&pool).len() < 4 {
        names.step(&pool, &resolver, &live).await;
    }
    assert!(pool.is_resolved());
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_the_timeout_is_used_at_once() {
    let (live, pool) = pool("servers = [\"hangs.test:7\"]\nresolve_interval = \"1h\"");
    let (resolver, go) = hanging();
    let mut names = PoolNames::default();
    while_time_passes(resolve_all(&mut names, &pool, &resolver, &live)).await;
    assert!(pool.is_resolved() && labels(&pool).is_empty());
    drop(go);
    let began = Instant::now();
    while labels(&pool).is_empty() {
        names.step(&pool, &resolver, &live).await;
    }
    assert!(began.elapsed() < LOOKUP_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_plan_starts_with_those_addresses_of_new_names_that_are_found_in_time() {
    let (live, _) = pool(r#"servers = ["a.test:7"]"#);
    let next = plan(r#"servers = ["a.test:7", "hangs.test:8", "b.test:9"]"#);
    let (resolver, _go) = hanging();
    let current = live.plan();
    let timeout = async {
        // Wait until the lookup that hangs is the only one left.
        let open = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        while open() != 1 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(LOOKUP_TIMEOUT).await;
        std::future::pending::<()>().await;
    };
    let found = tokio::select! {
        found = resolve_new_names(&next, &current, &resolver, Instant::now() + LOOKUP_TIMEOUT) => found,
        () = timeout => unreachable!("it is pending"),
    };
    let next = live.prepare(next, found);
    assert_eq!(
        labels(next.pool("p").unwrap()),
        ["b.test:9@10.0.0.1".into()],
        "the first name is not new"
    );
}

/// A pool with `count` names whose lookups hang, and one name after them that resolves at once.
fn pool_of_hanging(count: usize) -> (Live, Arc<LivePool>) {
    let hanging = (0..count).map(|number| format!("{number}.hangs.test:7"));
    let names: Vec<String> = hanging.chain(["a.test:8".to_owned()]).collect();
    pool(&format!("servers = {names:?}"))
}

#[tokio::test]
async fn every_32_hanging_names_delay_others_by_at_most_a_second() {
    // At most 32 lookups are in their first second at once: 120 lookups that hang start within 3 s.
    for (hanging_names, seconds_max) in [(20, 1), (120, 5)] {
        let (live, pool) = pool_of_hanging(hanging_names);
        let (resolver, go) = hanging();
        let mut names = PoolNames::default();
        names.adopt(&pool);
        let began = Instant::now();
        while labels(&pool).is_empty() {
            names.step(&pool, &resolver, &live).await;
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(seconds_max), "{hanging_names}: {waited:?}");
        drop(go);
    }
}

#[tokio::test]
async fn names_that_were_slow_before_use_at_most_half_of_the_capacity() {
    let (live, pool) = pool_of_hanging(3 * CAPACITY);
    let started = Arc::new(Mutex::new(Vec::new()));
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let recorded = Arc::clone(&started);
    let resolver = Resolver::new(CAPACITY, move |host, port, _| {
        recorded.lock().push(host.to_owned());
        if host.ends_with("hangs.test") {
            let _ = gate.lock().recv();
        }
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    let mut names = PoolNames::default();
    names.adopt(&pool);
    for (name, state) in &mut names.names {
        state.was_prompt = !name.contains("hangs.test");
    }
    let began = Instant::now();
    while labels(&pool).is_empty() {
        names.step(&pool, &resolver, &live).await;
    }
    assert!(began.elapsed() < LOOKUP_TIMEOUT / 10, "{:?}", began.elapsed());
    assert!(started.lock().len() <= CAPACITY / 2 + 1);
    drop(go);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_not_looked_up_again_while_its_lookup_hangs() {
    let (live, pool) = pool("servers = [\"a.hangs.test:7\"]\nresolve_interval = \"1s\"");
    let lookups = Arc::new(Mutex::new(0));
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let recorded = Arc::clone(&lookups);
    let resolver = Resolver::new(CAPACITY, move |_, port, _| {
        *recorded.lock() += 1;
        let _ = gate.lock().recv();
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    let mut names = PoolNames::default();
    names.adopt(&pool);
    let step = async {
        loop {
            names.step(&pool, &resolver, &live).await;
        }
    };
    // The paused clock does not advance by itself while the lookup is under way.
    let hang = async {
        while *lookups.lock() == 0 {
            tokio::task::yield_now().await;
        }
        while_time_passes(tokio::time::sleep(5 * LOOKUP_TIMEOUT)).await;
    };
    tokio::select! {
        () = step => {}
        () = hang => {}
    }
    assert!(pool.is_resolved(), "the pool does not wait for it any longer");
    assert_eq!(*lookups.lock(), 1);
    drop(go);
}

#[tokio::test(start_paused = true)]
async fn a_name_without_an_address_is_retried_soon_and_then_less_often() {
    let (live, pool) = pool(&format!("{ONE_NAME}\nresolve_interval = \"30s\""));
    let began = Instant::now();
    let lookups = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&lookups);
    let resolver = Resolver::new(CAPACITY, move |_, port, _| {
        let mut lookups = recorded.lock();
        lookups.push(began.elapsed().as_secs());
        if lookups.len() < 8 {
            return Err(io::Error::other("not yet"));
        }
        Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
    });
    let mut names = PoolNames::default();
    names.adopt(&pool);
    while lookups.lock().len() < 9 {
        names.step(&pool, &resolver, &live).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(*lookups.lock(), [0, 1, 3, 7, 15, 31, 61, 91, 121]);
}

#[tokio::test]
async fn names_are_looked_up_again_when_the_address_family_changes() {
    let text = |family: &str| format!("{ONE_NAME}\nresolve = \"{family}\"");
    let resolver = Resolver::new(CAPACITY, |_, port, family| {
        let all = ["10.0.0.1", "2001:db8::1"].map(|address| address.parse::<IpAddr>().unwrap());
        let wanted = all.into_iter().filter(|address| family.includes(*address));
        Ok(wanted.map(|address| (address, port).into()).collect())
    });
    let mut names = PoolNames::default();
    for (family, expected) in [
        ("both", &["a.test:7@10.0.0.1", "a.test:7@2001:db8::1"][..]),
        ("ipv4", &["a.test:7@10.0.0.1"]),
        ("ipv6", &["a.test:7@2001:db8::1"]),
    ] {
        let (live, pool) = pool(&text(family));
        names.adopt(&pool);
        while labels(&pool).len() < expected.len() {
            names.step(&pool, &resolver, &live).await;
        }
        assert_eq!(
            labels(&pool),
            expected.iter().map(|label| Arc::from(*label)).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_plan_starts_with_addresses_of_its_family() {
    let (live, _) = pool(ONE_NAME);
    let both = ["10.0.0.1:7", "[2001:db8::1]:7"].map(|address| ServerAddr::new(address.parse().unwrap()));
    live.set_addresses("p", HashMap::from([("a.test:7".into(), both.to_vec())]));
    let next = plan(&format!("{ONE_NAME}\nresolve = \"ipv6\""));
    let next = live.prepare(next, HashMap::new());
    assert_eq!(labels(next.pool("p").unwrap()), ["a.test:7@2001:db8::1".into()]);
    let next = plan(&format!("{ONE_NAME}\nresolve = \"ipv4\""));
    let resolver = Resolver::new(CAPACITY, |_, port, _| Ok(vec![SocketAddr::from(([10, 0, 0, 9], port))]));
    let found = resolve_new_names(&next, &live.plan(), &resolver, Instant::now() + LOOKUP_TIMEOUT).await;
    let next = live.prepare(next, found);
    assert_eq!(
        labels(next.pool("p").unwrap()),
        ["a.test:7@10.0.0.9".into()],
        "the name is new in this family"
    );
}
