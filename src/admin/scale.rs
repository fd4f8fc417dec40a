//! `POST /api/v1/pools/{pool}/scale`, which sets how many clones a pool has, and the clones in JSON bodies and metrics.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;

use super::access::ApiClient;
use super::context::{Admin, rfc3339};
use super::error::ApiError;
use super::pool_bodies::{CloneBody, ScaleBody};
use crate::account::ScaleSamples;
use crate::live::LivePool;
use crate::scale::{CloneState, CloneStatus, WantedClones};

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScaleRequest {
    clones: CloneCount,
}

/// How many clones the pool should have.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`clones` is a number, or \"auto\"")]
enum CloneCount {
    Fixed(u32),
    Auto(Auto),
}

/// The word `auto`: the load decides.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

pub(super) async fn scale(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    path: Result<Path<String>, PathRejection>,
    request: Result<Json<ScaleRequest>, JsonRejection>,
) -> Result<Json<ScaleBody>, ApiError> {
    let Path(name) = path?;
    let Json(ScaleRequest { clones }) = request?;
    let in_force = admin.live.in_force();
    let pool = in_force.pool(&name).ok_or_else(|| ApiError::unknown_pool(&name))?;
    let Some(plan) = &pool.plan().scale else {
        let why = format!("pool `{name}` has no `scale`: it does not grow or shrink");
        return Err(ApiError::new(StatusCode::CONFLICT, why));
    };
    let (min, max) = (plan.rules.min, plan.rules.max);
    let wanted = match clones {
        CloneCount::Auto(Auto::Auto) => None,
        CloneCount::Fixed(clones) if (min..=max).contains(&clones) => Some(clones),
        CloneCount::Fixed(clones) => {
            let why = format!("{clones} clones are out of bounds: `scale` of pool `{name}` allows {min} to {max}");
            return Err(ApiError::new(StatusCode::CONFLICT, why));
        }
    };
    tracing::info!(pool = name, clones = wanted, by = %client, "an operator sets the number of clones");
    pool.scale().set_wanted(wanted.map(|clones| WantedClones {
        clones,
        by: client.to_string().into(),
        at: SystemTime::now(),
    }));
    Ok(Json(scale_body(pool).expect("the plan of the pool has `scale`")))
}

/// How a pool grows and shrinks, and its clones, as the API shows them; `None`: its plan has no `scale`.
pub(super) fn scale_body(pool: &LivePool) -> Option<ScaleBody> {
    let rules = &pool.plan().scale.as_ref()?.rules;
    let (wanted, counts) = (pool.scale().wanted(), pool.scale().counts());
    Some(ScaleBody {
        min: rules.min,
        max: rules.max,
        sessions_per_server: rules.sessions_per_server,
        wanted: wanted.as_ref().map(|wanted| wanted.clones),
        set_by: wanted.as_ref().map(|wanted| wanted.by.to_string()),
        set_at: wanted.as_ref().map(|wanted| rfc3339(wanted.at)),
        up: counts.steps_up,
        down: counts.steps_down,
        cold_starts: counts.cold_starts,
        clones: pool.scale().clones().iter().map(clone_body).collect(),
    })
}

fn clone_body(clone: &CloneStatus) -> CloneBody {
    CloneBody {
        name: clone.name.to_string(),
        state: clone.state.as_str().to_owned(),
        since: rfc3339(clone.since),
        address: clone.address.as_deref().map(str::to_owned),
        pid: clone.pid,
        container: clone.container.as_deref().map(str::to_owned),
        restarts: clone.restarts,
        reason: clone.reason.as_deref().map(str::to_owned),
    }
}

/// The samples for the metrics of the pools that grow and shrink.
pub(super) fn samples(pools: &[Arc<LivePool>]) -> Vec<ScaleSamples> {
    let scaled = pools.iter().filter(|pool| pool.plan().scale.is_some());
    let sample = |pool: &Arc<LivePool>| {
        let (clones, counts) = (pool.scale().clones(), pool.scale().counts());
        let in_state = |state| clones.iter().filter(|clone| clone.state == state).count();
        ScaleSamples {
            pool: Arc::clone(pool.name()),
            clones: CloneState::ALL.map(|state| (state.as_str(), in_state(state))).into(),
            steps: [("up", counts.steps_up), ("down", counts.steps_down)],
            cold_starts: counts.cold_starts,
        }
    };
    scaled.map(sample).collect()
}
