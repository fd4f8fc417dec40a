//! Follows a store, and requests a reload whenever its texts change.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::state::{RefusedBy, RemoteConfig, RemoteState};
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
/// it, and an address may become free. Texts that came while the configuration file was broken wait as long.
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

/// Follows the store again and again, with a back-off. Each loss and each return is logged once.
async fn follow(plan: &RemotePlan, config: &RemoteConfig, found: &watch::Sender<Option<Arc<RemoteTexts>>>) {
    let (keys, from) = (plan.keys(), plan.location());
    let mut members = Members::new(Arc::clone(&plan.etcd));
    let mut back_off = BackOff::default();
    loop {
        let take = |texts: RemoteTexts| {
            if config.record_answer() {
                tracing::info!(from, "the store of the configuration answers again");
            }
            found.send_if_modified(|before| {
                let is_new = before.as_deref() != Some(&texts);
                *before = Some(Arc::new(texts));
                is_new
            });
        };
        let end = members.follow(&keys, &mut TextFollower::new(plan, take)).await;
        let error = Reason::from(chain(&*end.error));
        if config.record_loss(error.clone()) {
            tracing::warn!(from, %error, "the store of the configuration is lost: what is in force stays");
        }
        // A store that answers, but whose watches fail at once, is asked less and less often.
        if end.was_stable {
            back_off.reset();
        }
        back_off.pause().await;
    }
}

/// Requests a reload after each change, unless another reload has already tried the changed texts. Requests another
/// reload after a while if the texts are still to be tried ([`is_to_be_retried`]).
async fn reload_on_changes(
    plan: &RemotePlan,
    config: &RemoteConfig,
    reloader: &Reloader,
    mut texts: watch::Receiver<Option<Arc<RemoteTexts>>>,
) {
    let by = format!("a change of {}", plan.location());
    loop {
        let known = texts.borrow().clone();
        tokio::select! {
            changed = texts.changed() => match changed {
                Ok(()) => sleep(SETTLE).await,
                Err(_) => return,
            },
            () = until_retry(config.subscribe(), known.as_deref()) => {}
        }
        let latest = texts.borrow_and_update().clone();
        let state = config.state();
        // The texts that were tried last are tried again only if this machine has refused them.
        let is_due = is_refused_by_machine(&state) || state.tried != latest;
        if let Some(latest) = latest.filter(|_| is_due) {
            // The reload itself logs its result.
            let _ = reloader.reload_texts(by.clone(), latest).await;
        }
    }
}

fn is_refused_by_machine(state: &RemoteState) -> bool {
    let refused = state.refused.as_ref();
    refused.is_some_and(|refused| refused.by == RefusedBy::Machine)
}

/// Whether an attempt is due although nothing has changed: this machine has refused the texts that were tried last. Or
/// the last attempt failed before it had read texts, and `latest`, the texts that the follower found last, differ
/// from those that were tried before.
fn is_to_be_retried(state: &RemoteState, latest: Option<&RemoteTexts>) -> bool {
    let refused = state.refused.as_ref();
    let has_failed_before_texts = refused.is_some_and(|refused| refused.version.is_none());
    is_refused_by_machine(state) || has_failed_before_texts && latest.is_some() && latest != state.tried.as_deref()
}

/// Waits until [`is_to_be_retried`] has been true for [`RETRY_AFTER`] without a break. Reloads by others may make it
/// false.
async fn until_retry(mut states: watch::Receiver<RemoteState>, latest: Option<&RemoteTexts>) {
    loop {
        if states.wait_for(|state| is_to_be_retried(state, latest)).await.is_err() {
            return pending().await; // the process is ending
        }
        let done = states.wait_for(|state| !is_to_be_retried(state, latest));
        if timeout(RETRY_AFTER, done).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::plan::RemoteText;

    #[tokio::test(start_paused = true)]
    async fn texts_are_retried_after_the_machine_has_refused_them_for_a_while() {
        let config = RemoteConfig::default();
        let later = Duration::from_secs(10);
        let began = Instant::now();
        let reloads = async {
            sleep(later).await;
            config.refuse("a file is missing", RefusedBy::Machine);
            sleep(later).await;
            config.put_in_force(None);
            sleep(later).await;
            config.refuse("a file is missing", RefusedBy::Machine);
        };
        tokio::join!(until_retry(config.subscribe(), None), reloads);
        assert_eq!(began.elapsed(), 3 * later + RETRY_AFTER);
    }

    fn texts(from: &str, revisions: &[i64]) -> Arc<RemoteTexts> {
        let text = |revision: &i64| RemoteText::new(format!("/{revision}").as_bytes(), b"", *revision);
        Arc::new(RemoteTexts {
            from: from.to_owned(),
            texts: revisions.iter().map(text).collect(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn texts_that_came_while_the_file_was_broken_are_tried_after_a_while_unless_later_texts_were_tried() {
        let before = texts("etcd:/a", &[1, 2]);
        for changed in [texts("etcd:/a", &[1, 3]), texts("etcd:/a", &[1])] {
            let config = RemoteConfig::default();
            config.set_tried(&before);
            config.put_in_force(Some(Arc::clone(&before)));
            config.begin_attempt();
            config.refuse("the file is wrong", RefusedBy::Configuration);
            let began = Instant::now();
            until_retry(config.subscribe(), Some(&changed)).await;
            assert_eq!(began.elapsed(), RETRY_AFTER);
            let later = texts("etcd:/a", &[4]);
            config.set_tried(&later);
            config.put_in_force(Some(later));
            let never = timeout(10 * RETRY_AFTER, until_retry(config.subscribe(), Some(&changed))).await;
            assert!(never.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn texts_of_another_store_that_were_refused_cause_no_attempt() {
        let (followed, other) = (texts("etcd:/a", &[100]), texts("etcd:/b", &[]));
        let config = RemoteConfig::default();
        config.put_in_force(Some(Arc::clone(&followed)));
        config.begin_attempt();
        config.set_tried(&other);
        config.refuse("there is no key `/b`", RefusedBy::Configuration);
        let never = timeout(10 * RETRY_AFTER, until_retry(config.subscribe(), Some(&followed))).await;
        assert!(never.is_err());
    }
}
