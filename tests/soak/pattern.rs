//! What is sent: bytes that depend on their position and on their session, so that none can be lost, doubled or swapped
//! unseen.

use std::sync::LazyLock;

/// Patterns repeat after so many bytes: a prime, and no size of a buffer divides what is sent by it.
const PERIOD: usize = 1_000_003;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..PERIOD).map(|_| rng.u8(..)).collect()
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// One direction of one session; every session begins elsewhere.
pub struct Pattern {
    at: usize,
}

impl Pattern {
    pub fn of(session: u32, direction: Direction) -> Self {
        let number = usize::try_from(session).expect("a usize has 32 bits") * 2 + direction as usize;
        Self {
            at: number * 7_919 % PERIOD,
        }
    }

    /// What comes next: at least one byte, and no more than this.
    pub fn next(&mut self, bytes_max: usize) -> &'static [u8] {
        let end = PERIOD.min(self.at + bytes_max);
        let next = &BYTES[self.at..end];
        self.at = end % PERIOD;
        next
    }

    /// Whether this comes next.
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
