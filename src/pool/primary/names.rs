//! A server that is given another name or address is still the one that it was: what is remembered of it follows its name,
//! or else its address.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::PrimaryWatch;

impl PrimaryWatch {
    /// Takes over what is remembered of labels that no server of the pool has any more, for the servers that are the same
    /// ones, unless something is remembered of these, too. `servers`: the label and address of each server.
    pub(in crate::pool) fn follow_names(&mut self, servers: &BTreeMap<Arc<str>, String>) {
        let labels: Vec<_> = self.remembered().collect();
        let mut remembered: HashSet<_> = labels.iter().cloned().collect();
        for (old, new) in self.successors(&labels, servers) {
            if remembered.insert(Arc::clone(&new)) {
                remembered.remove(&old);
                self.rename(&old, &new);
            }
        }
        self.addresses.retain(|label, _| remembered.contains(label));
        let present = servers
            .iter()
            .map(|(label, address)| (Arc::clone(label), address.as_str().into()));
        self.addresses.extend(present);
    }

    /// Which of these labels no server has any more, each with that of the same server now: the only one with its name. If none
    /// has its name, it is the one at its address, except from one host name to another: there the address may have moved, unless
    /// it is the same host, as `db1` and `db1.example`.
    fn successors(&self, labels: &[Arc<str>], servers: &BTreeMap<Arc<str>, String>) -> Vec<(Arc<str>, Arc<str>)> {
        if labels.iter().all(|label| servers.contains_key(label)) {
            return Vec::new(); // nearly always
        }
        let old_names = only(labels.iter().map(|label| (name_in(label), label)));
        let names = only(servers.keys().map(|label| (name_in(label), label)));
        let addresses = only(servers.iter().map(|(label, address)| (address.as_str(), label)));
        let (mut by_name, mut by_address) = (Vec::new(), Vec::new());
        for old in labels.iter().filter(|label| !servers.contains_key(*label)) {
            let name = name_in(old);
            if let Some(new) = names.get(name) {
                let is_only = old_names.get(name) == Some(&Some(old));
                by_name.extend(new.filter(|_| is_only).map(|new| (Arc::clone(old), Arc::clone(new))));
            } else if let Some(&Some(new)) = addresses.get(&*self.address_of(old))
                && (host_address(old).is_none() || host_address(new).is_none() || is_same_host(old, new))
            {
                by_address.push((Arc::clone(old), Arc::clone(new)));
            }
        }
        by_name.append(&mut by_address);
        by_name
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

    fn rename(&mut self, old: &str, new: &Arc<str>) {
        if let Some(known) = self.known.as_mut().filter(|known| *known.server == *old) {
            known.server = (**new).into();
        }
        if let Some(standing) = self.others.remove(old) {
            self.others.insert(Arc::clone(new), standing);
        }
        self.others_changed = true;
    }
}

/// The label of each key; `None` if several have it.
fn only<'a>(labels: impl Iterator<Item = (&'a str, &'a Arc<str>)>) -> HashMap<&'a str, Option<&'a Arc<str>>> {
    let mut only = HashMap::new();
    for (key, label) in labels {
        only.entry(key).and_modify(|only| *only = None).or_insert(Some(label));
    }
    only
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

/// Whether two labels with host names may be of one host: the first parts of the names are the same.
fn is_same_host(one: &str, other: &str) -> bool {
    let first = |label| name_in(label).split(['.', ':']).next();
    let (one, other) = (first(one), first(other));
    one.zip(other)
        .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// The address in the label of a server without a name of its own: `address`, or `host:port@ip`.
fn address_in(label: &str) -> Cow<'_, str> {
    host_address(label).map_or(Cow::Borrowed(label), |address| Cow::Owned(address.to_string()))
}
