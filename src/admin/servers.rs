//! `/api/v1/servers/{pool}/{server}` shows a server, and sets its overrides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::access::ApiClient;
use super::bodies::{OverrideBody, ServerBody};
use super::context::{Admin, milliseconds};
use super::error::ApiError;
use super::state::{absent_server_body, server_body};
use crate::live::{InForce, LivePool};
use crate::plan::WEIGHT_MAX;
use crate::pool::{Member, Override, Overrides, ServerPath};
use crate::units::parse_duration;

/// The body of a request to set overrides: `use`, `weight`, or both; `close_over` only with `use`.
#[derive(Debug, Deserialize)]
pub struct OverrideRequest {
    #[serde(rename = "use")]
    usage: Option<String>,
    /// The time over which open sessions are cut, as a duration.
    close_over: Option<String>,
    /// `None`: the key is absent, and the weight stays; `Some(None)`: null, which reverts it to the configured one.
    #[serde(default, deserialize_with = "present")]
    weight: Option<Option<u16>>,
    /// Unknown keys. Because of `flatten`, serde accepts only an object for the body, not a sequence of values.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// Deserializes a key that is present, so that null differs from an absent key.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<u16>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl OverrideRequest {
    /// The overrides to set, in this order; at least one.
    ///
    /// # Errors
    /// A key is unknown, a value is invalid, or there is nothing to set.
    pub fn parse(self) -> Result<Vec<Override>, String> {
        if let Some(key) = self.unknown.keys().next() {
            return Err(format!(
                "unknown key `{key}`; known keys: `use`, `close_over`, `weight`"
            ));
        }
        let close_over = self.close_over.as_deref().map(parse_duration).transpose();
        let close_over = close_over.map_err(|error| format!("`close_over` is not a duration: {error}"))?;
        let mut overrides = Vec::new();
        match self.usage.as_deref() {
            Some("draining") => overrides.push(Override::Drain { close_over }),
            Some("disabled") => overrides.push(Override::Disable { close_over }),
            // Only draining and disabling cut sessions. The `close_over` of an earlier request cannot be changed alone.
            Some("enabled") | None if close_over.is_some() => {
                return Err("`close_over` needs `use` to be \"draining\" or \"disabled\"".into());
            }
            Some("enabled") => overrides.push(Override::Enable),
            Some(_) => return Err("`use` must be \"enabled\", \"draining\" or \"disabled\"".into()),
            None => {}
        }
        match self.weight {
            Some(Some(weight)) if weight > WEIGHT_MAX => {
                return Err(format!(
                    "`weight` must be 0 to {WEIGHT_MAX}, or null for the configured one"
                ));
            }
            Some(weight) => overrides.push(Override::Weight(weight)),
            None => {}
        }
        if overrides.is_empty() {
            return Err("set `use` (\"enabled\", \"draining\" or \"disabled\"), `weight`, or both".into());
        }
        Ok(overrides)
    }
}

/// `GET /api/v1/servers/{pool}/{server}`.
#[derive(Debug, Serialize)]
pub(super) struct ServerDetailBody {
    /// The same as in `GET /api/v1/state`.
    #[serde(flatten)]
    server: ServerBody,
    /// The median of the durations of successful connects in milliseconds, estimated from a histogram; `null`: there
    /// were none.
    connect_p50_ms: Option<f64>,
    /// Their 99th percentile, estimated in the same way; `null`: there were none.
    connect_p99_ms: Option<f64>,
    /// Failed attempts to connect, by reason. Reasons that did not occur are left out.
    connect_failures: BTreeMap<&'static str, u64>,
}

/// Finds a pool, and one of its servers, by name.
pub(super) fn find<'a>(
    in_force: &'a InForce,
    pool_name: &str,
    server_name: &str,
) -> Result<(&'a Arc<LivePool>, Member), ApiError> {
    let pool = in_force
        .pool(pool_name)
        .ok_or_else(|| ApiError::unknown_pool(pool_name))?;
    let servers = pool.servers();
    let server = servers.iter().find(|server| *server.spec().label == *server_name);
    let no_server = || ApiError::not_found(format!("pool `{pool_name}` has no server `{server_name}`"));
    Ok((pool, server.cloned().ok_or_else(no_server)?))
}

/// Shows a server, with its connect times and failures. `GET /api/v1/state` leaves those out because they are expensive
/// to collect.
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<ServerDetailBody>, ApiError> {
    let Path((pool_name, server_name)) = path?;
    let in_force = admin.live.in_force();
    let (pool, server) = find(&in_force, &pool_name, &server_name)?;
    let connects = admin.metrics.connects(pool.name(), &server.spec().label);
    let failures = admin.metrics.failed_connects(pool.name(), &server.spec().label);
    let within_ms = |share| connects.as_ref()?.quantile(share).map(milliseconds);
    Ok(Json(ServerDetailBody {
        server: server_body(pool, &server, Instant::now()),
        connect_p50_ms: within_ms(0.5),
        connect_p99_ms: within_ms(0.99),
        connect_failures: failures
            .into_iter()
            .map(|(reason, count)| (reason.as_str(), count))
            .collect(),
    }))
}

pub(super) async fn set_overrides(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Result<Json<OverrideRequest>, JsonRejection>,
) -> Result<Json<OverrideBody>, ApiError> {
    let Path((pool_name, server_name)) = path?;
    let Json(request) = request?;
    let changes = request.parse().map_err(ApiError::bad_request)?;
    let live = &admin.live;
    let server_path: ServerPath = (pool_name.as_str().into(), server_name.as_str().into());
    let in_force = live.in_force();
    // `None`: the server is absent, but it has overrides, and these can be changed.
    let found = match find(&in_force, &pool_name, &server_name) {
        Ok(found) => Some(found),
        Err(_) if live.absent_overrides().iter().any(|(absent, _)| *absent == server_path) => None,
        Err(error) => return Err(error),
    };
    let by: Arc<str> = client.to_string().into();
    let mut overrides = Overrides::default();
    for change in changes {
        overrides = live.apply_override(&server_path, change, Arc::clone(&by), SystemTime::now());
        tracing::info!(pool = pool_name, server = server_name, %by, order = %change, "server override set");
    }
    live.evict_absent_overrides();
    Ok(Json(match found {
        Some((pool, server)) => OverrideBody::Present(Box::new(server_body(pool, &server, Instant::now()))),
        None => OverrideBody::Absent(absent_server_body(&server_path, &overrides)),
    }))
}
