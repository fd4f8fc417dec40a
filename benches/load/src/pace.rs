//! Messages at a steady rate, whether or not earlier ones are answered.

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// Messages that are due at the same time: fewer would wake this thread more often.
const TOGETHER: u32 = 2;

/// Sends the sessions in turn the time at which their next message is due, `rate` times per second over all sessions,
/// until a session ends. Runs on a thread of its own, because tokio's timers have a resolution of a millisecond.
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
