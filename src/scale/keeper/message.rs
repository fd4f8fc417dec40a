//! The messages between us and the keeper.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The process of a clone to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartClone {
    /// The absolute path of a program, and its arguments.
    pub words: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// The user that it runs as; `None`: ours.
    pub user: Option<String>,
}

/// Our containers at one engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldContainers {
    /// The Unix socket of the engine's API.
    pub socket: PathBuf,
    /// The label that they have, and no other containers: `KEY=VALUE`.
    pub label: String,
}

/// What the keeper is asked for. `id` is ours, and never used twice.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum KeeperRequest {
    /// Start a process.
    Start { id: u64, clone: StartClone },
    /// End a process with its group: SIGTERM, then SIGKILL after this time.
    Stop { id: u64, kill_after_ms: u64 },
    /// Remove the containers with this label from the engine at this socket, when we have ended.
    HoldContainers(HeldContainers),
}

/// What the keeper reports.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// The process runs.
    Started { id: u64, pid: u32 },
    /// It could not be started.
    NotStarted { id: u64, error: String },
    /// It has printed a line; `suppressed` lines before it are not reported.
    Output { id: u64, line: String, suppressed: u64 },
    /// It has ended, and its group was killed.
    Ended { id: u64, status: String },
}

/// A message as a line.
pub(super) fn line_of(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("strings and numbers");
    line.push(b'\n');
    line
}
