//! Why a server that calls itself primary is not one, in words.

use super::{Claim, Numbering, PrimaryWatch, Seen, is_same_system};

impl PrimaryWatch {
    /// Why this server, which calls itself primary, is not one.
    pub(super) fn why_rejected(&self, server: &str, seen: Seen, claim: Claim) -> String {
        if let Some(known) = &self.known
            && !is_same_system(known.system_identifier, seen.system_identifier)
            && let (Some(other), Some(own)) = (known.system_identifier, seen.system_identifier)
        {
            let primary = &known.server;
            return format!("another database: its system identifier is {own}, and that of {primary} is {other}");
        }
        let (numbering, on) = (claim.numbering, preposition(claim.numbering));
        let is_same = |other: &Seen| is_same_system(other.system_identifier, seen.system_identifier);
        let claims = self.claims().filter(|(_, other, _)| is_same(other));
        let timelines = claims.filter_map(|(other, _, claim)| Some((&**other, claim.timeline?)));
        let highest = || timelines.max_by_key(|(_, timeline)| *timeline);
        // An operator may have overruled those that are higher than the one in force.
        let used = self
            .in_force()
            .and_then(|used| Some((used, self.known.as_ref()?.timeline?)));
        if let (Some(low), Some((other, high))) = (claim.timeline, used.or_else(highest))
            && low < high
        {
            return format!("an old primary: {numbering} {low}, and {other} is {on} {high}");
        }
        if self.in_force().is_none() && self.may_follow(server) {
            let awaited: Vec<_> = self.awaited().map(|(label, _)| &**label).collect();
            if !awaited.is_empty() {
                let names = awaited.join(", ");
                return format!("not decided: the role of {names} is not known; `acequia pool trust` decides");
            }
        }
        if let Some(known) = &self.known {
            let primary = &known.server;
            if let (None, Some(known)) = (claim.timeline, known.timeline) {
                return format!("the timeline of the server cannot be read, and {primary} was on {known}");
            }
            return match (claim.timeline, known.highest_timeline()) {
                (Some(timeline), _) if known.overruled >= Some(timeline) => {
                    format!("an operator has decided against {numbering} {timeline}: {primary} is the primary")
                }
                (Some(low), Some(high)) if low < high && **primary == *server => {
                    format!("the server has gone back: it is {on} {numbering} {low}, and was {on} {high}")
                }
                (Some(low), Some(high)) if low < high => {
                    format!("an old primary: {numbering} {low}, and {primary} was {on} {high}")
                }
                (Some(number), _) => format!("a second primary {on} {numbering} {number}: {primary} is the first"),
                (None, _) => format!("a second primary: {primary} is the first"),
            };
        }
        let others: Vec<_> = self
            .claims()
            .map(|(label, ..)| &**label)
            .filter(|label| *label != server)
            .collect();
        if others.is_empty() {
            return "another server called itself primary too, and none is known to be the right one".to_owned();
        }
        let others = others.join(", ");
        format!("{others} calls itself primary too, and none is known to be the right one")
    }
}

fn preposition(numbering: Numbering) -> &'static str {
    match numbering {
        Numbering::Timeline | Numbering::None => "on",
        Numbering::Epoch { .. } => "in",
    }
}
