//! One order: from the account to a chain with its key.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::account::{AcmeError, NO_ACCOUNT, OpenAccount};
use super::challenges::{Challenges, PendingChallenge};
use super::http::NoAnswer;
use super::plan::{AcmePlan, ChallengeKind};
use crate::error::chain;
use crate::name::ServerName;

/// How long a whole order may take. Servers validate within seconds.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);

/// How the server is polled until it has validated all names, and again until it has issued the certificate. The
/// timeout is for each of the two.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// The error type of a server that limits orders (RFC 8555, section 6.7).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// The HTTP status of a server that limits orders (RFC 6585).
const TOO_MANY_REQUESTS: u16 = 429;

/// Orders a certificate for these names. `replaces`: the certificate that the new one replaces, if known. The answers
/// to the challenges are in `challenges` until the order ends. Returns a new key and the chain, in PEM.
///
/// # Errors
/// Why there is no certificate.
pub async fn issue(
    plan: &AcmePlan,
    names: &[ServerName],
    replaces: Option<CertificateIdentifier<'static>>,
    challenges: &Arc<Challenges>,
) -> Result<Zeroizing<String>, AcmeError> {
    let ordered = timeout(ORDER_TIMEOUT, place_order(plan, names, replaces, challenges)).await;
    ordered.unwrap_or(Err(AcmeError::Timeout(ORDER_TIMEOUT)))
}

async fn place_order(
    plan: &AcmePlan,
    names: &[ServerName],
    replaces: Option<CertificateIdentifier<'static>>,
    challenges: &Arc<Challenges>,
) -> Result<Zeroizing<String>, AcmeError> {
    let opened = OpenAccount::open(plan).await?;
    let mut order = new_order(&opened, names, replaces).await?;
    let _pending = begin_challenges(&opened, &mut order, names, plan.challenge, challenges).await?;
    let status = order.poll_ready(&POLLING).await;
    if !matches!(status, Ok(OrderStatus::Ready)) {
        if let Some(failed) = failed_authorization(&mut order).await {
            return Err(failed);
        }
        let error = status.err().unwrap_or(Error::Str("the order is invalid"));
        return Err(opened.handle_error(error));
    }
    let key = Zeroizing::new(KeyPair::generate()?);
    let names: Vec<_> = names.iter().map(|name| name.as_str().to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&*key)?;
    let finalized = async {
        order.finalize_csr(request.der()).await?;
        order.poll_certificate(&POLLING).await
    };
    let chain = finalized.await.map_err(|error| opened.handle_error(error))?;
    Ok(with_key(key.serialized_der(), &chain))
}

/// A private key (RFC 5958) in PEM (RFC 7468), and a chain after it. No copy of the key is left in memory.
fn with_key(key: &[u8], chain: &str) -> Zeroizing<String> {
    const LINE_CHARS: usize = 64;
    let (head, tail) = ("-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----\n");
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(key));
    let body_chars = encoded.len() + encoded.len().div_ceil(LINE_CHARS);
    // Reserved at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(
        head.len() + body_chars + tail.len() + chain.len(),
    ));
    text.push_str(head);
    let mut rest = &**encoded;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(tail);
    text.push_str(chain);
    text
}

/// Creates an order that names the certificate to be replaced (RFC 9773, section 5). If that certificate is not known,
/// or the server refuses such an order and one that names none may succeed now, creates one that names none.
async fn new_order(
    opened: &OpenAccount<'_>,
    names: &[ServerName],
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<Order, AcmeError> {
    let identifiers: Vec<_> = names
        .iter()
        .map(|name| Identifier::Dns(name.as_str().to_owned()))
        .collect();
    if let Some(replaced) = replaces {
        let new = NewOrder::new(&identifiers).replaces(replaced);
        match opened.account.new_order(&new).await {
            Ok(order) => return Ok(order),
            Err(error) if opened.wants_pause() || !may_succeed_without_replaces(&error) => {
                return Err(opened.handle_error(error));
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "the server takes no order that replaces this certificate")
            }
        }
    }
    let order = opened.account.new_order(&NewOrder::new(&identifiers)).await;
    order.map_err(|error| opened.handle_error(error))
}

/// Whether an order that failed with this error may succeed without `replaces`. RFC 9773 has an error type only for a
/// certificate that was replaced before, so any refusal may be about `replaces`, except if the server does not know the
/// account or limits orders. If the server cannot be reached or has failed, another order would fail too.
fn may_succeed_without_replaces(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) => true,
        Error::Api(problem) => {
            let is_refusal = match problem.status {
                Some(status) => (400..500).contains(&status) && status != TOO_MANY_REQUESTS,
                None => true, // the member is optional (RFC 9457, section 3.1)
            };
            is_refusal && !matches!(problem.r#type.as_deref(), Some(RATE_LIMITED | NO_ACCOUNT))
        }
        // `NoAnswer` is an error of our HTTP client. Any other `Error::Other` comes from instant-acme: the server has
        // created the order without `replaces`.
        Error::Other(error) => !error.is::<NoAnswer>(),
        _ => false,
    }
}

/// Begins to answer a challenge for every name that is not validated yet, and tells the server that it may validate.
async fn begin_challenges(
    opened: &OpenAccount<'_>,
    order: &mut Order,
    names: &[ServerName],
    kind: ChallengeKind,
    challenges: &Arc<Challenges>,
) -> Result<Vec<PendingChallenge>, AcmeError> {
    let wanted = match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
    };
    let mut pending = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| opened.handle_error(error))?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let asked = authorization.identifier().to_string();
        let ordered = names.iter().find(|name| *name.as_str() == *asked);
        let not_ordered = Error::Str("the server asks about a name that was not ordered");
        let name = ordered.ok_or_else(|| opened.handle_error(not_ordered))?;
        let challenge = authorization.challenge(wanted.clone());
        let mut challenge = challenge.ok_or(AcmeError::NoChallenge(kind.as_str()))?;
        let answer = challenge.key_authorization();
        pending.push(match kind {
            ChallengeKind::TlsAlpn01 => challenges.answer_tls(name, answer.digest().as_ref())?,
            ChallengeKind::Http01 => challenges.answer_http(&challenge.token, answer.as_str()),
        });
        challenge
            .set_ready()
            .await
            .map_err(|error| opened.handle_error(error))?;
    }
    Ok(pending)
}

/// The error of the first name that the server could not validate.
async fn failed_authorization(order: &mut Order) -> Option<AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let mut errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = errors.next() {
            return Some(AcmeError::NotValidated {
                name: state.identifier().to_string(),
                detail: problem.to_string(),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_repeated_without_the_replaced_certificate_only_if_that_may_help() {
        let is_repeated = |kind: &str, status: u16| {
            let problem = serde_json::json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "status": status });
            may_succeed_without_replaces(&Error::Api(serde_json::from_value(problem).unwrap()))
        };
        for (kind, status) in [("alreadyReplaced", 409), ("malformed", 404), ("unauthorized", 403)] {
            assert!(is_repeated(kind, status), "{kind}");
        }
        for (kind, status) in [
            ("rateLimited", 429),
            ("rateLimited", 403),
            ("malformed", 429),
            ("serverInternal", 500),
            ("accountDoesNotExist", 400),
        ] {
            assert!(!is_repeated(kind, status), "{kind} with status {status}");
        }
        assert!(may_succeed_without_replaces(&Error::Unsupported(
            "ACME renewal information (ARI)"
        )));
        assert!(may_succeed_without_replaces(&Error::Other(
            "replaces field mismatch".into()
        )));
        let unanswered = NoAnswer("connection refused".into());
        assert!(!may_succeed_without_replaces(&Error::Other(Box::new(unanswered))));
    }

    #[test]
    fn a_key_and_its_chain_are_encoded_as_pem_without_a_reallocation() {
        let key = KeyPair::generate().unwrap();
        let text = with_key(key.serialized_der(), "chain");
        assert_eq!(*text, key.serialize_pem() + "chain");
        assert_eq!(text.capacity(), text.len(), "expected no growth");
    }
}
