//! What is remembered of a server follows the server when its label changes.
//!
//! 1. The server at the same address is the same server, even if another one has its name now: names are exchanged in
//!    the DNS or in the configuration. But if the old and the new label are of different resolved hosts, the old host
//!    is gone, and nothing was remembered of the new one, then the address was given to another host.
//! 2. If there is no such server, the only server with the same name is the same server, unless another server of
//!    which something is remembered had its new address.
//!
//! For example, something is remembered of `db:5432@10.0.0.1`:
//! ```text
//! the pool has now                                the same server is
//! m at 10.0.0.1:5432                              m (rule 1)
//! db:5432@10.0.0.2, web:5432@10.0.0.1             web:5432@10.0.0.1 (rule 1: `db` is not gone)
//! web:5432@10.0.0.1                               none: the address was given to `web`
//! db:5432@10.0.0.2                                db:5432@10.0.0.2 (rule 2)
//! db:5432@10.0.0.2, db:5432@10.0.0.3              none: `db` is not one server
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::PrimaryWatch;

impl PrimaryWatch {
    /// Moves what is remembered to the present labels, and forgets what checks have seen of labels that are gone or
    /// have another address now. `servers`: the address of each server of the pool by label.
    pub(in crate::pool) fn follow_names(&mut self, servers: &BTreeMap<Arc<str>, String>) {
        let memory_before = self.memory();
        let addresses = &self.addresses;
        let is_same = |label: &Arc<str>| {
            let (old, new) = (addresses.get(label), servers.get(label));
            old.is_none_or(|old| new.is_some_and(|new| **new == **old))
        };
        self.servers.retain(|label, _| is_same(label));
        self.rename(&self.successors(servers));
        self.share_standings(servers);
        let remembered: HashSet<_> = self.remembered().collect();
        self.addresses.retain(|label, _| remembered.contains(label));
        let present = servers
            .iter()
            .map(|(label, address)| (Arc::clone(label), address.as_str().into()));
        self.addresses.extend(present);
        self.rest_of_memory_changed |= self.memory() != memory_before;
    }

    /// Maps each label of which something is remembered to the present label of its server, if that is another one. If
    /// the server is gone and another server has its label, maps the label to the address of the server that is gone.
    fn successors(&self, servers: &BTreeMap<Arc<str>, String>) -> HashMap<Arc<str>, Arc<str>> {
        let labels: Vec<_> = self.remembered().collect();
        let is_unchanged = |label: &Arc<str>| servers.get(label).is_some_and(|now| *now == *self.address_of(label));
        if labels.iter().all(is_unchanged) {
            return HashMap::new(); // nearly always
        }
        let old_names = unique(labels.iter().map(|label| (name_in(label), label)));
        let old_addresses: HashSet<_> = labels.iter().map(|label| self.address_of(label)).collect();
        let new_names = unique(servers.keys().map(|label| (name_in(label), label)));
        let at_address = servers.iter().map(|(label, address)| (address.as_str(), label));
        let at_address: HashMap<_, _> = at_address.collect();
        let by_address = |old: &Arc<str>| {
            let new = at_address.get(&*self.address_of(old)).copied()?;
            let was_given_away = || {
                let is_gone = !new_names.contains_key(name_in(old));
                is_gone && !old_names.contains_key(name_in(new)) && is_other_host(old, new)
            };
            (!was_given_away()).then_some(new)
        };
        let by_name = |old: &Arc<str>| {
            // The name must be that of a single server, before and now.
            let is_only = old_names.get(name_in(old)) == Some(&Some(old));
            let new = new_names.get(name_in(old)).copied().flatten().filter(|_| is_only)?;
            (!old_addresses.contains(servers.get(new)?.as_str())).then_some(new)
        };
        let successor = |old: &Arc<str>| match by_address(old).or_else(|| by_name(old)) {
            Some(new) => Some(Arc::clone(new)),
            None => servers.contains_key(old).then(|| self.address_of(old).into()),
        };
        let moved = labels.iter().filter(|label| !is_unchanged(label));
        let moved = moved.filter_map(|old| Some((Arc::clone(old), successor(old)?)));
        moved.filter(|(old, new)| old != new).collect()
    }

    /// If nothing is remembered of a label, gives it the standing of another label at the same address: a server has
    /// two names for a while when host names are resolved one after the other.
    fn share_standings(&mut self, servers: &BTreeMap<Arc<str>, String>) {
        let others = self.others.iter();
        let others = others.filter_map(|(label, standing)| Some((servers.get(label)?.as_str(), *standing)));
        let by_address: HashMap<_, _> = others.collect();
        let remembered: HashSet<_> = self.remembered().collect();
        for (label, address) in servers.iter().filter(|(label, _)| !remembered.contains(*label)) {
            if let Some(standing) = by_address.get(address.as_str()) {
                self.set_standing(label, *standing);
            }
        }
    }

    /// The addresses of the servers of which something is remembered, by label, except those that the label contains.
    pub(super) fn remembered_addresses(&self) -> BTreeMap<Box<str>, Box<str>> {
        let addresses = self.remembered().filter_map(|label| {
            let address = self.addresses.get(&label)?;
            (**address != *address_in(&label)).then(|| ((*label).into(), address.clone()))
        });
        addresses.collect()
    }

    /// The labels of which something is remembered.
    fn remembered(&self) -> impl Iterator<Item = Arc<str>> {
        let primary = self.known.iter().map(|known| Arc::from(&*known.server));
        primary.chain(self.others.keys().cloned())
    }

    fn address_of<'a>(&'a self, label: &'a str) -> Cow<'a, str> {
        let kept = self.addresses.get(label);
        kept.map_or_else(|| address_in(label), |address| Cow::Borrowed(address))
    }

    /// Moves what is remembered to other labels. If two labels are replaced by the same one, the more severe standing
    /// counts.
    fn rename(&mut self, moved: &HashMap<Arc<str>, Arc<str>>) {
        if moved.is_empty() {
            return;
        }
        if let Some(known) = &mut self.known
            && let Some(new) = moved.get(&*known.server)
        {
            known.server = (**new).into();
        }
        for (label, standing) in std::mem::take(&mut self.others) {
            let label = moved.get(&label).map_or(label, Arc::clone);
            let kept = self.others.entry(label).or_insert(standing);
            *kept = standing.max(*kept);
        }
        if let Some(known) = &self.known {
            self.others.remove(&*known.server);
        }
        self.renewal_candidate = None;
    }
}

/// The label of each key; `None` if several labels have the key.
fn unique<'a>(labels: impl Iterator<Item = (&'a str, &'a Arc<str>)>) -> HashMap<&'a str, Option<&'a Arc<str>>> {
    let mut by_key = HashMap::new();
    for (key, label) in labels {
        by_key
            .entry(key)
            .and_modify(|label| *label = None)
            .or_insert(Some(label));
    }
    by_key
}

/// The parts of the label of a server whose host name was resolved: `host:port@ip`, or `name@ip`.
fn resolved(label: &str) -> Option<(&str, IpAddr)> {
    let (name, ip) = label.rsplit_once('@')?;
    Some((name, ip.parse().ok()?))
}

/// A label without the address that its name was resolved to.
fn name_in(label: &str) -> &str {
    resolved(label).map_or(label, |(name, _)| name)
}

/// The address in `host:port@ip`; `None`: the server has a name of its own, or no host name.
fn host_address(label: &str) -> Option<SocketAddr> {
    let (host, ip) = resolved(label)?;
    let (_, port) = host.rsplit_once(':')?;
    Some(SocketAddr::new(ip, port.parse().ok()?))
}

/// Whether two labels are of resolved host names of different hosts. `db1` and `db1.example` may be one host.
fn is_other_host(one: &str, other: &str) -> bool {
    let first = |label| name_in(label).split(['.', ':']).next().map(str::to_ascii_lowercase);
    host_address(one).is_some() && host_address(other).is_some() && first(one) != first(other)
}

/// The address in the label of a server without a name of its own: `address`, or `host:port@ip`. Of any other label,
/// the label itself.
fn address_in(label: &str) -> Cow<'_, str> {
    host_address(label).map_or(Cow::Borrowed(label), |address| Cow::Owned(address.to_string()))
}
