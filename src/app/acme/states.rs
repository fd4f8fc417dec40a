//! The certificates that are ordered, and when each is due.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::CertificateIdentifier;
use tokio::time::Instant;

use super::suggestions::Suggestions;
use crate::acme::{Attempts, RenewalReason, RenewalState, identifier, pause_after_issue, renewal_time};
use crate::live::InForce;
use crate::name::ServerName;
use crate::tls::{AcmeCertificate, Certificate, CertificateLocation};

/// The latest order of this process for each certificate, by the certificate's file. It is remembered here because the
/// file of the attempts may not be writable.
pub(super) type LatestOrders = HashMap<PathBuf, LatestOrder>;

/// The latest order for a certificate.
#[derive(Clone, Debug)]
pub(super) enum LatestOrder {
    Failed(Attempts),
    /// The certificate was issued. Another order for these names is not due before `until`.
    Issued {
        names: Arc<[ServerName]>,
        until: Instant,
    },
}

/// The state of every certificate that the plan in force asks for.
pub(super) fn states(in_force: &InForce, latest: &LatestOrders, suggestions: &Suggestions) -> Vec<RenewalState> {
    let mut attempts = BTreeMap::new();
    for account in &in_force.plan.acme {
        attempts.insert(&account.name, Attempts::load(&account.state_dir));
    }
    let (mut states, mut seen) = (Vec::new(), HashSet::new());
    for listener in &in_force.plan.listeners {
        let store = in_force.tls.listeners.get(&listener.name).map(|tls| tls.certificates());
        let loaded = store.iter().flat_map(|store| store.all());
        let by_file: HashMap<_, _> = loaded.map(|certificate| (certificate.path(), certificate)).collect();
        let locations = listener.tls.iter().flat_map(|tls| &tls.certificates);
        for location in locations {
            let CertificateLocation::Acme(wanted) = location else {
                continue;
            };
            if !seen.insert(&*wanted.file) {
                continue;
            }
            let current = by_file.get(&*wanted.file);
            let kept = attempts.get(&wanted.acme).and_then(|saved| saved.get(wanted.name()));
            let due = current.map_or_else(Due::default, |current| due(current, wanted, suggestions));
            states.push(state(wanted, due, kept, latest.get(&wanted.file)));
        }
    }
    states
}

/// When a certificate is to be replaced, and why.
struct Due {
    at: SystemTime,
    reason: RenewalReason,
    identifier: Option<CertificateIdentifier<'static>>,
    explanation_url: Option<Box<str>>,
}

impl Default for Due {
    /// At once: no certificate has been issued.
    fn default() -> Self {
        Self {
            at: UNIX_EPOCH,
            reason: RenewalReason::NotIssued,
            identifier: None,
            explanation_url: None,
        }
    }
}

/// The state of a certificate. `due`: when it is to be replaced, and why. `latest`: the latest order of this process.
/// `kept`: the failed attempts that are saved in `state_dir`; they count only if `latest` is `None`.
fn state(wanted: &AcmeCertificate, due: Due, kept: Option<&Attempts>, latest: Option<&LatestOrder>) -> RenewalState {
    let now = SystemTime::now();
    let (failed, not_before) = match latest {
        Some(LatestOrder::Failed(failed)) => (Some(failed), failed.next_time(now)),
        Some(LatestOrder::Issued { names, until }) if *names == wanted.names => {
            (None, now + until.saturating_duration_since(Instant::now()))
        }
        Some(LatestOrder::Issued { .. }) => (None, UNIX_EPOCH),
        None => (kept, kept.map_or(UNIX_EPOCH, |kept| kept.next_time(now))),
    };
    RenewalState {
        wanted: wanted.clone(),
        identifier: due.identifier,
        next: due.at.max(not_before),
        reason: due.reason,
        explanation_url: due.explanation_url,
        failed: failed.cloned(),
        is_under_way: false,
    }
}

/// When a certificate is to be replaced, and why: at once if it is a placeholder or lacks a wanted name, otherwise at
/// its renewal time, but not before [`end_of_pause`]. The expiry of its chain does not count: another certificate would
/// have the same chain.
fn due(current: &Certificate, wanted: &AcmeCertificate, suggestions: &Suggestions) -> Due {
    let identifier = identifier(current).filter(|_| !current.is_placeholder);
    if current.is_placeholder || current.count_names(&wanted.names) < wanted.names.len() {
        return Due {
            identifier,
            ..Due::default()
        };
    }
    let suggested = identifier.as_ref().and_then(|identifier| suggestions.get(identifier));
    // The seed is the same each time, and a different one for each certificate.
    let seed = xxhash_rust::xxh3::xxh3_64_with_seed(wanted.name().as_bytes(), current.not_before.cast_unsigned());
    let jitter = fastrand::Rng::with_seed(seed).f64();
    let window = suggested.map(|suggested| suggested.window);
    let at = renewal_time(current.not_before, current.own_not_after, window, jitter);
    Due {
        at: at.max(end_of_pause(current, &wanted.file)),
        reason: suggested.map_or(RenewalReason::Lifetime, |_| RenewalReason::Suggested),
        explanation_url: suggested.and_then(|suggested| suggested.explanation_url.clone()),
        identifier,
    }
}

/// The end of the pause after the issue of this certificate. An earlier process may have ordered it, so the pause is
/// counted from the time at which `file` was written. There is no pause if that time is in the future: the clock was
/// ahead. There is none after an expired certificate either: if its file is new, the file is a copy, as from a backup.
fn end_of_pause(current: &Certificate, file: &Path) -> SystemTime {
    let end = u64::try_from(current.own_not_after).unwrap_or_default();
    if UNIX_EPOCH + Duration::from_secs(end) <= SystemTime::now() {
        return UNIX_EPOCH;
    }
    let written = file.metadata().and_then(|file| file.modified());
    let written = written.ok().filter(|written| *written <= SystemTime::now());
    let pause = pause_after_issue(current.not_before, current.own_not_after);
    written.map_or(UNIX_EPOCH, |written| written + pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::parse_certificate;

    const DAY: Duration = Duration::from_secs(86_400);

    fn wanted(names: &[&str]) -> AcmeCertificate {
        let names = names.iter().map(|name| ServerName::from_config(name).unwrap());
        AcmeCertificate {
            acme: "ca".into(),
            names: names.collect(),
            file: "/state/a.example.pem".into(),
        }
    }

    /// A new certificate may be due at once: because our clock is ahead, or because the server has left out a name.
    #[test]
    fn a_certificate_due_at_issuance_is_ordered_again_only_after_a_pause() {
        let (one, other) = (wanted(&["a.example"]), wanted(&["a.example", "b.example"]));
        let issued = LatestOrder::Issued {
            names: Arc::clone(&one.names),
            until: Instant::now() + DAY,
        };
        let next = |wanted: &AcmeCertificate| state(wanted, Due::default(), None, Some(&issued)).next;
        assert!(next(&one) > SystemTime::now() + DAY / 2);
        assert_eq!(next(&other), UNIX_EPOCH, "other names do not wait");
        let late = SystemTime::now() + 60 * DAY;
        let due = Due {
            at: late,
            ..Due::default()
        };
        assert_eq!(state(&one, due, None, Some(&issued)).next, late);
    }

    #[test]
    fn attempts_of_this_process_replace_kept_ones() {
        let one = wanted(&["a.example"]);
        let attempts = |failures, next| Attempts {
            failures,
            next,
            pause: 60,
            error: String::new(),
        };
        let (kept, failed) = (attempts(1, 1_000), LatestOrder::Failed(attempts(2, 2_000)));
        let attempts_after = |latest| {
            let state = state(&one, Due::default(), Some(&kept), latest);
            (
                state.failed.map(|failed| failed.failures),
                state.next.duration_since(UNIX_EPOCH).unwrap().as_secs(),
            )
        };
        assert_eq!(attempts_after(None), (Some(1), 1_000));
        assert_eq!(attempts_after(Some(&failed)), (Some(2), 2_000));
    }

    #[test]
    fn a_certificate_is_due_by_its_own_expiry_and_not_that_of_its_chain() {
        let (leaf, key) = issued_until(2090);
        let (chain, _) = issued_until(2020);
        let text = leaf + &chain + &key;
        let read = parse_certificate("/state/a.example.pem".as_ref(), text.as_bytes()).unwrap();
        assert!(read.has_expired(), "a certificate of its chain has expired");
        let at = |names| due(&read, &wanted(names), &Suggestions::default()).at;
        assert!(at(&["a.example"]) > SystemTime::now());
        assert_eq!(at(&["a.example", "b.example"]), UNIX_EPOCH);
    }

    #[test]
    fn after_a_copy_of_an_expired_certificate_there_is_no_pause() {
        let file = tempfile::NamedTempFile::new().unwrap(); // as if written just now
        let end_of = |year| {
            let (certificate, key) = issued_until(year);
            let read = parse_certificate(file.path(), (certificate + &key).as_bytes()).unwrap();
            end_of_pause(&read, file.path())
        };
        assert_eq!(end_of(2020), UNIX_EPOCH);
        assert!(end_of(2090) > SystemTime::now());
    }

    /// A certificate for a.example, valid from 2019 to `year`, and its key.
    fn issued_until(year: i32) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}
