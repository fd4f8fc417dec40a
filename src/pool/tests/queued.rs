//! The session limits of servers, and the queue of the clients that wait for a server with room.

use std::future::{pending, ready};
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Barrier, mpsc};
use std::thread;

use tokio::task::{JoinHandle, yield_now};

use super::*;

pub(super) const QUEUE: QueueLimits = QueueLimits {
    clients_max: 3,
    timeout: Duration::from_secs(5),
};

/// A pool with a server for each of these session limits. All servers are linked to the pool's queue.
pub(super) fn limited(policy: Policy, limits: &[u32], queue: Option<QueueLimits>) -> Arc<Pool> {
    let shared = Arc::<PoolQueue>::default();
    let servers = (0..).zip(limits).map(|(n, max)| limited_server(n, *max, &shared));
    let rules = PoolRules {
        queue,
        ..*up(policy, &[]).rules()
    };
    Arc::new(Pool::with_queue("pool".into(), rules, servers.collect(), shared))
}

fn limited_server(n: usize, max: u32, queue: &Arc<PoolQueue>) -> Member {
    let spec = server(n, 1, false).spec().clone();
    let member_config = MemberConfig {
        sessions_max: NonZeroU32::new(max),
        ..MemberConfig::default()
    };
    Member::new(
        Arc::new(Server::new(spec, false).with_queue(Arc::clone(queue) as _)),
        member_config,
    )
}

pub(super) fn pick(pool: &Pool, n: u16) -> Result<Lease, NoLease> {
    pool.pick(client(n), &[], Instant::now())
}

pub(super) fn live_counts(pool: &Pool) -> Vec<u32> {
    pool.servers().iter().map(|server| server.live()).collect()
}

/// Starts a client that waits for a lease. On return, the queue is longer by one, or the wait of the client is over.
pub(super) async fn start_waiting(pool: &Arc<Pool>, n: u16) -> JoinHandle<Result<Lease, QueueFailure>> {
    let before = pool.queue_len();
    let waiting = join_or_displace(pool, n).await;
    assert!(pool.queue_len() == before + 1 || waiting.is_finished());
    waiting
}

/// As [`start_waiting`], but the client may also take the place of another one if the queue is full.
pub(super) async fn join_or_displace(pool: &Arc<Pool>, n: u16) -> JoinHandle<Result<Lease, QueueFailure>> {
    join_queue_until(pool, n, pending()).await
}

/// As [`join_or_displace`], for a client that has already ended its stream.
pub(super) async fn join_queue_half_closed(pool: &Arc<Pool>, n: u16) -> JoinHandle<Result<Lease, QueueFailure>> {
    join_queue_until(pool, n, ready(())).await
}

async fn join_queue_until(
    pool: &Arc<Pool>,
    n: u16,
    stream_end: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<Result<Lease, QueueFailure>> {
    let pool = Arc::clone(pool);
    let waiting = tokio::spawn(async move {
        let turn = &mut QueueTurn::default();
        pool.wait_for_lease(client(n), &[], turn, stream_end, |_| {}).await
    });
    yields(10).await;
    waiting
}

#[test]
fn no_server_exceeds_its_limit_and_full_servers_are_passed_over() {
    for policy in POLICIES {
        let pool = limited(policy, &[2, 3, 1], None);
        let leases: Vec<_> = (0..6).map(|n| pick(&pool, n).unwrap()).collect();
        assert_eq!(live_counts(&pool), [2, 3, 1], "{policy:?}");
        assert_eq!(pick(&pool, 7).unwrap_err(), NoLease::Full, "{policy:?}");
        drop(leases);
        assert_eq!(live_counts(&pool), [0; 3]);
    }
}

#[test]
fn a_worse_tier_is_not_used_while_a_better_one_is_full() {
    let pool = limited(Policy::LeastConn, &[1, 1], None);
    let mut servers = pool.servers().to_vec();
    let worse = MemberConfig {
        priority: 1,
        ..MemberConfig::default()
    };
    servers[1] = Member::new(Arc::clone(&servers[1]), worse);
    pool.replace_servers(servers);
    let _lease = pick(&pool, 0).unwrap();
    assert_eq!(pick(&pool, 1).unwrap_err(), NoLease::Full);
}

#[test]
fn source_hash_passes_over_a_full_server_only_without_a_queue() {
    let without = limited(Policy::SourceHash, &[1, 1], None);
    let own = pick(&without, 0).unwrap();
    let other = pick(&without, 0).unwrap();
    assert_ne!(own.server().id(), other.server().id());
    let with = limited(Policy::SourceHash, &[1, 1], Some(QUEUE));
    let _own = pick(&with, 0).unwrap();
    assert_eq!(
        pick(&with, 0).unwrap_err(),
        NoLease::Full,
        "it waits, although the other server has room"
    );
}

#[tokio::test(start_paused = true)]
async fn queued_clients_are_served_in_the_order_of_arrival() {
    let pool = limited(Policy::LeastConn, &[1, 1], Some(QUEUE));
    let (first, second) = (pick(&pool, 0).unwrap(), pick(&pool, 1).unwrap());
    let (a, b, c) = (
        start_waiting(&pool, 2).await,
        start_waiting(&pool, 3).await,
        start_waiting(&pool, 4).await,
    );
    assert_eq!(
        pool.wait_for_lease(client(5), &[], &mut QueueTurn::default(), pending(), |_| {})
            .await
            .unwrap_err(),
        QueueFailure::Full
    );
    let freed = second.server().id();
    b.abort(); // a client that leaves does not leave a gap
    drop(second);
    let lease = a.await.unwrap().unwrap();
    assert_eq!((lease.server().id(), pool.queue_len()), (freed, 1));
    assert!(!c.is_finished());
    drop(first);
    let _lease = c.await.unwrap().unwrap();
    assert_eq!((live_counts(&pool), pool.queue_len()), (vec![1, 1], 0));
}

#[tokio::test(start_paused = true)]
async fn no_client_waits_beyond_its_deadline() {
    let pool = limited(Policy::RoundRobin, &[1], Some(QUEUE));
    let _lease = pick(&pool, 0).unwrap();
    let began = Instant::now();
    let waiting = start_waiting(&pool, 1).await;
    assert_eq!(waiting.await.unwrap().unwrap_err(), QueueFailure::Timeout);
    assert_eq!((began.elapsed().as_secs(), pool.queue_len()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_for_a_client_that_has_left_goes_to_the_next_one() {
    let pool = limited(Policy::LeastConn, &[1], Some(QUEUE));
    pool.take_over_queue(Arc::downgrade(&pool) as _); // so that the place is handed over when the lease is dropped
    let lease = pick(&pool, 0).unwrap();
    let (a, b) = (start_waiting(&pool, 1).await, start_waiting(&pool, 2).await);
    drop(lease); // its place is given to `a`, which leaves before it runs again
    a.abort();
    let _lease = b.await.unwrap().unwrap();
    assert_eq!(live_counts(&pool), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_servers_wakes_queued_clients() {
    let pool = limited(Policy::SourceHash, &[1, 1], Some(QUEUE));
    let own = pick(&pool, 0).unwrap();
    let waiting = start_waiting(&pool, 0).await;
    // The client's server is removed: source hash now gives the client the other server, which has room.
    let mut others = pool.servers().to_vec();
    others.retain(|server| server.id() != own.server().id());
    pool.replace_servers(others);
    let lease = waiting.await.unwrap().unwrap();
    assert_ne!(lease.server().id(), own.server().id());
    let waiting = start_waiting(&pool, 1).await;
    let only = Arc::clone(lease.server());
    only.set_active_checks(ActiveChecks::Health);
    fails(&only, 1); // it is down
    assert_eq!(waiting.await.unwrap().unwrap_err(), QueueFailure::NoServer);
}

/// A client has tried the first server, and waits for the second one behind a client that waits for any. When the
/// second server goes down, no server is left for the client behind.
#[tokio::test(start_paused = true)]
async fn a_server_that_goes_down_ends_the_wait_of_a_client_behind_another() {
    let pool = limited(Policy::LeastConn, &[1, 1], Some(QUEUE));
    let leases = [pick(&pool, 0).unwrap(), pick(&pool, 1).unwrap()];
    let [tried, other] = leases.each_ref().map(|lease| Arc::clone(lease.server()));
    let ahead = start_waiting(&pool, 2).await;
    let behind = tokio::spawn({
        let (pool, tried) = (Arc::clone(&pool), [tried.id()]);
        async move {
            let turn = &mut QueueTurn::default();
            pool.wait_for_lease(client(3), &tried, turn, pending(), |_| {}).await
        }
    });
    yields(10).await;
    assert_eq!(pool.queue_len(), 2);
    other.set_active_checks(ActiveChecks::Health);
    fails(&other, 1); // it is down
    yields(10).await;
    assert!(behind.is_finished() && !ahead.is_finished());
    assert_eq!(behind.await.unwrap().unwrap_err(), QueueFailure::NoServer);
}

/// Two clients wait for the only server. When a second server is added, source hash gives it to the second client. The
/// first client continues to wait.
#[tokio::test(start_paused = true)]
async fn a_queued_client_follows_a_change_of_its_own_server() {
    let pool = limited(Policy::SourceHash, &[1, 1], Some(QUEUE));
    let all = pool.servers().to_vec();
    let own = |n| pick(&pool, n).unwrap().server().id();
    let client_of = |index: usize| (0..100).find(|n| own(*n) == all[index].id()).unwrap();
    let (stays, moves) = (client_of(0), client_of(1));
    pool.replace_servers(vec![all[0].clone()]);
    let lease = pick(&pool, stays).unwrap();
    let (first, second) = (start_waiting(&pool, stays).await, start_waiting(&pool, moves).await);
    pool.replace_servers(all.clone());
    let moved = second.await.unwrap().unwrap();
    assert_eq!(moved.server().id(), all[1].id());
    assert!(!first.is_finished());
    drop(lease);
    let _lease = first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_successor_pool_serves_queued_clients_by_its_own_limits() {
    let before = limited(Policy::LeastConn, &[1], Some(QUEUE));
    let lease = pick(&before, 0).unwrap();
    let (a, b) = (start_waiting(&before, 1).await, start_waiting(&before, 2).await);
    let member_config = MemberConfig {
        sessions_max: NonZeroU32::new(2),
        ..MemberConfig::default()
    };
    let members = vec![Member::new(Arc::clone(lease.server()), member_config)];
    let after = Pool::with_queue("pool".into(), *before.rules(), members, Arc::clone(&before.queue));
    let after = Arc::new(after);
    after.take_over_queue(Arc::downgrade(&after) as _);
    let next = a.await.unwrap().unwrap();
    assert_eq!((live_counts(&after), before.queue_len()), (vec![2], 1));
    // `after` is removed. Clients that wait in `before` go on waiting, with the limit of `before`: one session.
    drop(after);
    drop(lease);
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(!b.is_finished());
    drop(next);
    let _lease = b.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_queued_client_gets_a_due_trial_without_any_other_change() {
    let pool = limited(Policy::LeastConn, &[1, 5], Some(QUEUE));
    let _first = pick(&pool, 0).unwrap();
    let ejected = Arc::clone(&pool.servers()[1]);
    let back_off = fail_connects(&pool, &ejected, 3, Instant::now()).expect("the last failure ejects it");
    let began = Instant::now();
    let lease = start_waiting(&pool, 1).await.await.unwrap().unwrap();
    assert_eq!(lease.server().id(), ejected.id());
    assert!(began.elapsed() >= back_off && began.elapsed() < back_off * 2);
}

/// Many threads take and return places, wait and give up. No server ever has too many sessions, and at the end no
/// client is left waiting: a lost wake-up would be a timeout.
#[test]
fn concurrent_threads_never_overfill_a_server_or_lose_a_wake_up() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 2_000;
    let queue = QueueLimits {
        clients_max: 64,
        timeout: Duration::from_secs(60),
    };
    for policy in [Policy::LeastConn, Policy::SourceHash] {
        let pool = limited(policy, &[1, 2], Some(queue));
        pool.take_over_queue(Arc::downgrade(&pool) as _);
        let busy: [AtomicU32; 2] = Default::default();
        let (waited, given_up) = (AtomicUsize::new(0), AtomicU64::new(0));
        let begin = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (pool, busy, waited, given_up, begin) = (&pool, &busy, &waited, &given_up, &begin);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread);
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .unwrap();
                    begin.wait();
                    runtime.block_on(async {
                        for _ in 0..ROUNDS {
                            let client = client(random.u16(..50));
                            let lease = match pool.pick(client, &[], Instant::now()) {
                                Ok(lease) => lease,
                                Err(_) => {
                                    waited.fetch_add(1, Relaxed);
                                    let mut turn = QueueTurn::default();
                                    let waiting = pool.wait_for_lease(client, &[], &mut turn, pending(), |_| {});
                                    tokio::select! {
                                        biased;
                                        () = yields(random.usize(..3) * 40), if random.bool() => {
                                            given_up.fetch_add(1, Relaxed);
                                            continue;
                                        }
                                        lease = waiting => lease.expect("no wake-up is lost"),
                                    }
                                }
                            };
                            let index = usize::from(*lease.server().spec().label == *"s1");
                            // The limit of `s0` is one session, and that of `s1` is two.
                            assert!(busy[index].fetch_add(1, SeqCst) <= index as u32, "one too many");
                            thread::yield_now(); // with the place taken, so that other threads find the server full
                            busy[index].fetch_sub(1, SeqCst);
                            if random.bool() {
                                lease.end(); // the server has ended the session, the client not yet
                                thread::yield_now();
                            }
                            drop(lease);
                        }
                    });
                });
            }
        });
        assert_eq!((live_counts(&pool), pool.queue_len()), (vec![0, 0], 0));
        assert!(
            waited.load(Relaxed) > 0 && given_up.load(Relaxed) > 0,
            "clients have waited and given up"
        );
    }
}

async fn yields(times: usize) {
    for _ in 0..times {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_wait_only_while_a_server_is_being_started() {
    let pool = limited(Policy::RoundRobin, &[], None);
    assert_eq!(pick(&pool, 1).unwrap_err(), NoLease::NoServer);
    pool.set_start_wait(Some(Duration::from_secs(30)));
    assert_eq!(pick(&pool, 1).unwrap_err(), NoLease::Full);
    let first = start_waiting(&pool, 1).await;
    pool.set_start_wait(None);
    assert_eq!(
        first.await.unwrap().unwrap_err(),
        QueueFailure::NoServer,
        "the server has failed to start"
    );
    pool.set_start_wait(Some(Duration::from_secs(30)));
    let second = start_waiting(&pool, 2).await;
    let started = limited_server(0, 1, &pool.queue);
    passes(&started, 1);
    pool.replace_servers(vec![started]);
    assert!(second.await.unwrap().is_ok());
    pool.replace_servers(Vec::new());
    let last = start_waiting(&pool, 3).await;
    assert_eq!(last.await.unwrap().unwrap_err(), QueueFailure::Timeout);
}

/// A pool with the rule `waits_for_return`. Its only server is up, and takes one session.
fn pool_waiting_for_return(is_checked: bool) -> Arc<Pool> {
    let shared = Arc::<PoolQueue>::default();
    let server = limited_server(0, 1, &shared);
    if is_checked {
        server.set_active_checks(ActiveChecks::Health);
        passes(&server, 1);
    }
    let rules = PoolRules {
        queue: Some(QUEUE),
        waits_for_return: true,
        ..*up(Policy::LeastConn, &[]).rules()
    };
    let pool = Arc::new(Pool::with_queue("pool".into(), rules, vec![server], shared));
    pool.take_over_queue(Arc::downgrade(&pool) as _);
    pool
}

#[tokio::test(start_paused = true)]
async fn when_the_last_server_fails_one_waiting_client_tries_it_every_second() {
    let pool = pool_waiting_for_return(false);
    let lease = pick(&pool, 0).unwrap();
    let (first, second) = (start_waiting(&pool, 1).await, start_waiting(&pool, 2).await);
    let began = Instant::now();
    let record_failure =
        |lease: &Lease| pool.record_failure(lease, &[lease.server().id()], ServerFailure::Connect, Instant::now());
    assert_eq!(
        record_failure(&lease),
        AfterFailure {
            may_wait: true,
            back_off: Some(Duration::from_secs(1))
        }
    );
    drop(lease);
    let trial = first.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(record_failure(&trial).may_wait);
    drop(trial);
    let trial = second.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let third = start_waiting(&pool, 3).await;
    assert!(pool.record_connect(&trial));
    drop(trial);
    let _lease = third.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2), "the server is back");
}

#[tokio::test(start_paused = true)]
async fn clients_wait_while_the_only_server_refuses_its_checks_but_not_when_it_is_down() {
    let pool = pool_waiting_for_return(true);
    let server = Arc::clone(&pool.servers()[0]);
    let refused = CheckOutcome::Refused {
        reason: "the database system is starting up".into(),
        accepts_sessions: false,
    };
    server.record_check(&refused, THRESHOLDS);
    assert_eq!(pick(&pool, 1).unwrap_err(), NoLease::Full);
    let waits = start_waiting(&pool, 1).await;
    assert!(!waits.is_finished());
    passes(&server, 1);
    drop(waits.await.unwrap().unwrap());
    server.record_check(&refused, THRESHOLDS);
    let waits = start_waiting(&pool, 2).await;
    fails(&server, THRESHOLDS.fall);
    assert_eq!(waits.await.unwrap().unwrap_err(), QueueFailure::NoServer);
    assert_eq!(pick(&pool, 3).unwrap_err(), NoLease::NoServer);
}

#[test]
fn nobody_waits_for_a_failed_server_without_the_rule_or_while_another_can_be_picked_or_after_failed_tls() {
    // Without the rule `waits_for_return`.
    let pool = limited(Policy::LeastConn, &[1, 1], Some(QUEUE));
    let lease = pick(&pool, 0).unwrap();
    let all: Vec<_> = pool.servers().iter().map(|server| server.id()).collect();
    assert!(
        !pool
            .record_failure(&lease, &all, ServerFailure::Connect, Instant::now())
            .may_wait
    );
    // With the rule.
    let rules = PoolRules {
        waits_for_return: true,
        ..*pool.rules()
    };
    let pool = Pool::with_queue("pool".into(), rules, pool.servers().to_vec(), Arc::default());
    let may_wait = |tried, failure| pool.record_failure(&lease, tried, failure, Instant::now()).may_wait;
    assert!(!may_wait(&all[..1], ServerFailure::Connect));
    assert!(!may_wait(&all, ServerFailure::Tls)); // probably not a restart, but a mistake in the configuration
    assert!(may_wait(&all, ServerFailure::Connect));
    let failed = lease.server().id();
    drop(lease); // both servers have room now
    for _ in 0..4 {
        let other = pick(&pool, 1).unwrap();
        assert_ne!(other.server().id(), failed, "the failed server is ejected");
    }
}

/// Stands for the pool in force. When the queue takes the pool from it to serve the waiting line, it panics; while that
/// unwinds, a lease is dropped, which frees a place on a server.
struct Panicking(Mutex<Option<Lease>>);

impl AsRef<Pool> for Panicking {
    fn as_ref(&self) -> &Pool {
        let _lease = self.0.lock().take();
        panic!("the line is locked");
    }
}

#[test]
fn a_panic_while_the_waiting_line_is_served_leaves_it_unlocked() {
    let pool = limited(Policy::LeastConn, &[1], Some(QUEUE));
    let panicking = Arc::new(Panicking(Some(pick(&pool, 0).unwrap()).into()));
    pool.take_over_queue(Arc::downgrade(&panicking) as _);
    let (sender, result) = mpsc::channel();
    let waiting = Arc::clone(&pool);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let wait = AssertUnwindSafe(|| {
            let mut turn = QueueTurn::default();
            let wait = waiting.wait_for_lease(client(1), &[], &mut turn, pending(), |_| {});
            runtime.unwrap().block_on(wait)
        });
        let _ = sender.send(catch_unwind(wait).is_err());
    });
    assert_eq!(result.recv_timeout(Duration::from_secs(10)), Ok(true));
    pool.take_over_queue(Arc::downgrade(&pool) as _);
    assert_eq!((pool.queue_len(), live_counts(&pool)), (0, vec![0]));
    assert!(pick(&pool, 2).is_ok());
}
