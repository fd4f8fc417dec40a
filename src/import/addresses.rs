//! Addresses of imported listeners: those that also accept IPv4, and those that need a listener of their own.

use std::collections::{BTreeMap, HashSet};

use super::imported::{Imported, ImportedListener, ImportedTls, Remark};

/// Adds `0.0.0.0:443` beside each `[::]:443` at which the imported proxy also accepts IPv4, because IPv6 sockets of
/// acequia accept only IPv6. Adds nothing if the file already has `0.0.0.0:443`.
pub(super) fn add_addresses_of_ipv4(imported: &mut Imported) {
    let listeners = &mut imported.listeners;
    let mut bound: HashSet<String> = listeners.iter().flat_map(|listener| listener.bind.clone()).collect();
    for listener in listeners {
        for ipv6 in std::mem::take(&mut listener.dual_stack) {
            let ipv4 = ipv6.replacen("[::]", "0.0.0.0", 1);
            if !bound.insert(ipv4.clone()) {
                continue;
            }
            for addresses in [
                &mut listener.bind,
                &mut listener.plain_addresses,
                &mut listener.proxy_addresses,
            ] {
                if let Some(at) = addresses.iter().position(|address| *address == ipv6) {
                    addresses.insert(at, ipv4.clone());
                }
            }
            let tls = listener.address_tls.get(&ipv6).cloned();
            listener.address_tls.extend(tls.map(|tls| (ipv4, tls)));
        }
    }
}

/// Splits listeners whose addresses differ: addresses without TLS, without PROXY headers, or with other settings of TLS
/// get a listener of their own. The first part gets the remarks of the whole listener.
pub(super) fn separate_listeners(imported: &mut Imported) {
    let mut others = Vec::new();
    for listener in &mut imported.listeners {
        let mut binds: BTreeMap<AddressKind, Vec<String>> = BTreeMap::new();
        let has_tls = listener.has_tls_address();
        for address in std::mem::take(&mut listener.bind) {
            let kind = AddressKind::new(&address, listener, has_tls);
            binds.entry(kind).or_default().push(address);
        }
        // Not needed any longer: each `AddressKind` has what these say of its addresses.
        listener.plain_addresses.clear();
        listener.proxy_addresses.clear();
        listener.address_tls.clear();
        let name = listener.name.clone();
        let mut remarks = std::mem::take(&mut listener.section.remarks);
        if binds.len() > 1 {
            listener.section.remarks = limit_notes(listener, binds.len()).collect();
        }
        let mut parts = binds.into_iter().map(|(kind, bind)| kind.part_of(listener, bind));
        let first = parts.next();
        others.extend(parts);
        if let Some(first) = first {
            *listener = ImportedListener { name, ..first };
        }
        remarks.append(&mut listener.section.remarks);
        listener.section.remarks = remarks;
    }
    imported.listeners.append(&mut others);
}

/// A note for each limit on the number of sessions of a listener that is split into `parts`, because each part gets the
/// full limit.
fn limit_notes(listener: &ImportedListener, parts: usize) -> impl Iterator<Item = Remark> {
    let limits = [
        ("max_connections", &listener.section),
        ("sessions_per_source", &listener.limits),
    ];
    let set = limits.into_iter().filter(|(key, section)| section.get(key).is_some());
    set.map(move |(key, _)| {
        let text = format!(
            "the addresses differ, so that there are {parts} listeners with this {key} each; it was one limit for all"
        );
        Remark::note(0, text)
    })
}

/// How an address differs from other addresses of its listener.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct AddressKind {
    /// Whether TLS is not terminated at it, although it is at other addresses of the listener.
    is_plain: bool,
    /// Whether it accepts no PROXY headers, although other addresses of the listener do.
    is_direct: bool,
    tls: ImportedTls,
}

impl AddressKind {
    /// `has_tls`: whether TLS is terminated at any address of the listener.
    fn new(address: &String, listener: &ImportedListener, has_tls: bool) -> Self {
        let tls = listener.tls_at(address).cloned();
        Self {
            is_plain: has_tls && tls.is_none(),
            is_direct: !listener.proxy_addresses.is_empty() && !listener.proxy_addresses.contains(address),
            tls: tls.unwrap_or_default(),
        }
    }

    /// A listener for these addresses of `whole`.
    fn part_of(self, whole: &ImportedListener, bind: Vec<String>) -> ImportedListener {
        let mut part = ImportedListener {
            bind,
            tls: self.tls,
            ..whole.clone()
        };
        if self.is_plain {
            part.name.push_str("-plain");
        }
        if self.is_direct {
            part.proxy_peers.clear();
            part.name.push_str("-direct");
        }
        part
    }
}
