//! The admin port: whether the process lives, whether it is ready, and its metrics.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::account::Metrics;
use crate::live::Live;

/// A client of the admin port that has not said what it wants by then is cut, also between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// No connection lives longer; scrapers simply connect anew.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(3600);

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin port tells about.
pub struct Admin {
    /// The series.
    pub metrics: Arc<Metrics>,
    /// The plan in force.
    pub live: Arc<Live>,
    /// Set when the end has begun.
    pub is_draining: AtomicBool,
}

/// Answers on a listening socket, at most `connections_max` clients at once, for as long as it is polled.
pub async fn serve(socket: StdListener, admin: Arc<Admin>, connections_max: usize) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve the admin port"),
    };
    let places = Arc::new(Semaphore::new(connections_max));
    let router = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("this semaphore is never closed");
        let Ok((socket, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(socket), service);
            // What goes wrong here is the client's affair.
            let _ = timeout(CONNECTION_TIME_MAX, connection).await;
            drop(place);
        });
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if admin.is_draining.load(Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if admin.live.is_checked() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the first checks\n")
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        admin.metrics.render(),
    )
}
