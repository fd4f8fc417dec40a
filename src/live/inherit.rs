//! What a new pool learns from other pools about the primary among its servers.
//!
//! A renamed pool, or a second pool of the same servers, must know as much as the first one. Otherwise, if an old
//! primary came back alone, the new pool would take the old primary for the present one.

use std::sync::Arc;

use super::pool::LivePool;
use crate::plan::ServerEntry;
use crate::pool::ServerRegistry;

/// Gives `pool` a primary that another pool remembers. This primary must be a server of `pool`. Nothing is done if
/// `pool` needs no primary, or remembers one. Pools that exist are preferred to those that are gone; then those
/// with the highest timeline are preferred. If the preferred pools remember different primaries, nothing is inherited.
/// `find_pool`: finds an existing pool by its name.
pub(super) fn inherit_primary<'p>(
    pool: &LivePool,
    find_pool: impl Fn(&str) -> Option<&'p Arc<LivePool>>,
    registry: &ServerRegistry,
) {
    if !pool.plan().health.required.has_primary() || pool.roles().known_primary().is_some() {
        return;
    }
    let entries = pool.entries();
    let candidates = registry.known_primaries().into_iter().filter_map(|(name, known)| {
        let entry = entries.iter().find(|entry| has_label(entry, &known.server))?;
        let existing = find_pool(&name);
        let has_server = |other: &Arc<LivePool>| other.entries().iter().any(|theirs| is_same_server(theirs, entry));
        if existing.is_some_and(|other| !has_server(other)) {
            return None; // in the other pool, a different server has this label
        }
        let rank = (existing.is_some(), known.highest_timeline());
        Some((rank, name, known))
    });
    let candidates: Vec<_> = candidates.collect();
    let Some(best_rank) = candidates.iter().map(|(rank, ..)| *rank).max() else {
        return;
    };
    let mut best = candidates.into_iter().filter(|(rank, ..)| *rank == best_rank);
    let Some((_, from, known)) = best.next() else { return };
    if best.any(|(_, _, other)| other.server != known.server) {
        return; // they disagree
    }
    let (server, timeline) = (known.server.clone(), known.timeline);
    if pool.roles().inherit(known) {
        tracing::info!(pool = %pool.name(), %server, timeline, %from, "the pool begins with the primary that another pool remembers");
    }
}

/// Whether a server of this entry can have this label. An entry with a host name has a server for each address of the
/// name, with the address in its label: `db.test:5432@10.0.0.1`.
fn has_label(entry: &ServerEntry, label: &str) -> bool {
    let rest = label.strip_prefix(&**entry.label());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

fn is_same_server(one: &ServerEntry, other: &ServerEntry) -> bool {
    (&one.name, &one.written) == (&other.name, &other.written)
}
