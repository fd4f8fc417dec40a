//! stub
use super::Candidate;
/// The index of the chosen server.
#[must_use]
pub fn choose(candidates: &[Candidate<'_>], mut draw: impl FnMut(usize) -> usize) -> Option<usize> {
    (!candidates.is_empty()).then(|| candidates[draw(candidates.len())].index)
}
