//! The core, driven by operations that complete, such as those of io_uring, instead of sockets that become ready: the
//! same sessions and the same oracle as in the [simulation](super::simulation), but without splices and without a limit
//! of bandwidth. Here streams may also be truncated, as in TLS.

use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use rustix::io::Errno;
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::kernel::{Act, Step, When, World, first_bytes};
use super::oracle::Oracle;
use super::simulation::{Case, cases, end_after};
use super::*;
use crate::relay::core::{Core, Next};

/// The most bytes that one receive brings. A direction that holds this many unsent bytes receives no more.
const BUFFER_BYTES: usize = 16 * 1024;

/// An engine without readiness: operations complete when the kernel can do them.
struct Completions<'a> {
    core: Core<'a>,
    world: &'a Mutex<World>,
    up: Held,
    down: Held,
}

/// What one direction holds.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of `bytes` have been sent.
    sent: usize,
    has_ended: bool,
}

impl Held {
    fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn record_sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.unsent().is_empty() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

impl Completions<'_> {
    /// Runs until no operation can complete, or the relay is over.
    fn run(&mut self) {
        while self.core.closed().is_none() {
            let steps = self.world.lock().steps_left();
            let has_completed = [Side::Client, Side::Server].map(|from| self.complete(from));
            let is_still = has_completed == [false; 2] && steps == self.world.lock().steps_left();
            if self.core.closed().is_none() && self.world.lock().is_cut() {
                self.core.end(EndRequest::Cut, |_| None);
            }
            if is_still {
                self.core.settle(Instant::now);
                return;
            }
        }
    }

    /// Completes what can complete in a direction: one operation of each kind. Returns whether there was one.
    fn complete(&mut self, from: Side) -> bool {
        let next = self.core.next(from);
        let held = match from {
            Side::Client => &mut self.up,
            Side::Server => &mut self.down,
        };
        let mut world = self.world.lock();
        world.call();
        let mut has_completed = match next {
            Next::Send => match world.send(from.other(), held.unsent().len(), |taken| &held.unsent()[..taken]) {
                Ok(sent) => {
                    held.record_sent(sent);
                    self.core.sent(from, sent);
                    true
                }
                Err(error) => report_error(&mut self.core, from.other(), error),
            },
            Next::ShutDown => {
                world.shut_down(from.other());
                self.core.shut_down(from);
                true
            }
            Next::Read => false,
            Next::Nothing => {
                *held = Held::default();
                poll_error(&mut self.core, &mut world, from)
            }
        };
        if self.core.closed().is_some() {
            return true;
        }
        let may_read = matches!(self.core.next(from), Next::Read | Next::Send);
        if may_read && !held.has_ended && held.unsent().len() < BUFFER_BYTES {
            world.call();
            let received = world.receive(from, BUFFER_BYTES, |bytes| {
                held.bytes.extend_from_slice(bytes);
                bytes.len()
            });
            has_completed |= match received {
                Ok(0) if world.take_truncation(from) => {
                    self.core.broke(from, Fault::Truncated, Instant::now());
                    true
                }
                Ok(0) => {
                    held.has_ended = true;
                    self.core.ended(from, Instant::now());
                    true
                }
                Ok(bytes) => {
                    self.core.received(from, bytes);
                    true
                }
                Err(error) => report_error(&mut self.core, from, error),
            };
        } else {
            has_completed |= poll_error(&mut self.core, &mut world, from);
        }
        has_completed
    }
}

/// Takes the error of a connection on which nothing is received now, and reports it. Returns whether one was reported.
/// Of a server whose last bytes are being delivered (`is_delivering`), the error was reported before.
fn poll_error(core: &mut Core<'_>, world: &mut World, side: Side) -> bool {
    let is_known_broken = side == Side::Server && core.is_delivering();
    let error = if is_known_broken { None } else { world.take_error(side) };
    error.is_some_and(|error| report_error(core, side, error))
}

/// Reports the error of an operation to the core. Returns `false`, and reports nothing, if the operation cannot
/// complete yet (EAGAIN) or the relay is over.
fn report_error(core: &mut Core<'_>, side: Side, error: Errno) -> bool {
    if error == Errno::AGAIN || core.closed().is_some() {
        return false;
    }
    core.broke(side, Fault::classify(&error.into()), Instant::now());
    true
}

/// Plays a case to its end.
async fn relay_case(case: &Case) -> Closed {
    let (cut, _cut_signal) = oneshot::channel();
    let world = Mutex::new(World::new(case.first, case.queue_sizes, case.splices, &case.steps, cut));
    let traffic = Traffic::default();
    let mut oracle = Oracle::new(case.first, case.limits, &world, &traffic);
    oracle.sees_unread_end = false; // this engine learns of the end of a stream only by a receive
    let mut engine = Completions {
        core: Core::new(case.first, case.limits, &traffic, false, Instant::now()),
        world: &world,
        up: Held {
            bytes: first_bytes(case.first),
            ..Held::default()
        },
        down: Held::default(),
    };
    let mut last_step_at = Instant::now();
    loop {
        world.lock().begins_poll();
        engine.run();
        if let Some(closed) = engine.core.closed() {
            oracle.ended(closed);
            return closed;
        }
        oracle.between_polls();
        let next = world.lock().next_step_in();
        let next_step = last_step_at + next.unwrap_or(end_after(case));
        let deadline = engine.core.deadline();
        sleep_until(deadline.map_or(next_step, |deadline| deadline.min(next_step))).await;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let queue = |side| Some(world.lock().queue(side));
            engine.core.expire(Instant::now(), queue);
        } else {
            last_step_at = Instant::now();
            let mut world = world.lock();
            if !world.step() {
                world.end_peers(case.ends_well);
            }
        }
    }
}

fn run_case(case: &Case) -> Closed {
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    paused.unwrap().block_on(relay_case(case))
}

/// The case, but some of its streams are truncated where they would end.
fn with_truncations(mut case: Case, are_truncated: &[bool]) -> Case {
    for (step, is_truncated) in case.steps.iter_mut().zip(are_truncated) {
        if let (Act::Ends(side), true) = (step.act, is_truncated) {
            step.act = Act::Truncates(side);
        }
    }
    case
}

/// The client has finished. Then both peers send a reset at the same time, and the engine sees the client's first. The
/// core cannot know that the server's connection broke, too.
#[test]
fn a_reset_that_the_engine_has_not_seen_does_not_count() {
    let step = |when, act| Step { when, act };
    let breaks = |side| Act::Breaks(side, Fault::Reset);
    let case = Case {
        first: 0,
        limits: RelayLimits {
            idle_timeout: None,
            half_close_timeout: None,
            ends_with_server: false,
        },
        queue_sizes: [1_000; 2],
        splices: [Ok(()); 2],
        steps: vec![
            step(When::Millis(0), Act::Ends(Side::Client)),
            step(When::Millis(10), breaks(Side::Server)),
            step(When::Calls(0), breaks(Side::Client)),
        ],
        bandwidth: None,
        ends_well: true,
    };
    assert_eq!(run_case(&case), Closed::ResetAfterEnd(Side::Client));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_algorithm: RngAlgorithm::XorShift, ..ProptestConfig::with_cases(1_000) })]
    #[test]
    fn an_engine_based_on_completions_can_drive_the_core(case in cases(), are_truncated in vec(any::<bool>(), 60)) {
        let case = with_truncations(case, &are_truncated);
        run_case(&case);
    }
}
