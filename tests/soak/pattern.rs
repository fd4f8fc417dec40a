//! The content of sessions: each byte depends on its position and its session, so that loss, duplication or a mix-up is
//! detected.

use std::sync::LazyLock;

/// Patterns repeat after this many bytes: a prime, so that no buffer size divides it.
const PERIOD: usize = 1_000_003;

/// The distance between the starts of directions with consecutive numbers: a prime, so that two directions start at the
/// same position only if their numbers differ by a multiple of [`PERIOD`].
const START_DISTANCE: usize = 7_919;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..PERIOD).map(|_| rng.u8(..)).collect()
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// The content of one direction of one session. Directions start at different positions: see [`START_DISTANCE`].
pub struct Pattern {
    at: usize,
}

impl Pattern {
    pub fn new(session: u32, direction: Direction) -> Self {
        let number = usize::try_from(session).expect("a usize has at least 32 bits") * 2 + direction as usize;
        Self {
            at: number * START_DISTANCE % PERIOD,
        }
    }

    /// The next bytes: at least one, and at most this many.
    pub fn next(&mut self, bytes_max: usize) -> &'static [u8] {
        let end = PERIOD.min(self.at + bytes_max);
        let next = &BYTES[self.at..end];
        self.at = end % PERIOD;
        next
    }

    /// Whether these are the next bytes; moves past them.
    pub fn continues_with(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.next(bytes.len());
            let (now, later) = bytes.split_at(expected.len());
            if now != expected {
                return false;
            }
            bytes = later;
        }
        true
    }
}
