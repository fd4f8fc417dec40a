//! `/api/v1/certificates` lists the certificates of listeners, of pools and of the admin port, reads their files again,
//! and orders a certificate by ACME.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::access::ApiClient;
use super::context::{Admin, rfc3339};
use super::error::ApiError;
use crate::acme::{RenewalState, RenewalsByFile};
use crate::reload::{TlsReloads, reload_tls};
use crate::tls::{Certificate, ListenerTls, PoolTls, TlsReload, issuer_time};

/// `GET /api/v1/certificates`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificatesBody {
    /// First that of the admin port, then those of listeners, sorted by listener name, then those of pools, sorted by
    /// pool name.
    pub certificates: Vec<CertificateBody>,
}

/// A certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateBody {
    /// The name of the listener that has it; `[admin]`: the admin port; null: a pool has it.
    pub listener: Option<String>,
    /// The name of the pool to whose servers it is sent as the client certificate; null: `listener` has it.
    #[serde(default)]
    pub pool: Option<String>,
    /// The host names that it is for.
    pub names: Vec<String>,
    /// The common name of its issuer, or else the issuer's whole name.
    pub issuer: String,
    /// From when it is valid.
    pub valid_from: String,
    /// When it expires: the earliest expiry in its chain.
    pub expires: String,
    /// The path of its file.
    pub file: String,
    /// The NAME of the `[acme.NAME]` that orders it; null: ACME does not order it.
    pub acme: Option<String>,
    /// Whether it is a self-signed placeholder, which is in use until the ordered certificate is issued.
    pub self_signed: bool,
    /// Its next order; null: ACME does not order it, or acequia has not yet found out when the order is due.
    pub renewal: Option<RenewalBody>,
}

/// The next order of a certificate by ACME.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewalBody {
    /// When it is due.
    pub at: String,
    /// Why: `not_issued`, `lifetime`, `suggested` or `requested`.
    #[serde(default)]
    pub reason: String,
    /// The URL of a page that explains why the ACME server suggests the renewal.
    #[serde(default)]
    pub explanation_url: Option<String>,
    /// Whether it is under way.
    pub under_way: bool,
    /// The number of failed orders since the last one that succeeded.
    pub failures: u32,
    /// Why the latest order failed; null: none has failed since the last one that succeeded.
    pub error: Option<String>,
}

/// `POST /api/v1/certificates/{name}/renew`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewBody {
    /// The first name of the certificate that is being ordered.
    pub renewing: String,
}

/// `POST /api/v1/certificates/reload`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateReloadsBody {
    /// The admin port and the listeners that terminate TLS.
    pub listeners: Vec<CertificateReloadBody>,
    /// The pools with a `[pools.NAME.tls]`.
    #[serde(default)]
    pub pools: Vec<PoolTlsReloadBody>,
}

/// The result of reading the TLS files of a pool again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolTlsReloadBody {
    /// The name of the pool.
    pub pool: String,
    /// Whether a file has changed, and none is broken.
    pub changed: bool,
    /// The problem of the first broken file. Everything that was in force before still is.
    pub broken: Vec<String>,
}

/// The result of reading the TLS files of a listener, or of the admin port, again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateReloadBody {
    /// The name of the listener; `[admin]`: the admin port.
    pub listener: String,
    /// How many certificates are new, changed or gone.
    pub changed: usize,
    /// Whether the rules for clients' certificates or the secrets of tickets have changed.
    pub policy_changed: bool,
    /// Problems of changed files. The earlier contents of these files are still in force.
    pub broken: Vec<String>,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<CertificatesBody> {
    let states = admin.renewals.state();
    let renewals = RenewalState::by_file(&states);
    let listener_certificates = |(name, tls): (&str, &Arc<ListenerTls>)| -> Vec<CertificateBody> {
        let store = tls.certificates();
        store
            .all()
            .iter()
            .map(|certificate| CertificateBody {
                listener: Some(name.to_owned()),
                ..body(certificate, &renewals)
            })
            .collect()
    };
    let pool_certificate = |(name, tls): (&str, &PoolTls)| {
        Some(CertificateBody {
            pool: Some(name.to_owned()),
            ..body(&*tls.identity()?, &renewals)
        })
    };
    let in_force = admin.live.in_force();
    let mut certificates: Vec<_> = in_force.tls.terminated().flat_map(listener_certificates).collect();
    certificates.extend(in_force.tls.by_pool().into_iter().filter_map(pool_certificate));
    Json(CertificatesBody { certificates })
}

fn body(certificate: &Certificate, renewals: &RenewalsByFile<'_>) -> CertificateBody {
    let renewal = certificate.acme.as_ref().and_then(|_| renewals.get(certificate.path()));
    CertificateBody {
        acme: certificate.acme.as_deref().map(str::to_owned),
        self_signed: certificate.is_self_signed,
        renewal: renewal.map(|renewal| renewal_body(renewal)),
        listener: None,
        pool: None,
        names: certificate.names.iter().map(ToString::to_string).collect(),
        issuer: certificate.issuer.to_string(),
        valid_from: time(certificate.not_before),
        expires: time(certificate.not_after),
        file: certificate.path().display().to_string(),
    }
}

fn renewal_body(renewal: &RenewalState) -> RenewalBody {
    RenewalBody {
        at: rfc3339(renewal.next),
        reason: renewal.reason.as_str().to_owned(),
        explanation_url: renewal.explanation_url.as_deref().map(str::to_owned),
        under_way: renewal.is_under_way,
        failures: renewal.failed.as_ref().map_or(0, |failed| failed.failures),
        error: renewal.failed.as_ref().map(|failed| failed.error.clone()),
    }
}

pub(super) async fn renew(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<RenewBody>, ApiError> {
    let Path(name) = path?;
    let Some(renewing) = admin.renewals.request(&name) else {
        return Err(ApiError::not_found(format!(
            "no certificate for `{name}` is ordered by ACME"
        )));
    };
    tracing::info!(name = renewing, by = %client, "a certificate is ordered on request");
    Ok(Json(RenewBody { renewing }))
}

/// Formats a time from a certificate, given in seconds since the Unix epoch.
pub(super) fn time(seconds: i64) -> String {
    rfc3339(issuer_time(seconds))
}

pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
) -> Result<Json<CertificateReloadsBody>, ApiError> {
    let read = spawn_blocking(move || {
        let in_force = admin.live.in_force();
        let TlsReloads { listeners, pools } = reload_tls(&in_force.tls, &admin.metrics);
        let listener_reload = |(listener, tls, reload): (&str, &ListenerTls, TlsReload)| CertificateReloadBody {
            changed: reload.certificates,
            policy_changed: reload.has_policy_changed,
            broken: tls.broken(),
            listener: listener.to_owned(),
        };
        let pool_reload = |(pool, tls, reload): (&str, &PoolTls, TlsReload)| PoolTlsReloadBody {
            pool: pool.to_owned(),
            changed: reload.has_policy_changed, // for a pool: whether a file has changed, and none is broken
            broken: tls.broken().iter().map(ToString::to_string).collect(),
        };
        let body = CertificateReloadsBody {
            listeners: listeners.into_iter().map(listener_reload).collect(),
            pools: pools.into_iter().map(pool_reload).collect(),
        };
        let of_listeners: usize = body.listeners.iter().map(|listener| listener.broken.len()).sum();
        let of_pools: usize = body.pools.iter().map(|pool| pool.broken.len()).sum();
        let broken = of_listeners + of_pools;
        tracing::info!(by = %client, broken, "TLS files read again on request");
        body
    });
    let reloads = read.await;
    reloads
        .map(Json)
        .map_err(|lost| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, lost.to_string()))
}
