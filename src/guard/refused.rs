//! The sources that are refused most, in a table of fixed size.

use parking_lot::Mutex;

use super::client_source::ClientSource;

/// How many sources are followed.
const FOLLOWED: usize = 64;

/// The sources that are refused most often, by the "space saving" algorithm (Metwally, Agrawal, El Abbadi: "Efficient
/// computation of frequent and top-k elements in data streams", 2005). A source with more than one in 64 of all
/// refusals is always in the table. Counts may be too high, by at most one in 64 of all refusals: a source takes over
/// the count of the source that it replaces. A guard with `report_only` counts here the clients that it would refuse.
#[derive(Debug, Default)]
pub(super) struct RefusedSources {
    // A blocking mutex, locked for a few statements by each refusal.
    followed: Mutex<Vec<(ClientSource, u64)>>,
}

impl RefusedSources {
    /// Counts a refusal of a source.
    pub(super) fn record(&self, source: ClientSource) {
        let mut followed = self.followed.lock();
        if let Some((_, refusals)) = followed.iter_mut().find(|(other, _)| *other == source) {
            *refusals += 1;
        } else if followed.len() < FOLLOWED {
            followed.push((source, 1));
        } else if let Some(least) = followed.iter_mut().min_by_key(|(_, refusals)| *refusals) {
            *least = (source, least.1 + 1);
        }
    }

    /// The sources with the most refusals, at most `shown_max`, the most refused first.
    pub(super) fn top(&self, shown_max: usize) -> Vec<(ClientSource, u64)> {
        let mut top = self.followed.lock().clone();
        top.sort_unstable_by_key(|(source, refusals)| (std::cmp::Reverse(*refusals), *source));
        top.truncate(shown_max);
        top
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::client_source::SourceBits;
    use super::*;

    #[test]
    fn the_most_refused_source_is_found_among_many() {
        let refused = RefusedSources::default();
        let source = |number: u32| ClientSource::new(IpAddr::from(number.to_be_bytes()).into(), SourceBits::default());
        for number in 0..20_000 {
            refused.record(source(1_000 + number));
            if number % 10 == 0 {
                refused.record(source(7));
            }
        }
        let (first, refusals) = refused.top(3)[0];
        assert_eq!(first, source(7));
        assert!(refusals >= 2_000, "{refusals}");
    }
}
