//! The containers that the keeper removes.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::message::HeldContainers;
use crate::docker::remove_labelled_until;
use crate::error::chain;

/// How long an engine that fails is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes containers, engine after engine.
///
/// # Errors
/// An engine has not removed all in time.
pub(super) async fn remove_all(held: &BTreeSet<HeldContainers>) -> io::Result<()> {
    for HeldContainers { socket, label } in held {
        let removed = remove_labelled_until(socket, label, Instant::now() + PATIENCE).await;
        removed.map_err(|failure| {
            let failure = chain(&*failure);
            io::Error::other(format!("containers with label {label} may still run: {failure}"))
        })?;
    }
    Ok(())
}
