//! OCSP responses that are sent along with a certificate (RFC 6960). Clients verify their signatures; only a response that no
//! client would accept is kept back here.

use std::path::Path;

use x509_parser::asn1_rs::{Any, FromDer, GeneralizedTime};
use x509_parser::certificate::X509Certificate;

use super::file::{file_version, read};
use super::words::unix_now;

/// The OCSP response for a certificate, if one is to be sent along.
#[derive(Debug, Default)]
pub(super) struct Staple {
    /// The response, in DER; `None`: there is none that can be used.
    pub(super) response: Option<Vec<u8>>,
    /// Until when the response can be used, in seconds since the Unix epoch; `None`: there is no end.
    pub(super) expires: Option<i64>,
    /// What is wrong with the file.
    pub(super) warning: Option<String>,
}

/// What a response says about a certificate.
struct SingleResponse {
    is_revoked: bool,
    next_update: Option<i64>,
}

impl Staple {
    /// Reads the response for a certificate from a file, if there is one.
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
        let serial = certificate.raw_serial();
        let Some((_, found)) = responses.find(|(about, _)| *about == serial) else {
            return not_sent(&format!("{path}: the OCSP response is for another certificate"));
        };
        let SingleResponse {
            is_revoked,
            next_update,
        } = found;
        if next_update.is_some_and(|next| next <= unix_now()) {
            return not_sent(&format!("{path}: the OCSP response has expired"));
        }
        Self {
            response: Some(response.to_vec()),
            expires: next_update,
            warning: is_revoked.then(|| format!("{path}: the certificate is revoked")),
        }
    }
}

/// The single responses in a successful response, each with the serial number of its certificate (RFC 6960, section 4.2.1).
fn single_responses(response: &[u8]) -> Option<impl Iterator<Item = (&[u8], SingleResponse)>> {
    let mut response = element(&mut &*response)?;
    let status = element(&mut response)?;
    let mut bytes = element(&mut element(&mut response)?)?;
    let (_kind, mut basic) = (element(&mut bytes)?, element(&mut bytes)?);
    let mut data = element(&mut element(&mut basic)?)?;
    let first = Any::from_der(data).ok()?.1;
    if first.tag().0 == 0 {
        element(&mut data)?; // the version
    }
    let (_responder, _produced) = (element(&mut data)?, element(&mut data)?);
    let mut responses = element(&mut data)?;
    let all = std::iter::from_fn(move || single_response(element(&mut responses)?));
    (status == [0]).then_some(all)
}

fn single_response(mut single: &[u8]) -> Option<(&[u8], SingleResponse)> {
    let mut about = element(&mut single)?;
    let (_hash, _name, _key) = (element(&mut about)?, element(&mut about)?, element(&mut about)?);
    let serial = element(&mut about)?;
    let (rest, status) = Any::from_der(single).ok()?;
    single = rest;
    let _this_update = element(&mut single)?;
    let next_update = match Any::from_der(single) {
        Ok((_, next)) if next.tag().0 == 0 => Some(GeneralizedTime::from_der(next.data).ok()?.1),
        _ => None,
    };
    let next_update = next_update.map(|next| next.utc_datetime()).transpose().ok()?;
    let parsed = SingleResponse {
        is_revoked: status.tag().0 == 1,
        next_update: next_update.map(|next| next.unix_timestamp()),
    };
    Some((serial, parsed))
}

/// The content of the next element.
fn element<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (rest, element) = Any::from_der(bytes).ok()?;
    *bytes = rest;
    Some(element.data)
}
