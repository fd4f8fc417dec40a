//! The JSON bodies about the configuration that a fleet shares in a store.

use serde::{Deserialize, Serialize};

/// The configuration that a fleet shares in a store, as this process follows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteBody {
    /// Where the configuration is read from: `etcd:` and the key, such as `etcd:/acequia/edge`.
    pub from: String,
    /// The name of this process in the store: `instance` of `[remote]`.
    pub instance: String,
    /// The revision in force: the highest revision of the keys that hold the configuration. `revision`, `keys` and
    /// `since` are null while acequia waits for its first configuration from the store.
    pub revision: Option<i64>,
    /// The number of keys that hold the configuration in force.
    pub keys: Option<usize>,
    /// When that configuration was put in force.
    pub since: Option<String>,
    /// The latest attempt to put a configuration from the store in force, if it failed; null: it did not fail.
    pub refused: Option<RefusedTextsBody>,
    /// Whether another process writes its status to the store under the same `instance`.
    #[serde(default)]
    pub has_namesake: bool,
    /// Why the store does not answer; null: it answers.
    pub lost: Option<String>,
    /// Since when the store does not answer; null: it answers.
    pub lost_since: Option<String>,
}

/// A configuration from the store that was refused. The error is left out: it quotes the configuration, and clients
/// without a token may read this body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedTextsBody {
    /// Its revision, as in [`RemoteBody::revision`]; null: the attempt failed before texts were read from the store.
    pub revision: Option<i64>,
    /// When it was first refused with the present error.
    pub since: String,
}
