//! The admin port and the Unix socket: liveness, readiness, metrics, and the API that shows and changes what is in
//! force.

pub mod guard_bodies;
pub mod bodies;
mod error;
mod socket;
mod context;
mod access;
mod guards;
mod state;
pub mod sessions;
pub mod route;
pub mod servers;
mod pools;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::account::certificate_expiries;
use crate::addr::ListenAddr;
use access::ApiClient;
pub use context::Admin;
use error::ApiError;
pub use socket::{AdminListener, bind, default_paths};

/// The time for a client to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest life of a connection: [`HEAD_TIMEOUT`] and the 10 s that scrapers usually wait for a response.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);

/// The shortest life of a connection when the limit is reached and another client waits. Then the oldest is closed.
const CROWDED_CONNECTION_TIME: Duration = Duration::from_millis(50);

/// The longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket of the admin server.
pub enum AdminEndpoint {
    /// The admin port.
    Tcp(TcpListener),
    /// The Unix socket, which the commands use.
    Unix(AdminListener),
}

/// Serves at most `connections_max` clients at once, for as long as it is polled.
pub async fn serve(endpoint: AdminEndpoint, admin: Arc<Admin>, connections_max: usize) {
    let router = router(admin);
    let mut connections = Connections::default();
    loop {
        let Ok(connection) = endpoint.accept(&router).await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        connections.wait_until_below(connections_max).await;
        connections.spawn(connection);
    }
}

impl AdminEndpoint {
    /// The address of the admin port.
    #[must_use]
    pub fn address(&self) -> Option<ListenAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(ListenAddr::new),
            Self::Unix(_) => None,
        }
    }

    /// Accepts a client; returns the future that serves it.
    async fn accept(&self, router: &Router) -> io::Result<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let router_for = |client| router.clone().layer(Extension(client));
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let bound_to_loopback = listener.local_addr()?.ip().is_loopback();
                let client = ApiClient::Tcp {
                    peer,
                    bound_to_loopback,
                };
                Box::pin(serve_connection(stream, router_for(client)))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Box::pin(serve_connection(stream, router_for(ApiClient::Unix(uid))))
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
        .route("/servers/{pool}/{server}", post(servers::set_overrides))
        .route("/guards/{guard}", get(guards::show))
        .route("/guards/{guard}/deny", post(guards::deny))
        .route("/guards/{guard}/deny/{network}", delete(guards::undo))
        .route("/pools/{pool}/trust", post(pools::trust))
        .route("/reload", post(servers::reload))
        .route("/route", get(route::explain))
        .fallback(async || ApiError::not_found("no such path: see docs/api.md"))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this method is not allowed: see docs/api.md",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&admin), access::authorize));
    Router::new()
        .nest("/api/v1", api)
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// The open connections, limited in number: when the limit is reached, the oldest one gives way to a new one.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Oldest first.
    by_age: VecDeque<(Instant, AbortHandle)>,
}

impl Connections {
    fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.by_age.push_back((Instant::now(), self.tasks.spawn(connection)));
    }

    /// Returns when fewer than `max` connections are open. If none ends by itself, the oldest is aborted at the age of
    /// [`CROWDED_CONNECTION_TIME`]; connections of one burst reach that age together, so that a queue of new clients
    /// does not wait that long for each of them.
    async fn wait_until_below(&mut self, max: usize) {
        while self.tasks.try_join_next().is_some() {}
        self.by_age.retain(|(_, task)| !task.is_finished());
        let Some((since, oldest)) = self.by_age.front().filter(|_| self.tasks.len() >= max) else {
            return;
        };
        if timeout_at(*since + CROWDED_CONNECTION_TIME, self.tasks.join_next())
            .await
            .is_err()
        {
            oldest.abort();
            self.tasks.join_next().await;
        }
    }
}

/// Serves one request, then closes: an idle keep-alive connection would use up the limit.
async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Errors are the client's: it sent no valid request, or closed early.
    let _ = timeout(CONNECTION_TIME_MAX, connection).await;
}

async fn ready(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    if admin.is_draining.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    match admin.live.waits_for() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {missing}\n")),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    // With many servers this takes long enough to delay other tasks of this runtime.
    let rendered = spawn_blocking(move || {
        let in_force = admin.live.in_force();
        let fallbacks = in_force.pools.with_fallback(Instant::now());
        let fallbacks = fallbacks.map(|(pool, serving)| (Arc::clone(pool.name()), !Arc::ptr_eq(pool, serving)));
        let pools = in_force.pools.iter().map(|pool| &***pool);
        let with_roles = in_force
            .pools
            .iter()
            .filter(|pool| pool.plan().health.required.is_set());
        let primaries = with_roles.map(|pool| (Arc::clone(pool.name()), pool.roles().claimants().len()));
        let text = admin
            .metrics
            .render(admin.limits.sessions(), pools, fallbacks, primaries, &in_force.guards);
        text + &certificate_expiries(&in_force.tls)
    });
    let text = rendered.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok::<_, StatusCode>((
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    ))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn router() -> Router {
        Router::new().route("/", get(|| async { "x".repeat(1 << 20) }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_complete_head_is_cut() {
        for sent in ["", "GET / HTTP/1.1\r\n"] {
            let (mut client, ours) = duplex(1024);
            client.write_all(sent.as_bytes()).await.unwrap();
            let began = Instant::now();
            serve_connection(ours, router()).await;
            assert_eq!(began.elapsed(), HEAD_TIMEOUT, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_at_the_limit_are_replaced_in_batches() {
        let (mut connections, began) = (Connections::default(), Instant::now());
        for _ in 0..3 * 16 {
            connections.wait_until_below(16).await;
            connections.spawn(pending());
        }
        assert_eq!(connections.tasks.len(), 16);
        // 1 ms: the resolution of the timer.
        assert!(began.elapsed() <= 2 * (CROWDED_CONNECTION_TIME + Duration::from_millis(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_finish_its_body_is_cut() {
        let router = Router::new().route("/", post(|body: String| async { body }));
        let (mut client, ours) = duplex(1024);
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n")
            .await
            .unwrap();
        let dripping = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        serve_connection(ours, router).await;
        assert_eq!(began.elapsed(), CONNECTION_TIME_MAX);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let began = Instant::now();
        serve_connection(ours, router()).await;
        assert_eq!(began.elapsed(), CONNECTION_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_closes_after_one_response() {
        let (mut client, ours) = duplex(1024);
        let serving = tokio::spawn(serve_connection(ours, router()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (mut response, began) = (String::new(), Instant::now());
        client.read_to_string(&mut response).await.unwrap();
        serving.await.unwrap();
        assert!(response.contains("connection: close\r\n") && response.ends_with("xx"));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
