//! The messages between acequia and a keeper, the child process that starts and ends a clone.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A request to start the process of a clone.
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
    /// The label of these containers, which no others have: `KEY=VALUE`.
    pub label: String,
}

/// A request to a keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum KeeperRequest {
    /// Start a process: the only one that this keeper holds.
    Start(StartClone),
    /// End the process with its group: SIGTERM, then SIGKILL after this time.
    Stop { kill_after_ms: u64 },
    /// Remove the containers with this label from the engine at this socket, when acequia has ended.
    HoldContainers(HeldContainers),
}

/// An event of the process of a clone.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessEvent {
    /// It runs, with this PID.
    Started(u32),
    /// It could not be started, for this reason. Nothing follows.
    NotStarted(String),
    /// It has printed a line. The number says how many lines before it were left out.
    Output(String, u64),
    /// It has ended, and so has all that it has started, except processes that cannot be killed. The text says how it
    /// has ended. Nothing follows.
    Ended(String),
}

/// A message as a line.
pub(super) fn line_of(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("strings and numbers");
    line.push(b'\n');
    line
}
