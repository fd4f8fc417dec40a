//! Follows a running container: what it prints, and how it ends.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use super::clone_name::CloneName;
use super::own_containers::ContainerPlace;
use crate::back_off::BackOff;
use crate::docker::{ContainerLog, DockerEngine, DockerError};
use crate::error::chain;
use crate::scale::{PrintedLine, PrintedLines};

/// How long to wait for the end of its log after it has ended.
const LOG_END_TIMEOUT: Duration = Duration::from_secs(1);

/// After this long without a failure of the engine, the next failure counts as the first.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// Follows a container.
pub(super) struct ContainerFollower {
    place: ContainerPlace,
    name: CloneName,
    printed: PrintedLines,
    /// Up to when its log was read.
    read_until: SystemTime,
    /// Whether the engine did not answer when it was last asked.
    is_unreachable: bool,
}

impl ContainerFollower {
    /// `began`: since when its log is of interest.
    pub(super) fn new(place: ContainerPlace, name: CloneName, began: SystemTime) -> Self {
        Self {
            place,
            name,
            printed: PrintedLines::new(Instant::now()),
            read_until: began,
            is_unreachable: false,
        }
    }

    /// Logs what it prints until it has ended. Returns how. While the engine does not answer, it is believed to run.
    pub(super) async fn run(mut self) -> String {
        let mut back_off = BackOff::default();
        loop {
            let asked = Instant::now();
            let error = match self.follow().await {
                Ok(how) => return how,
                Err(error) => error,
            };
            if asked.elapsed() >= STEADY_AFTER {
                back_off.reset();
            }
            if !self.is_unreachable {
                let CloneName { pool, clone } = &self.name;
                tracing::warn!(%pool, %clone, error = chain(&*error), "Docker does not answer about a clone, which may go on");
            }
            self.is_unreachable = true;
            back_off.pause().await;
        }
    }

    async fn follow(&mut self) -> Result<String, DockerError> {
        let engine = DockerEngine::connect(&self.place.socket).await?;
        if std::mem::take(&mut self.is_unreachable) {
            let CloneName { pool, clone } = &self.name;
            tracing::info!(%pool, %clone, "Docker answers about a clone again");
        }
        let container = self.place.name.clone();
        // Not every log driver of an engine can be read from.
        let mut log = engine.log(&container, self.read_until).await.ok();
        let mut ended = pin!(engine.ended(&container));
        let status = loop {
            tokio::select! {
                // Cancel safe: no part of the log is lost.
                Some(bytes) = next(&mut log), if log.is_some() => self.log_output(&bytes),
                status = &mut ended => break status?,
            }
        };
        let rest = async {
            while let Some(bytes) = next(&mut log).await {
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

/// The next piece of the log. At its end, the log is closed.
async fn next(log: &mut Option<ContainerLog>) -> Option<Vec<u8>> {
    let bytes = log.as_mut()?.next().await;
    if bytes.is_none() {
        *log = None;
    }
    bytes
}
