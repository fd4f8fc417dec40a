//! The JSON bodies about the source of announced routes.

use serde::{Deserialize, Serialize};

/// The source of announced routes: whether it answers, and which announcements have no effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedBody {
    /// Its kind: `docker`.
    pub source: String,
    /// Whether its latest answer was usable; absent: it has not answered yet.
    pub up: Option<bool>,
    /// When it last gave a usable answer; absent: it has not since the start.
    pub last_success: Option<String>,
    /// Why its latest answer was not usable; absent: it was usable, or it has not answered yet.
    pub error: Option<String>,
    /// The announcements that have no effect, the first 1,000.
    pub refused: Vec<RefusedAnnouncementBody>,
    /// The number of those left out of `refused`.
    pub more_refused: usize,
}

/// An announcement that has no effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedAnnouncementBody {
    /// The name of the container.
    pub from: String,
    /// The listener that it names.
    pub listener: String,
    /// The server name that it wants.
    pub sni: String,
    /// Why it does not get this name.
    pub reason: String,
}
