//! What is seen while it runs: each second a row of who has how many sessions.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::DRAIN_SECONDS;
use crate::config::report::counted;
use crate::pool::Member;

/// Between two rows.
const BEAT: Duration = Duration::from_secs(1);

/// Writes rows: on a terminal one that says nothing new is written over the one before.
pub(super) struct Screen<W> {
    is_terminal: bool,
    out: W,
    servers: Vec<Member>,
}

/// Of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    /// Sessions now.
    live: u32,
    /// Sessions ever.
    served: u64,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(is_terminal: bool, out: W, servers: Vec<Member>) -> Self {
        Self {
            is_terminal,
            out,
            servers,
        }
    }

    /// Shows the text, then rows until it is over.
    ///
    /// # Errors
    /// It cannot be written; a broken pipe says that nobody reads it.
    pub(super) async fn show(mut self, text: &str, over: &CancellationToken) -> io::Result<()> {
        let began = Instant::now();
        let mut before = self.counts();
        let mut last = head(&self.servers);
        write!(self.out, "{text}{last}")?;
        self.end_row()?;
        let mut beats = interval_at(began + BEAT, BEAT);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut is_ending = false;
        loop {
            tokio::select! {
                () = over.cancelled() => break,
                _ = interrupt.recv(), if !is_ending => {
                    is_ending = true;
                    last = self.tell_the_end()?;
                    continue;
                }
                _ = beats.tick() => {}
            }
            let now = self.counts();
            let row = row(&before, &now);
            let again = self.is_terminal && row == last;
            let (start, time) = (if again { "\r" } else { self.row_start() }, began.elapsed().as_secs());
            write!(self.out, "{start}{:>4}:{:02}{row}", time / 60, time % 60)?;
            self.end_row()?;
            (before, last) = (now, row);
        }
        let served: u64 = self.counts().iter().map(|count| count.served).sum();
        writeln!(
            self.out,
            "{}over, after {}",
            self.row_start(),
            counted(served as usize, "session")
        )
    }

    /// Says what a drain waits for, if it does. Nothing is to be written over that.
    fn tell_the_end(&mut self) -> io::Result<String> {
        let live: u32 = self.counts().iter().map(|count| count.live).sum();
        if live > 0 {
            let (start, sessions) = (self.row_start(), counted(live as usize, "open session"));
            write!(
                self.out,
                "{start}{sessions} may end within {DRAIN_SECONDS} s; Ctrl-C again cuts"
            )?;
            self.end_row()?;
        }
        Ok(String::new())
    }

    fn counts(&self) -> Vec<Count> {
        let count = |server: &Member| Count {
            live: server.live(),
            served: server.served(),
        };
        self.servers.iter().map(count).collect()
    }

    /// On a terminal the cursor stays behind the row, where it can be written over.
    fn row_start(&self) -> &'static str {
        if self.is_terminal { "\n" } else { "" }
    }

    fn end_row(&mut self) -> io::Result<()> {
        if !self.is_terminal {
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}

/// Names above the columns of [`row`].
fn head(servers: &[Member]) -> String {
    let mut head = String::from("Sessions now, and +new ones, on server\n       ");
    for server in servers {
        // Writing to a String cannot fail.
        let _ = write!(head, "{:>7}    ", server.spec().label);
    }
    head.trim_end().to_owned()
}

/// `3 +1` for each server: three sessions, one of them new.
fn row(before: &[Count], now: &[Count]) -> String {
    let mut row = String::new();
    for (before, now) in before.iter().zip(now) {
        let new = match now.served.saturating_sub(before.served) {
            0 => String::new(),
            new => format!("+{new}"),
        };
        let _ = write!(row, "{:>7} {new:<3}", now.live);
    }
    row.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_who_has_how_many_and_who_got_new_ones() {
        let count = |live, served| Count { live, served };
        let before = [count(0, 0), count(1, 1), count(0, 7)];
        let now = [count(0, 0), count(2, 2), count(0, 19)];
        assert_eq!(row(&before, &now), "      0          2 +1       0 +12");
    }
}
