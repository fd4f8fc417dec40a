//! The containers that the keeper of containers, a child process of acequia, removes when acequia ends.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::message::HeldContainers;
use crate::docker::remove_labelled_until;
use crate::error::chain;

/// For how long an engine that fails is asked again and again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes the containers of all engines at once: an engine that fails does not keep the others waiting.
///
/// # Errors
/// An engine has not removed all its containers in time. Of several such engines, the error names one.
pub(super) async fn remove_all(held: &BTreeSet<HeldContainers>) -> io::Result<()> {
    let removals = held.iter().map(async |HeldContainers { socket, label }| {
        let removed = remove_labelled_until(socket, label, Instant::now() + PATIENCE).await;
        removed.map_err(|failure| {
            let (engine, failure) = (socket.display(), chain(&*failure));
            io::Error::other(format!(
                "{engine}: containers with label {label} may still run: {failure}"
            ))
        })
    });
    join_all(removals)
        .await
        .into_iter()
        .try_for_each(|removed| removed.map(drop))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_engine_is_asked_although_another_one_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let held = ["1-absent", "2-asked", "3-absent"].map(|name| HeldContainers {
            socket: directory.path().join(name),
            label: "a=b".into(),
        });
        let asked = UnixListener::bind(&held[1].socket).unwrap();
        let held = BTreeSet::from(held);
        let (removed, accepted) = tokio::join!(remove_all(&held), timeout(PATIENCE / 2, asked.accept()));
        accepted.unwrap().unwrap();
        let error = removed.unwrap_err().to_string();
        assert!(error.contains("1-absent"), "{error}");
    }
}
