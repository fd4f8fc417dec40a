//! Where the state comes from: the stream of events of the running process or, while it has no free stream, polls.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::select;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::rates::SampleEvent;
use crate::admin::bodies::StateBody;
use crate::admin::changes::ChangesBody;
use crate::cli::remote::{ApiRequest, EventStream, Remote, RemoteError};

/// How long a stream may be silent before it counts as lost. The process sends a sample every second.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The pause before a lost stream is opened again: if the process is ending, its socket is closed by then.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// The time to open a lost stream again.
const REOPEN_TIME_MAX: Duration = Duration::from_secs(5);

const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The number of polls before the stream is tried again.
const POLLS: u32 = 5;

/// News of the process.
pub(super) enum Update {
    State(Box<StateBody>),
    Changes(Box<ChangesBody>),
    Sample(SampleEvent),
    /// The state, polled. Polls bring no samples, so the rates of the process are not known.
    Polled(Box<StateBody>),
}

/// Opens the stream; `None`: the process has no free stream or, asked over TCP, cannot read its `token_file`.
pub(super) async fn open(remote: &Remote) -> Result<Option<EventStream>, RemoteError> {
    match remote.events().await {
        Ok(stream) => Ok(Some(stream)),
        Err(RemoteError::Unavailable(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends the news of the process: from the stream, or from polls while there is no stream. If the stream is lost or a
/// poll fails, opens the stream again. After an invalid response, if the process does not let it poll, or if the stream
/// cannot be opened, it sends the error and returns. It also returns when nobody receives the news any more.
pub(super) async fn follow(remote: Remote, stream: Option<EventStream>, news: Sender<Result<Update, RemoteError>>) {
    select! {
        biased;
        () = news.closed() => {} // the user has quit
        error = follow_until_error(&remote, stream, &news) => {
            let _ = news.send(Err(error)).await; // fails if the user has quit
        }
    }
}

async fn follow_until_error(
    remote: &Remote,
    mut stream: Option<EventStream>,
    news: &Sender<Result<Update, RemoteError>>,
) -> RemoteError {
    loop {
        let next = match stream {
            Some(stream) => Err(pass_on(stream, news).await),
            None => match poll(remote, news).await {
                Ok(()) => open(remote).await,
                Err(error) => Err(error),
            },
        };
        stream = match next {
            Ok(next) => next,
            Err(error @ (RemoteError::InvalidResponse(_) | RemoteError::Unavailable(_))) => return error,
            Err(lost) => match reopen(remote, lost).await {
                Ok(next) => next,
                Err(error) => return error,
            },
        };
    }
}

/// Passes events on; returns why there are no more.
async fn pass_on(mut stream: EventStream, news: &Sender<Result<Update, RemoteError>>) -> RemoteError {
    loop {
        let update = match timeout(SILENCE_MAX, stream.next()).await {
            Ok(Ok((name, data))) => parse_event(&name, &data),
            Ok(Err(error)) => return error,
            Err(_) => return RemoteError::Timeout(SILENCE_MAX),
        };
        match update {
            Ok(None) => {}
            Ok(Some(update)) => {
                let _ = news.send(Ok(update)).await; // if it fails, `follow` returns
            }
            Err(error) => return error,
        }
    }
}

/// The update in an event; `None`: only later versions of acequia know this event.
fn parse_event(name: &str, data: &str) -> Result<Option<Update>, RemoteError> {
    fn read<T: DeserializeOwned>(data: &str) -> Result<T, RemoteError> {
        serde_json::from_str(data).map_err(RemoteError::InvalidResponse)
    }
    Ok(Some(match name {
        "state" => Update::State(read(data)?),
        "changes" => Update::Changes(read(data)?),
        "sample" => Update::Sample(read(data)?),
        _ => return Ok(None),
    }))
}

/// Opens the stream again. It may have been lost because this program was stopped for a while, or because the process
/// was restarted.
async fn reopen(remote: &Remote, lost: RemoteError) -> Result<Option<EventStream>, RemoteError> {
    sleep(REOPEN_PAUSE).await;
    match timeout(REOPEN_TIME_MAX, open(remote)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(RemoteError::Lost(Box::new(error))),
        Err(_) => Err(lost), // not opened in time
    }
}

/// Polls a few times.
async fn poll(remote: &Remote, news: &Sender<Result<Update, RemoteError>>) -> Result<(), RemoteError> {
    for _ in 0..POLLS {
        let state = remote.fetch_json(ApiRequest::get("/api/v1/state")).await?;
        let _ = news.send(Ok(Update::Polled(state))).await; // if it fails, `follow` returns
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;
    use tokio::sync::mpsc;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        remote: Remote,
    }

    fn listen(directory: &Path) -> (UnixListener, Remote) {
        let socket = directory.join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let Arguments { remote } = Arguments::parse_from(["top".as_ref(), "--socket".as_ref(), socket.as_os_str()]);
        (listener, remote)
    }

    /// A poll also fails while the process is restarted.
    #[tokio::test]
    async fn after_a_failed_poll_the_stream_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, remote) = listen(directory.path());
        let (sender, _receiver) = mpsc::channel(1);
        let mut requested = Vec::new();
        let requests = async {
            while requested
                .last()
                .is_none_or(|line: &String| !line.starts_with("GET /api/v1/events "))
            {
                let (socket, _) = listener.accept().await.unwrap();
                let line = BufReader::new(socket).lines().next_line().await.unwrap();
                requested.extend(line); // the connection is closed
            }
        };
        select! {
            () = follow(remote, None, sender) => panic!("it has ended: {requested:?}"),
            () = requests => {}
        }
        assert!(requested[0].starts_with("GET /api/v1/state "), "{requested:?}");
    }

    /// The process answers so if it cannot read its `token_file`.
    #[tokio::test]
    async fn a_poll_that_the_process_refuses_is_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, remote) = listen(directory.path());
        let (sender, mut receiver) = mpsc::channel(1);
        let refusal = async {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let mut socket = BufReader::new(socket);
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    socket.read_line(&mut line).await.unwrap();
                }
                let body = r#"{"error":"cannot read `token_file`"}"#;
                let head = format!(
                    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                socket.write_all((head + body).as_bytes()).await.unwrap();
            }
        };
        select! {
            () = refusal => {}
            () = follow(remote, None, sender) => {}
        }
        let Some(Err(error)) = receiver.recv().await else {
            panic!("expected an error")
        };
        assert!(error.to_string().contains("cannot read `token_file`"), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_requested_when_the_user_has_quit() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, remote) = listen(directory.path());
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        select! {
            biased;
            () = follow(remote, None, sender) => {}
            _ = listener.accept() => panic!("the process was asked"),
        }
    }
}
