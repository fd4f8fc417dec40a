//! The JSON about the configuration that a fleet shares in a store.

use serde::{Deserialize, Serialize};

/// The state of the configuration that a fleet shares in a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteBody {
    /// Where it is read from: `etcd:/acequia/edge`.
    pub from: String,
    /// The name of this process in the store.
    pub instance: String,
    /// The latest revision of the keys in force. This field and the next two are null as long as no keys are in force,
    /// because acequia still waits for the store.
    pub revision: Option<i64>,
    /// The number of keys in force.
    pub keys: Option<usize>,
    /// When the keys were put in force.
    pub since: Option<String>,
    /// The texts of a later revision that were refused; null: none were.
    pub refused: Option<RefusedTextsBody>,
    /// Whether another process writes its status with the name of this one.
    #[serde(default)]
    pub has_namesake: bool,
    /// Why the store does not answer; null: it does.
    pub lost: Option<String>,
    /// Since when it has not answered.
    pub lost_since: Option<String>,
}

/// Texts of the shared configuration that were refused. The errors are left out, as in [`super::bodies::ReloadBody`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedTextsBody {
    /// The latest revision of their keys; null: the attempt failed before the texts of the store were read.
    pub revision: Option<i64>,
    /// When they were first refused.
    pub since: String,
}
