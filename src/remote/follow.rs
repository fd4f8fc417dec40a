//! Follows a store, and requests a reload whenever its texts change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::state::{RefusedBy, RemoteConfig};
use super::status;
use super::texts::TextFollower;
use crate::back_off::BackOff;
use crate::error::chain;
use crate::etcd::Members;
use crate::plan::{RemotePlan, RemoteTexts};
use crate::reload::Reloader;
use crate::text::Reason;

/// Changes within this time are put in force together: several keys are often written one after the other.
const SETTLE: Duration = Duration::from_millis(200);

/// The wait before texts that this machine has refused are tried again: a file may come later than the text that names
/// it, and an address may become free.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Follows the store of a plan, puts its texts in force by reloads, and writes back the results. Never returns.
pub async fn run(plan: RemotePlan, config: Arc<RemoteConfig>, reloader: Reloader) {
    let (found, texts) = watch::channel(None);
    tokio::join!(
        follow(&plan, &config, &found),
        reload_on_changes(&plan, &config, &reloader, texts),
        status::write(&plan, &config),
    );
}

/// Follows the store again and again, with a back-off. Its loss is logged once, and so is its return.
async fn follow(plan: &RemotePlan, config: &RemoteConfig, found: &watch::Sender<Option<Arc<RemoteTexts>>>) {
    let (keys, from) = (plan.keys(), plan.from());
    let mut members = Members::new(Arc::clone(&plan.etcd));
    let mut back_off = BackOff::default();
    loop {
        let take = |texts: RemoteTexts| {
            if config.record_answer() {
                tracing::info!(from, "the store of the configuration answers again");
            }
            back_off.reset();
            found.send_if_modified(|before| {
                let is_new = before.as_deref() != Some(&texts);
                *before = Some(Arc::new(texts));
                is_new
            });
        };
        let error = members.follow(&keys, &mut TextFollower::new(plan, take)).await;
        let error = Reason::from(chain(&*error));
        if config.record_loss(error.clone()) {
            tracing::warn!(from, %error, "the store of the configuration is lost: what is in force stays");
        }
        back_off.pause().await;
    }
}

/// Requests a reload for each change. For texts that the machine has refused, requests one again after a while.
async fn reload_on_changes(
    plan: &RemotePlan,
    config: &RemoteConfig,
    reloader: &Reloader,
    mut texts: watch::Receiver<Option<Arc<RemoteTexts>>>,
) {
    let by = format!("a change of {}", plan.from());
    loop {
        let refused = config.state().refused;
        let is_retried = refused.is_some_and(|refused| refused.by == RefusedBy::Machine);
        tokio::select! {
            changed = texts.changed() => match changed {
                Ok(()) => sleep(SETTLE).await,
                Err(_) => return,
            },
            () = sleep(RETRY_AFTER), if is_retried => {}
        }
        let latest = texts.borrow_and_update().clone();
        let is_tried = config.state().tried == latest;
        // Texts that were tried before are tried again only if this machine has refused them.
        if let Some(latest) = latest.filter(|_| is_retried || !is_tried) {
            // The reload itself logs its result.
            let _ = reloader.reload_texts(by.clone(), latest).await;
        }
    }
}
