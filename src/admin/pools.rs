//! `POST /api/v1/pools/{pool}/trust` says which server is the primary of a pool.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;

use super::access::ApiClient;
use super::bodies::ServerBody;
use super::context::Admin;
use super::error::ApiError;
use super::state::server_body;
use crate::health::report_changes;

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
    let Path(pool_name) = path.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let Json(TrustRequest { server: name }) =
        request.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    let in_force = admin.live.in_force();
    let no_pool = || ApiError::not_found(format!("there is no pool `{pool_name}`"));
    let pool = in_force.pool(&pool_name).ok_or_else(no_pool)?;
    let servers = pool.servers();
    let no_server = || ApiError::not_found(format!("pool `{pool_name}` has no server `{name}`"));
    let server = servers.iter().find(|server| *server.spec().label == *name);
    let server = server.ok_or_else(no_server)?;
    let Some(recorded) = pool.trust(&name) else {
        let why = format!("`{name}` does not call itself primary at present: there is nothing to trust");
        return Err(ApiError::new(StatusCode::CONFLICT, why));
    };
    tracing::warn!(pool = pool_name, server = name, by = %client, "an operator trusts the server as the primary");
    report_changes(pool, &admin.metrics, &recorded);
    Ok(Json(server_body(server)))
}
