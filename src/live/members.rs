//! Turns the server entries of a pool into its servers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::addr::ServerAddr;
use crate::plan::{PoolPlan, ServerEntry};
use crate::pool::{LeftOutServer, Member, ServerRegistry};

/// The addresses of host names, by the name and port as configured (`host:port`). A name without a known address is not
/// in it.
pub type NameAddresses = HashMap<Arc<str>, Vec<ServerAddr>>;

/// The servers of a pool's entries, as far as their addresses are known, and the servers that are left out because they
/// are listeners of our own that lead to the pool.
pub(super) fn members(
    plan: &PoolPlan,
    entries: &[ServerEntry],
    addresses: &NameAddresses,
    registry: &ServerRegistry,
) -> (Vec<Member>, Vec<LeftOutServer>) {
    let own_listeners = registry.own_listeners().leading_to(&plan.name);
    let mut seen = HashSet::new();
    let (mut members, mut left_out) = (Vec::new(), Vec::new());
    for entry in entries {
        let resolved = addresses.get(&entry.written).into_iter().flatten();
        let specs = match entry.fixed() {
            Some(fixed) => vec![fixed],
            None => resolved.map(|address| entry.resolved(*address)).collect(),
        };
        for spec in specs {
            if let Some(listener) = own_listeners.at(spec.address) {
                left_out.push(LeftOutServer {
                    label: spec.label,
                    address: spec.address,
                    listener: Arc::clone(listener),
                });
                continue;
            }
            // The identity is the address if a host name is configured, else the label. So two host names with the same
            // address are one server, with one load and one health. An entry of that address that has a `name`, but no
            // host name, is another server.
            if seen.insert((Arc::clone(&spec.identity), spec.address)) {
                let server = registry.get_or_create(&plan.name, spec, plan.is_checked());
                members.push(Member::new(server, entry.member_config));
            }
        }
    }
    (members, left_out)
}
