//! Who may be picked: the usable servers of the best tier that has any.

use tokio::time::Instant;

use super::{Candidate, Member, PoolRules, ServerId};
use crate::pool::health::Checked;

/// Whether a server may be picked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is up.
    Up,
    /// Nothing is known of it yet.
    Unchecked,
    /// Its back-off is over: one session may try it.
    Trial,
    /// It is down, or out for a while.
    Out,
}

/// How usable a server is, the best first: the tier, then whether it is known to be well.
type Rank = (u8, u8);

/// The rank of a server that may be picked now. Within a tier those come first that are up, an ejected one whose trial
/// is due among them; then those nobody has checked yet.
fn rank(server: &Member, now: Instant) -> Option<Rank> {
    let unknown = u8::from(server.checked() == Checked::Unchecked);
    (server.standing(now) != Standing::Out).then_some((server.priority(), unknown))
}

/// Among whom a policy chooses.
pub(super) struct Choice<'a> {
    pub(super) candidates: Vec<Candidate<'a>>,
    /// Whether they are taken without regard to their being within reach.
    pub(super) in_panic: bool,
}

/// Those of the best rank that are not passed over.
pub(super) fn candidates<'a>(
    servers: &'a [Member],
    rules: &PoolRules,
    now: Instant,
    passed_over: impl Fn(ServerId) -> bool,
) -> Choice<'a> {
    let panicking = tier_in_panic(servers, rules, now);
    let rank = |server: &Member| match panicking {
        Some(tier) if server.priority() == tier => server.is_fit().then_some((tier, 0)),
        _ => rank(server, now),
    };
    let mut found = Vec::with_capacity(servers.len());
    let mut best = (u8::MAX, u8::MAX);
    for (index, server) in servers.iter().enumerate() {
        let Some(rank) = rank(server) else { continue };
        if rank > best || passed_over(server.id()) {
            continue;
        }
        if rank < best {
            found.clear();
            best = rank;
        }
        found.push(Candidate {
            index,
            weight: server.weight(),
            live: server.live(),
            key: server.key(),
            identity: &server.spec().identity,
        });
    }
    ease_in(&mut found, servers, rules, now);
    Choice {
        candidates: found,
        in_panic: panicking == Some(best.0),
    }
}

/// Gives those that came back lately a part of their share. All weights count a hundredfold then, and always in such a
/// pool: who takes turns remembers in units of weight.
fn ease_in(found: &mut [Candidate<'_>], servers: &[Member], rules: &PoolRules, now: Instant) {
    let Some(slow_start) = rules.slow_start else { return };
    for candidate in found {
        candidate.weight *= servers[candidate.index].percent(now, slow_start); // at most 256 * 100
    }
}

/// The best tier, if so few of its servers are well that all of them are to be used.
///
/// The best is the first with a usable server; where no tier has one, the first with a server that is merely out of
/// reach. Servers nobody has checked yet count as well: nothing is known against them.
pub(super) fn tier_in_panic(servers: &[Member], rules: &PoolRules, now: Instant) -> Option<u8> {
    let threshold = usize::from(rules.panic_threshold?);
    let best = |is_of: &dyn Fn(&Member) -> bool| {
        let tiers = servers.iter().filter(|server| is_of(server)).map(|s| s.priority());
        tiers.min()
    };
    let tier = best(&|server| server.standing(now) != Standing::Out).or_else(|| best(&Member::is_fit))?;
    let there = || {
        servers
            .iter()
            .filter(|server| server.priority() == tier && server.is_enlisted())
    };
    let well = there().filter(|server| matches!(server.standing(now), Standing::Up | Standing::Unchecked));
    (well.count() * 100 < threshold * there().count()).then_some(tier)
}
