//! The output of a clone, bounded in length and rate.

use std::time::Duration;

use tokio::time::Instant;

use crate::text::Lines;

/// How many lines of a clone are logged at once.
const BURST: u32 = 100;

/// After a burst, one more line is logged in each interval of this length.
const LINE_EVERY: Duration = Duration::from_millis(50);

/// A line that a clone has printed.
#[derive(Debug, PartialEq, Eq)]
pub struct PrintedLine {
    /// The line.
    pub line: String,
    /// How many lines just before it are not logged.
    pub suppressed: u64,
}

/// Chooses the lines of a clone that are logged: up to a hundred at once, 20 a second over time, and the last line. Of
/// a long line, only the beginning is logged.
pub struct PrintedLines {
    lines: Lines,
    allowance: Allowance,
    /// How many lines have not been logged since the last one that was.
    suppressed: u64,
    /// The latest of them.
    last_suppressed: Option<String>,
}

impl PrintedLines {
    /// A clone that has printed nothing so far.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            lines: Lines::default(),
            allowance: Allowance::new(now),
            suppressed: 0,
            last_suppressed: None,
        }
    }

    /// The lines that these bytes complete, without those that are not logged.
    pub fn push(&mut self, bytes: &[u8], now: Instant) -> Vec<PrintedLine> {
        let ended = self.lines.push(bytes);
        ended.into_iter().filter_map(|line| self.admit(&line, now)).collect()
    }

    /// The last line, unless it was logged. To be called when there is nothing more.
    pub fn finish(&mut self, now: Instant) -> Option<PrintedLine> {
        let admitted = self.lines.finish().and_then(|line| self.admit(&line, now));
        admitted.or_else(|| {
            let line = self.last_suppressed.take()?;
            let suppressed = std::mem::take(&mut self.suppressed) - 1;
            Some(PrintedLine { line, suppressed })
        })
    }

    fn admit(&mut self, line: &[u8], now: Instant) -> Option<PrintedLine> {
        let line = String::from_utf8_lossy(line).into_owned();
        if !self.allowance.take(now) {
            self.suppressed += 1;
            self.last_suppressed = Some(line);
            return None;
        }
        self.last_suppressed = None;
        let suppressed = std::mem::take(&mut self.suppressed);
        Some(PrintedLine { line, suppressed })
    }
}

/// A token bucket: each logged line takes a token.
struct Allowance {
    tokens: u32,
    /// The time up to which tokens were added.
    refilled_until: Instant,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            refilled_until: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = (now - self.refilled_until).as_nanos() / LINE_EVERY.as_nanos();
        match u32::try_from(gained) {
            Ok(gained) if gained < BURST => {
                self.tokens = (self.tokens + gained).min(BURST);
                self.refilled_until += gained * LINE_EVERY; // the rest counts towards the next token
            }
            _ => (self.tokens, self.refilled_until) = (BURST, now),
        }
        let is_allowed = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
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
        assert_eq!((admitted(0), admitted(1), admitted(2)), (100 + 19, 20, 20));
        assert_eq!(admitted(3600), 100 + 19, "a burst is saved up");
        let start = start + Duration::from_secs(7200);
        let every_49_ms = (0..1000).map(|line| start + Duration::from_millis(49 * line));
        let logged = every_49_ms.filter(|at| allowance.take(*at)).count();
        assert_eq!(logged, 1000, "the burst makes up for 21 lines");
        let every_30_ms = (0..1000).map(|line| start + Duration::from_secs(60) + Duration::from_millis(30 * line));
        let logged = every_30_ms.filter(|at| allowance.take(*at)).count();
        assert_eq!(
            logged,
            100 + 30 * 20 - 1,
            "a hundred at once and 20 a second, for 29.97 s"
        );
    }

    #[test]
    fn the_last_line_of_a_flood_is_logged() {
        let now = Instant::now();
        let mut printed = PrintedLines::new(now);
        printed.push(&b"again\n".repeat(102), now);
        printed.push(b"crashed\n", now);
        let last = |line: &str, suppressed| PrintedLine {
            line: line.into(),
            suppressed,
        };
        assert_eq!(printed.finish(now), Some(last("crashed", 2)));
        assert_eq!(printed.finish(now), None, "it is logged once");
        printed.push(b"more\nand mor", now);
        assert_eq!(printed.finish(now), Some(last("and mor", 1)));
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
