//! `/api/v1/guards`: shows a guard, denies a network, and undoes a denial.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use ipnet::IpNet;
use serde::Deserialize;
use tokio::time::Instant;

use super::access::ApiClient;
use super::context::{Admin, parse_for, rfc3339};
use super::error::ApiError;
use super::guard_bodies::{DeniedBody, DenyEditBody, GuardBody, GuardDetailBody, SourceCountBody, UndoneBody};
use crate::addr::parse_network;
use crate::guard::{ClientSource, DenyEdit, EDITS_MAX, Guard, GuardReason};
use crate::live::LiveGuards;
use crate::units::format_duration;

/// The maximum length of each of the two lists of sources that are shown (`top_sessions` and `top_refused`).
const SOURCES_SHOWN: usize = 10;

/// The body of a request to deny a network.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DenyRequest {
    network: String,
    /// For how long; `None`: until it is undone.
    #[serde(rename = "for")]
    time: Option<String>,
    /// Whether to cut the open sessions from the network that have passed the guard.
    #[serde(default)]
    close: bool,
}

/// All guards: the configured ones in their order, then the absent ones. An absent guard is no longer configured, but
/// has networks that were denied by hand.
pub(super) fn guard_bodies(guards: &LiveGuards) -> Vec<GuardBody> {
    let configured = guards.iter().map(|guard| guard_body(guard, false));
    let absent = guards.absent(Instant::now()).map(|guard| guard_body(guard, true));
    configured.chain(absent).collect()
}

fn guard_body(guard: &Guard, is_absent: bool) -> GuardBody {
    let by_reason = |counts: [(GuardReason, u64); GuardReason::ALL.len()]| {
        counts
            .into_iter()
            .map(|(reason, count)| (reason.as_str().to_owned(), count))
            .collect()
    };
    GuardBody {
        name: guard.name().to_string(),
        sessions: guard.sessions(),
        sources: guard.sources(),
        refusals: by_reason(guard.refusals()),
        reports: by_reason(guard.reports()),
        report_only: guard.rules().report_only,
        edits: guard.edit_count(Instant::now()),
        absent: is_absent,
    }
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<GuardDetailBody>, ApiError> {
    let Path(name) = name?;
    let (guard, is_absent) = find_with_absent(&admin, &name)?;
    let now = Instant::now();
    let count = |(source, count): (ClientSource, u64)| SourceCountBody {
        source: source.to_string(),
        count,
    };
    let top_sessions = guard.top_sessions(SOURCES_SHOWN).into_iter();
    let edit = |edit: &DenyEdit| DenyEditBody {
        network: edit.network.to_string(),
        set_by: edit.by.to_string(),
        set_at: rfc3339(edit.at),
        ends_in: edit.until.map(|until| (until - now).as_secs()),
    };
    Ok(Json(GuardDetailBody {
        guard: guard_body(&guard, is_absent),
        evictions: guard.evictions(),
        top_sessions: top_sessions
            .map(|(source, sessions)| count((source, sessions.into())))
            .collect(),
        top_refused: guard.top_refused(SOURCES_SHOWN).into_iter().map(count).collect(),
        denied: guard.edits(now).iter().map(edit).collect(),
    }))
}

pub(super) async fn deny(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    name: Result<Path<String>, PathRejection>,
    request: Result<Json<DenyRequest>, JsonRejection>,
) -> Result<Json<DeniedBody>, ApiError> {
    let Path(name) = name?;
    let Json(request) = request?;
    let network = network(&request.network)?;
    let time = parse_for(request.time.as_deref())?;
    let guard = find_configured(&admin, &name)?;
    let (by, now): (Arc<str>, _) = (client.to_string().into(), Instant::now());
    let edit = DenyEdit {
        network,
        by: Arc::clone(&by),
        at: SystemTime::now(),
        until: time.map(|time| now + time),
    };
    if !guard.deny(edit, now) {
        let message = format!("guard `{name}` has {EDITS_MAX} edits: undo some, or write networks to a `deny_file`");
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    let mut closed = 0;
    if request.close {
        for record in admin.ledgers.iter().flat_map(|ledger| ledger.records()) {
            closed += usize::from(record.cut_denied(guard.name(), network));
        }
    }
    tracing::info!(guard = name, %network, for_time = time.map(format_duration), closed, %by, "network denied");
    Ok(Json(DeniedBody {
        denied: network.to_string(),
        closed,
        report_only: guard.rules().report_only,
    }))
}

pub(super) async fn undo(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<UndoneBody>, ApiError> {
    let Path((name, text)) = path?;
    let network = network(&text)?;
    let (guard, _) = find_with_absent(&admin, &name)?;
    if !guard.undo(network, Instant::now()) {
        let message =
            format!("{network} is not denied by an edit of guard `{name}`; networks of its `deny_file` stay denied");
        return Err(ApiError::not_found(message));
    }
    tracing::info!(guard = name, %network, by = %client, "network no longer denied");
    Ok(Json(UndoneBody {
        undone: network.to_string(),
    }))
}

fn find_configured(admin: &Admin, name: &str) -> Result<Arc<Guard>, ApiError> {
    let in_force = admin.live.in_force();
    in_force
        .guards
        .named(name)
        .map(Arc::clone)
        .ok_or_else(|| no_guard(name))
}

/// The guard of this name, configured or absent, and whether it is absent.
fn find_with_absent(admin: &Admin, name: &str) -> Result<(Arc<Guard>, bool), ApiError> {
    let in_force = admin.live.in_force();
    let configured = in_force.guards.named(name).map(|guard| (guard, false));
    let absent = || {
        let mut absent = in_force.guards.absent(Instant::now());
        let guard = absent.find(|guard| **guard.name() == *name)?;
        Some((guard, true))
    };
    let (guard, is_absent) = configured.or_else(absent).ok_or_else(|| no_guard(name))?;
    Ok((Arc::clone(guard), is_absent))
}

fn no_guard(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no guard `{name}`"))
}

fn network(text: &str) -> Result<IpNet, ApiError> {
    parse_network(text).map_err(|error| ApiError::bad_request(format!("{error}: {}", error.hint())))
}
