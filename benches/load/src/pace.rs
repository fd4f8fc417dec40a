//! Questions at a steady rate, whether or not the ones before are answered.

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// Questions that are due together: fewer would wake the generator more often than it has to.
const TOGETHER: u32 = 2;

/// Tells the sessions in turn when their next question is due, `rate` times a second over all of them, until they are
/// gone. On a thread of its own: tokio's timers count in milliseconds.
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
