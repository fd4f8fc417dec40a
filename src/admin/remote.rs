//! The configuration from the fleet's store, as the API and the metrics show it.

use super::context::{Admin, rfc3339};
use super::remote_bodies::{RefusedTextsBody, RemoteBody};
use crate::account::RemoteSample;

/// The state of the texts from the store; `None`: the configuration is not from a store. The error of refused texts is
/// left out, because it quotes the configuration.
pub(super) fn remote_body(admin: &Admin) -> Option<RemoteBody> {
    let plan = admin.live.plan();
    let remote = plan.remote.as_ref()?;
    let state = admin.remote.state();
    Some(RemoteBody {
        from: remote.location(),
        instance: remote.instance.to_string(),
        revision: state.in_force.as_ref().map(|texts| texts.version.revision),
        keys: state.in_force.as_ref().map(|texts| texts.version.keys),
        since: state.in_force.as_ref().map(|texts| rfc3339(texts.since)),
        refused: state.refused.map(|refused| RefusedTextsBody {
            revision: refused.version.map(|version| version.revision),
            since: rfc3339(refused.since),
        }),
        has_namesake: state.has_namesake,
        lost: state.lost.as_ref().map(|lost| lost.error.to_string()),
        lost_since: state.lost.map(|lost| rfc3339(lost.since)),
    })
}

/// The sample of the texts from the store, for metrics; `None`: the configuration is not from a store.
pub(super) fn sample(admin: &Admin) -> Option<RemoteSample> {
    admin.live.plan().remote.as_ref()?; // returns `None` without a store
    let state = admin.remote.state();
    Some(RemoteSample {
        is_up: state.lost.is_none(),
        is_refused: state.refused.is_some(),
        revision: state.in_force.map(|texts| texts.version.revision),
    })
}
