//! The configuration from the fleet's store: which plans are tried at the start, and which texts of the
//! store a reload reads.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{App, ConfigSource, Failure};
use crate::blocking::blocking;
use crate::config::{self, Loaded};
use crate::error::chain;
use crate::plan::{Plan, RemotePlan, RemoteTexts};
use crate::reload::ReloadError;
use crate::remote::{self, RefusedBy, RemoteConfig, fetch};
use crate::state_dir::StateDir;
use crate::text::Reason;

/// A plan to start with.
pub(super) struct FirstPlan {
    pub(super) plan: Plan,
    /// The texts of the store that the plan was made with; `None`: it is of the file alone.
    pub(super) texts: Option<Arc<RemoteTexts>>,
    /// Whether `texts` were kept in `state_dir`, and not fetched now.
    pub(super) is_kept: bool,
}

impl From<Plan> for FirstPlan {
    /// The plan of the file alone.
    fn from(plan: Plan) -> Self {
        Self {
            plan,
            texts: None,
            is_kept: false,
        }
    }
}

/// The plans to start with, the best first: that of the texts in the store, that of the texts that were last in force,
/// and that of the file alone, with which the process waits for the store.
pub(super) async fn first_plans(of_file: Plan, source: &ConfigSource, remote: &RemoteConfig) -> Vec<FirstPlan> {
    let mut plans = Vec::new();
    if let Some(store) = &of_file.remote {
        let from = store.location();
        let fetched = match fetch_texts(store).await {
            Ok(texts) => Some(texts),
            Err(error) => {
                tracing::warn!(from, %error, "the configuration of the store cannot be read");
                remote.record_loss(error);
                None
            }
        };
        if let Some(texts) = &fetched {
            remote.set_tried(texts);
            match read_with_texts(source, texts) {
                Ok(plan) => plans.push(FirstPlan {
                    texts: Some(Arc::clone(texts)),
                    ..plan.into()
                }),
                Err(error) => {
                    tracing::error!(from, error = %chain(&error), "the configuration of the store is not valid");
                    remote.refuse(&for_store(&error), RefusedBy::Configuration);
                }
            }
        }
        if let Some(kept) = kept_texts(&of_file, &from).filter(|kept| fetched.as_ref() != Some(kept)) {
            match read_with_texts(source, &kept) {
                Ok(plan) => plans.push(FirstPlan {
                    texts: Some(kept),
                    is_kept: true,
                    ..plan.into()
                }),
                Err(error) => {
                    tracing::warn!(from, error = %chain(&error), "the configuration that was in force last is not valid any more");
                }
            }
        }
    }
    plans.push(of_file.into());
    plans
}

/// The texts that the store has now, or why they cannot be read.
async fn fetch_texts(store: &RemotePlan) -> Result<Arc<RemoteTexts>, Reason> {
    let fetched = fetch(store).await;
    fetched.map(Arc::new).map_err(|error| chain(&*error).into())
}

/// The texts from this store that were in force last.
fn kept_texts(of_file: &Plan, from: &str) -> Option<Arc<RemoteTexts>> {
    let state = StateDir::open(of_file.state_dir.as_deref()?);
    let texts = state.and_then(|state| state.texts()).ok()??; // `StateDir::remembered` reports the error later
    (texts.from == from).then(|| Arc::new(texts))
}

/// The plan of the file and of these texts. Its warnings are logged.
fn read_with_texts(source: &ConfigSource, texts: &RemoteTexts) -> Result<Plan, ReloadError> {
    let name = source.file.as_ref().map(|file| file.display().to_string());
    let loaded = config::read(&name.unwrap_or_default(), &source.text)
        .and_then(|of_file| of_file.with_texts(texts))
        .map_err(ReloadError::Configuration)?;
    if !loaded.warnings.is_empty() {
        tracing::warn!("{}", loaded.warnings);
    }
    Ok(loaded.plan)
}

/// The text of an error that is written to the store. It has no secrets, because everybody who can read the store can
/// read it.
pub(super) fn for_store(error: &ReloadError) -> String {
    match error {
        ReloadError::Configuration(report) => report.render_for_store(),
        ReloadError::System(error) => match error.downcast_ref::<Failure>() {
            Some(failure) => failure.for_store(),
            None => chain(&**error),
        },
        ReloadError::NoFile | ReloadError::ShuttingDown => error.to_string(),
    }
}

/// The result of reading the configuration for a reload.
pub(super) struct ReadConfiguration {
    pub(super) loaded: Loaded,
    /// The texts of the store that `loaded` was made with; `None`: the file refers to no store.
    pub(super) texts: Option<Arc<RemoteTexts>>,
    /// Why `texts` are not those that the store has now; `None`: they are.
    pub(super) warning: Option<String>,
}

impl App {
    /// If the file refers to a store, adds the texts of that store: `just_read` if they are from it, else those that it
    /// has now. If the store cannot be read, adds the texts in force, unless they are from another store.
    pub(super) async fn with_texts(
        &self,
        of_file: Loaded,
        just_read: Option<Arc<RemoteTexts>>,
    ) -> Result<ReadConfiguration, ReloadError> {
        let Some(store) = of_file.plan.remote.clone() else {
            return Ok(ReadConfiguration {
                loaded: of_file,
                texts: None,
                warning: None,
            });
        };
        let from = store.location();
        let is_from = |texts: &Arc<RemoteTexts>| texts.from == from;
        let (texts, warning) = match just_read.filter(is_from) {
            Some(texts) => (texts, None),
            None => match fetch_texts(&store).await {
                Ok(texts) => (texts, None),
                Err(error) => {
                    let Some(in_force) = self.remote.texts().filter(is_from) else {
                        return Err(ReloadError::System(format!("{from} cannot be read: {error}").into()));
                    };
                    let warning = format!("{from} cannot be read, and its text in force stays: {error}");
                    (in_force, Some(warning))
                }
            },
        };
        self.remote.set_tried(&texts);
        let (loaded, texts) = blocking(move || {
            let loaded = of_file.with_texts(&texts).map_err(ReloadError::Configuration);
            loaded.map(|loaded| (loaded, texts))
        })
        .await?;
        Ok(ReadConfiguration {
            loaded,
            texts: Some(texts),
            warning,
        })
    }

    /// Follows the store of this plan from now on, instead of the one followed so far; `None`: follows no store.
    pub(super) fn follow_store(&mut self, plan: Option<&RemotePlan>) {
        let followed = self.following.as_ref().map(|(followed, _)| followed);
        if followed == plan {
            return;
        }
        self.following = plan.map(|plan| {
            let following = remote::run(plan.clone(), Arc::clone(&self.remote), self.admin.reloader.clone());
            (plan.clone(), AbortOnDropHandle::new(tokio::spawn(following)))
        });
    }
}
