//! The metrics of the certificates of listeners and pools, of ACME orders, and of lists of revoked certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::account::exposition::{GaugeFamily, MetricType, format_labels, write_header, write_sample};
use crate::account::names;
use crate::tls::{Certificate, ListenerTls, PoolTls};

/// From when and until when certificates are valid, and when lists of revoked certificates should be replaced, in the
/// text exposition format. The certificates are those of listeners and of the admin port, which is one of `listeners`,
/// and those that pools present to their servers. If several certificates of one listener have the same first name,
/// only the one that expires first is shown.
#[must_use]
pub fn certificate_validity<'a>(
    listeners: impl IntoIterator<Item = (&'a str, &'a Arc<ListenerTls>)>,
    pools: impl IntoIterator<Item = (&'a str, &'a PoolTls)>,
) -> String {
    let mut expiries = GaugeFamily::new(
        names::OWN_CERTIFICATE_EXPIRY,
        "When a certificate expires, in seconds since the Unix epoch.",
    );
    let mut begins = GaugeFamily::new(
        names::OWN_CERTIFICATE_NOT_BEFORE,
        "From when a certificate is valid, in seconds since the Unix epoch.",
    );
    let mut next_updates = GaugeFamily::new(
        names::CRL_NEXT_UPDATE,
        "The earliest time when a list of revoked certificates should be replaced, in seconds since the Unix epoch.",
    );
    let mut add = |owner: (&str, &str), certificates: &[Arc<Certificate>]| {
        let mut first_to_expire = BTreeMap::<String, &Certificate>::new();
        for certificate in certificates {
            let name = certificate.names.first().map(ToString::to_string).unwrap_or_default();
            let kept = first_to_expire.entry(name).or_insert(certificate);
            if (certificate.not_after, certificate.not_before) < (kept.not_after, kept.not_before) {
                *kept = certificate;
            }
        }
        for (name, certificate) in first_to_expire {
            let labels = format_labels(&[owner, ("name", &name)]);
            expiries.add(&labels, certificate.not_after);
            begins.add(&labels, certificate.not_before);
        }
    };
    for (listener, tls) in listeners {
        add(("listener", listener), tls.certificates().all());
        if let Some(next_update) = tls.crl_next_update() {
            let labels = format_labels(&[("listener", listener)]);
            next_updates.add(&labels, next_update);
        }
    }
    for (pool, tls) in pools {
        add(("pool", pool), tls.identity().as_slice());
    }
    let mut text = String::new();
    for family in [expiries, begins, next_updates] {
        family.write(&mut text);
    }
    text
}

/// The numbers of ACME orders, in the text exposition format. `results` has two numbers for the first host name of each
/// certificate: the successful orders, and the failed ones.
#[must_use]
pub fn acme_renewals(results: &BTreeMap<Box<str>, [u64; 2]>) -> String {
    let mut text = String::new();
    for (name, counts) in results {
        if text.is_empty() {
            let help = "Orders of certificates by ACME, by result.";
            write_header(&mut text, names::ACME_RENEWALS, MetricType::Counter, help);
        }
        for (result, count) in ["ok", "error"].into_iter().zip(counts) {
            let labels = format_labels(&[("name", name), ("result", result)]);
            write_sample(&mut text, names::ACME_RENEWALS, &labels, count);
        }
    }
    text
}
