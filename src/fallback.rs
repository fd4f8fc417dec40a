//! Logs when a pool without a usable server begins to use its fallback, and when it has servers again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::live::Live;

/// How often the state is polled.
const TICK: Duration = Duration::from_millis(100);

/// Logs for as long as it is polled.
pub async fn run(live: Arc<Live>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // By pool that uses a fallback: that fallback.
    let mut in_use: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    loop {
        let now = ticks.tick().await;
        let in_force = live.in_force();
        let with_fallback = in_force.pools.with_fallback(now);
        let names = with_fallback.filter_map(|(pool, in_use)| Some((Arc::clone(pool.name()), in_use?)));
        let present: HashMap<_, _> = names.collect();
        for (pool, fallback) in &present {
            if in_use.get(pool) != Some(fallback) {
                tracing::warn!(%pool, %fallback, "pool has no usable server: its fallback is used");
            }
        }
        for pool in in_use.keys().filter(|pool| !present.contains_key(*pool)) {
            tracing::info!(%pool, "pool no longer uses its fallback");
        }
        in_use = present;
    }
}
