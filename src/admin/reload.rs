//! `/api/v1/reload`: `POST` reloads the configuration, and `GET` says why the latest reload failed.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;

use super::access::ApiClient;
use super::context::Admin;
use super::error::ApiError;
use crate::error::chain;
use crate::reload::{Changes, ReloadError};

/// The answer to `GET /api/v1/reload`.
#[derive(Debug, Serialize)]
pub(super) struct ReloadErrorBody {
    /// Why the latest reload failed; null: it succeeded, or there was no reload yet.
    error: Option<String>,
}

/// Why the latest reload failed. Over TCP only clients with the token get this, because the error quotes the
/// configuration.
pub(super) async fn latest_error(State(admin): State<Arc<Admin>>) -> Json<ReloadErrorBody> {
    let latest = admin.reloader.latest();
    Json(ReloadErrorBody {
        error: latest.and_then(|latest| latest.error.as_deref().map(str::to_owned)),
    })
}

pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
) -> Result<Json<Changes>, ApiError> {
    let changes = admin.reloader.reload(client.to_string()).await;
    changes.map(Json).map_err(|error| {
        let status = match error {
            ReloadError::Configuration(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ReloadError::NoFile => StatusCode::CONFLICT,
            ReloadError::System(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ReloadError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        };
        ApiError::new(status, chain(&error))
    })
}
