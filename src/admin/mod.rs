//! The admin port and the Unix socket: whether the process lives, whether it is ready, its metrics; what there is, and
//! how to steer it.

pub mod answers;
mod error;
mod guard;
pub mod routed;
pub mod sessions;
mod socket;
mod state;
pub mod steer;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

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

use crate::account::{Ledger, Metrics};
use crate::addr::ListenAddr;
use crate::live::Live;
use crate::reload::Reloader;
use error::Refusal;
use guard::Visitor;
pub use socket::{AdminListener, bind, usual_places};

/// A client of the admin port that has not said what it wants by then is cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// No connection lives longer: the customary patience of a scraper, who reads meanwhile, and the time to ask.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);

/// How long anybody may stay while as many as may are there and somebody new waits; then who came first must go.
const CROWD_PATIENCE: Duration = Duration::from_millis(50);

/// The longest body of a request.
const BODY_BYTES_MAX: usize = 16 * 1024;

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
    /// One a worker.
    pub ledgers: Vec<Arc<Ledger>>,
    /// By which reloads are asked for.
    pub reloader: Reloader,
    /// When the process began.
    pub started: SystemTime,
    /// The file it runs, by its path from the root; `None`: there is none.
    pub configuration: Option<PathBuf>,
}

/// Where visitors come in.
pub enum Door {
    /// The admin port.
    Tcp(TcpListener),
    /// For the commands.
    Unix(AdminListener),
}

/// Answers at a door, at most `connections_max` clients at once, for as long as it is polled.
pub async fn serve(door: Door, admin: Arc<Admin>, connections_max: usize) {
    let router = router(admin);
    let mut visitors = Visitors::default();
    loop {
        let Ok(visit) = door.accept(&router).await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        visitors.make_room(connections_max).await;
        visitors.let_in(visit);
    }
}

impl Door {
    /// The address of the admin port.
    #[must_use]
    pub fn address(&self) -> Option<ListenAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(ListenAddr::new),
            Self::Unix(_) => None,
        }
    }

    /// Somebody new, and the answer to what they will ask.
    async fn accept(&self, router: &Router) -> io::Result<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let known = |visitor| router.clone().layer(Extension(visitor));
        Ok(match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                let bound_to_loopback = listener.local_addr()?.ip().is_loopback();
                let visitor = Visitor::Tcp {
                    peer,
                    bound_to_loopback,
                };
                Box::pin(answer(socket, known(visitor)))
            }
            Self::Unix(socket) => {
                let (socket, _) = socket.listener.accept().await?;
                let uid = socket.peer_cred().ok().map(|who| who.uid());
                Box::pin(answer(socket, known(Visitor::Unix(uid))))
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
        .route("/servers/{pool}/{server}", post(steer::server))
        .route("/reload", post(steer::reload))
        .route("/route", get(routed::routed))
        .fallback(async || Refusal::missing("there is nothing here: see docs/api.md"))
        .method_not_allowed_fallback(async || Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "see docs/api.md"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&admin), guard::admit));
    Router::new()
        .nest("/api/v1", api)
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// Who is there, bounded in number: those who only sit there give way to those who come.
#[derive(Default)]
struct Visitors {
    here: JoinSet<()>,
    /// Who came first stands first.
    by_age: VecDeque<(Instant, AbortHandle)>,
}

impl Visitors {
    fn let_in(&mut self, visit: impl Future<Output = ()> + Send + 'static) {
        self.by_age.push_back((Instant::now(), self.here.spawn(visit)));
    }

    /// Returns when fewer than `most` are there: soon, also when many come at once, for all who sit there since then
    /// have had their time together.
    async fn make_room(&mut self, most: usize) {
        while self.here.try_join_next().is_some() {}
        self.by_age.retain(|(_, visit)| !visit.is_finished());
        let Some((since, first)) = self.by_age.front().filter(|_| self.here.len() >= most) else {
            return;
        };
        if timeout_at(*since + CROWD_PATIENCE, self.here.join_next())
            .await
            .is_err()
        {
            first.abort();
            self.here.join_next().await;
        }
    }
}

/// One request, one answer: a connection that is kept open for the next would keep others out.
async fn answer(client: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(client), TowerToHyperService::new(router));
    // What goes wrong here is the client's affair.
    let _ = timeout(CONNECTION_TIME_MAX, connection).await;
}

async fn ready(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    if admin.is_draining.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    match admin.live.waits_for() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {what}\n")),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    // Where there are many servers this takes long enough for others to notice.
    let rendered = spawn_blocking(move || {
        let in_force = admin.live.in_force();
        admin.metrics.render(in_force.pools.iter().map(|pool| &***pool))
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
    async fn who_does_not_ask_is_cut() {
        for said in ["", "GET / HTTP/1.1\r\n"] {
            let (mut client, ours) = duplex(1024);
            client.write_all(said.as_bytes()).await.unwrap();
            let began = Instant::now();
            answer(ours, router()).await;
            assert_eq!(began.elapsed(), HEAD_TIMEOUT, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_sits_there_has_its_time_together() {
        let (mut visitors, began) = (Visitors::default(), Instant::now());
        for _ in 0..3 * 16 {
            visitors.make_room(16).await;
            visitors.let_in(pending());
        }
        assert_eq!(visitors.here.len(), 16);
        // Of the timer: a millisecond.
        assert!(began.elapsed() <= 2 * (CROWD_PATIENCE + Duration::from_millis(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_its_body_is_cut() {
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
        answer(ours, router).await;
        assert_eq!(began.elapsed(), CONNECTION_TIME_MAX);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let began = Instant::now();
        answer(ours, router()).await;
        assert_eq!(began.elapsed(), CONNECTION_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_answer_a_connection_ends() {
        let (mut client, ours) = duplex(1024);
        let serving = tokio::spawn(answer(ours, router()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (mut said, began) = (String::new(), Instant::now());
        client.read_to_string(&mut said).await.unwrap();
        serving.await.unwrap();
        assert!(said.contains("connection: close\r\n") && said.ends_with("xx"));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
