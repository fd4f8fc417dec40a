//! The bound on silence, and what counts as silence.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// What the kernel has still to send on a socket, or to hear of. It changes with all that reaches the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) unacknowledged: u32,
    pub(super) not_sent_bytes: u32,
}

impl Queue {
    pub(super) fn is_delivered(self) -> bool {
        self.unacknowledged == 0 && self.not_sent_bytes == 0
    }
}

/// The bound on silence. The timer is re-armed when it expires, never at every read.
///
/// Bytes that only the kernel still moves, to a peer that reads slowly, are no silence either. There is no event for
/// them, so the send queues are looked at, and only once half of the time is over: twice a silence.
pub(super) struct Quiet {
    limit: Duration,
    pulse: (u64, usize),
    since: Instant,
    /// The send queues when they were last looked at in this silence.
    queues: Option<[Option<Queue>; 2]>,
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    pub(super) fn new(limit: Duration) -> Box<Self> {
        Box::new(Self {
            limit,
            pulse: (0, 0),
            since: Instant::now(),
            queues: None,
            timer: Box::pin(sleep(limit / 2)),
        })
    }

    /// Ready when nothing has moved for as long as the limit. To be polled after every move.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        pulse: (u64, usize),
        look: impl Fn() -> [Option<Queue>; 2],
    ) -> Poll<()> {
        if pulse != self.pulse {
            self.pulse = pulse;
            self.since = Instant::now();
            self.queues = None;
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let next = if self.since.elapsed() < self.limit / 2 {
                self.since + self.limit / 2
            } else {
                let queues = look();
                if self.queues.replace(queues).is_some_and(|before| before != queues) {
                    self.since = Instant::now();
                    // Never later than half of the time after the last move: or this silence had no first look.
                    self.since + self.limit / 2
                } else if self.since.elapsed() >= self.limit {
                    return Poll::Ready(());
                } else {
                    self.since + self.limit
                }
            };
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}
