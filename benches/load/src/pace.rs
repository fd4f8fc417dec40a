//! Messages that are due at a steady rate, whether or not earlier ones are answered.

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// How many messages are due at the same time. With fewer, the thread of [`pace`] would wake more often.
const TOGETHER: u32 = 2;

/// Tells one session after the other when its next message is due, `rate` times per second over all sessions, until a
/// session ends. Runs on a thread of its own, because tokio's timers have a resolution of a millisecond.
pub(crate) fn pace(rate: u32, sessions: Vec<UnboundedSender<Instant>>) {
    thread::spawn(move || {
        let every = Duration::from_secs(1) * TOGETHER / rate;
        let mut due = Instant::now();
        for (number, session) in (0..TOGETHER).cycle().zip(sessions.iter().cycle()) {
            if number == 0 {
                due += every;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            if session.send(due).is_err() {
                return;
            }
        }
    });
}
