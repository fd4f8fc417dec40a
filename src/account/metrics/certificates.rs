//! The metric of the certificates of listeners.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::account::exposition::{FamilyType, format_labels, write_header, write_sample};
use crate::account::names;
use crate::tls::ListenerTls;

/// When the certificates of listeners expire, in the text exposition format: the earliest of those with the same first name.
#[must_use]
pub fn certificate_expiries<'a>(listeners: impl IntoIterator<Item = (&'a Arc<str>, &'a Arc<ListenerTls>)>) -> String {
    let mut text = String::new();
    for (listener, tls) in listeners {
        if text.is_empty() {
            let help = "When a certificate of a listener expires, in seconds since the Unix epoch.";
            write_header(&mut text, names::LISTENER_CERTIFICATE_EXPIRY, FamilyType::Gauge, help);
        }
        let mut earliest = BTreeMap::<String, i64>::new();
        for certificate in tls.certificates().all() {
            let name = certificate.names.first().map(ToString::to_string).unwrap_or_default();
            let expiry = earliest.entry(name).or_insert(i64::MAX);
            *expiry = certificate.not_after.min(*expiry);
        }
        for (name, expiry) in earliest {
            let labels = format_labels(&[("listener", listener), ("name", &name)]);
            write_sample(&mut text, names::LISTENER_CERTIFICATE_EXPIRY, &labels, expiry);
        }
    }
    text
}
