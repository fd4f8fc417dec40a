//! The state of the certificates from ACME, as the API shows it, and requests to order one now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use instant_acme::CertificateIdentifier;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::schedule::Attempts;
use crate::tls::AcmeCertificate;

/// The state of a certificate from ACME.
#[derive(Clone, Debug)]
pub struct RenewalState {
    /// The certificate to order, as configured.
    pub wanted: AcmeCertificate,
    /// The identifier that the ACME server knows the current certificate by (RFC 9773); `None`: no certificate was
    /// issued yet, or the current one has expired or has no identifier.
    pub identifier: Option<CertificateIdentifier<'static>>,
    /// The time of the next order.
    pub next: SystemTime,
    /// Why the certificate is ordered then.
    pub reason: RenewalReason,
    /// The URL of a page that explains the server's suggestion, if the server names such a page. Unsafe characters are
    /// escaped.
    pub explanation_url: Option<Box<str>>,
    /// The failed attempts since the last order that succeeded; `None`: there are none.
    pub failed: Option<Attempts>,
    /// Whether an order is under way.
    pub is_under_way: bool,
}

/// States by the files of their certificates.
pub type RenewalsByFile<'a> = HashMap<&'a Path, &'a RenewalState>;

impl RenewalState {
    /// The states by the files of their certificates; of several with the same file, the first.
    #[must_use]
    pub fn by_file(renewals: &[Self]) -> RenewalsByFile<'_> {
        let mut by_file = HashMap::new();
        for renewal in renewals {
            by_file.entry(renewal.wanted.file.as_path()).or_insert(renewal);
        }
        by_file
    }
}

/// Why a certificate is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalReason {
    /// No certificate that covers all the names has been issued yet.
    NotIssued,
    /// At the time of the order, two thirds of the lifetime of the current certificate are over.
    Lifetime,
    /// The server suggests it (RFC 9773).
    Suggested,
    /// A request asks for it.
    Requested,
}

impl RenewalReason {
    /// Its name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotIssued => "not_issued",
            Self::Lifetime => "lifetime",
            Self::Suggested => "suggested",
            Self::Requested => "requested",
        }
    }
}

/// The state of all certificates from ACME, and requests to order them now.
#[derive(Debug, Default)]
pub struct Renewals {
    state: ArcSwap<Vec<RenewalState>>,
    /// The files of the certificates to order now. A blocking mutex: never held across an await.
    requested: Mutex<HashSet<PathBuf>>,
    has_requests: Notify,
    /// The numbers of successful and failed orders, by the first host name of the certificate.
    results: Mutex<BTreeMap<Box<str>, [u64; 2]>>,
}

impl Renewals {
    /// The state of all certificates from ACME.
    #[must_use]
    pub fn state(&self) -> Arc<Vec<RenewalState>> {
        self.state.load_full()
    }

    /// Publishes the state. The counts of each certificate exist from now on, beginning with 0, so that a metric shows
    /// its first failure as an increase. Those of certificates that are no longer in the state are removed.
    pub fn publish(&self, state: Vec<RenewalState>) {
        let mut results = self.results.lock();
        let names: HashSet<&str> = state.iter().map(|renewal| renewal.wanted.name()).collect();
        results.retain(|name, _| names.contains(&**name));
        for renewal in &state {
            results.entry(renewal.wanted.name().into()).or_default();
        }
        drop(results);
        self.state.store(Arc::new(state));
    }

    /// Requests that the certificate for a name is ordered now. Returns the first name of the certificate; `None`: no
    /// certificate from ACME has this name. If several accounts have certificates with that first name, all of these
    /// are ordered.
    pub fn request(&self, name: &str) -> Option<String> {
        let state = self.state();
        let certificates = || state.iter().map(|renewal| &renewal.wanted);
        let wanted = certificates().find(|wanted| wanted.names.iter().any(|known| known.as_str() == name))?;
        let same_name = certificates().filter(|other| other.name() == wanted.name());
        self.requested
            .lock()
            .extend(same_name.map(|wanted| wanted.file.clone()));
        self.has_requests.notify_one();
        Some(wanted.name().to_owned())
    }

    /// Counts an order. `name`: the first host name of the certificate.
    pub fn count(&self, name: &str, is_issued: bool) {
        let mut results = self.results.lock();
        let [successful, failed] = results.entry(name.into()).or_default();
        *(if is_issued { successful } else { failed }) += 1;
    }

    /// The numbers of successful and failed orders, by the first host name of the certificate.
    #[must_use]
    pub fn results(&self) -> BTreeMap<Box<str>, [u64; 2]> {
        self.results.lock().clone()
    }

    /// Waits for a request.
    pub async fn wait_for_request(&self) {
        self.has_requests.notified().await;
    }

    /// Takes the requests: the files of the certificates to order now.
    #[must_use]
    pub fn take_requests(&self) -> HashSet<PathBuf> {
        std::mem::take(&mut self.requested.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServerName;

    fn state(acme: &str, names: &[&str]) -> RenewalState {
        RenewalState {
            wanted: AcmeCertificate {
                acme: acme.into(),
                names: names
                    .iter()
                    .map(|name| ServerName::from_config(name).unwrap())
                    .collect(),
                file: Path::new("/").join(acme).join(names[0]),
            },
            identifier: None,
            next: SystemTime::UNIX_EPOCH,
            reason: RenewalReason::NotIssued,
            explanation_url: None,
            failed: None,
            is_under_way: false,
        }
    }

    #[test]
    fn a_request_is_for_all_certificates_with_the_same_first_name() {
        let renewals = Renewals::default();
        renewals.publish(vec![
            state("one", &["a.test", "b.test"]),
            state("two", &["a.test"]),
            state("two", &["c.test"]),
        ]);
        assert_eq!(renewals.request("none.test"), None);
        assert!(renewals.take_requests().is_empty());
        assert_eq!(renewals.request("b.test").as_deref(), Some("a.test"));
        let files = ["/one/a.test", "/two/a.test"].map(PathBuf::from);
        assert_eq!(renewals.take_requests(), HashSet::from(files));
        assert!(renewals.take_requests().is_empty());
    }

    #[test]
    fn orders_are_counted_while_the_certificate_is_configured() {
        let renewals = Renewals::default();
        renewals.publish(vec![state("one", &["a.test"]), state("one", &["b.test"])]);
        renewals.count("a.test", true);
        renewals.count("b.test", false);
        renewals.publish(vec![state("one", &["b.test"])]);
        assert_eq!(renewals.results(), BTreeMap::from([("b.test".into(), [0, 1])]));
    }
}
