//! The series of TLS that a listener terminates.

use std::time::Duration;

use metrics::Label;

use super::counters::{BufferedCounter, LabelledCounters, SharedRecorder};
use crate::account::histogram::{HANDSHAKE_BOUNDS, Histogram};
use crate::account::names;

/// How a TLS handshake with a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    /// It is complete.
    Ok,
    /// One side refused what the other one sent.
    Failed,
    /// The client's certificate was refused, or the client has none.
    ClientRefused,
    /// It took too long, or `hello_memory` was used up, which also bounds what clients send here.
    Timeout,
    /// The client closed the connection, or the connection broke.
    ClientLeft,
}

impl HandshakeResult {
    const ALL: [Self; 5] = [
        Self::Ok,
        Self::Failed,
        Self::ClientRefused,
        Self::Timeout,
        Self::ClientLeft,
    ];

    /// The word for metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::ClientRefused => "client_refused",
            Self::Timeout => "timeout",
            Self::ClientLeft => "client_left",
        }
    }
}

/// The label `version` of a handshake that failed before a version was negotiated.
const NO_VERSION: &str = "";

/// The values of the label `version`.
const VERSIONS: [&str; 3] = ["1.2", "1.3", NO_VERSION];

/// The series of TLS that a listener terminates.
pub(in crate::account) struct TlsSeries {
    handshakes: [LabelledCounters<{ HandshakeResult::ALL.len() }>; VERSIONS.len()],
    resumptions: BufferedCounter,
    pub(in crate::account) handshake_duration: Histogram,
}

impl TlsSeries {
    /// `labels` are those of the listener.
    pub(super) fn new(recorder: &SharedRecorder, labels: &[Label]) -> Self {
        let series_for = |version| {
            let labels = [labels, &[Label::from_static_parts("version", version)]].concat();
            LabelledCounters::new(recorder, names::TLS_HANDSHAKES, &labels, "result")
        };
        Self {
            handshakes: VERSIONS.map(series_for),
            resumptions: BufferedCounter::new(recorder, names::TLS_RESUMPTIONS, labels.to_vec()),
            handshake_duration: Histogram::new(HANDSHAKE_BOUNDS),
        }
    }

    /// Counts a handshake. An unknown version is counted as [`NO_VERSION`], the last of [`VERSIONS`].
    pub(super) fn record_handshake(&self, version: &str, result: HandshakeResult, duration: Duration) {
        let index = VERSIONS.iter().position(|known| *known == version);
        let counters = &self.handshakes[index.unwrap_or(VERSIONS.len() - 1)];
        counters.get(result as usize, result.as_str()).increment(1);
        self.handshake_duration.record(duration);
    }

    pub(super) fn record_resumption(&self) {
        self.resumptions.increment(1);
    }

    /// Exports the counters.
    pub(super) fn export(&self) {
        self.handshakes.iter().for_each(LabelledCounters::export);
        self.resumptions.export();
    }
}
