//! Logs when a pool has no usable server any more, with the reason for each server and the fallback in use, and when
//! the pool has a usable server again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::live::{InForce, Live, LivePool};
use crate::pool::Member;
use crate::scale::{CloneState, CloneStatus};
use crate::text::first_and_more;

/// How often a pool without a usable server is looked at: it may finish starting, or wake up, without a change of any
/// server.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The most servers and clones that a message names.
const SERVERS_NAMED_MAX: usize = 8;

/// Logs for as long as it is polled.
pub async fn run(live: Arc<Live>) {
    let mut changes = live.changes();
    let mut outages = Outages::default();
    loop {
        let next = outages.update(&live.in_force(), Instant::now());
        changes.next(next).await;
    }
}

/// The outages that were logged and have not ended.
#[derive(Debug, Default)]
struct Outages {
    /// The names of the pools, each with the fallback that it uses; `None`: it uses none.
    unusable: HashMap<Arc<str>, Option<Arc<str>>>,
}

impl Outages {
    /// Logs what has changed. Returns when to look again; `None`: not before something has changed.
    fn update(&mut self, in_force: &InForce, now: Instant) -> Option<Instant> {
        let with_fallback = in_force.pools.with_fallback(now);
        let in_use = with_fallback.filter_map(|(pool, fallback)| Some((Arc::clone(pool.name()), fallback?)));
        let mut fallbacks_in_use: HashMap<_, _> = in_use.collect();
        let mut unusable_now = HashMap::new();
        for pool in in_force.pools.iter() {
            let fallback = fallbacks_in_use.remove(pool.name());
            let is_out = || {
                if self.unusable.contains_key(pool.name()) {
                    // The trial of a server ends a logged outage only when it has succeeded.
                    !pool.serves(now) || pool.is_on_trial(now)
                } else {
                    // A pool that is still starting has no outage yet.
                    !pool.serves(now) && !pool.is_starting(now)
                }
            };
            if fallback.is_some() || is_out() {
                if self.unusable.get(pool.name()) != Some(&fallback) {
                    log_outage(pool, fallback.as_deref(), now);
                }
                unusable_now.insert(Arc::clone(pool.name()), fallback);
            }
        }
        for name in self.unusable.keys().filter(|name| !unusable_now.contains_key(*name)) {
            match in_force.pool(name) {
                Some(pool) if pool.is_asleep(now) => tracing::info!(pool = %name, "pool sleeps again"),
                Some(_) => tracing::info!(pool = %name, "pool has a usable server again"),
                None => {}
            }
        }
        self.unusable = unusable_now;
        let next_look = |pool: &Arc<LivePool>| {
            let poll = (!pool.is_usable(now)).then_some(now + POLL_INTERVAL);
            poll.into_iter().chain(pool.changes_at(now)).min()
        };
        in_force.pools.iter().filter_map(next_look).min()
    }
}

fn log_outage(pool: &LivePool, fallback: Option<&str>, now: Instant) {
    let servers = reasons(pool, now);
    let name = pool.name();
    match fallback {
        Some(fallback) => {
            tracing::warn!(pool = %name, fallback, servers, "pool has no usable server: its fallback is used");
        }
        None => tracing::warn!(pool = %name, servers, "pool has no usable server"),
    }
}

/// The state of each server, with the error of its latest check, and of each clone that is not a server, with the
/// reason of its last restart or failed start.
fn reasons(pool: &LivePool, now: Instant) -> String {
    let server_state = |server: &Member| {
        let state = server.state(now).as_str();
        state_of(&server.spec().label, state, server.health().reason.as_deref())
    };
    let clone_state = |clone: &CloneStatus| state_of(&clone.name, clone.state.as_str(), clone.reason.as_deref());
    let mut reasons: Vec<String> = pool.servers().iter().map(server_state).collect();
    let clones = pool.scale().clones();
    let without_server = clones.iter().filter(|clone| clone.state != CloneState::Running);
    reasons.extend(without_server.map(clone_state));
    if reasons.is_empty() {
        return String::from("it has none");
    }
    first_and_more(reasons.iter(), SERVERS_NAMED_MAX).join("; ")
}

fn state_of(name: &str, state: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{name}: {state} ({reason})"),
        None => format!("{name}: {state}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::pool::Override;

    fn live(pools: usize, health: &str) -> Live {
        let pool = |number| format!("[pools.p{number}]\nservers = [\"10.0.0.1:1\"]\nhealth = {health}\n");
        let pools: String = (0..pools).map(pool).collect();
        let text = format!("[listeners.l]\nbind = \"[::1]:1\"\npool = \"p0\"\n{pools}");
        Live::new(crate::config::read("a.toml", &text).ok().unwrap().plan, Vec::new())
    }

    #[tokio::test]
    async fn only_pools_without_a_usable_server_are_polled() {
        let (mut outages, now) = (Outages::default(), Instant::now());
        let live = live(100, "{ check = \"off\" }");
        assert_eq!(outages.update(&live.in_force(), now), None);
        let server = live.in_force().pool("p7").unwrap().servers()[0].clone();
        let path = ("p7".into(), Arc::clone(&server.spec().label));
        live.apply_override(
            &path,
            Override::Disable { close_over: None },
            "me".into(),
            SystemTime::now(),
        );
        assert_eq!(outages.update(&live.in_force(), now), Some(now + POLL_INTERVAL));
        assert_eq!(outages.unusable, HashMap::from([("p7".into(), None)]));
    }
}
