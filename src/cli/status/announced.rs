//! Routes that are announced.

use crate::admin::announced_bodies::{AnnouncedBody, RefusedAnnouncementBody};

/// A line if their source fails, and one for each announcement that is refused.
pub(super) fn notes(announced: &AnnouncedBody) -> Vec<String> {
    let source = &announced.source;
    let failure = announced.error.iter();
    let failure = failure.map(|error| format!("announced routes: the last list is kept, because of {source}: {error}"));
    let refused = announced.refused.iter().map(|refused| {
        let RefusedAnnouncementBody {
            from,
            listener,
            sni,
            reason,
        } = refused;
        format!("{listener}: `{sni}`, which {source} container {from} announces, is refused: {reason}")
    });
    let more = Some(announced.more_refused).filter(|more| *more > 0);
    let more = more.map(|more| format!("{more} more announced routes are refused"));
    failure.chain(refused).chain(more).collect()
}
