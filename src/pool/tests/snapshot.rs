//! A pick from the snapshot equals a pick computed from the servers' current state.

use std::thread;

use tokio::time::advance;

use super::*;

/// The servers of the lowest rank are the candidates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ModelRank {
    tier: u8,
    /// False in panic.
    is_unchecked: bool,
}

/// The pick rules without a snapshot: slow and simple.
struct Model<'a> {
    servers: &'a [Member],
    rules: PoolRules,
    now: Instant,
}

impl Model<'_> {
    fn is_healthy(&self, server: &Member) -> bool {
        matches!(
            server.availability(self.now),
            Availability::Up | Availability::Unchecked
        )
    }

    fn panic_tier(&self) -> Option<u8> {
        let threshold = usize::from(self.rules.panic_threshold?);
        let lowest_tier = |is_included: &dyn Fn(&Member) -> bool| {
            let included = self.servers.iter().filter(|server| is_included(server));
            included.map(Member::priority).min()
        };
        let usable = |server: &Member| server.availability(self.now) != Availability::Unavailable;
        let tier = lowest_tier(&usable).or_else(|| lowest_tier(&Member::is_usable_in_panic))?;
        let in_service = self
            .servers
            .iter()
            .filter(|server| server.priority() == tier && server.is_in_service());
        let in_service: Vec<_> = in_service.collect();
        let healthy = in_service.iter().filter(|server| self.is_healthy(server)).count();
        (healthy * 100 < threshold * in_service.len()).then_some(tier)
    }

    fn best_tier(&self) -> Option<u8> {
        let up = self
            .servers
            .iter()
            .filter(|server| server.availability(self.now) == Availability::Up);
        up.map(Member::priority).min()
    }

    /// `None`: the server may not be picked.
    fn rank(&self, server: &Member) -> Option<ModelRank> {
        let tier = server.priority();
        let is_panicking = self.panic_tier() == Some(tier);
        let may_be_picked = if is_panicking {
            server.is_usable_in_panic()
        } else {
            server.availability(self.now) != Availability::Unavailable
        };
        let is_unchecked = !is_panicking && server.check_state() == CheckState::Unchecked;
        may_be_picked.then_some(ModelRank { tier, is_unchecked })
    }

    /// The index and weight of each candidate.
    fn candidates(&self, tried: &[ServerId]) -> Vec<(usize, u16)> {
        let untried = || {
            self.servers
                .iter()
                .enumerate()
                .filter(|(_, server)| !tried.contains(&server.id()))
        };
        let best = untried().filter_map(|(_, server)| self.rank(server)).min();
        let found = untried().filter(|(_, server)| best.is_some() && self.rank(server) == best);
        let factor = |server: &Member| {
            // With slow start, a percentage. Without it, 1, because only the ratios of weights count.
            self.rules
                .slow_start
                .map_or(1, |slow| server.slow_start_percent(self.now, slow))
        };
        found
            .map(|(index, server)| (index, server.weight() * factor(server)))
            .collect()
    }

    /// The index that the policy must pick; `None`: there is no candidate, or the model does not determine the pick.
    /// `ties` counts the choices so far among servers of equal load.
    fn chosen(&self, candidates: &[(usize, u16)], client: ClientHost, ties: &mut usize) -> Option<usize> {
        let load = |(index, weight): &(usize, u16)| (u64::from(self.servers[*index].live()) + 1, u64::from(*weight));
        let by_load = |a: &(usize, u16), b: &(usize, u16)| (load(a).0 * load(b).1).cmp(&(load(b).0 * load(a).1));
        match self.rules.policy {
            Policy::LeastConn => {
                let lowest = candidates.iter().min_by(|a, b| by_load(a, b))?;
                let equals: Vec<_> = candidates
                    .iter()
                    .filter(|other| by_load(other, lowest).is_eq())
                    .collect();
                let turn = if equals.len() > 1 {
                    std::mem::replace(ties, *ties + 1)
                } else {
                    0
                };
                Some(equals[turn % equals.len()].0)
            }
            Policy::SourceHash => {
                let new_candidate = |(index, weight): &(usize, u16)| {
                    candidate(*index, &self.servers[*index].spec().identity, *weight, 0)
                };
                let all: Vec<_> = candidates.iter().map(new_candidate).collect();
                source_hash::in_order(&all, client).first().copied()
            }
            Policy::RandomTwo if candidates.len() > 1 => {
                let at = fastrand::usize(..candidates.len());
                let other = fastrand::usize(..candidates.len() - 1);
                let (first, second) = (candidates[at], candidates[other + usize::from(other >= at)]);
                Some(if by_load(&second, &first).is_lt() {
                    second.0
                } else {
                    first.0
                })
            }
            Policy::RandomTwo => candidates.first().map(|(index, _)| *index),
            Policy::RoundRobin => None,
        }
    }
}

/// Makes one change that may affect picks.
async fn change(pool: &Pool, (kind, which, amount): (u8, prop::sample::Index, u8)) {
    let servers = pool.servers();
    if servers.is_empty() || kind == 0 {
        let n = usize::from(amount) % 7;
        let mut next = servers.to_vec();
        next.retain(|server| *server.spec().label != *format!("s{n}"));
        let is_new = next.len() == servers.len();
        if is_new {
            let is_checked = amount.is_multiple_of(3);
            let member_config = MemberConfig {
                weight: 1 + u16::from(amount % 5),
                priority: amount % 2,
                ..MemberConfig::default()
            };
            next.push(server_with(n, member_config, is_checked));
        }
        return pool.replace_servers(next);
    }
    let server = which.get(&servers);
    let now = Instant::now();
    let set = |change| apply(server, change);
    match kind {
        1 | 2 => passes(server, 1 + u32::from(amount % 3)),
        3 => fails(server, 1 + u32::from(amount % 3)),
        4 => {
            server.record_check(&CheckOutcome::Unfit("a replica".into()), THRESHOLDS);
        }
        5 => server.assume_unfit(),
        6 => server.set_active_checks(match amount % 3 {
            0 => ActiveChecks::None,
            1 => ActiveChecks::Health,
            _ => ActiveChecks::HealthAndRole,
        }),
        7 => set(Override::Drain { close_over: None }),
        8 => set(Override::Disable { close_over: None }),
        9 | 10 => set(Override::Enable),
        11 => set(Override::Weight(Some(u16::from(amount % 4)))),
        12 => set(Override::Weight(None)),
        13 | 14 => drop(fail_connects(pool, server, 3, now)),
        15 => drop(pool.record_connect(&Lease::take(server, LeaseKind::Regular))),
        16 => drop(fail_connect(pool, &Lease::take(server, LeaseKind::Trial), now)),
        17 => advance(Duration::from_millis(u64::from(amount))).await,
        _ => advance(Duration::from_millis(40 * u64::from(amount))).await,
    }
}

/// Compares the pool with the model, and then one pick of each.
fn compare(pool: &Pool, tried: &[ServerId], ties: &mut usize, n: u16, leases: &mut Vec<Lease>) {
    let (servers, now) = (pool.servers(), Instant::now());
    let rules = *pool.rules();
    let model = Model {
        servers: &servers,
        rules,
        now,
    };
    let snapshot = pool.snapshot(now);
    let of_snapshot: Vec<_> = snapshot.set.candidates.iter().map(|c| (c.index, c.weight)).collect();
    assert_eq!(of_snapshot, model.candidates(&[]));
    assert_eq!(pool.best_tier(now), model.best_tier());
    assert_eq!(pool.is_panicking(now), model.panic_tier().is_some());
    let candidates = model.candidates(tried);
    // The model and the pool draw the same random numbers.
    fastrand::seed(u64::from(n));
    let expected = model.chosen(&candidates, client(n).host(), ties);
    let due: Vec<_> = servers
        .iter()
        .map(|server| server.availability(now) == Availability::TrialDue)
        .collect();
    let panic_tier = model.panic_tier();
    fastrand::seed(u64::from(n));
    let lease = pool.pick(client(n), tried, now);
    assert_eq!(lease.is_ok(), !candidates.is_empty());
    let Ok(lease) = lease else { return };
    let index = servers
        .iter()
        .position(|server| server.id() == lease.server().id())
        .expect("it is in the pool");
    assert!(candidates.iter().any(|(candidate, _)| *candidate == index));
    assert!(
        expected.is_none_or(|expected| expected == index),
        "{expected:?}, not {index}"
    );
    let is_trial = due[index] && panic_tier != Some(servers[index].priority());
    assert_eq!(lease.kind() == LeaseKind::Trial, is_trial);
    leases.push(lease);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn after_every_change_the_next_pick_is_based_on_the_current_state(
        policy in prop::sample::select(POLICIES.to_vec()),
        slow_start in prop::sample::select(vec![None, Some(Duration::from_secs(3))]),
        panic_threshold in prop::sample::select(vec![None, Some(50), Some(100)]),
        changes in prop::collection::vec((0u8..20, any::<prop::sample::Index>(), any::<u8>()), 1..120),
        tried in prop::collection::vec(any::<prop::sample::Index>(), 120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut rules = *unchecked(policy, &[1]).rules();
            (rules.slow_start, rules.panic_threshold) = (slow_start, panic_threshold);
            let servers = (0..4).map(|n| server(n, 1 + n as u16, n > 0)).collect();
            let pool = Pool::new("pool".into(), rules, servers);
            let (mut ties, mut leases) = (0, Vec::new());
            for ((n, step), tried) in (0..).zip(changes).zip(tried) {
                change(&pool, step).await;
                compare(&pool, &[], &mut ties, n, &mut leases);
                let servers = pool.servers();
                if !servers.is_empty() {
                    compare(&pool, &[tried.get(&servers).id()], &mut ties, n, &mut leases);
                }
                leases.drain(..leases.len().saturating_sub(9));
            }
        });
    }
}

/// Each thread drains and enables its own servers, concurrently with the others.
#[test]
fn no_change_is_lost_when_threads_change_servers_and_pick_concurrently() {
    const THREADS: usize = 4;
    for policy in POLICIES {
        let pool = &up(policy, &[1; 3 * THREADS]);
        let servers = &pool.servers();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let own = &servers[3 * thread..3 * thread + 2];
                    let mut random = fastrand::Rng::with_seed(thread as u64);
                    for round in 0..300 {
                        let server = &own[random.usize(..own.len())];
                        apply(server, Override::Drain { close_over: None });
                        for n in 0..4 {
                            let lease = pool
                                .pick(client(n), &[], Instant::now())
                                .expect("one server of each thread is never drained");
                            assert_ne!(lease.server().id(), server.id(), "drained, {policy:?}, round {round}");
                        }
                        apply(server, Override::Enable);
                        let ids = servers.iter().map(|server| server.id());
                        let others: Vec<_> = ids.filter(|id| *id != server.id()).collect();
                        let lease = pool.pick(client(0), &others, Instant::now()).expect("it is enabled");
                        assert_eq!(lease.server().id(), server.id());
                        let snapshot = pool.snapshot(Instant::now());
                        assert!(
                            snapshot.set.find(server.id()).is_some(),
                            "enabled, {policy:?}, round {round}"
                        );
                    }
                });
            }
        });
        assert_eq!(pool.snapshot(Instant::now()).set.candidates.len(), servers.len());
    }
}

#[test]
fn concurrent_threads_get_one_trial_of_an_ejected_server() {
    let pool = &up(Policy::RoundRobin, &[1, 1]);
    let servers = &pool.servers();
    let now = Instant::now();
    for round in 1..200 {
        assert!(fail_connects(pool, &servers[0], 3, now).is_some());
        let due = now + EJECT.longest;
        let picks = thread::scope(|scope| {
            let pick = |n| scope.spawn(move || pool.pick(client(n), &[], due).expect("the other one is up"));
            [0, 1, 2, 3].map(pick).map(|thread| thread.join().unwrap())
        });
        let trials = picks.iter().filter(|lease| lease.kind() == LeaseKind::Trial);
        assert_eq!(trials.count(), 1, "round {round}");
        pool.record_connect(&Lease::take(&servers[0], LeaseKind::Regular));
    }
}

#[test]
fn the_next_pick_after_a_replacement_uses_the_new_servers() {
    let pool = &up(Policy::LeastConn, &[1, 1]);
    let servers = pool.servers();
    thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            for n in 0..2000 {
                let only = &servers[n % 2];
                pool.replace_servers(vec![only.clone()]);
                let lease = pool.pick(client(0), &[], Instant::now()).expect("there is a server");
                assert_eq!(lease.server().id(), only.id());
            }
        });
        while !replacing.is_finished() {
            drop(pool.pick(client(0), &[], Instant::now()));
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_failing_check_and_a_new_back_off_update_the_candidates() {
    let pool = up(Policy::LeastConn, &[1, 1]);
    let (servers, now) = (pool.servers(), Instant::now());
    let is_candidate = |at| pool.snapshot(at).set.find(servers[0].id()).is_some();
    assert!(fail_connects(&pool, &servers[0], 3, now).is_some());
    let due = now + EJECT.first;
    assert_eq!([is_candidate(now), is_candidate(due)], [false, true]);
    fails(&servers[0], 1);
    assert!(!is_candidate(due), "its checks fail");
    passes(&servers[0], 1);
    assert!(is_candidate(due));
    let trial = pool.pick(client(0), &[servers[1].id()], due).unwrap();
    assert!(!is_candidate(due), "its trial is taken");
    let back_off = fail_connect(&pool, &trial, due).unwrap();
    assert!(
        back_off < CONNECT_TIMEOUT,
        "expected the back-off to end before the claim of the trial expires"
    );
    assert!(is_candidate(due + back_off));
}

#[test]
fn a_pool_does_not_hold_removed_servers() {
    for policy in POLICIES {
        let pool = up(policy, &[1, 1, 1]);
        let gone = Arc::downgrade(&pool.servers()[1]);
        drop(pool.pick(client(0), &[], Instant::now()));
        let mut remaining = pool.servers().to_vec();
        drop(remaining.remove(1));
        pool.replace_servers(remaining);
        assert_eq!(gone.strong_count(), 0, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_change_the_snapshot_is_not_rebuilt() {
    let pool = up(Policy::LeastConn, &[1, 1]);
    let first = Arc::clone(&pool.snapshot(Instant::now()));
    for n in 0..100 {
        let lease = pool.pick(client(n), &[], Instant::now()).unwrap();
        pool.record_connect(&lease);
        passes(&pool.servers()[0], 1);
        advance(Duration::from_secs(1)).await;
    }
    assert!(Arc::ptr_eq(&pool.snapshot(Instant::now()), &first));
}
