//! The JSON bodies about the source of announced routes.

use serde::{Deserialize, Serialize};

/// The source of announced routes: whether it answers, and which announcements are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedBody {
    /// The kind of the source: always `docker`.
    pub source: String,
    /// Whether the latest attempt to get the announcements has succeeded; null: no attempt has ended yet.
    pub up: Option<bool>,
    /// When an attempt last succeeded; null: none has since the start.
    pub last_success: Option<String>,
    /// Why the latest attempt failed; null: it succeeded, or no attempt has ended yet.
    pub error: Option<String>,
    /// The refused announcements, in the order in which their containers were created; only the first 1,000.
    pub refused: Vec<RefusedAnnouncementBody>,
    /// The number of refused announcements that `refused` leaves out.
    pub more_refused: usize,
}

/// An announcement that is refused: it has no effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedAnnouncementBody {
    /// The name of the container that makes the announcement.
    pub from: String,
    /// The listener that the announcement names. There may be no such listener.
    pub listener: String,
    /// The server name of the announced route.
    pub sni: String,
    /// Why the announcement is refused.
    pub reason: String,
}
