//! The suggestions of ACME servers about the renewal of certificates (RFC 9773).

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::time::SystemTime;

use instant_acme::CertificateIdentifier;
use tokio::time::{Instant, sleep_until};

use crate::acme::{
    AcmeError, AcmePlan, RenewalAnswer, RenewalReason, RenewalState, SuggestedRenewal, poll_back_off, poll_interval,
    renewal_info,
};

/// The answers about the certificates in use, by their identifiers.
#[derive(Clone, Debug, Default)]
pub(super) struct Suggestions(HashMap<String, Polled>);

/// What the server has answered about a certificate.
#[derive(Clone, Debug)]
struct Polled {
    /// The suggestion in the latest valid answer; `None`: the server suggests nothing, or no answer was valid yet.
    suggested: Option<SuggestedRenewal>,
    /// How many requests since the latest valid answer have failed.
    failures: u32,
    /// When the server is asked again.
    next: Instant,
}

impl Suggestions {
    /// The suggestion for this certificate.
    pub(super) fn get(&self, identifier: &CertificateIdentifier<'_>) -> Option<&SuggestedRenewal> {
        self.0.get(&identifier.to_string())?.suggested.as_ref()
    }

    /// Waits until the first question about one of these certificates is due, and asks it. Answers about other
    /// certificates are forgotten. Never ends if there are no certificates. Nothing is lost if this is dropped: the
    /// question is asked again.
    pub(super) async fn poll(&mut self, accounts: &[AcmePlan], states: &[RenewalState]) {
        // For each issued certificate: the key of its answer, its identifier, the account, and its name in the log.
        let issued = states.iter().filter_map(|state| {
            let is_issued = state.reason != RenewalReason::NotIssued;
            let identifier = state.identifier.as_ref().filter(|_| is_issued)?;
            let plan = accounts.iter().find(|plan| plan.name == state.wanted.acme)?;
            Some((identifier.to_string(), identifier, plan, state.wanted.name()))
        });
        let issued: Vec<_> = issued.collect();
        let keys: HashSet<_> = issued.iter().map(|(key, ..)| &**key).collect();
        self.0.retain(|key, _| keys.contains(&**key));
        // `None`: no request about this certificate has ended yet. Therefore it comes first.
        let due = |key: &str| self.0.get(key).map(|polled| polled.next);
        let Some((key, identifier, plan, name)) = issued.iter().min_by_key(|(key, ..)| due(key)) else {
            return pending().await;
        };
        if let Some(due) = due(key) {
            sleep_until(due).await;
        }
        let answer = renewal_info(plan, identifier).await;
        let before = self.0.remove(key);
        self.0
            .insert(key.clone(), Polled::after(before, answer, name, &plan.name));
    }
}

impl Polled {
    /// The state after an answer about the certificate of this name.
    fn after(before: Option<Self>, answer: Result<RenewalAnswer, AcmeError>, name: &str, acme: &str) -> Self {
        let (known, failures) = before.map_or((None, 0), |before| (before.suggested, before.failures));
        match answer {
            Ok(RenewalAnswer { suggested, retry_after }) => {
                match &suggested {
                    _ if suggested == known => {}
                    Some(suggested) => tracing::info!(
                        name,
                        acme,
                        explanation_url = suggested.explanation_url,
                        "the server suggests when to renew a certificate"
                    ),
                    None => tracing::info!(
                        name,
                        acme,
                        "the server no longer suggests when to renew a certificate: its lifetime counts"
                    ),
                }
                Self {
                    suggested,
                    failures: 0,
                    next: Instant::now() + poll_interval(retry_after),
                }
            }
            Err(error) => {
                let failures = failures.saturating_add(1);
                let pause = poll_back_off(failures, error.retry_after(SystemTime::now()), fastrand::f64());
                let error = error.text();
                tracing::warn!(
                    name,
                    acme,
                    error,
                    next_attempt_in = pause.as_secs(),
                    "the server does not say when to renew a certificate: its last answer counts, else the lifetime of the certificate"
                );
                Self {
                    suggested: known,
                    failures,
                    next: Instant::now() + pause,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::acme::RenewalWindow;

    #[test]
    fn a_suggestion_survives_server_failures_and_ends_when_withdrawn() {
        let window = RenewalWindow::new(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        let suggested = Some(SuggestedRenewal {
            window,
            explanation_url: None,
        });
        let answer = |suggested| {
            Ok(RenewalAnswer {
                suggested,
                retry_after: Duration::ZERO,
            })
        };
        let failure = || Err(AcmeError::NoChallenge("any"));
        let mut polled = None;
        let mut polled_after = |answer| {
            let latest = Polled::after(polled.take(), answer, "a.example", "ca");
            let found = (latest.suggested.clone(), latest.failures);
            assert!(latest.next >= Instant::now() + Duration::from_secs(59), "never at once");
            polled = Some(latest);
            found
        };
        assert_eq!(polled_after(failure()), (None, 1));
        assert_eq!(polled_after(answer(suggested.clone())), (suggested.clone(), 0));
        assert_eq!(
            (polled_after(failure()), polled_after(failure())),
            ((suggested.clone(), 1), (suggested, 2))
        );
        assert_eq!(polled_after(answer(None)), (None, 0));
    }
}
