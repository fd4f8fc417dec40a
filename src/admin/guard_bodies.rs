//! The JSON bodies about guards. An edit of a guard denies a network, on an operator's request at run time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A guard, as in `GET /api/v1/state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardBody {
    /// Its name.
    pub name: String,
    /// How many open sessions have passed it, without those that passed only because of `report_only`.
    pub sessions: usize,
    /// How many sources these sessions have.
    pub sources: usize,
    /// Clients refused so far, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Clients that passed only because of `report_only`, by the reason for which they would have been refused.
    pub reports: BTreeMap<String, u64>,
    /// Whether it only reports.
    pub report_only: bool,
    /// How many networks are denied by edits.
    pub edits: usize,
    /// Whether the guard is no longer configured: no client is checked by it. Its edits are kept, and take effect again
    /// once a guard has its name.
    #[serde(default)]
    pub absent: bool,
}

/// `GET /api/v1/guards/{guard}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GuardDetailBody {
    /// The guard, as in `GET /api/v1/state`.
    pub guard: GuardBody,
    /// How many sources were forgotten before their full burst was available again, because there were too many.
    pub evictions: u64,
    /// The sources with most sessions, at most ten.
    pub top_sessions: Vec<SourceCountBody>,
    /// The sources that were refused most often, or would be without `report_only`, at most ten. The counts may be a
    /// little too high.
    pub top_refused: Vec<SourceCountBody>,
    /// Networks that are denied by edits, the oldest first.
    pub denied: Vec<DenyEditBody>,
}

/// A count of a source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceCountBody {
    /// The source: an address or a network.
    pub source: String,
    /// The count.
    pub count: u64,
}

/// A network that is denied by an edit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DenyEditBody {
    /// The network.
    pub network: String,
    /// Who has denied it.
    pub set_by: String,
    /// When it was denied.
    pub set_at: String,
    /// Seconds until the edit ends; null: it lasts until it is undone.
    pub ends_in: Option<u64>,
}

/// `POST /api/v1/guards/{guard}/deny`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeniedBody {
    /// The network that is denied now.
    pub denied: String,
    /// How many sessions from the network are being reset, even if the guard only reports; 0 if the request has no
    /// `close`.
    pub closed: usize,
    /// Whether the guard only reports: then new clients from the network still pass.
    pub report_only: bool,
}

/// `DELETE /api/v1/guards/{guard}/deny/{network}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UndoneBody {
    /// The network whose edit is undone.
    pub undone: String,
}
