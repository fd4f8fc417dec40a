//! Names of servers -> servers: each address a name resolves to is a server of its own.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::resolve::{Question, Resolver};
use crate::addr::ServerPlace;
use crate::plan::{PoolPlan, ServerEntry};
use crate::pool::{Roster, Server, ServerSpec};

/// How long answers are waited for; a name without one by then has failed, and its last answer stays.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of one name that are used: more would be a mistake, or somebody else's DNS. Of more these are the first
/// in the order of addresses, the same whatever order they come in.
const ADDRESSES_MAX: usize = 256;

/// The last answers for the names of one pool.
#[derive(Default)]
pub(super) struct Answers {
    names: HashMap<Arc<str>, Answer>,
}

#[derive(Default)]
struct Answer {
    /// Sorted: resolvers turn their answers.
    addresses: Vec<SocketAddr>,
    /// What has been asked and not been answered yet.
    question: Option<Question>,
    /// Whether the name did not resolve when last asked for, and that has been said.
    failing: bool,
    /// Whether it has more addresses than are used, and that has been said.
    crowded: bool,
}

impl Answers {
    /// Asks for every name of the pool, all at once. A name that does not resolve keeps its last answer; that is said
    /// once per change. What is not answered in time is not asked again: the answer counts whenever it is there.
    pub(super) async fn renew(&mut self, pool: &PoolPlan, resolver: &Resolver) {
        self.names
            .retain(|name, _| pool.entries.iter().any(|entry| entry.written == *name));
        for entry in &pool.entries {
            if let ServerPlace::Name { host, port } = &entry.place {
                let answer = self.names.entry(Arc::clone(&entry.written)).or_default();
                answer.question.get_or_insert_with(|| resolver.ask(host, *port));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for (name, answer) in &mut self.names {
            let resolved = answer.heard_by(deadline).await;
            answer.take_in(pool.pool.name(), name, resolved);
        }
    }

    /// The pool's servers by these answers; one that is known already is that one.
    pub(super) fn servers(&self, pool: &PoolPlan, roster: &Roster) -> Vec<Arc<Server>> {
        let mut seen = HashSet::new();
        let mut servers = Vec::new();
        for entry in &pool.entries {
            for spec in self.specs(entry) {
                // One address reached by two names of a pool is one server: it has one load and one health.
                if seen.insert((spec.identity.clone(), spec.address)) {
                    servers.push(roster.server(pool.pool.name(), spec, entry.allotment, pool.is_checked()));
                }
            }
        }
        servers
    }

    /// Whether a name of the pool has never been asked for.
    pub(super) fn lacks_some(&self, pool: &PoolPlan) -> bool {
        let is_new = |entry: &ServerEntry| entry.fixed().is_none() && !self.names.contains_key(&entry.written);
        pool.entries.iter().any(is_new)
    }

    fn specs(&self, entry: &ServerEntry) -> Vec<ServerSpec> {
        if let Some(fixed) = entry.fixed() {
            return vec![fixed];
        }
        let answer = self.names.get(&entry.written);
        let addresses = answer.iter().flat_map(|answer| &answer.addresses);
        addresses.map(|address| entry.resolved(*address)).collect()
    }
}

impl Answer {
    /// What the resolver says to the open question; an error if it has said nothing by then. Cancel safe: the question
    /// stays open until its answer is in hand.
    async fn heard_by(&mut self, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
        let question = self.question.as_mut().expect("every name has been asked for");
        let told = timeout_at(deadline, question)
            .await
            .map_err(|_| "the resolver does not answer".to_owned())?;
        self.question = None;
        let addresses = told
            .map_err(|lost| lost.to_string())?
            .map_err(|error| error.to_string())?;
        if addresses.is_empty() {
            return Err("the name has no address".to_owned());
        }
        Ok(addresses)
    }

    fn take_in(&mut self, pool: &str, name: &str, resolved: Result<Vec<SocketAddr>, String>) {
        let mut addresses = match resolved {
            Ok(addresses) => addresses,
            Err(error) => {
                let kept = self.addresses.len();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(pool, name, error, kept, "cannot resolve, keeping the last answer");
                }
                return;
            }
        };
        addresses.sort_unstable();
        addresses.dedup();
        let found = addresses.len();
        addresses.truncate(ADDRESSES_MAX);
        let is_crowded = found > addresses.len();
        if is_crowded && !self.crowded {
            tracing::warn!(
                pool,
                name,
                found,
                used = addresses.len(),
                "a name with too many addresses"
            );
        }
        self.crowded = is_crowded;
        if std::mem::take(&mut self.failing) || self.addresses != addresses {
            tracing::info!(pool, name, ?addresses, "resolved");
        }
        self.addresses = addresses;
    }
}

#[cfg(test)]
mod tests;
