//! OCSP responses that are sent along with a certificate (RFC 6960). Clients verify the signatures; here, only
//! responses that no client would accept are held back.

use std::path::Path;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use x509_parser::asn1_rs::{Any, FromDer, GeneralizedTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_HASH_SHA1, OID_NIST_HASH_SHA256};

use super::file::{file_version, read};
use super::words::{date, unix_now};

/// The OCSP response for a certificate, if one is to be sent along.
#[derive(Debug, Default)]
pub(super) struct Staple {
    /// The response, in DER; `None`: there is none that can be used.
    pub(super) response: Option<Vec<u8>>,
    /// When this changes although the file does not, because the response expires or begins to be valid, in seconds
    /// since the Unix epoch; `None`: never.
    pub(super) changes_at: Option<i64>,
    /// What is wrong with the file, or with the certificate according to the file.
    pub(super) warning: Option<String>,
}

/// What a response says about a certificate. Times are in seconds since the Unix epoch.
struct SingleResponse {
    status: CertificateStatus,
    this_update: i64,
    next_update: Option<i64>,
}

enum CertificateStatus {
    Good,
    Revoked,
    Unknown,
}

/// The certificate that a single response is about (RFC 6960, section 4.1.1).
struct CertificateId<'a> {
    /// The object identifier of the hash algorithm, in DER, without its tag and length.
    algorithm: &'a [u8],
    issuer_name_hash: &'a [u8],
    serial: &'a [u8],
}

/// How far ahead of ours the clock of a responder may be, in seconds.
const CLOCK_SKEW: i64 = 300;

impl Staple {
    /// Reads the response for a certificate from a file, if the file exists.
    pub(super) fn read(path: &Path, certificate: &X509Certificate<'_>) -> Self {
        if file_version(path).is_none() {
            return Self::default();
        }
        let not_sent = |what: &str| Self {
            warning: Some(format!("{what}: no OCSP response is sent")),
            ..Self::default()
        };
        let response = match read(path) {
            Ok(response) => response,
            Err(error) => return not_sent(&error.to_string()),
        };
        let path = path.display();
        let Some(mut responses) = single_responses(&response) else {
            return not_sent(&format!("{path}: not a successful OCSP response, in DER"));
        };
        let Some((_, found)) = responses.find(|(id, _)| id.identifies(certificate)) else {
            return not_sent(&format!(
                "{path}: the OCSP response is for another certificate, or damaged"
            ));
        };
        let SingleResponse {
            status,
            this_update,
            next_update,
        } = found;
        let now = unix_now();
        if next_update.is_some_and(|next| next <= now) {
            return not_sent(&format!("{path}: the OCSP response has expired"));
        }
        if this_update > now + CLOCK_SKEW {
            return Self {
                changes_at: Some(this_update - CLOCK_SKEW),
                ..not_sent(&format!(
                    "{path}: the OCSP response is not valid before {}",
                    date(this_update)
                ))
            };
        }
        if let CertificateStatus::Unknown = status {
            return not_sent(&format!("{path}: the certificate is unknown to the OCSP responder"));
        }
        let is_revoked = matches!(status, CertificateStatus::Revoked);
        Self {
            response: Some(response.to_vec()),
            changes_at: next_update,
            warning: is_revoked.then(|| format!("{path}: the certificate is revoked")),
        }
    }
}

impl CertificateId<'_> {
    /// Whether this is the identifier of the certificate. The serial number and the name of the issuer are compared,
    /// but not the key of the issuer, which is not known here.
    fn identifies(&self, certificate: &X509Certificate<'_>) -> bool {
        let issuer = certificate.issuer().as_raw();
        let known = [
            (OID_HASH_SHA1, &SHA1_FOR_LEGACY_USE_ONLY),
            (OID_NIST_HASH_SHA256, &SHA256),
        ];
        let algorithm = known.iter().find(|(id, _)| id.as_bytes() == self.algorithm);
        // With any other algorithm, the issuer is not compared. No responder is known to use one.
        let has_same_issuer = algorithm.is_none_or(|(_, hash)| digest(hash, issuer).as_ref() == self.issuer_name_hash);
        has_same_issuer && self.serial == certificate.raw_serial()
    }
}

/// The single responses in a successful response, each with the identifier of its certificate (RFC 6960, section
/// 4.2.1), up to the first that is not valid; `None`: the response is not a successful one, or is not valid.
fn single_responses(response: &[u8]) -> Option<impl Iterator<Item = (CertificateId<'_>, SingleResponse)>> {
    let mut rest = response;
    let mut response = take_element(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let status = take_element(&mut response)?;
    // The ResponseBytes: a type, and a BasicOCSPResponse, which begins with its ResponseData.
    let mut bytes = take_element(&mut take_element(&mut response)?)?;
    let (_kind, mut basic) = (take_element(&mut bytes)?, take_element(&mut bytes)?);
    let mut data = take_element(&mut take_element(&mut basic)?)?;
    let first = Any::from_der(data).ok()?.1;
    if first.tag().0 == 0 {
        take_element(&mut data)?; // the version
    }
    let (_responder, _produced) = (take_element(&mut data)?, take_element(&mut data)?);
    let mut responses = take_element(&mut data)?;
    let all = std::iter::from_fn(move || single_response(take_element(&mut responses)?));
    let is_successful = status == [0];
    is_successful.then_some(all)
}

fn single_response(mut single: &[u8]) -> Option<(CertificateId<'_>, SingleResponse)> {
    let mut about = take_element(&mut single)?;
    let (mut algorithm, issuer_name_hash) = (take_element(&mut about)?, take_element(&mut about)?);
    let _issuer_key_hash = take_element(&mut about)?;
    let id = CertificateId {
        algorithm: take_element(&mut algorithm)?,
        issuer_name_hash,
        serial: take_element(&mut about)?,
    };
    let (rest, status) = Any::from_der(single).ok()?;
    let (rest, this_update) = GeneralizedTime::from_der(rest).ok()?;
    let next_update = match Any::from_der(rest) {
        Ok((_, next)) if next.tag().0 == 0 => Some(GeneralizedTime::from_der(next.data).ok()?.1),
        _ => None,
    };
    let seconds = |time: &GeneralizedTime| time.utc_datetime().map(|time| time.unix_timestamp());
    let parsed = SingleResponse {
        status: match status.tag().0 {
            0 => CertificateStatus::Good,
            1 => CertificateStatus::Revoked,
            _ => CertificateStatus::Unknown,
        },
        this_update: seconds(&this_update).ok()?,
        next_update: next_update.as_ref().map(seconds).transpose().ok()?,
    };
    Some((id, parsed))
}

/// Takes the next element off `bytes`. Returns its content.
fn take_element<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (rest, element) = Any::from_der(bytes).ok()?;
    *bytes = rest;
    Some(element.data)
}
