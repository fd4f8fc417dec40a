//! `POST /api/v1/pools/{pool}/trust` says which server is the primary of this pool, and of all other pools with that
//! server.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use tokio::time::Instant;

use super::access::ApiClient;
use super::bodies::ServerBody;
use super::context::Admin;
use super::error::ApiError;
use super::servers::find;
use super::state::server_body;
use crate::health::report_changes;
use crate::live::LivePool;

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustRequest {
    server: String,
}

pub(super) async fn trust(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    path: Result<Path<String>, PathRejection>,
    request: Result<Json<TrustRequest>, JsonRejection>,
) -> Result<Json<ServerBody>, ApiError> {
    let Path(pool_name) = path?;
    let Json(TrustRequest { server: name }) = request?;
    let in_force = admin.live.in_force();
    let (pool, server) = find(&in_force, &pool_name, &name)?;
    // Trusts a server as the primary. Returns false if there is nothing to trust.
    let trust = |pool: &LivePool, server: &str| {
        let Some(recorded) = pool.trust(server) else {
            return false;
        };
        tracing::warn!(pool = %pool.name(), server, by = %client, "an operator trusts the server as the primary");
        report_changes(pool, &admin.metrics, &recorded);
        true
    };
    if !trust(pool, &name) {
        return Err(ApiError::new(StatusCode::CONFLICT, nothing_to_trust(pool, &name)));
    }
    // The server is also the primary in the other pools that contain it, such as a pool of replicas.
    for other in in_force.pools.iter().filter(|other| other.name() != pool.name()) {
        let members = other.servers();
        let mut same_address = members
            .iter()
            .filter(|member| member.spec().address == server.spec().address);
        if let Some(same) = same_address.next() {
            trust(other, &same.spec().label);
        }
    }
    Ok(Json(server_body(pool, &server, Instant::now())))
}

/// Why this server cannot be trusted as the primary of the pool.
fn nothing_to_trust(pool: &LivePool, server: &str) -> String {
    if pool.plan().health.required.has_primary() {
        format!(
            "`{server}` is down or disabled, does not call itself primary, or is a node of Galera, or the Sentinels \
             name another server: there is nothing to trust"
        )
    } else {
        format!(
            "pool `{}` selects no primary (it has `single = false`, or neither `role` nor `max_lag`): there is nothing \
             to trust",
            pool.name()
        )
    }
}
