//! Follows a running container: what it prints, and how it ends.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, timeout};

use super::clone_name::CloneName;
use super::own_containers::ContainerPlace;
use crate::back_off::BackOff;
use crate::docker::{ContainerLog, DockerEngine, DockerError, Rejection};
use crate::error::chain;
use crate::scale::{PrintedLine, PrintedLines};

/// After the end of the container or of its log: how long to wait for the end of the other.
const LOG_END_TIMEOUT: Duration = Duration::from_secs(1);

/// The failure if only the end of the log is reported.
const LOG_ENDED_ALONE: &str = "the log of the container has ended, but Docker does not report the end of the container";

/// After a failure: how long the container must be followed before acequia logs that it is followed again. Most
/// failures that persist show within this time.
const LOGGED_AFTER: Duration = Duration::from_secs(5);

/// When the container has been followed for this time, the pauses after failures begin short again.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// Follows a container.
pub(super) struct ContainerFollower {
    place: ContainerPlace,
    name: CloneName,
    printed: PrintedLines,
    /// When its log was last read. After a broken connection, the log is read again from this time on: what the
    /// container printed earlier, and was not read yet, is lost.
    read_until: SystemTime,
    /// Whether a failure was logged, and not yet that the container is followed again.
    is_interrupted: bool,
}

impl ContainerFollower {
    /// `began`: the time from which on the log is read.
    pub(super) fn new(place: ContainerPlace, name: CloneName, began: SystemTime) -> Self {
        Self {
            place,
            name,
            printed: PrintedLines::new(Instant::now()),
            read_until: began,
            is_interrupted: false,
        }
    }

    /// Logs what the container prints until it has ended. Returns how it ended. While it cannot be followed, the
    /// container is assumed to run.
    pub(super) async fn run(mut self) -> String {
        let mut back_off = BackOff::default();
        loop {
            let began = Instant::now();
            let error = match self.follow().await {
                Ok(how) => return how,
                Err(error) => error,
            };
            if began.elapsed() >= STEADY_AFTER {
                back_off.reset();
            }
            if !self.is_interrupted {
                let CloneName { pool, clone } = &self.name;
                tracing::warn!(%pool, %clone, error = chain(&*error), "cannot follow the container of a clone, which may still be running");
            }
            self.is_interrupted = true;
            back_off.pause().await;
        }
    }

    /// As [`Self::run`], until the engine fails.
    async fn follow(&mut self) -> Result<String, DockerError> {
        let engine = DockerEngine::connect(&self.place.socket).await?;
        let container = self.place.name.clone();
        let mut log = match engine.log(&container, self.read_until).await {
            Ok(log) => Some(log),
            Err(error) if error.is::<Rejection>() => None, // not every log driver can be read from
            Err(error) => return Err(error),
        };
        let mut logged = pin!(sleep(LOGGED_AFTER));
        let mut ended = pin!(engine.wait(&container));
        let status = loop {
            tokio::select! {
                // Cancel safe: no part of the log is lost.
                read = next(&mut log), if log.is_some() => match read? {
                    Some(bytes) => self.log_output(&bytes),
                    // The end of the container is reported at about the same time. If it is not, the log is read again.
                    None => break timeout(LOG_END_TIMEOUT, &mut ended).await.map_err(|_| LOG_ENDED_ALONE)??,
                },
                status = &mut ended => break status?,
                () = &mut logged, if self.is_interrupted => {
                    self.is_interrupted = false;
                    let CloneName { pool, clone } = &self.name;
                    tracing::info!(%pool, %clone, "the container of a clone is followed again");
                }
            }
        };
        let rest = async {
            while let Ok(Some(bytes)) = next(&mut log).await {
                self.log_output(&bytes);
            }
        };
        let _ = timeout(LOG_END_TIMEOUT, rest).await;
        let last = self.printed.finish(Instant::now());
        self.log(last);
        Ok(match status {
            Some(status) => format!("exit status {status}"),
            None => String::from("it was removed"),
        })
    }

    fn log_output(&mut self, bytes: &[u8]) {
        self.read_until = SystemTime::now();
        let lines = self.printed.push(bytes, Instant::now());
        self.log(lines);
    }

    fn log(&self, lines: impl IntoIterator<Item = PrintedLine>) {
        for PrintedLine { line, suppressed } in lines {
            self.name.log_line(&line, suppressed);
        }
    }
}

/// The next piece of the log; `None`: it has ended, or there is no log.
async fn next(log: &mut Option<ContainerLog>) -> Result<Option<Vec<u8>>, DockerError> {
    match log {
        Some(log) => log.next().await,
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    /// Answers one request of the API of Docker. The first request for the log gets no answer, and the next two get a
    /// log that ends in the middle of a chunk. At the fourth, the log is complete, and the container has ended.
    async fn answer(mut stream: UnixStream, log_requests: Arc<AtomicUsize>) {
        let mut request = BufReader::new(&mut stream).lines();
        let Ok(Some(first)) = request.next_line().await else {
            return;
        };
        while request.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
        let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{rest}");
        let json = |body: &str| ok(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let response = if first.contains("/logs?") {
            match log_requests.fetch_add(1, Relaxed) {
                0 => return,
                1 | 2 => ok("Transfer-Encoding: chunked\r\n\r\n400\r\nhello"),
                _ => json(""),
            }
        } else if first.contains("/wait") {
            match log_requests.load(Relaxed) {
                0..4 => pending().await,
                _ => json(r#"{"StatusCode":7}"#),
            }
        } else {
            json(r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#)
        };
        stream.write_all(response.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn a_log_that_breaks_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let socket: Arc<Path> = directory.path().join("docker.sock").into();
        let listener = UnixListener::bind(&socket).unwrap();
        let log_requests = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&log_requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&counter)));
            }
        });
        let place = ContainerPlace {
            socket,
            name: "acequia-app-1".into(),
        };
        let name = CloneName {
            pool: "app".into(),
            clone: "app-1".into(),
        };
        let follower = ContainerFollower::new(place, name, SystemTime::now());
        let ended = timeout(Duration::from_secs(30), follower.run()).await;
        assert_eq!((ended.as_deref(), log_requests.load(Relaxed)), (Ok("exit status 7"), 4));
    }
}
