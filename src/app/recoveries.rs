//! Logs when a shortage is over: listeners accept again, or the memory for ClientHellos is enough again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;

use crate::account::Metrics;
use crate::sniff::HelloMemory;

/// How often the end of a shortage is looked for.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn log_recoveries(metrics: Arc<Metrics>, memory: Arc<HelloMemory>) {
    let mut ticks = interval(RECOVERY_INTERVAL);
    loop {
        ticks.tick().await;
        for listener in metrics.listeners().iter().filter(|listener| listener.take_pause_end()) {
            tracing::info!(listener = %listener.name(), "accepting again");
        }
        if let Some(evicted) = memory.take_evictions() {
            tracing::info!(ended = evicted, "`hello_memory` is enough again");
        }
    }
}
