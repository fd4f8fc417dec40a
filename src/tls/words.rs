//! The words of TLS for logs, metrics and the API.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::{
    AlertDescription, CertificateError, CommonState, Error, HandshakeKind, InvalidMessage, OtherError, ProtocolVersion,
};
use x509_parser::parse_x509_certificate;

use crate::error::chain_with;
use crate::text::{abbreviated, escape, first_and_more};

/// The longest text of a certificate (a subject, an issuer, or all names) in logs and in the API, in bytes, without the
/// ellipsis.
const CERTIFICATE_TEXT_BYTES_MAX: usize = 255;

/// What was negotiated in a TLS connection, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSummary {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite by its name in the registry of IANA.
    pub cipher: Option<Box<str>>,
    /// The group of the key exchange; `None`: there was none.
    pub group: Option<Box<str>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The peer's certificate, if it has one that can be parsed.
    pub peer: Option<PeerCertificate>,
}

/// The certificate of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its subject, to be read by people, such as `C=DE, CN=a`. The attributes are in the order of the certificate, and
    /// commas in values are not escaped. Only `fingerprint` identifies the certificate.
    pub subject: Box<str>,
    /// The common name in the subject.
    pub common_name: Option<Box<str>>,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: Box<str>,
}

impl TlsSummary {
    /// The summary of a connection whose handshake is complete.
    #[must_use]
    pub fn new(negotiated: &CommonState) -> Self {
        let suite = negotiated.negotiated_cipher_suite();
        // The names of TLS 1.3 suites begin with `TLS13_` in rustls, and with `TLS_` in the registry of IANA.
        let cipher = suite.map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
        let group = negotiated.negotiated_key_exchange_group();
        Self {
            version: version_word(negotiated.protocol_version()),
            cipher: cipher.map(Into::into),
            group: group.map(|group| format!("{:?}", group.name()).into()),
            resumed: negotiated.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: negotiated
                .peer_certificates()
                .and_then(|chain| PeerCertificate::parse(chain.first()?)),
        }
    }
}

impl PeerCertificate {
    fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let common_name = parsed.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        let fingerprint = digest(&SHA256, certificate);
        Some(Self {
            subject: bounded(&parsed.subject().to_string()),
            common_name: common_name.map(bounded),
            fingerprint: fingerprint
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
        })
    }
}

/// The most warnings about the TLS of a listener that are shown at a time: it may have thousands of certificates.
const WARNINGS_MAX: usize = 20;

/// The first of the warnings about the TLS of a listener, and how many others there are.
#[must_use]
pub fn shown_warnings(warnings: &[String]) -> Vec<String> {
    first_and_more(warnings.iter(), WARNINGS_MAX)
}

/// Text of a certificate, escaped and not too long.
pub(super) fn bounded(text: &str) -> Box<str> {
    abbreviated(&escape(text, &[]), CERTIFICATE_TEXT_BYTES_MAX).into()
}

/// The word for a version; empty for versions other than TLS 1.2 and 1.3, and for `None`.
#[must_use]
pub fn version_word(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "",
    }
}

/// Whether a handshake failed because no trusted authority has issued the peer's certificate.
#[must_use]
pub fn has_unknown_issuer(error: &io::Error) -> bool {
    // `io::Error::source` returns the source of the wrapped error. Only `get_ref` returns the wrapped error itself.
    let mut causes = std::iter::successors(
        error.get_ref().map(|cause| cause as &(dyn std::error::Error + 'static)),
        |cause| match cause.downcast_ref::<io::Error>() {
            Some(wrapped) => wrapped.get_ref().map(|cause| cause as _),
            None => cause.source(),
        },
    );
    causes.any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer))
        )
    })
}

/// Whether a handshake with a client failed because of the client's certificate, or because the client sent none.
#[must_use]
pub fn is_about_client_certificate(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(_) | Error::NoCertificatesPresented)
}

/// The word for an error: the name of the alert that was received, or that the error calls for (RFC 8446, section 6.2).
/// One error has no alert: `keys_exhausted` means that no more may be encrypted with the same keys.
#[must_use]
pub fn error_word(error: &Error) -> Cow<'static, str> {
    let alert = match error {
        Error::EncryptError => return "keys_exhausted".into(),
        Error::AlertReceived(alert) => *alert,
        Error::InvalidMessage(invalid) => AlertDescription::from(*invalid),
        Error::InvalidCertificate(invalid) => AlertDescription::from(CertificateError::clone(invalid)),
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOfferedOrEnabled
            | rustls::PeerIncompatible::Tls13RequiredForQuic
            | rustls::PeerIncompatible::SupportedVersionsExtensionRequired
            | rustls::PeerIncompatible::Tls12NotOffered
            | rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => AlertDescription::ProtocolVersion,
        Error::PeerIncompatible(_) => AlertDescription::HandshakeFailure,
        Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        _ => AlertDescription::InternalError,
    };
    match alert {
        // Names in the registry of IANA that rustls spells in another way.
        AlertDescription::UnrecognisedName => "unrecognized_name".into(),
        AlertDescription::UnknownPSKIdentity => "unknown_psk_identity".into(),
        AlertDescription::EncryptedClientHelloRequired => "ech_required".into(),
        AlertDescription::Unknown(number) => format!("alert_{number}").into(),
        _ => snake_case(&format!("{alert:?}")).into(),
    }
}

/// The text of an error for people. For the usual errors for which rustls has only the name of a variant, the text says
/// it in words.
#[must_use]
pub fn error_text(error: &Error) -> Cow<'static, str> {
    let text = match error {
        Error::InvalidCertificate(invalid) => match invalid {
            CertificateError::UnknownIssuer => "no trusted authority has issued it (UnknownIssuer)",
            CertificateError::Revoked => "it is revoked (Revoked)",
            CertificateError::Expired => "it has expired (Expired)",
            CertificateError::NotValidYet => "it is not valid yet (NotValidYet)",
            CertificateError::NotValidForName => "it is for another name (NotValidForName)",
            CertificateError::NotValidForNameContext { expected, presented } => {
                return wrong_name(&expected.to_str(), presented).into();
            }
            CertificateError::Other(other) if is_ca_used_as_end_entity(other) => {
                "it is that of an authority, with CA:TRUE, and not of a server or client (CaUsedAsEndEntity)"
            }
            CertificateError::UnknownRevocationStatus => {
                "there is no list of revoked certificates with a signature of this certificate's issuer (UnknownRevocationStatus)"
            }
            CertificateError::ApplicationVerificationFailure => "it is for none of the `names` of client_auth",
            _ => return error.to_string().into(),
        },
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => return "the peer does not speak TLS".into(),
        _ => return error.to_string().into(),
    };
    format!("invalid peer certificate: {text}").into()
}

fn is_ca_used_as_end_entity(error: &OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// The text of the error that a certificate is not for the expected name.
fn wrong_name(expected: &str, presented: &[String]) -> String {
    let names: Vec<&str> = presented.iter().map(|name| plain_name(name)).collect();
    let names = match names.as_slice() {
        [] => String::from("; it has no names"),
        names => format!(", but for {}", bounded(&names.join(", "))),
    };
    format!("invalid peer certificate: it is not valid for name {expected}{names} (NotValidForName)")
}

/// A name of a certificate without what rustls-webpki writes around it: `DnsName("a.example")`, `IpAddress(10.0.0.1)`.
fn plain_name(presented: &str) -> &str {
    match presented.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some(("DnsName" | "IpAddress" | "UniformResourceIdentifier", name)) => name.trim_matches('"'),
        _ => presented,
    }
}

/// The text of an error and its sources, as [`chain`](crate::error::chain) has it, with [`error_text`] for errors of
/// TLS.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    chain_with(error, |part| {
        let wrapped = part.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let cause = wrapped.and_then(|cause| cause.downcast_ref());
        let tls: Option<&Error> = cause.or_else(|| part.downcast_ref());
        tls.map_or_else(|| part.to_string(), |error| error_text(error).into_owned())
    })
}

/// `UnknownCA` as the RFC writes it: `unknown_ca`.
fn snake_case(name: &str) -> String {
    let mut word = String::with_capacity(name.len() + 4);
    let mut was_upper = true;
    for c in name.chars() {
        if c.is_ascii_uppercase() && !was_upper {
            word.push('_');
        }
        was_upper = c.is_ascii_uppercase();
        word.push(c.to_ascii_lowercase());
    }
    word
}

/// A time that the issuer of a certificate has chosen, given in seconds since the Unix epoch. Clamped to the years 1970
/// to 9999.
#[must_use]
pub fn issuer_time(seconds: i64) -> SystemTime {
    /// 9999-12-31T23:59:59Z, the last time that RFC 3339 can express.
    const MAX_SECONDS: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(MAX_SECONDS))
}

/// [`issuer_time`] as in RFC 3339.
pub(super) fn date(seconds: i64) -> String {
    humantime::format_rfc3339_seconds(issuer_time(seconds)).to_string()
}

/// Now, in seconds since the Unix epoch.
pub(super) fn unix_now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_an_error_is_its_alert_as_in_the_rfc() {
        for (error, word) in [
            (Error::AlertReceived(AlertDescription::UnknownCA), "unknown_ca"),
            (
                Error::AlertReceived(AlertDescription::UnrecognisedName),
                "unrecognized_name",
            ),
            (
                Error::AlertReceived(AlertDescription::from(115)),
                "unknown_psk_identity",
            ),
            (Error::AlertReceived(AlertDescription::from(121)), "ech_required"),
            (Error::AlertReceived(AlertDescription::from(200)), "alert_200"),
            (
                Error::AlertReceived(AlertDescription::BadCertificate),
                "bad_certificate",
            ),
            (
                Error::InvalidCertificate(CertificateError::Revoked),
                "certificate_revoked",
            ),
            (
                Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure),
                "access_denied",
            ),
            (Error::NoCertificatesPresented, "certificate_required"),
            (Error::NoApplicationProtocol, "no_application_protocol"),
            (Error::DecryptError, "bad_record_mac"),
            (Error::EncryptError, "keys_exhausted"),
        ] {
            assert_eq!(error_word(&error), word, "{error:?}");
        }
    }

    #[test]
    fn an_error_says_why_a_certificate_was_refused() {
        let shown = |error: CertificateError| error_text(&Error::InvalidCertificate(error)).into_owned();
        for (error, text) in [
            (CertificateError::UnknownIssuer, "no trusted authority has issued it"),
            (CertificateError::Revoked, "it is revoked"),
            (
                CertificateError::UnknownRevocationStatus,
                "there is no list of revoked certificates",
            ),
            (
                CertificateError::ApplicationVerificationFailure,
                "it is for none of the `names`",
            ),
        ] {
            let shown = shown(error);
            assert!(
                shown.starts_with(&format!("invalid peer certificate: {text}")),
                "{shown}"
            );
        }
        assert_eq!(
            shown(CertificateError::BadSignature),
            "invalid peer certificate: BadSignature"
        );
        let error = Error::InvalidCertificate(CertificateError::Expired);
        let error = crate::error::with_context(io::Error::other(error), "no TLS with a.example");
        assert_eq!(
            error_chain(&error),
            "no TLS with a.example: invalid peer certificate: it has expired (Expired)"
        );
    }

    #[test]
    fn an_error_about_the_name_lists_the_names_of_the_certificate() {
        let shown = |presented: &[&str]| {
            let error = CertificateError::NotValidForNameContext {
                expected: "b.example".try_into().unwrap(),
                presented: presented.iter().map(ToString::to_string).collect(),
            };
            error_text(&Error::InvalidCertificate(error)).into_owned()
        };
        let start = "invalid peer certificate: it is not valid for name b.example";
        for (presented, rest) in [
            (&[][..], "; it has no names (NotValidForName)"),
            (
                &[r#"DnsName("a.example")"#, "IpAddress(10.0.0.1)", "DirectoryName"],
                ", but for a.example, 10.0.0.1, DirectoryName (NotValidForName)",
            ),
        ] {
            assert_eq!(shown(presented), format!("{start}{rest}"));
        }
        let many = vec![r#"DnsName("a\n.example")"#; 1000];
        assert!(shown(&many).len() < 2 * CERTIFICATE_TEXT_BYTES_MAX, "{}", shown(&many));
    }

    #[test]
    fn a_subject_is_escaped_and_bounded() {
        assert_eq!(&*bounded("a\nb"), "a\\nb");
        assert!(bounded(&"é".repeat(1000)).len() <= CERTIFICATE_TEXT_BYTES_MAX + '…'.len_utf8());
    }
}
