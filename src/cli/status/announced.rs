//! Routes that are announced.

use super::NOTES_MAX;
use crate::admin::announced_bodies::{AnnouncedBody, RefusedAnnouncementBody};

/// A line if the source of the announcements fails, and one for each announcement that is refused, at most
/// [`NOTES_MAX`]; then, if more are refused, their number.
pub(super) fn notes(announced: &AnnouncedBody) -> Vec<String> {
    let source = &announced.source;
    let failure = announced.error.iter();
    let failure = failure.map(|error| format!("announced routes: the last list is kept, because of {source}: {error}"));
    let refused = announced.refused.iter().take(NOTES_MAX).map(|refused| {
        let RefusedAnnouncementBody {
            from,
            listener,
            sni,
            reason,
        } = refused;
        format!("{listener}: `{sni}`, which {source} container {from} announces, is refused: {reason}")
    });
    let not_shown = announced.more_refused + announced.refused.len().saturating_sub(NOTES_MAX);
    let more = (not_shown > 0).then(|| format!("{not_shown} more announced routes are refused"));
    failure.chain(refused).chain(more).collect()
}
