//! The connections of an admin endpoint. Each carries one request, and lasts for a bounded time unless the response is
//! a stream of events.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::select;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::streams::StreamMark;
use crate::redirect::HTTPS_EXPECTED;

/// The time for a client to complete the TLS handshake, and again to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest life of a connection after its TLS handshake, unless it is a stream of events: [`HEAD_TIMEOUT`], and the
/// 10 s that scrapers usually wait for a response.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);

/// When the limit is reached and another client waits, the oldest connection is closed once it has this age.
const CROWDED_CONNECTION_TIME: Duration = Duration::from_millis(50);

/// A connection that was accepted.
pub(super) struct AdminConnection {
    serving: Pin<Box<dyn Future<Output = ()> + Send>>,
    mark: StreamMark,
}

impl AdminConnection {
    /// A connection that this router serves.
    pub(super) fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) -> Self {
        let mark = StreamMark::default();
        Self {
            serving: Box::pin(serve(stream, router, mark.clone())),
            mark,
        }
    }

    /// A connection that this router serves after a TLS handshake.
    pub(super) fn over_tls(stream: TcpStream, config: Arc<ServerConfig>, router: Router) -> Self {
        let mark = StreamMark::default();
        let serving = {
            let mark = mark.clone();
            async move {
                let handshake = timeout(HEAD_TIMEOUT, handshake(stream, config));
                // Errors are the client's: it does not speak TLS, does not trust the certificate, or closed early.
                if let Ok(Ok(Some(stream))) = handshake.await {
                    serve(stream, router, mark).await;
                }
            }
        };
        Self {
            serving: Box::pin(serving),
            mark,
        }
    }
}

/// Completes the handshake. `None`: the client speaks HTTP without TLS, and got a response that says so.
async fn handshake(mut stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0].is_ascii_uppercase() {
        let _ = stream.read(&mut [0; 4096]).await?; // closing with unread bytes would reset the connection
        stream.write_all(HTTPS_EXPECTED.as_bytes()).await?;
        stream.shutdown().await?;
        return Ok(None);
    }
    TlsAcceptor::from(config).accept(stream).await.map(Some)
}

/// The open connections, limited in number: when the limit is reached, the oldest one gives way to a new one.
#[derive(Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// Oldest first.
    by_age: VecDeque<OpenConnection>,
}

struct OpenConnection {
    since: Instant,
    task: AbortHandle,
    mark: StreamMark,
}

impl Connections {
    pub(super) fn spawn(&mut self, connection: AdminConnection) {
        self.by_age.push_back(OpenConnection {
            since: Instant::now(),
            task: self.tasks.spawn(connection.serving),
            mark: connection.mark,
        });
    }

    /// Returns when fewer than `max` connections are open. Streams of events do not count: they have a limit of their
    /// own. If no connection ends by itself, the oldest is aborted at the age of [`CROWDED_CONNECTION_TIME`]. The
    /// connections of one burst reach that age together, and can then be replaced without further waiting. Before the
    /// abort, the connection gets one more turn to read what its client has sent: this process may have stood still
    /// since the connection was accepted.
    pub(super) async fn wait_until_below(&mut self, max: usize) {
        let mut oldest_had_last_turn = false;
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.by_age.retain(|open| !open.task.is_finished());
            let mut counted = self.by_age.iter().filter(|open| !open.mark.is_open());
            let Some(oldest) = counted.next() else { return };
            let others = counted.count();
            if 1 + others < max {
                return;
            }
            if oldest.since.elapsed() >= CROWDED_CONNECTION_TIME {
                if oldest_had_last_turn {
                    oldest.task.abort();
                    self.tasks.join_next().await;
                    oldest_had_last_turn = false;
                } else {
                    yield_now().await;
                    oldest_had_last_turn = true;
                }
                continue;
            }
            select! {
                _ = self.tasks.join_next() => {}
                // After a stream has ended, `started` returns at once.
                () = oldest.mark.started(), if !oldest.mark.has_ended() => {}
                () = sleep_until(oldest.since + CROWDED_CONNECTION_TIME) => {}
            }
        }
    }
}

/// Serves one request, then closes: an idle keep-alive connection would use up the limit.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, mark: StreamMark) {
    let router = router.layer(Extension(mark.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // Errors are the client's: it sent no valid request, or closed early. After the time, only an open stream goes on.
    if timeout(CONNECTION_TIME_MAX, &mut connection).await.is_ok() || !mark.is_open() {
        return;
    }
    select! {
        biased; // a client that reads gets the end of the stream
        _ = &mut connection => {}
        // The stream has ended. If its client does not read, the rest of the stream is dropped with the connection.
        () = mark.ended() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::{get, post};
    use parking_lot::Mutex;
    use tokio::io::duplex;
    use tokio::time::sleep;

    use super::*;

    fn endless(mark: StreamMark) -> AdminConnection {
        AdminConnection {
            serving: Box::pin(pending()),
            mark,
        }
    }

    fn router() -> Router {
        Router::new().route("/", get(|| async { "x".repeat(1 << 20) }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_completes_its_request_head_is_cut_off() {
        for sent in ["", "GET / HTTP/1.1\r\n"] {
            let (mut client, ours) = duplex(1024);
            client.write_all(sent.as_bytes()).await.unwrap();
            let began = Instant::now();
            serve(ours, router(), StreamMark::default()).await;
            assert_eq!(began.elapsed(), HEAD_TIMEOUT, "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_at_the_limit_are_replaced_in_batches() {
        let (mut connections, began) = (Connections::default(), Instant::now());
        for _ in 0..3 * 16 {
            connections.wait_until_below(16).await;
            connections.spawn(endless(StreamMark::default()));
        }
        assert_eq!(connections.tasks.len(), 16);
        // 1 ms: the resolution of the timer.
        assert!(began.elapsed() <= 2 * (CROWDED_CONNECTION_TIME + Duration::from_millis(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_gets_a_turn_before_it_is_replaced() {
        let mut connections = Connections::default();
        let served = Arc::new(Mutex::new(false));
        let serving = Arc::clone(&served);
        connections.spawn(AdminConnection {
            serving: Box::pin(async move { *serving.lock() = true }),
            mark: StreamMark::default(),
        });
        connections.by_age[0].since -= CROWDED_CONNECTION_TIME; // the process stood still
        connections.wait_until_below(1).await;
        assert!(*served.lock());
    }

    #[tokio::test(start_paused = true)]
    async fn event_streams_do_not_count_and_are_not_replaced() {
        let mut connections = Connections::default();
        let (stream, other) = (StreamMark::default(), StreamMark::default());
        let _stream_guard = stream.begin();
        for mark in [&stream, &other, &stream, &other, &other] {
            connections.wait_until_below(2).await;
            connections.spawn(endless(mark.clone()));
        }
        connections.by_age.retain(|open| !open.task.is_finished());
        let are_streams: Vec<_> = connections.by_age.iter().map(|open| open.mark.is_open()).collect();
        assert_eq!(are_streams, [true, true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_becomes_a_stream_is_not_replaced() {
        let mut connections = Connections::default();
        let marks: [StreamMark; 3] = Default::default();
        for mark in &marks {
            connections.spawn(endless(mark.clone()));
        }
        let began = Instant::now();
        let beginning = tokio::spawn(async move {
            sleep(CROWDED_CONNECTION_TIME / 5).await;
            marks.map(|mark| mark.begin())
        });
        connections.wait_until_below(3).await;
        assert!(
            began.elapsed() < CROWDED_CONNECTION_TIME / 2,
            "the wait ended when the streams began"
        );
        let _stream_guards = beginning.await.unwrap();
        sleep(2 * CROWDED_CONNECTION_TIME).await;
        connections.wait_until_below(1).await;
        assert!(connections.by_age.iter().all(|open| !open.task.is_finished()));
        assert_eq!(connections.tasks.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_stream_outlives_the_time_limit_and_its_connection_ends_with_it() {
        use http_body_util::channel::Channel;

        let (sender, body) = Channel::<axum::body::Bytes>::new(1);
        let (body, mark) = (Arc::new(Mutex::new(Some(body))), StreamMark::default());
        let stream_guard = Arc::new(Mutex::new(None));
        let handler_guard = Arc::clone(&stream_guard);
        let router = Router::new().route(
            "/",
            get(move |Extension(mark): Extension<StreamMark>| {
                *handler_guard.lock() = Some(mark.begin());
                let body = body.lock().take().unwrap();
                async { axum::body::Body::new(body) }
            }),
        );
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (began, serving) = (Instant::now(), tokio::spawn(serve(ours, router, mark)));
        sleep(10 * CONNECTION_TIME_MAX).await;
        assert!(!serving.is_finished());
        drop(stream_guard.lock().take());
        drop(sender);
        serving.await.unwrap();
        assert_eq!(began.elapsed(), 10 * CONNECTION_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_completes_its_body_is_cut_off() {
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
        serve(ours, router, StreamMark::default()).await;
        assert_eq!(began.elapsed(), CONNECTION_TIME_MAX);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let began = Instant::now();
        serve(ours, router(), StreamMark::default()).await;
        assert_eq!(began.elapsed(), CONNECTION_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_closes_after_one_response() {
        let (mut client, ours) = duplex(1024);
        let serving = tokio::spawn(serve(ours, router(), StreamMark::default()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let (mut response, began) = (String::new(), Instant::now());
        client.read_to_string(&mut response).await.unwrap();
        serving.await.unwrap();
        assert!(response.contains("connection: close\r\n") && response.ends_with("xx"));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
