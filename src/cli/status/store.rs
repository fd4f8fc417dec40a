//! The line of `acequia status` about the store that the configuration is from.

use crate::admin::remote_bodies::RemoteBody;

/// What is in force from the store, what was refused, and whether the store answers; empty if the configuration is from
/// a file.
pub(super) fn line(remote: Option<&RemoteBody>) -> String {
    let Some(remote) = remote else {
        return String::new();
    };
    let in_force = match (remote.revision, &remote.since) {
        (Some(revision), Some(since)) => format!("revision {revision} in force since {since}"),
        _ => String::from("nothing in force yet"),
    };
    let refused = remote.refused.as_ref().map_or_else(String::new, |refused| {
        let revision = refused
            .revision
            .map_or_else(String::new, |revision| format!("revision {revision} "));
        format!(
            ", {revision}refused at {} (why: see the log, or the status in the store)",
            refused.since
        )
    });
    let lost = remote.lost.as_ref();
    let lost = lost.map_or_else(String::new, |lost| format!(", the store does not answer: {lost}"));
    let namesake = match remote.has_namesake {
        true => ", another process has this name and overwrites the status: give each its own `instance`",
        false => "",
    };
    format!(
        "{} as {}: {in_force}{refused}{lost}{namesake}\n",
        remote.from, remote.instance
    )
}
