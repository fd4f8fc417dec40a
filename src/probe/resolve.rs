//! Names of servers -> servers: each address a name resolves to is a server of its own.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::addr::{ServerAddr, ServerPlace};
use crate::plan::{PoolPlan, ServerEntry};
use crate::pool::{Server, ServerSpec};

/// A resolver that does not answer for so long has failed; the last answer stays.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses one name may stand for: more would be a mistake, or somebody else's DNS.
const ADDRESSES_MAX: usize = 256;

/// The last answers for the names of one pool.
#[derive(Debug, Default)]
pub struct Answers(HashMap<Arc<str>, Answer>);

#[derive(Debug, Default)]
struct Answer {
    addresses: Vec<SocketAddr>,
    /// Whether the name did not resolve when last asked for, and that has been said.
    failing: bool,
}

impl Answers {
    /// Asks the system's resolver for every name of the pool. A name that does not resolve keeps its last answer;
    /// that is said once per change.
    pub async fn renew(&mut self, pool: &PoolPlan) {
        for entry in &pool.entries {
            let ServerPlace::Name { host, port } = &entry.place else {
                continue;
            };
            let resolved = resolve(host, *port).await;
            let answer = self.0.entry(Arc::clone(&entry.written)).or_default();
            match resolved {
                Ok(addresses) => {
                    if answer.failing || answer.addresses != addresses {
                        tracing::info!(pool = %pool.pool.name(), name = %entry.written, ?addresses, "resolved");
                    }
                    *answer = Answer {
                        addresses,
                        failing: false,
                    };
                }
                Err(error) => {
                    let kept = answer.addresses.len();
                    if !std::mem::replace(&mut answer.failing, true) {
                        tracing::warn!(pool = %pool.pool.name(), name = %entry.written, error, kept, "cannot resolve, keeping the last answer");
                    }
                }
            }
        }
    }

    /// The pool's servers by these answers, those it has already carried over.
    #[must_use]
    pub fn servers(&self, pool: &PoolPlan) -> Vec<Arc<Server>> {
        let present = pool.pool.servers();
        let mut seen = HashSet::new();
        let mut servers = Vec::new();
        for spec in pool.entries.iter().flat_map(|entry| self.specs(entry)) {
            // One address reached by two names of a pool is one server: it has one load and one health.
            if !seen.insert((spec.identity.clone(), spec.address)) {
                continue;
            }
            let known = present.iter().find(|server| server.spec().is_same(&spec));
            servers.push(known.map_or_else(|| Arc::new(Server::new(spec, pool.is_checked())), Arc::clone));
        }
        servers
    }

    fn specs(&self, entry: &ServerEntry) -> Vec<ServerSpec> {
        if let Some(fixed) = entry.fixed() {
            return vec![fixed];
        }
        let label = entry.name.as_ref().unwrap_or(&entry.written);
        let answer = self.0.get(&entry.written);
        let spec = |address: &SocketAddr| ServerSpec {
            label: format!("{label}@{}", address.ip()).into(),
            identity: address.to_string().into(),
            address: ServerAddr::new(*address),
            weight: entry.weight,
        };
        answer.iter().flat_map(|answer| &answer.addresses).map(spec).collect()
    }
}

/// Every address of a name, sorted: resolvers turn their answers.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let answer = timeout(RESOLVE_TIMEOUT, lookup_host((host, port))).await;
    let addresses = answer
        .map_err(|_| "the resolver does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let unique: std::collections::BTreeSet<SocketAddr> = addresses.take(ADDRESSES_MAX).collect();
    if unique.is_empty() {
        Err("the name has no address".to_owned())
    } else {
        Ok(unique.into_iter().collect())
    }
}
