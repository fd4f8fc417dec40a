//! The live table: each second a row with the sessions of each server.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::configuration::DRAIN_SECONDS;
use crate::account::sessions_opened;
use crate::pool::Member;
use crate::scale::{CloneState, PoolScale};
use crate::text::counted;

/// The interval between two rows.
const ROW_INTERVAL: Duration = Duration::from_secs(1);

/// Prints the table. On a terminal, a row that differs from the previous one only in its time overwrites it.
pub(super) struct Screen<W> {
    is_terminal: bool,
    out: W,
    servers: Vec<Member>,
    /// The clones of the pool `app`.
    clones: Arc<PoolScale>,
}

/// The sessions of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SessionCount {
    /// Open sessions.
    live: u32,
    /// Sessions since the start, open ones included.
    served: u64,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(is_terminal: bool, out: W, servers: Vec<Member>, clones: Arc<PoolScale>) -> Self {
        Self {
            is_terminal,
            out,
            servers,
            clones,
        }
    }

    /// Prints `text`, then rows until `ended` is cancelled.
    ///
    /// # Errors
    /// The output cannot be written; a broken pipe means that its reader has gone.
    pub(super) async fn run(mut self, text: &str, ended: &CancellationToken) -> io::Result<()> {
        let started = Instant::now();
        let mut before = self.counts();
        let mut last_row = String::new();
        write!(self.out, "{text}{}", header(&self.servers))?;
        self.end_row()?;
        let mut ticks = interval_at(started + ROW_INTERVAL, ROW_INTERVAL);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut is_ending = false;
        loop {
            tokio::select! {
                () = ended.cancelled() => break,
                _ = interrupt.recv(), if !is_ending => {
                    is_ending = true;
                    self.print_draining()?;
                    last_row.clear(); // so that the next row does not overwrite what was just printed
                    continue;
                }
                _ = ticks.tick() => {}
            }
            let now = self.counts();
            let row = row(&before, &now, self.running_clones());
            let is_same = self.is_terminal && row == last_row;
            let start = if is_same { "\r" } else { self.row_start() };
            let time = started.elapsed().as_secs();
            write!(self.out, "{start}{:>4}:{:02}{row}", time / 60, time % 60)?;
            self.end_row()?;
            (before, last_row) = (now, row);
        }
        let served = sessions_opened();
        writeln!(
            self.out,
            "{}ended after {}",
            self.row_start(),
            counted(served as usize, "session")
        )
    }

    /// Prints how many sessions the drain waits for, if any.
    fn print_draining(&mut self) -> io::Result<()> {
        let live: u32 = self.counts().iter().map(|count| count.live).sum();
        if live > 0 {
            let (start, sessions) = (self.row_start(), counted(live as usize, "open session"));
            write!(
                self.out,
                "{start}draining: {sessions}, cut after {DRAIN_SECONDS} s or on the next Ctrl-C"
            )?;
            self.end_row()?;
        }
        Ok(())
    }

    fn counts(&self) -> Vec<SessionCount> {
        let count = |server: &Member| SessionCount {
            live: server.live(),
            served: server.served(),
        };
        self.servers.iter().map(count).collect()
    }

    fn running_clones(&self) -> usize {
        let clones = self.clones.clones();
        clones.iter().filter(|clone| clone.state == CloneState::Running).count()
    }

    /// The start of a new row. On a terminal that is a line break, because [`Self::end_row`] leaves the cursor at the
    /// end of the previous row.
    fn row_start(&self) -> &'static str {
        if self.is_terminal { "\n" } else { "" }
    }

    /// Ends a row. On a terminal there is no line break, so that the next row can overwrite this one.
    fn end_row(&mut self) -> io::Result<()> {
        if !self.is_terminal {
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}

/// The names of the servers, and a word for the clones, above the columns of [`row`].
fn header(servers: &[Member]) -> String {
    let mut header = String::from("Sessions now, and +new ones, on server\n       ");
    for server in servers {
        // writing to a String cannot fail
        let _ = write!(header, "{:>7}    ", server.spec().label);
    }
    header + "clones"
}

/// One cell for each server: `3 +1` means three open sessions, and one new session since the last row. Then the
/// number of running clones.
fn row(before: &[SessionCount], now: &[SessionCount], clones: usize) -> String {
    let mut row = String::new();
    for (before, now) in before.iter().zip(now) {
        let new = match now.served.saturating_sub(before.served) {
            0 => String::new(),
            new => format!("+{new}"),
        };
        let _ = write!(row, "{:>7} {new:<3}", now.live);
    }
    row + &format!("{clones:>6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_open_and_new_sessions_of_each_server() {
        let count = |live, served| SessionCount { live, served };
        let before = [count(0, 0), count(1, 1), count(0, 7)];
        let now = [count(0, 0), count(2, 2), count(0, 19)];
        assert_eq!(row(&before, &now, 3), "      0          2 +1       0 +12     3");
    }
}
