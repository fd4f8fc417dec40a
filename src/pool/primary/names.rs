//! A server that is given another name or address is still the one that it was: what is remembered of it follows its
//! address, or else its name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::PrimaryWatch;

impl PrimaryWatch {
    /// Takes over what is remembered for the servers of the pool that are the same ones, and forgets what was seen of
    /// labels that other servers have now. `servers`: the label and address of each server.
    pub(in crate::pool) fn follow_names(&mut self, servers: &BTreeMap<Arc<str>, String>) {
        let before = self.memory();
        let addresses = &self.addresses;
        let is_same = |label: &Arc<str>| {
            let (before, now) = (addresses.get(label), servers.get(label));
            before.is_none_or(|before| now.is_some_and(|now| **now == **before))
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
        self.others_changed |= self.memory() != before;
    }

    /// Maps each label of which something is remembered to the present label of its server, if that is another one. The
    /// server is the one at the same address, even if another server has its name now: names are exchanged in the DNS
    /// or in the configuration. If no server is at that address, it is the only one with its name, unless something is
    /// remembered of the address where that one is.
    fn successors(&self, servers: &BTreeMap<Arc<str>, String>) -> HashMap<Arc<str>, Arc<str>> {
        let labels: Vec<_> = self.remembered().collect();
        let is_at = |label: &Arc<str>, address: &str| servers.get(label).is_some_and(|now| now == address);
        if labels.iter().all(|label| is_at(label, &self.address_of(label))) {
            return HashMap::new(); // nearly always
        }
        let old_names = unique(labels.iter().map(|label| (name_in(label), label)));
        let old_addresses: HashSet<_> = labels.iter().map(|label| self.address_of(label)).collect();
        let names = unique(servers.keys().map(|label| (name_in(label), label)));
        let addresses: HashMap<_, _> = servers
            .iter()
            .map(|(label, address)| (address.as_str(), label))
            .collect();
        let successor = |old: &Arc<str>| {
            let (name, address) = (name_in(old), self.address_of(old));
            if is_at(old, &address) {
                return None;
            }
            // The address of a host that is gone may be that of a new one.
            let may_be_same = |new: &str| {
                names.contains_key(name) || old_names.contains_key(name_in(new)) || !is_other_host(old, new)
            };
            let by_address = addresses.get(&*address).copied().filter(|new| may_be_same(new));
            let by_name = || {
                let is_only = old_names.get(name) == Some(&Some(old));
                let new = names.get(name).copied().flatten().filter(|_| is_only)?;
                (!old_addresses.contains(servers.get(new)?.as_str())).then_some(new)
            };
            match by_address.or_else(by_name) {
                Some(new) => Some(Arc::clone(new)),
                None if servers.contains_key(old) => Some((*address).into()), // another server has the label now
                None => None,
            }
        };
        let moved = labels.iter().filter_map(|old| Some((Arc::clone(old), successor(old)?)));
        moved.filter(|(old, new)| old != new).collect()
    }

    /// Gives a label of which nothing is remembered the standing of another one at the same address: a server has two
    /// names for a while when host names are resolved one after the other.
    fn share_standings(&mut self, servers: &BTreeMap<Arc<str>, String>) {
        let known = self.others.iter();
        let known = known.filter_map(|(label, standing)| Some((servers.get(label)?.as_str(), *standing)));
        let known: HashMap<_, _> = known.collect();
        let remembered: HashSet<_> = self.remembered().collect();
        for (label, address) in servers.iter().filter(|(label, _)| !remembered.contains(*label)) {
            if let Some(standing) = known.get(address.as_str()) {
                self.set_standing(label, *standing);
            }
        }
    }

    /// The addresses of the servers of which something is remembered, by label, unless their labels tell them.
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

    /// Moves what is remembered to other labels. If two of them are the same server, the standing that excludes it more
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

/// Whether two labels have the names of different hosts. `db1` and `db1.example` may be one.
fn is_other_host(one: &str, other: &str) -> bool {
    let first = |label| name_in(label).split(['.', ':']).next().map(str::to_ascii_lowercase);
    host_address(one).is_some() && host_address(other).is_some() && first(one) != first(other)
}

/// The address in the label of a server without a name of its own: `address`, or `host:port@ip`.
fn address_in(label: &str) -> Cow<'_, str> {
    host_address(label).map_or(Cow::Borrowed(label), |address| Cow::Owned(address.to_string()))
}
