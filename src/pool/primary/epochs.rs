//! Configuration epochs begin at 0 again when the Sentinels are set up anew.
//!
//! For example, `a` was the primary in epoch 5, and new Sentinels agree on `b` in epoch 0. Two checks of `b` with that
//! result renew the numbers: `b` is the primary, and epoch 0 is remembered. One check is not enough, because a check
//! that began before a failover may end after a check that began later. If a check between the two finds `a` in epoch
//! 5, or any server in a higher epoch, the first of the two is void.

use std::sync::Arc;

use super::{Knowledge, Numbering, PrimaryWatch};

impl PrimaryWatch {
    /// Handles the claim that the latest check of this server has found. If the Sentinels agree on the server, but the
    /// epoch of the claim is not in order ([`Self::is_in_order`]), the server becomes the candidate. At the second such
    /// check, the candidate becomes the primary, and its epoch is remembered.
    ///
    /// If the claim has no number, no Sentinels are configured: numbers that are remembered from before are forgotten.
    pub(super) fn renew_epochs(&mut self, server: &str) {
        let Some(claim) = self.seen(server).and_then(|seen| seen.claim) else {
            return;
        };
        let is_agreed = match claim.numbering {
            Numbering::Epoch { is_agreed } => is_agreed,
            Numbering::Timeline => return,
            Numbering::None => {
                if let Some(known) = &mut self.known {
                    (known.timeline, known.overruled) = (None, None);
                }
                return;
            }
        };
        let epoch = claim.timeline;
        if self.is_in_order(server, epoch) {
            self.renewal_candidate = None;
        } else if is_agreed {
            match self.renewal_candidate.take() {
                Some(candidate) if *candidate == *server => self.begin_anew(&candidate),
                _ => self.renewal_candidate = Some(server.into()),
            }
        }
    }

    /// Whether this epoch is higher than all remembered ones, or is the highest of them and this server is the
    /// remembered primary. False if no primary is remembered.
    fn is_in_order(&self, server: &str, epoch: Option<u32>) -> bool {
        self.known.as_ref().is_some_and(|known| {
            let highest = known.highest_timeline();
            epoch > highest || epoch == highest && *known.server == *server
        })
    }

    /// Makes this server the primary. The claims of other servers are forgotten: their epochs cannot be compared with
    /// its epoch.
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
