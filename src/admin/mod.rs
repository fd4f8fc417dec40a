//! The admin port and the Unix socket: liveness, readiness, metrics, and the API that shows and changes what is in
//! force.

pub mod guard_bodies;
pub mod session_bodies;
pub mod pool_bodies;
pub mod announced_bodies;
pub mod remote_bodies;
pub mod route_bodies;
pub mod bodies;
mod error;
mod socket;
mod streams;
mod escaped_json;
mod context;
mod access;
mod connections;
mod page;
mod guards;
pub mod certificates;
mod scale;
mod remote;
mod added;
mod announced;
mod discovery;
mod state;
pub mod sessions;
pub mod route;
pub mod servers;
mod reload;
mod pools;
mod history;
pub mod changes;
mod events;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::account::{
    DiscoverySample, OPENMETRICS_TYPE, PROMETHEUS_TYPE, PoolStateSample, acme_renewals, certificate_validity,
    openmetrics, prefers_openmetrics, write_announced, write_busy, write_connection_limits, write_discovery,
    write_remote, write_scales, write_states, write_unsaved,
};
use crate::addr::ListenAddr;
use crate::live::Live;
use crate::optional::OptionalCall;
use crate::socket::SocketOptions;
use access::ApiClient;
pub use access::token;
use connections::{AdminConnection, Connections};
pub use context::{Admin, ApiAccess, parse_lifetime};
use error::{ApiError, no_pool};
use escaped_json::escape_body;
pub use events::publish;
pub use socket::{AdminUnixListener, bind, default_paths};
pub use streams::Events;

/// The prefix of all paths of the API.
const API: &str = "/api/v1";

/// The longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failures of accept are logged at most once in this time, for each endpoint.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A client that is gone without a sign, or does not read when the kernel's buffers are full, is cut after 10 s.
const SOCKET_OPTIONS: SocketOptions = SocketOptions {
    keepalive: None,
    user_timeout: Some(Duration::from_secs(10)),
};

/// A listening socket of the admin server.
pub enum AdminEndpoint {
    /// The admin port. It speaks TLS if `[admin]` has a certificate.
    Tcp(TcpListener),
    /// The Unix socket, which commands such as `acequia status` use.
    Unix(AdminUnixListener),
}

/// How many unsent bytes of a response the kernel may hold. The fewer they are, the sooner a stream of events finds
/// that its client has stopped reading.
const UNSENT_BYTES_MAX: u32 = 16 * 1024;

static NOTSENT_LOWAT: OptionalCall = OptionalCall::new(
    "setsockopt(TCP_NOTSENT_LOWAT)",
    "clients of the admin port that do not read are found later",
);

static SNDBUF: OptionalCall = OptionalCall::new(
    "setsockopt(SO_SNDBUF)",
    "clients of the Unix socket that do not read are found later",
);

/// Serves at most `connections_max` clients at once, not counting streams of events, for as long as it is polled.
pub async fn serve(endpoint: AdminEndpoint, admin: Arc<Admin>, connections_max: usize) {
    let (live, router) = (Arc::clone(&admin.live), router(admin));
    let mut connections = Connections::default();
    let mut logged_at: Option<Instant> = None;
    loop {
        let connection = match endpoint.accept(&router, &live).await {
            Ok(connection) => connection,
            Err(error) => {
                if logged_at.is_none_or(|at| at.elapsed() >= FAILURE_LOG_INTERVAL) {
                    tracing::warn!(%error, "cannot accept clients on {}, trying again", endpoint.as_str());
                    logged_at = Some(Instant::now());
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.wait_until_below(connections_max).await;
        connections.spawn(connection);
    }
}

impl AdminEndpoint {
    /// The address of the admin port; `None` for the Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<ListenAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(ListenAddr::new),
            Self::Unix(_) => None,
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "the admin port",
            Self::Unix(_) => "the Unix socket of the API",
        }
    }

    /// Accepts a client.
    async fn accept(&self, router: &Router, live: &Live) -> io::Result<AdminConnection> {
        let router_for = |client| router.clone().layer(Extension(client));
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                SOCKET_OPTIONS.apply(&SockRef::from(&stream));
                NOTSENT_LOWAT.record_result(SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX));
                let bound_to_loopback = listener.local_addr()?.ip().is_loopback();
                let client = ApiClient::Tcp {
                    peer,
                    bound_to_loopback,
                };
                let router = router_for(client);
                match &live.in_force().tls.admin {
                    None => AdminConnection::new(stream, router),
                    Some(tls) => AdminConnection::over_tls(stream, tls.default_config(), router),
                }
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                SNDBUF.record_result(SockRef::from(&stream).set_send_buffer_size(UNSENT_BYTES_MAX as usize));
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                AdminConnection::new(stream, router_for(ApiClient::Unix(uid)))
            }
        })
    }
}

fn router(admin: Arc<Admin>) -> Router {
    let api = Router::new()
        .route("/process", get(state::process))
        .route("/state", get(state::state))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}", delete(sessions::kill))
        .route("/servers/{pool}/{server}", get(servers::show))
        .route("/servers/{pool}/{server}", post(servers::set_overrides))
        .route("/guards/{guard}", get(guards::show))
        .route("/guards/{guard}/deny", post(guards::deny))
        .route("/guards/{guard}/deny/{network}", delete(guards::undo))
        .route("/pools/{pool}/trust", post(pools::trust))
        .route("/pools/{pool}/scale", post(scale::scale))
        .route("/pools/{pool}/servers", post(added::add))
        .route("/pools/{pool}/servers/{server}", delete(added::remove))
        .route("/certificates", get(certificates::list))
        .route("/certificates/reload", post(certificates::reload))
        .route("/certificates/{name}/renew", post(certificates::renew))
        .route("/reload", get(reload::latest_error))
        .route("/reload", post(reload::reload))
        .route("/route", get(route::explain))
        .route("/endings", get(history::endings))
        .route("/history", get(history::history))
        .route("/events", get(events::events))
        .fallback(async || ApiError::not_found("no such path: see docs/api.md"))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this method is not allowed: see docs/api.md",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response(escape_body))
        .layer(from_fn_with_state(Arc::clone(&admin), access::authorize));
    Router::new()
        .nest(API, api)
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(page::router())
        .with_state(admin)
}

/// The query of `/ready`.
#[derive(Debug, Deserialize)]
struct ReadyQuery {
    /// Names of pools, separated by commas. Each must have a usable server of its own or of its fallback, or be asleep:
    /// it has no clones until a client comes.
    pools: Option<String>,
}

async fn ready(State(admin): State<Arc<Admin>>, Query(query): Query<ReadyQuery>) -> (StatusCode, String) {
    let unready = |text: String| (StatusCode::SERVICE_UNAVAILABLE, text);
    if admin.is_draining.load(Relaxed) {
        return unready(String::from("draining\n"));
    }
    if let Some(missing) = admin.live.why_not_ready() {
        return unready(format!("waiting for {missing}\n"));
    }
    let in_force = admin.live.in_force();
    for name in query.pools.iter().flat_map(|names| names.split(',')) {
        let Some(id) = in_force.plan.pools.id(name) else {
            return (StatusCode::NOT_FOUND, no_pool(name) + "\n");
        };
        let now = Instant::now();
        let serving = &in_force.pools[in_force.pools.serving(id, now)];
        if !serving.is_usable(now) && !serving.is_asleep(now) {
            return unready(format!("pool {name} has no usable server\n"));
        }
    }
    (StatusCode::OK, String::from("ready\n"))
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_openmetrics = accept.is_some_and(prefers_openmetrics);
    // With many servers this takes long enough to delay other tasks of this runtime.
    let rendered = spawn_blocking(move || {
        let in_force = admin.live.in_force();
        let fallbacks = in_force.pools.with_fallback(Instant::now());
        let fallbacks = fallbacks.map(|(pool, in_use)| (Arc::clone(pool.name()), in_use.is_some()));
        let pools = in_force.pools.iter().map(|pool| &***pool);
        let with_primary = in_force
            .pools
            .iter()
            .filter(|pool| pool.plan().health.required.has_primary());
        let primaries = with_primary.map(|pool| (Arc::clone(pool.name()), pool.roles().claimants().len()));
        let text = admin
            .metrics
            .render(admin.limits.sessions(), pools, fallbacks, primaries, &in_force.guards);
        let now = Instant::now();
        let states = in_force.pools.iter().map(|pool| PoolStateSample {
            pool,
            serves: pool.serves(now),
            role_matters: pool.plan().health.role_matters(),
        });
        let text = text
            + &write_states(states, now)
            + &write_connection_limits(admin.limits.sizes(), admin.limits.process_size());
        let sources = in_force.pools.iter().filter(|pool| pool.plan().discover.is_some());
        let sources = sources.map(|pool| {
            let state = pool.dynamic().source();
            DiscoverySample {
                pool: pool.name(),
                is_up: state.is_up == Some(true),
                last_success: state.last_success,
            }
        });
        let text = text
            + &write_discovery(sources)
            + &write_scales(&scale::samples(&in_force.pools))
            + &write_remote(remote::sample(&admin))
            + &write_announced(announced::sample(&admin, &in_force.plan).as_ref())
            + &write_unsaved(admin.unsaved.as_ref().map(|unsaved| unsaved.list().len()));
        let text = text + &write_busy(admin.ledgers.iter().map(|ledger| ledger.busy()));
        let text = text
            + &certificate_validity(in_force.tls.terminated(), in_force.tls.by_pool())
            + &acme_renewals(&admin.renewals.results());
        if is_openmetrics { openmetrics(&text) } else { text }
    });
    let text = rendered.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let media_type = if is_openmetrics {
        OPENMETRICS_TYPE
    } else {
        PROMETHEUS_TYPE
    };
    Ok::<_, StatusCode>(([(header::CONTENT_TYPE, media_type)], text))
}
