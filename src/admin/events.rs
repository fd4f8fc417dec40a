//! `GET /api/v1/events`: the state and its changes as server-sent events (WHATWG HTML, section 9.2).
//!
//! A stream begins with an event of its own: the whole state. One task makes all other events, for all streams at once,
//! and only while a stream is open. A client that does not read in time, or whose token has been replaced, is cut. When
//! it connects again, it gets the whole state.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use http_body_util::channel::{Channel, Sender};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::select;
use tokio::sync::broadcast;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::access::{ApiClient, TokenProof};
use super::bodies::StateBody;
use super::changes::{StateChanges, changes_between};
use super::context::Admin;
use super::error::ApiError;
use super::history::sample_body;
use super::state::state_body;
use super::streams::StreamMark;
use crate::text::escape_json;

/// The time for a client to take an event.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// The pause after a look for changes, in multiples of the CPU time of that look: even with very many servers, looks
/// take at most a two-hundredth of a core.
const PAUSE_FACTOR: u32 = 199;

pub(super) async fn events(
    State(admin): State<Arc<Admin>>,
    Extension(client): Extension<ApiClient>,
    Extension(mark): Extension<StreamMark>,
    Extension(token): Extension<TokenProof>,
) -> Result<impl IntoResponse, ApiError> {
    let is_over_tcp = matches!(client, ApiClient::Tcp { .. });
    let permit = admin.events.permit(is_over_tcp);
    let permit = permit.ok_or_else(|| {
        let message = "all event streams are in use: try again later";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    // From here on, the connection counts as a stream. Otherwise, while the state is being made, it could be closed to
    // make room for a new connection (see `Connections`).
    let stream_guard = mark.begin();
    let coming = admin.events.sender.subscribe(); // before the state is read, so that no change is missed
    let first = full_state_event(&admin).await?;
    admin.events.has_new_stream.store(true, Release);
    let (sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        let _held = (permit, stream_guard);
        select! {
            () = send(sender, first, coming) => {}
            () = token.until_invalid(&admin) => {}
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::new(body)))
}

async fn full_state_event(admin: &Arc<Admin>) -> Result<Bytes, ApiError> {
    let admin = Arc::clone(admin);
    let made = spawn_blocking(move || event("state", &state_body(&admin))).await;
    made.map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "cannot show the state"))
}

/// Sends events until the client has gone or is too slow.
async fn send(mut sender: Sender<Bytes>, first: Bytes, mut coming: broadcast::Receiver<Bytes>) {
    let mut next = first;
    while let Ok(Ok(())) = timeout(SEND_TIME_MAX, sender.send_data(next)).await {
        next = match coming.recv().await {
            Ok(event) => event,
            Err(_) => return, // behind by more than the backlog
        };
    }
}

/// Sends the events to all streams: every second a sample, and then what has changed, if the pause after the last look
/// is over.
pub async fn publish(admin: Arc<Admin>) {
    let mut latest = admin.history.latest();
    let mut seen: Option<StateBody> = None;
    let mut next_look = Instant::now();
    while latest.changed().await.is_ok() {
        if admin.events.sender.receiver_count() == 0 {
            seen = None;
            continue;
        }
        let sample = latest.borrow_and_update().as_deref().map(sample_body);
        if let Some(sample) = sample {
            send_to_all(&admin, event("sample", &sample));
        }
        if Instant::now() < next_look {
            continue;
        }
        // A new stream began with another state than `seen`, so all streams get the whole state instead of changes.
        let has_new_stream = admin.events.has_new_stream.swap(false, Acquire);
        let before = seen.take().filter(|_| !has_new_stream);
        let admin_of_look = Arc::clone(&admin);
        let looked = spawn_blocking(move || {
            let began = thread_cpu_time();
            let mut now = state_body(&admin_of_look);
            let event = match before.map(|before| changes_between(before, &mut now)) {
                Some(StateChanges::Partial(changes)) => event("changes", &changes),
                None | Some(StateChanges::Whole) => event("state", &now),
            };
            (now, event, thread_cpu_time().saturating_sub(began))
        });
        let Ok((now, event, took)) = looked.await else { continue }; // the panic hook has logged a panic
        next_look = Instant::now() + took * PAUSE_FACTOR;
        seen = Some(now);
        send_to_all(&admin, event);
    }
}

/// The CPU time of this thread so far. Unlike elapsed time, it does not grow on a busy machine.
fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default() // it is never negative
}

fn send_to_all(admin: &Admin, event: Bytes) {
    let _ = admin.events.sender.send(event); // fails if the last client has gone meanwhile
}

/// Formats an event. `serde_json::to_string` writes no line breaks, so the data is one line. `escape_json` also escapes
/// invisible characters, as in all answers of the API.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("a body has string keys only");
    format!("event: {name}\ndata: {}\n\n", escape_json(&data)).into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::admin::streams::BACKLOG_MAX;

    #[test]
    fn an_event_is_one_line_of_data() {
        let event = event("sample", &["a\nb"]);
        assert_eq!(event, "event: sample\ndata: [\"a\\nb\"]\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut() {
        let events = broadcast::Sender::new(BACKLOG_MAX);
        let (sender, body) = Channel::<Bytes>::new(1);
        let sending = tokio::spawn(send(sender, "first".into(), events.subscribe()));
        for number in 0..3 * BACKLOG_MAX {
            let _ = events.send(Bytes::from(number.to_string()));
            tokio::task::yield_now().await;
        }
        sending.await.unwrap();
        drop(body);
    }

    #[tokio::test]
    async fn a_client_that_reads_gets_every_event() {
        let events = broadcast::Sender::new(BACKLOG_MAX);
        let (sender, mut body) = Channel::<Bytes>::new(1);
        let sending = tokio::spawn(send(sender, "first".into(), events.subscribe()));
        for expected in ["first", "second", "third"] {
            if expected != "first" {
                events.send(expected.into()).unwrap();
            }
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), expected);
        }
        drop(body);
        events.send("last".into()).unwrap();
        sending.await.unwrap();
    }
}
