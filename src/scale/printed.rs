//! The output of a clone, bounded in length and rate.

use std::time::Duration;

use tokio::time::Instant;

use crate::text::Lines;

/// How many lines of a clone are logged at once.
const BURST: u32 = 100;

/// After that, one more line in this time.
const LINE_EVERY: Duration = Duration::from_millis(50);

/// A line that a clone has printed.
#[derive(Debug, PartialEq, Eq)]
pub struct PrintedLine {
    /// The line.
    pub line: String,
    /// How many lines before it are not logged.
    pub suppressed: u64,
}

/// The lines of a clone that are logged: the beginning of long ones, and 20 a second after the first hundred.
pub struct PrintedLines {
    lines: Lines,
    allowance: Allowance,
    suppressed: u64,
}

impl PrintedLines {
    /// A clone that has printed nothing so far.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            lines: Lines::default(),
            allowance: Allowance::new(now),
            suppressed: 0,
        }
    }

    /// The lines that these bytes complete.
    pub fn push(&mut self, bytes: &[u8], now: Instant) -> Vec<PrintedLine> {
        let ended = self.lines.push(bytes);
        ended.into_iter().filter_map(|line| self.admit(&line, now)).collect()
    }

    /// The last line, if it has no end. To be called when there is nothing more.
    pub fn finish(&mut self, now: Instant) -> Option<PrintedLine> {
        let line = self.lines.finish()?;
        self.admit(&line, now)
    }

    fn admit(&mut self, line: &[u8], now: Instant) -> Option<PrintedLine> {
        if !self.allowance.take(now) {
            self.suppressed += 1;
            return None;
        }
        Some(PrintedLine {
            line: String::from_utf8_lossy(line).into_owned(),
            suppressed: std::mem::take(&mut self.suppressed),
        })
    }
}

/// How many lines may be logged.
struct Allowance {
    lines: u32,
    /// When lines were last added.
    added_at: Instant,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self {
            lines: BURST,
            added_at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = (now - self.added_at).as_nanos() / LINE_EVERY.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            self.lines = self.lines.saturating_add(gained).min(BURST);
            self.added_at = now;
        }
        let is_allowed = self.lines > 0;
        self.lines = self.lines.saturating_sub(1);
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_reduced_to_twenty_lines_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut admitted = |second: u64| {
            let taken = (0..1000).filter(|milli| allowance.take(start + Duration::from_millis(second * 1000 + milli)));
            taken.count()
        };
        assert_eq!((admitted(0), admitted(1), admitted(2)), (119, 20, 20));
        assert_eq!(admitted(3600), 119, "a burst is saved up");
    }

    #[test]
    fn suppressed_lines_are_counted() {
        let now = Instant::now();
        let mut printed = PrintedLines::new(now);
        assert_eq!(printed.push(&b"again\n".repeat(103), now).len(), 100);
        let next = printed.push(b"at last", now + LINE_EVERY);
        assert_eq!(
            (next, printed.finish(now + LINE_EVERY)),
            (
                vec![],
                Some(PrintedLine {
                    line: "at last".into(),
                    suppressed: 3
                })
            )
        );
    }
}
