//! Why a server that calls itself primary is not one, in words.

use super::{Claim, KnownPrimary, Numbering, PrimaryWatch, Seen, is_same_system};

impl PrimaryWatch {
    /// Why this server, which calls itself primary, is not one. The first reason that applies is given.
    pub(super) fn why_rejected(&self, server: &str, seen: Seen, claim: Claim) -> String {
        if let Some(known) = &self.known
            && !is_same_system(known.system_identifier, seen.system_identifier)
            && let (Some(remembered), Some(own)) = (known.system_identifier, seen.system_identifier)
        {
            let primary = &*known.server;
            let difference = if primary == server {
                format!("was {remembered}")
            } else {
                format!("that of {primary} is {remembered}")
            };
            return format!("another database: its system identifier is {own}, and {difference}");
        }
        if let (Some(low), Some((other, high))) = (claim.timeline, self.timeline_to_compare_with(seen))
            && low < high
        {
            let (numbering, on) = (claim.numbering, preposition(claim.numbering));
            return format!("an old primary: {numbering} {low}, and {other} is {on} {high}");
        }
        if self.in_force().is_none() && self.may_succeed(server) {
            let awaited: Vec<_> = self.awaited().map(|(label, _)| &**label).collect();
            if !awaited.is_empty() {
                let names = awaited.join(", ");
                return format!("not decided: the role of {names} is not known; `acequia pool trust` decides");
            }
        }
        match &self.known {
            Some(known) => second_to(known, server, claim),
            None => self.one_of_several(server),
        }
    }

    /// The known primary and its timeline. If it does not claim to be the primary now ([`Self::in_force`]), or its
    /// timeline is not known: the server of the same database that claims the highest timeline. The known primary comes
    /// first, because an operator may have overruled higher claims.
    fn timeline_to_compare_with(&self, seen: Seen) -> Option<(&str, u32)> {
        let in_force = self.in_force();
        let with_timeline = in_force.and_then(|server| Some((server, self.known.as_ref()?.timeline?)));
        with_timeline.or_else(|| {
            let claims = self.claims();
            let same = claims.filter(|(_, other, _)| is_same_system(other.system_identifier, seen.system_identifier));
            let timelines = same.filter_map(|(other, _, claim)| Some((&**other, claim.timeline?)));
            timelines.max_by_key(|(_, timeline)| *timeline)
        })
    }

    /// The reason if no primary is known.
    fn one_of_several(&self, server: &str) -> String {
        let labels = self.claims().map(|(label, ..)| &**label);
        let others: Vec<_> = labels.filter(|label| *label != server).collect();
        if others.is_empty() {
            return "another server called itself primary too, and none is known to be the right one".to_owned();
        }
        let others = others.join(", ");
        format!("{others} calls itself primary too, and none is known to be the right one")
    }
}

/// The reason if a primary is known.
fn second_to(known: &KnownPrimary, server: &str, claim: Claim) -> String {
    let primary = &*known.server;
    let (numbering, on) = (claim.numbering, preposition(claim.numbering));
    let Some(timeline) = claim.timeline else {
        return match known.timeline {
            Some(remembered) if numbering != Numbering::None => {
                format!("the timeline of the server cannot be read, and {primary} was on {remembered}")
            }
            _ => format!("a second primary: {primary} is the first"),
        };
    };
    let is_overruled = known.overruled.is_some_and(|overruled| timeline <= overruled);
    match known.highest_timeline() {
        _ if is_overruled => {
            format!("an operator has decided against {numbering} {timeline}: {primary} is the primary")
        }
        Some(high) if timeline < high && primary == server => {
            format!("the server has gone back: it is {on} {numbering} {timeline}, and was {on} {high}")
        }
        Some(high) if timeline < high => {
            format!("an old primary: {numbering} {timeline}, and {primary} was {on} {high}")
        }
        _ => format!("a second primary {on} {numbering} {timeline}: {primary} is the first"),
    }
}

fn preposition(numbering: Numbering) -> &'static str {
    match numbering {
        Numbering::Timeline | Numbering::None => "on",
        Numbering::Epoch { .. } => "in",
    }
}
