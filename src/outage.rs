//! Logs when a pool has no usable server any more, with the reason for each server, and when it has one again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::live::{Live, LivePool};
use crate::pool::MemberState;

/// How often the state is polled.
const TICK: Duration = Duration::from_secs(1);

/// Servers that are named in a message.
const SERVERS_NAMED_MAX: usize = 8;

/// Logs for as long as it is polled.
pub async fn run(live: Arc<Live>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unusable: HashSet<Arc<str>> = HashSet::new();
    loop {
        let now = ticks.tick().await;
        let in_force = live.in_force();
        let mut present = HashSet::new();
        for pool in in_force.pools.iter().filter(|pool| !pool.is_usable(now)) {
            if unusable.contains(pool.name()) || !is_starting(pool, now) {
                present.insert(Arc::clone(pool.name()));
            }
        }
        for name in &present {
            if let Some(pool) = in_force.pool(name).filter(|_| !unusable.contains(name)) {
                tracing::warn!(pool = %name, servers = reasons(pool, now), "pool has no usable server");
            }
        }
        for name in unusable.iter().filter(|name| !present.contains(*name)) {
            if in_force.pool(name).is_some() {
                tracing::info!(pool = %name, "pool has a usable server again");
            }
        }
        unusable = present;
    }
}

/// Whether a server has not been checked yet, or a name not been resolved: `/ready` tells that.
fn is_starting(pool: &LivePool, now: Instant) -> bool {
    let servers = pool.servers();
    servers.is_empty() || servers.iter().any(|server| server.state(now) == MemberState::Unchecked)
}

/// The state of each server, and the error of its latest check.
fn reasons(pool: &LivePool, now: Instant) -> String {
    let servers = pool.servers();
    let mut reasons: Vec<String> = Vec::new();
    for server in servers.iter().take(SERVERS_NAMED_MAX) {
        let (label, state) = (&server.spec().label, server.state(now).as_str());
        reasons.push(match server.health().reason {
            Some(reason) => format!("{label}: {state} ({reason})"),
            None => format!("{label}: {state}"),
        });
    }
    if servers.len() > SERVERS_NAMED_MAX {
        reasons.push(format!("{} more", servers.len() - SERVERS_NAMED_MAX));
    }
    reasons.join("; ")
}
