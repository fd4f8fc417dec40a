//! stub
use super::Candidate;
/// State.
#[derive(Debug, Default)]
pub struct RoundRobin {}
impl RoundRobin {
    /// The index of the chosen server.
    pub fn choose(&mut self, candidates: &[Candidate<'_>]) -> Option<usize> {
        candidates.first().map(|c| c.index)
    }
}
