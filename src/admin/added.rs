//! `/api/v1/pools/{pool}/servers`: servers that an operator adds to a pool, and removes again.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;

use super::access::ApiClient;
use super::context::{Admin, parse_for, rfc3339};
use super::error::ApiError;
use super::pool_bodies::AddedServerBody;
use crate::live::{AddServerError, AddedServer, Addition, LivePool};
use crate::plan::ListedServer;
use crate::text::escape;

/// The body of a request that adds a server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddRequest {
    address: String,
    name: Option<String>,
    weight: Option<u16>,
    priority: Option<u8>,
    /// The time after which the server is removed; `None`: it stays until an operator removes it.
    #[serde(rename = "for")]
    lifetime: Option<String>,
}

pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    path: Result<Path<String>, PathRejection>,
    request: Result<Json<AddRequest>, JsonRejection>,
) -> Result<Json<AddedServerBody>, ApiError> {
    let Path(pool) = path?;
    let Json(request) = request?;
    let lifetime = parse_for(request.lifetime.as_deref())?;
    let server = ListedServer {
        name: request.name,
        weight: request.weight,
        priority: request.priority,
        ..ListedServer::at(request.address)
    };
    let now = SystemTime::now();
    let addition = Addition {
        by: client.to_string().into(),
        at: now,
        until: lifetime.map(|lifetime| now + lifetime),
    };
    let added = admin.live.add_server(&pool, server, addition).map_err(|error| {
        let status = match error {
            AddServerError::NoPool => return ApiError::unknown_pool(&pool),
            AddServerError::Invalid(_) => StatusCode::BAD_REQUEST,
            AddServerError::Exists(_) | AddServerError::TooMany | AddServerError::OwnListener { .. } => {
                StatusCode::CONFLICT
            }
        };
        ApiError::new(status, error.to_string())
    })?;
    let (server, until) = (added.entry.label(), added.addition.until.map(rfc3339));
    tracing::info!(pool, %server, until, by = %client, "server added");
    Ok(Json(added_server_body(&pool, &added)))
}

pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<AddedServerBody>, ApiError> {
    let Path((pool, server)) = path?;
    if let Some(removed) = admin.live.remove_added_server(&pool, &server) {
        tracing::info!(pool, server, by = %client, "server removed");
        return Ok(Json(added_server_body(&pool, &removed)));
    }
    let in_force = admin.live.in_force();
    let Some(pool) = in_force.pool(&pool) else {
        return Err(ApiError::unknown_pool(&pool));
    };
    let has_label = pool.servers().iter().any(|member| *member.spec().label == *server);
    Err(if has_label {
        let hint = "change the configuration or the list that names the server, or drain the server";
        let why = format!(
            "server `{server}` of pool `{}` was not added by hand: {hint}",
            pool.name()
        );
        ApiError::new(StatusCode::CONFLICT, why)
    } else {
        let server = escape(&server, &[]);
        ApiError::not_found(format!("pool `{}` has no server {server}", pool.name()))
    })
}

/// The servers of a pool that operators have added.
pub(super) fn added_server_bodies(pool: &LivePool) -> Vec<AddedServerBody> {
    let added = pool.dynamic().added();
    added
        .iter()
        .map(|added| added_server_body(pool.name(), added))
        .collect()
}

fn added_server_body(pool: &str, AddedServer { entry, addition }: &AddedServer) -> AddedServerBody {
    AddedServerBody {
        pool: pool.to_owned(),
        name: entry.label().to_string(),
        // In the notation in which the state shows addresses of servers: clients compare them with this one.
        address: match entry.fixed_address() {
            Some(address) => address.to_string(),
            None => entry.written.to_string(),
        },
        added_by: addition.by.to_string(),
        added_at: rfc3339(addition.at),
        until: addition.until.map(rfc3339),
    }
}
