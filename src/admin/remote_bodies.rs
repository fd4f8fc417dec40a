//! The JSON of the configuration from the fleet's store.

use serde::{Deserialize, Serialize};

/// The configuration from the fleet's store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteBody {
    /// The place of its texts: `etcd:/acequia/edge`.
    pub from: String,
    /// What this process is called there.
    pub instance: String,
    /// The latest revision of the keys in force; null: nothing is, and the store is awaited.
    pub revision: Option<i64>,
    /// The number of keys in force.
    pub keys: Option<usize>,
    /// When they were put in force.
    pub since: Option<String>,
    /// What was refused after that; null: nothing.
    pub refused: Option<RefusedTextsBody>,
    /// Why the store does not answer; null: it does.
    pub lost: Option<String>,
    /// Since when.
    pub lost_since: Option<String>,
}

/// Texts that were refused. The errors are left out, as in [`super::bodies::ReloadBody`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedTextsBody {
    /// The latest revision of their keys.
    pub revision: Option<i64>,
    /// When this was found first.
    pub since: String,
}
