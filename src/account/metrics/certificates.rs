//! The metrics of the certificates of listeners and of their renewals.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::account::exposition::{FamilyType, format_labels, write_header, write_sample};
use crate::account::names;
use crate::tls::{Certificate, ListenerTls, PoolTls};

/// When the certificates of listeners, and ours for the servers of pools, expire, in the text exposition format: the earliest
/// of those with the same first name.
#[must_use]
pub fn certificate_expiries<'a>(
    listeners: impl IntoIterator<Item = (&'a str, &'a Arc<ListenerTls>)>,
    pools: impl IntoIterator<Item = (&'a str, &'a PoolTls)>,
) -> String {
    let mut text = String::new();
    let mut write = |user: (&str, &str), certificates: &[Arc<Certificate>]| {
        let mut earliest = BTreeMap::<String, i64>::new();
        for certificate in certificates {
            let name = certificate.names.first().map(ToString::to_string).unwrap_or_default();
            let expiry = earliest.entry(name).or_insert(i64::MAX);
            *expiry = certificate.not_after.min(*expiry);
        }
        for (name, expiry) in earliest {
            if text.is_empty() {
                let help = "When a certificate expires, in seconds since the Unix epoch.";
                write_header(&mut text, names::OWN_CERTIFICATE_EXPIRY, FamilyType::Gauge, help);
            }
            let labels = format_labels(&[user, ("name", &name)]);
            write_sample(&mut text, names::OWN_CERTIFICATE_EXPIRY, &labels, expiry);
        }
    };
    for (listener, tls) in listeners {
        write(("listener", listener), tls.certificates().all());
    }
    for (pool, tls) in pools {
        write(("pool", pool), tls.identity().as_slice());
    }
    text
}

/// The orders by ACME that succeeded, and that failed, in the text exposition format.
#[must_use]
pub fn acme_renewals(results: &BTreeMap<Box<str>, [u64; 2]>) -> String {
    let mut text = String::new();
    for (name, counts) in results {
        if text.is_empty() {
            let help = "Orders of certificates by ACME, by result.";
            write_header(&mut text, names::ACME_RENEWALS, FamilyType::Counter, help);
        }
        for (result, count) in ["ok", "error"].into_iter().zip(counts) {
            let labels = format_labels(&[("name", name), ("result", result)]);
            write_sample(&mut text, names::ACME_RENEWALS, &labels, count);
        }
    }
    text
}
