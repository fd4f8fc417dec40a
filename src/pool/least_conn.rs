//! stub
use super::Candidate;
/// The index of the chosen server.
#[must_use]
pub fn choose(candidates: &[Candidate<'_>], turn: usize) -> Option<usize> {
    let n = candidates.len();
    (0..n)
        .map(|i| &candidates[(i + turn) % n])
        .min_by_key(|c| (u64::from(c.live) + 1) * 1_000_000 / u64::from(c.weight))
        .map(|c| c.index)
}
