//! When a server suggests renewing a certificate (ACME Renewal Information, ARI, RFC 9773).

use std::time::{Duration, SystemTime};

use instant_acme::{CertificateIdentifier, Error};

use super::account::{AcmeError, TEXT_CHARS_MAX, kept_account};
use super::plan::AcmePlan;
use super::schedule::RenewalWindow;
use crate::text::escape_bounded;
use crate::tls::Certificate;

/// When a server suggests renewing a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuggestedRenewal {
    /// The window for the renewal.
    pub window: RenewalWindow,
    /// The URL of a page that says why, if there is one; escaped.
    pub explanation_url: Option<Box<str>>,
}

/// What a server answers to a request for renewal information.
#[derive(Clone, Debug)]
pub struct RenewalAnswer {
    /// When the server suggests renewing; `None`: it makes no suggestions, or we have no account there.
    pub suggested: Option<SuggestedRenewal>,
    /// How long to wait before asking the server again. The caller limits this: [`super::poll_interval`].
    pub retry_after: Duration,
}

/// The identifier of a certificate at its server (RFC 9773, section 4.1). `None`: the certificate has no such
/// identifier (for example, it is self-signed), or it has expired. A server must not be asked about an expired
/// certificate.
#[must_use]
pub fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    if certificate.has_expired_itself() {
        return None;
    }
    let identifier = CertificateIdentifier::try_from(certificate.der()).ok()?;
    Some(identifier.into_owned())
}

/// Asks the server when to renew a certificate. Each request has its own deadline.
///
/// # Errors
/// A file of the account, `ca_file` or the system trust store cannot be used; the server cannot be reached or refuses;
/// or its answer is not valid.
pub async fn renewal_info(
    plan: &AcmePlan,
    certificate: &CertificateIdentifier<'_>,
) -> Result<RenewalAnswer, AcmeError> {
    let no_suggestion = RenewalAnswer {
        suggested: None,
        retry_after: Duration::MAX,
    };
    let Some((account, http)) = kept_account(plan).await? else {
        return Ok(no_suggestion);
    };
    let (info, retry_after) = match account.renewal_info(certificate).await {
        Ok(answer) => answer,
        Err(Error::Unsupported(_)) => return Ok(no_suggestion),
        Err(error) => {
            return Err(AcmeError::Server {
                error,
                retry_at: http.retry_at(),
            });
        }
    };
    let times = [info.suggested_window.start, info.suggested_window.end].map(SystemTime::from);
    let window = window_of(times, retry_after)?;
    let explanation_url = info.explanation_url;
    let explanation_url = explanation_url.map(|url| escape_bounded(&url, TEXT_CHARS_MAX).into());
    Ok(RenewalAnswer {
        suggested: Some(SuggestedRenewal {
            window,
            explanation_url,
        }),
        retry_after,
    })
}

/// The window from `start` to `end`.
///
/// # Errors
/// The window does not end after it starts. The error says to retry after `retry_after`, which the answer asked for.
fn window_of([start, end]: [SystemTime; 2], retry_after: Duration) -> Result<RenewalWindow, AcmeError> {
    RenewalWindow::new(start, end).ok_or_else(|| AcmeError::Server {
        error: Error::Str("the suggested window does not end after it starts"),
        retry_at: Some(SystemTime::now() + retry_after),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_an_impossible_window_is_asked_again_when_it_wants() {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = SystemTime::now();
        assert!(window_of([now - HOUR, now], HOUR).is_ok());
        let error = window_of([now, now - HOUR], 2 * HOUR).unwrap_err();
        assert!(error.retry_after(now) >= Some(2 * HOUR), "{error}");
    }
}
