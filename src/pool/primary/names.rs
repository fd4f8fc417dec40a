//! A server that is given another name is still the one that it was: what is remembered of it follows its address.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::PrimaryWatch;

impl PrimaryWatch {
    /// Takes over what is remembered of labels that no server of the pool has any more, for the servers that have their
    /// addresses now, unless something is remembered of these, too. `servers`: the label and address of each server.
    pub(in crate::pool) fn follow_names(&mut self, servers: &BTreeMap<Arc<str>, String>) {
        let mut by_address: HashMap<&str, Vec<&Arc<str>>> = HashMap::new();
        for (label, address) in servers {
            by_address.entry(address).or_default().push(label);
        }
        let departed: Vec<_> = self
            .remembered()
            .filter(|label| !servers.contains_key(&**label))
            .collect();
        for old in &departed {
            let new = self.address_of(old).and_then(|address| by_address.get(address));
            if let Some([new]) = new.map(Vec::as_slice)
                && self.remembered().all(|label| label != **new)
            {
                self.rename(old, new);
            }
        }
        let remembered: Vec<_> = self.remembered().collect();
        self.addresses.retain(|label, _| remembered.contains(label));
        let present = servers
            .iter()
            .map(|(label, address)| (Arc::clone(label), address.as_str().into()));
        self.addresses.extend(present);
    }

    /// The addresses of the servers of which something is remembered, by label, unless their labels tell them.
    pub(super) fn remembered_addresses(&self) -> BTreeMap<Box<str>, Box<str>> {
        let told = self.remembered().filter_map(|label| {
            let address = self.addresses.get(&label)?;
            (**address != *address_in(&label)).then(|| ((*label).into(), address.clone()))
        });
        told.collect()
    }

    /// The labels of which something is remembered.
    fn remembered(&self) -> impl Iterator<Item = Arc<str>> {
        let primary = self.known.iter().map(|known| Arc::from(&*known.server));
        primary.chain(self.others.keys().cloned())
    }

    fn address_of<'a>(&'a self, label: &'a str) -> Option<&'a str> {
        let kept = self.addresses.get(label).map(|address| &**address);
        kept.or_else(|| Some(address_in(label)))
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

/// The address in the label of a server without a name: `address`, or `host:port@address`.
fn address_in(label: &str) -> &str {
    label.rsplit_once('@').map_or(label, |(_, address)| address)
}
