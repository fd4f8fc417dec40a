//! Configuration epochs begin at 0 again when the Sentinels are set up anew.
//!
//! For example, `a` was the primary in epoch 5, and new Sentinels agree on `b` in epoch 0. Two checks of `b` with that
//! result renew the numbers: `b` is the primary, and epoch 0 is remembered. One check is not enough, because a check
//! that began before a failover may end after a check that began later. If a check between the two finds `a` in epoch
//! 5, or any server in a higher epoch, the first of the two is void.

use std::sync::Arc;

use super::{Claim, Knowledge, Numbering, PrimaryWatch};

impl PrimaryWatch {
    /// Begins anew with this server and its epoch at the second check in which the Sentinels agree on it, even if a
    /// higher epoch is remembered, or the same epoch with another server.
    ///
    /// If this server's claim has no number, the remembered ones are forgotten: the Sentinels that gave them are no
    /// longer configured.
    pub(super) fn renew_numbers(&mut self, server: &str) {
        let claim = self.seen(server).and_then(|seen| seen.claim);
        if claim.is_some_and(|claim| claim.numbering == Numbering::None)
            && let Some(known) = &mut self.known
        {
            (known.timeline, known.overruled) = (None, None);
        }
        let Some((epoch, is_agreed)) = claim.and_then(epoch) else {
            return;
        };
        if self.is_in_order(server, epoch) {
            self.renewal_candidate = None;
        } else if is_agreed {
            match self.renewal_candidate.take() {
                Some(candidate) if *candidate == *server => self.begin_anew(&candidate),
                _ => self.renewal_candidate = Some(server.into()),
            }
        }
    }

    /// Whether this epoch is higher than the remembered ones, or the same with the same server.
    fn is_in_order(&self, server: &str, epoch: Option<u32>) -> bool {
        self.known.as_ref().is_some_and(|known| {
            let highest = known.highest_timeline();
            epoch > highest || epoch == highest && *known.server == *server
        })
    }

    /// Makes this server the primary. The claims of other servers are forgotten, because their epochs do not compare.
    fn begin_anew(&mut self, server: &Arc<str>) {
        if let Some(known) = &mut self.known {
            known.overruled = None;
        }
        for other in self.claiming.iter().filter(|label| *label != server) {
            if let Some(Knowledge::Seen(seen)) = self.servers.get_mut(other) {
                seen.claim = None;
            }
        }
        self.claiming.retain(|label| label == server);
        self.adopt(server);
    }
}

/// The epoch in which Sentinels have named a server, and whether they agree on it.
fn epoch(claim: Claim) -> Option<(Option<u32>, bool)> {
    match claim.numbering {
        Numbering::Epoch { is_agreed } => Some((claim.timeline, is_agreed)),
        Numbering::Timeline | Numbering::None => None,
    }
}
