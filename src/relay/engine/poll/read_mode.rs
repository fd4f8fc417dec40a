//! The choice between copying and splicing, and the size of the next read.

use super::copy::SCRATCH_BYTES;

/// The size of a read after a short write. It is small, because what the receiver does not accept must be copied out of
/// the scratch buffer.
const SMALL_READ_BYTES: usize = 16 * 1024;

/// Whole writes (see [`ReadMode::record_copy`]) in a row after which reads are full-sized again.
const WHOLE_WRITES_TO_RECOVER: u8 = 3;

/// Reads in a row, each of at least [`LARGE_READ_BYTES`], that start bulk mode.
const LARGE_READS_TO_START_BULK: u8 = 2;

/// The least size of a large read.
const LARGE_READ_BYTES: usize = SCRATCH_BYTES / 2;

/// Fills of the pipe in a row, each under [`SMALL_READ_BYTES`], that end bulk mode.
const SMALL_FILLS_TO_END_BULK: u8 = 2;

/// How one direction of a session reads next, derived from its last reads and writes.
#[derive(Debug, Default)]
pub(super) struct ReadMode {
    is_bulk: bool,
    large_reads: u8,
    small_fills: u8,
    /// Whole writes still needed until reads are full-sized again.
    whole_writes_needed: u8,
}

impl ReadMode {
    /// Whether to splice (bulk mode).
    pub(super) fn is_bulk(&self) -> bool {
        self.is_bulk
    }

    /// Bytes that a copy may read.
    pub(super) fn read_max(&self) -> usize {
        if self.whole_writes_needed > 0 {
            SMALL_READ_BYTES
        } else {
            SCRATCH_BYTES
        }
    }

    /// Records a copy of `read` bytes. The write is whole if the receiver accepted and flushed all of them at once.
    pub(super) fn record_copy(&mut self, read: usize, is_whole: bool) {
        self.whole_writes_needed = if is_whole {
            self.whole_writes_needed.saturating_sub(1)
        } else {
            WHOLE_WRITES_TO_RECOVER
        };
        self.large_reads = if read >= LARGE_READ_BYTES {
            self.large_reads + 1
        } else {
            0
        };
        if self.large_reads == LARGE_READS_TO_START_BULK {
            *self = Self {
                is_bulk: true,
                ..Self::default()
            };
        }
    }

    /// Records a splice of `filled` bytes into a pipe.
    pub(super) fn record_fill(&mut self, filled: usize) {
        self.small_fills = if filled < SMALL_READ_BYTES {
            self.small_fills + 1
        } else {
            0
        };
        if self.small_fills == SMALL_FILLS_TO_END_BULK {
            *self = Self::default();
        }
    }

    /// Returns to copying, because TLS is terminated or begun here, no pipe is available, or the pipe cannot be
    /// filled. Large reads start bulk mode again.
    pub(super) fn stop_bulk(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_large_reads_start_bulk_mode_and_two_small_fills_end_it() {
        let mut read_mode = ReadMode::default();
        for read in [SCRATCH_BYTES, LARGE_READ_BYTES - 1, LARGE_READ_BYTES] {
            read_mode.record_copy(read, true);
        }
        assert!(
            !read_mode.is_bulk(),
            "expected a smaller read in between to restart the count"
        );
        read_mode.record_copy(LARGE_READ_BYTES, false);
        assert!(read_mode.is_bulk());
        for filled in [100, 1 << 17, 100] {
            read_mode.record_fill(filled);
        }
        assert!(read_mode.is_bulk());
        read_mode.record_fill(100);
        assert!(!read_mode.is_bulk());
    }

    #[test]
    fn reads_are_small_after_a_short_write_until_three_whole_writes() {
        let mut read_mode = ReadMode::default();
        read_mode.record_copy(5, false);
        for _ in 0..WHOLE_WRITES_TO_RECOVER {
            assert_eq!(read_mode.read_max(), SMALL_READ_BYTES);
            read_mode.record_copy(5, true);
        }
        assert_eq!(read_mode.read_max(), SCRATCH_BYTES);
    }
}
