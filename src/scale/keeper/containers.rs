//! The containers that the keeper removes.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::message::HeldContainers;
use crate::back_off::BackOff;
use crate::docker::{DockerError, remove_labelled};
use crate::error::chain;

/// How long an engine that fails is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes containers, engine after engine.
///
/// # Errors
/// An engine has not removed all in time.
pub(super) async fn remove_all(held: &BTreeSet<HeldContainers>) -> io::Result<()> {
    for HeldContainers { socket, label } in held {
        let mut failure = DockerError::from("no answer");
        let removed = async {
            let mut back_off = BackOff::default();
            while let Err(error) = remove_labelled(socket, label).await {
                failure = error;
                back_off.pause().await;
            }
        };
        if timeout(PATIENCE, removed).await.is_err() {
            let failure = chain(&*failure);
            return Err(io::Error::other(format!(
                "containers with label {label} may still run: {failure}"
            )));
        }
    }
    Ok(())
}
