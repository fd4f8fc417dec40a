//! How much to read next, and whether to copy or to splice.

use super::copy::SCRATCH_BYTES;

/// What is read at once while the other side takes less than it is given: what it does not take has to be copied.
const CAUTIOUS_READ_BYTES: usize = 16 * 1024;

/// Whole writes in a row that end caution.
const WHOLE_WRITES_AGAIN: u8 = 3;

/// Reads in a row, each of at least [`LARGE_READ_BYTES`], that prove a half to be bulk.
const LARGE_READS_OF_BULK: u8 = 2;

/// Half of what one read can be.
const LARGE_READ_BYTES: usize = SCRATCH_BYTES / 2;

/// Fills of the pipe in a row, each under [`CAUTIOUS_READ_BYTES`], that prove bulk to be over.
const SMALL_FILLS_OF_TALK: u8 = 2;

/// What the last reads and writes of a half say about its next one: how much to read, and by which means.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bulk: bool,
    large_reads: u8,
    small_fills: u8,
    /// Whole writes still missing until reads are full-sized again.
    cautious_for: u8,
}

impl Pace {
    /// Whether to splice.
    pub(super) fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// How much a copy may read.
    pub(super) fn read_max(&self) -> usize {
        if self.cautious_for > 0 {
            CAUTIOUS_READ_BYTES
        } else {
            SCRATCH_BYTES
        }
    }

    /// Bytes were read to be copied; `whole` if all of them were taken at once.
    pub(super) fn copied(&mut self, read: usize, whole: bool) {
        self.cautious_for = if whole {
            self.cautious_for.saturating_sub(1)
        } else {
            WHOLE_WRITES_AGAIN
        };
        self.large_reads = if read >= LARGE_READ_BYTES {
            self.large_reads + 1
        } else {
            0
        };
        if self.large_reads == LARGE_READS_OF_BULK {
            *self = Self {
                bulk: true,
                ..Self::default()
            };
        }
    }

    /// Bytes were spliced into a pipe.
    pub(super) fn filled_pipe(&mut self, filled: usize) {
        self.small_fills = if filled < CAUTIOUS_READ_BYTES {
            self.small_fills + 1
        } else {
            0
        };
        if self.small_fills == SMALL_FILLS_OF_TALK {
            *self = Self::default();
        }
    }

    /// There is no pipe, or it cannot be filled. Copy; the next proof of bulk asks for a pipe again.
    pub(super) fn no_pipe(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_large_reads_are_bulk_and_two_small_fills_end_it() {
        let mut pace = Pace::default();
        for read in [SCRATCH_BYTES, LARGE_READ_BYTES - 1, LARGE_READ_BYTES] {
            pace.copied(read, true);
        }
        assert!(!pace.is_bulk(), "a smaller read in between starts the count anew");
        pace.copied(LARGE_READ_BYTES, false);
        assert!(pace.is_bulk());
        for filled in [100, 1 << 17, 100] {
            pace.filled_pipe(filled);
        }
        assert!(pace.is_bulk());
        pace.filled_pipe(100);
        assert!(!pace.is_bulk());
    }

    #[test]
    fn a_short_write_makes_reads_small_until_three_whole_ones() {
        let mut pace = Pace::default();
        pace.copied(5, false);
        for _ in 0..WHOLE_WRITES_AGAIN {
            assert_eq!(pace.read_max(), CAUTIOUS_READ_BYTES);
            pace.copied(5, true);
        }
        assert_eq!(pace.read_max(), SCRATCH_BYTES);
    }
}
