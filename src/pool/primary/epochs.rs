//! Configuration epochs begin at 0 again when the Sentinels are set up anew.

use super::{Claim, Knowledge, Numbering, PrimaryWatch};

impl PrimaryWatch {
    /// Begins anew with the epoch in which the Sentinels agree on this server, even if a higher epoch, or the same one
    /// with another server, is remembered. It takes two such checks, and in between none that finds a server named in
    /// the remembered epoch or a higher one: during a failover, one check may be overtaken by another. The earlier
    /// claims of other servers are forgotten, because their epochs do not compare.
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
        let Some((timeline, is_agreed)) = claim.and_then(epoch) else {
            return;
        };
        let is_usual = self.known.as_ref().is_some_and(|known| {
            let highest = known.highest_timeline();
            timeline > highest || timeline == highest && *known.server == *server
        });
        if is_usual {
            self.renewal_candidate = None;
            return;
        }
        if !is_agreed {
            return;
        }
        if self
            .renewal_candidate
            .take()
            .is_none_or(|candidate| *candidate != *server)
        {
            self.renewal_candidate = Some(server.into());
            return;
        }
        if let Some(known) = &mut self.known {
            known.overruled = None;
        }
        let others: Vec<_> = self
            .claiming
            .iter()
            .filter(|other| ***other != *server)
            .cloned()
            .collect();
        for other in others {
            self.claiming.remove(&other);
            if let Some(Knowledge::Seen(seen)) = self.servers.get_mut(&other) {
                seen.claim = None;
            }
        }
        self.adopt(&server.into());
    }
}

/// The epoch in which Sentinels have named a server, and whether they agree on it.
fn epoch(claim: Claim) -> Option<(Option<u32>, bool)> {
    match claim.numbering {
        Numbering::Epoch { is_agreed } => Some((claim.timeline, is_agreed)),
        Numbering::Timeline | Numbering::None => None,
    }
}
