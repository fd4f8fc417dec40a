//! Logs when a pool has no usable server any more, with the reason for each server, and when it has one again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::live::{Live, LivePool};
use crate::pool::Member;
use crate::scale::{CloneState, CloneStatus};

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
        for pool in in_force.pools.iter().filter(|pool| !pool.serves(now)) {
            if unusable.contains(pool.name()) || !pool.is_starting(now) {
                present.insert(Arc::clone(pool.name()));
            }
        }
        for name in &present {
            if let Some(pool) = in_force.pool(name).filter(|_| !unusable.contains(name)) {
                tracing::warn!(pool = %name, servers = reasons(pool, now), "pool has no usable server");
            }
        }
        for name in unusable.iter().filter(|name| !present.contains(*name)) {
            match in_force.pool(name) {
                Some(pool) if pool.is_asleep(now) => tracing::info!(pool = %name, "pool sleeps again"),
                Some(_) => tracing::info!(pool = %name, "pool has a usable server again"),
                None => {}
            }
        }
        unusable = present;
    }
}

/// The state of each server, and the error of its latest check; and the state of each clone that is none, and why it was
/// started again.
fn reasons(pool: &LivePool, now: Instant) -> String {
    let of_server = |server: &Member| {
        let state = server.state(now).as_str();
        state_of(&server.spec().label, state, server.health().reason.as_deref())
    };
    let of_clone = |clone: &CloneStatus| state_of(&clone.name, clone.state.as_str(), clone.reason.as_deref());
    let mut reasons: Vec<String> = pool.servers().iter().map(of_server).collect();
    let clones = pool.scale().clones();
    let without_server = clones.iter().filter(|clone| clone.state != CloneState::Running);
    reasons.extend(without_server.map(of_clone));
    if reasons.is_empty() {
        return String::from("it has none");
    }
    let more = reasons.len().saturating_sub(SERVERS_NAMED_MAX);
    reasons.truncate(SERVERS_NAMED_MAX);
    reasons.extend((more > 0).then(|| format!("{more} more")));
    reasons.join("; ")
}

fn state_of(name: &str, state: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{name}: {state} ({reason})"),
        None => format!("{name}: {state}"),
    }
}
