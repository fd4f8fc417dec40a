//! Thousands of short sessions over the [model of the kernel](super::kernel), each checked by the
//! [oracle](super::oracle) whenever the relay sleeps and when it ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use rustix::io::Errno;
use tokio::sync::{Notify, oneshot};
use tokio::task::unconstrained;
use tokio::time::sleep_until;

use super::kernel::{Act, Step, When, World, first_bytes};
use super::oracle::Oracle;
use super::socket::ModelSocket;
use super::*;
use crate::guard::Throttle;
use crate::relay::engine::poll::{pipes, relay_between};

/// If a session ends well: the time from the last step until its peers consume all bytes and end their streams. From
/// then on, they consume all bytes at this interval, until the relay is over.
const END_AFTER: Duration = Duration::from_millis(1);

/// How long after the last step the session is cut, if no limit has ended it.
const CUT_AFTER: Duration = Duration::from_secs(3_600);

/// The least bandwidth of a throttled session, in bytes a second.
const BANDWIDTH_MIN: u64 = 1_000;

/// The longest wait for a slot of a [`Throttle`]: 1 KiB at the least bandwidth, plus the resolution of timers (1 ms).
const SLOT_WAIT_MAX: Duration = Duration::from_millis(1_024 + 1);

/// The script of a session.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The number of bytes for the server that were read before the relay starts.
    pub(super) first: usize,
    pub(super) limits: RelayLimits,
    /// Sizes of the send queues towards the client and the server.
    pub(super) queue_sizes: [usize; 2],
    /// Whether the system splices out of sockets, and into them; `Err`: the error of such a splice.
    pub(super) splices: [Result<(), Errno>; 2],
    pub(super) steps: Vec<Step>,
    /// Bytes a second that may be read from the client, and from the server; `None`: any number.
    pub(super) bandwidth: Option<[u64; 2]>,
    /// Whether the peers consume all bytes and end their streams after the last step; otherwise they fall silent.
    pub(super) ends_well: bool,
}

/// The waker of the relay.
#[derive(Default)]
struct RelayWaker {
    notify: Notify,
    /// Whether it was called since the relay was last polled.
    was_called: AtomicBool,
}

impl Wake for RelayWaker {
    fn wake(self: Arc<Self>) {
        // Two wake-ups make one poll, as in a task: two timers may expire at once.
        if !self.was_called.swap(true, Relaxed) {
            self.notify.notify_one();
        }
    }
}

/// How long after its last step a case is brought to an end.
pub(super) fn end_after(case: &Case) -> Duration {
    if case.ends_well { END_AFTER } else { CUT_AFTER }
}

/// Plays a case to its end.
async fn relay_case(case: &Case) -> Closed {
    let (cut, cut_signal) = oneshot::channel();
    let world = Mutex::new(World::new(case.first, case.queue_sizes, case.splices, &case.steps, cut));
    let [client, server] = [Side::Client, Side::Server].map(|side| ModelSocket { world: &world, side });
    let traffic = Traffic::default();
    let cut_signal = Box::pin(async move {
        let _ = cut_signal.await;
        EndRequest::Cut
    });
    let relay = relay_between(
        &client,
        &server,
        first_bytes(case.first),
        case.limits,
        &traffic,
        case.bandwidth.map(|rates| Box::new(Throttle::with_rates(rates))),
        cut_signal,
    );
    let mut relay = pin!(unconstrained(relay));
    let mut oracle = Oracle::new(case.first, case.limits, &world, &traffic);
    if case.bandwidth.is_some() {
        oracle.slot_wait = SLOT_WAIT_MAX;
    }
    let relay_waker = Arc::new(RelayWaker::default());
    let waker = Waker::from(Arc::clone(&relay_waker));
    waker.wake_by_ref();
    let mut last_step_at = Instant::now();
    loop {
        let wait = world.lock().next_step_in().unwrap_or(end_after(case));
        tokio::select! {
            biased;
            () = relay_waker.notify.notified() => {
                oracle.before_poll();
                relay_waker.was_called.store(false, Relaxed);
                if let Poll::Ready(closed) = relay.as_mut().poll(&mut Context::from_waker(&waker)) {
                    oracle.ended(closed);
                    return closed;
                }
                let wakes_itself = relay_waker.was_called.load(Relaxed) && !world.lock().was_woken;
                assert!(!wakes_itself, "the relay wakes itself, so that no other task gets a turn");
            }
            () = sleep_until(last_step_at + wait) => {
                last_step_at = Instant::now();
                let mut world = world.lock();
                if !world.step() {
                    world.end_peers(case.ends_well);
                }
            }
        }
        world.lock().deliver_events();
        oracle.between_polls();
    }
}

fn run_case(case: &Case) -> Closed {
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let closed = paused.unwrap().block_on(relay_case(case));
    let pipes = pipes();
    assert_eq!(pipes.free, pipes.open, "a pipe is not returned");
    limit_pipes(8); // a case in which the system does not splice has set the limit to 0
    closed
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..200_usize, 3 => 1..5_000_usize, 1 => Just(16 * 1024), 2 => Just(64 * 1024), 2 => 60_000..200_000_usize, 2 => 250_000..700_000_usize]
}

fn sides() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![3 => Just(Fault::Reset), 1 => Just(Fault::Lost)]
}

fn steps() -> impl Strategy<Value = Step> {
    let when = prop_oneof![
        4 => (0..12_u8).prop_map(When::Calls),
        2 => (0..50_u64).prop_map(When::Millis),
        1 => (50..3_000_u64).prop_map(When::Millis),
    ];
    let act = prop_oneof![
        16 => (sides(), sizes()).prop_map(|(side, bytes)| Act::Sends(side, bytes)),
        20 => (sides(), sizes()).prop_map(|(side, bytes)| Act::Consumes(side, bytes)),
        2 => sides().prop_map(Act::Ends),
        1 => (sides(), faults()).prop_map(|(side, fault)| Act::Breaks(side, fault)),
        1 => prop_oneof![9 => sides().prop_map(|side| Act::Consumes(side, 1)), 1 => Just(Act::Cut)],
    ];
    (when, act).prop_map(|(when, act)| Step { when, act })
}

prop_compose! {
    pub(super) fn cases()(
        first in prop_oneof![2 => Just(0), 1 => sizes()],
        idle in option::of(2..4_000_u64),
        half_close in option::of(prop_oneof![3 => 2..4_000_u64, 1 => 4_000..30_000_u64]),
        ends_with_server: bool,
        queue_sizes in [queue_sizes(), queue_sizes()],
        splices in [splices(), splices()],
        bandwidth in option::weighted(0.3, [BANDWIDTH_MIN..100_000_000, BANDWIDTH_MIN..100_000_000]),
        steps in vec(steps(), 0..60),
        ends_well: bool,
    ) -> Case {
        let limits = RelayLimits {
            idle_timeout: idle.map(Duration::from_millis),
            half_close_timeout: half_close.map(Duration::from_millis),
            ends_with_server,
        };
        Case { first, limits, queue_sizes, splices, steps, bandwidth, ends_well }
    }
}

fn queue_sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        1..100_usize,
        1..5_000_usize,
        5_000..100_000_usize,
        100_000..1_000_000_usize
    ]
}

fn splices() -> impl Strategy<Value = Result<(), Errno>> {
    prop_oneof![
        9 => Just(Ok(())),
        1 => prop_oneof![Just(Errno::PERM), Just(Errno::NOSYS), Just(Errno::INVAL)].prop_map(Err),
    ]
}

/// The check at 1,000 ms finds that the first `Consumes` has changed the send queue. The silence that starts at
/// 1,010 ms must be checked at half of its limit as well: a check compares the send queue only with that of an earlier
/// check in the same silence. Only so does the check at its end notice the second `Consumes`.
#[test]
fn a_silence_that_starts_right_after_a_check_is_checked_twice() {
    let after = |millis, act| Step {
        when: When::Millis(millis),
        act,
    };
    let limits = RelayLimits {
        idle_timeout: Some(Duration::from_secs(1)),
        half_close_timeout: None,
        ends_with_server: false,
    };
    let steps = vec![
        after(0, Act::Sends(Side::Server, 100)),
        after(700, Act::Consumes(Side::Client, 1)),
        after(310, Act::Sends(Side::Server, 1)),
        after(900, Act::Consumes(Side::Client, 1)),
    ];
    let case = Case {
        first: 0,
        limits,
        queue_sizes: [1_000; 2],
        splices: [Ok(()); 2],
        steps,
        bandwidth: None,
        ends_well: false,
    };
    assert_eq!(run_case(&case), Closed::Idle(Pending::Bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_algorithm: RngAlgorithm::XorShift, ..ProptestConfig::with_cases(2_000) })]
    #[test]
    fn in_every_case_the_relay_leaves_nothing_undone_and_reports_the_right_end(case in cases()) {
        run_case(&case);
    }
}
