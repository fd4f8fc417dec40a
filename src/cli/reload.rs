//! `acequia reload`: makes a running process reload its configuration.

use std::process::ExitCode;

use super::remote::{ApiRequest, Remote, RemoteError};
use crate::reload::{Changes, Difference};
use crate::text::first_and_more;

/// The maximum number of errors about broken files that are shown.
const BROKEN_SHOWN: usize = 20;

/// Requests a reload and prints what it changed. Broken TLS files make the exit code 1, although everything else is in
/// force.
#[must_use]
pub fn run(remote: &Remote) -> ExitCode {
    let request = ApiRequest::post("/api/v1/reload", String::new());
    let broken = |changes: &Changes| broken_files_error(&changes.broken);
    remote.request_with_partial_failure(request, broken, |changes| {
        let mut text = String::new();
        if changes.guards != Difference::default() {
            text += &difference("guards", &changes.guards);
        }
        text += &difference("listeners", &changes.listeners);
        text += &difference("pools", &changes.pools);
        text += &difference("servers", &changes.servers);
        for line in changes.changed_lines() {
            text += &format!("{line}\n");
        }
        for networks in &changes.guard_networks {
            text += &format!("{networks}\n");
        }
        for key in &changes.needs_restart {
            text += &format!("{key}: changed in the file, but needs a restart\n");
        }
        if !changes.warnings.is_empty() {
            text += &format!("{}\n", changes.warnings);
        }
        Ok(text)
    })
}

/// The counts, then the added and removed names.
fn difference(kind: &str, difference: &Difference) -> String {
    let Difference {
        added, removed, kept, ..
    } = difference;
    let mut text = format!(
        "{kind}: {} added, {} removed, {} kept\n",
        added.len(),
        removed.len(),
        kept.len()
    );
    for (sign, names) in [('+', added), ('-', removed)] {
        for name in names {
            text += &format!("  {sign} {name}\n");
        }
    }
    text
}

/// The error about TLS files that are broken; `None`: there are none.
pub(super) fn broken_files_error(broken: &[String]) -> Option<RemoteError> {
    (!broken.is_empty()).then(|| {
        RemoteError::Rejected(format!(
            "TLS files are broken, and the files read before stay in force: {}",
            first_and_more(broken.iter(), BROKEN_SHOWN).join("; ")
        ))
    })
}
