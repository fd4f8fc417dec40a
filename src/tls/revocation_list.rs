//! A list of revoked certificates (CRL; RFC 5280, section 5).

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::OnceLock;

use parking_lot::Mutex;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
};
use webpki::{CertRevocationList, OwnedCertRevocationList, RawPublicKeyEntity};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::extensions::{DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension};
use x509_parser::num_bigint::BigUint;
use x509_parser::oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use super::words::{bounded, date};

/// A list remembers at most this many keys that it is not signed with. Without a bound, a client that has the
/// private key of an intermediate authority could issue certificates for any number of keys, and have them remembered.
const OTHER_KEYS_MAX: usize = 8;

/// A complete list of one authority: not a delta CRL, and not an indirect one.
#[derive(Debug)]
pub(super) struct RevocationList {
    der: CertificateRevocationListDer<'static>,
    list: CertRevocationList<'static>,
    /// The authority and the time of the list, for people.
    name: String,
    /// When it was issued, in seconds since the Unix epoch.
    this_update: i64,
    /// When it should be replaced, in seconds since the Unix epoch.
    next_update: Option<i64>,
    /// Its number (section 5.2.3), in big-endian order without leading zeros; empty if it has none.
    number: Vec<u8>,
    /// `None`: it covers all certificates of its authority.
    scope: Option<Scope>,
    /// The key that it is signed with, once it is known.
    signer: OnceLock<SubjectPublicKeyInfoDer<'static>>,
    /// While `signer` is not known: the latest keys that it is not signed with.
    other_keys: Mutex<VecDeque<SubjectPublicKeyInfoDer<'static>>>,
}

/// Which certificates of its authority a list covers (section 5.2.5).
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    /// Certificates of authorities are not covered.
    only_users: bool,
    /// Only certificates of authorities are covered.
    only_authorities: bool,
    /// The URLs of the list. It covers certificates that refer to one of them, or to no list.
    urls: Vec<String>,
}

impl RevocationList {
    /// Parses a list.
    ///
    /// # Errors
    /// The list cannot be used. The error says why, and mostly what to do.
    pub(super) fn new(
        der: CertificateRevocationListDer<'static>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Self, String> {
        let (_, parsed) = parse_x509_crl(&der).map_err(|_| "a list is not valid: its encoding is broken".to_owned())?;
        let this_update = parsed.last_update().timestamp();
        let (issuer, time) = (bounded(&parsed.issuer().to_string()), date(this_update));
        let name = format!("the list of `{issuer}` of {time}");
        let list = OwnedCertRevocationList::from_der(&der);
        let list = list.map_err(|error| format!("{name} cannot be used: {}", unsupported(&error, &parsed)))?;
        let list = CertRevocationList::from(list);
        if !signed_parts(&der).is_some_and(|parts| algorithms.all.iter().any(|one| parts.has_algorithm(*one))) {
            return Err(format!(
                "{name} is signed with an algorithm that is not supported, such as SHA-1: sign it with SHA-256"
            ));
        }
        let number = parsed.crl_number().map(BigUint::to_bytes_be);
        let next_update = parsed.next_update().map(|time| time.timestamp());
        let scope = list_scope(&parsed).map(Scope::new);
        if scope.is_some() != list.issuing_distribution_point().is_some() {
            return Err(format!(
                "{name} cannot be used: its issuingDistributionPoint is not valid"
            ));
        }
        Ok(Self {
            list,
            name,
            this_update,
            next_update,
            number: number.unwrap_or_default(),
            scope,
            signer: OnceLock::new(),
            other_keys: Mutex::default(),
            der,
        })
    }

    /// Its authority and its time, for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name of its authority in DER, without its tag and length.
    pub(super) fn issuer(&self) -> &[u8] {
        self.list.issuer()
    }

    /// When it should be replaced, in seconds since the Unix epoch.
    pub(super) fn next_update(&self) -> Option<i64> {
        self.next_update
    }

    /// Whether the key that it is signed with is known.
    pub(super) fn is_verified(&self) -> bool {
        self.signer.get().is_some()
    }

    /// Whether it is signed with this key. The signature of a long list takes long to verify, so the list remembers
    /// the key that it is signed with, and until that is known, the latest [`OTHER_KEYS_MAX`] keys that it is not
    /// signed with.
    pub(super) fn is_signed_with(
        &self,
        key: &SubjectPublicKeyInfoDer<'static>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        if let Some(signer) = self.signer.get() {
            return signer == key;
        }
        let lock_other_keys = || self.other_keys.lock();
        if lock_other_keys().contains(key) {
            return false;
        }
        if is_signed_with(&self.der, key, algorithms) {
            return self.signer.get_or_init(|| key.clone()) == key;
        }
        let mut other_keys = lock_other_keys();
        other_keys.truncate(OTHER_KEYS_MAX - 1);
        other_keys.push_front(key.clone());
        false
    }

    /// Whether the key that it is signed with is known and is not this one.
    pub(super) fn is_of_other_key(&self, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
        self.signer.get().is_some_and(|signer| signer != key)
    }

    /// Whether this certificate, which the list's authority has issued, would be in the list if the certificate was
    /// revoked. `is_authority`: whether the certificate is that of an authority.
    pub(super) fn covers(&self, certificate: &CertificateDer<'_>, is_authority: bool) -> bool {
        let scope = self.scope.as_ref();
        scope.is_none_or(|scope| scope.has_role(is_authority) && scope.covers_by_url(certificate))
    }

    /// Whether the certificate with this serial number is in the list.
    pub(super) fn has(&self, serial: &[u8]) -> bool {
        // The search never fails: `new` has read all entries.
        !matches!(self.list.find_serial(serial), Ok(None))
    }

    /// Orders lists by age, the newest first.
    pub(super) fn by_age(&self, other: &Self) -> Ordering {
        other.recency().cmp(&self.recency())
    }

    /// Greater for a newer list. Lists of the same time are ordered by number. A number has no leading zeros, so a
    /// longer one is greater.
    fn recency(&self) -> (i64, usize, &[u8]) {
        (self.this_update, self.number.len(), &self.number)
    }

    /// Whether it is for the same certificates, and is known to be signed with the same key.
    pub(super) fn is_about_the_same(&self, other: &Self) -> bool {
        let has_same_key = self.is_verified() && self.signer.get() == other.signer.get();
        has_same_key && self.issuer() == other.issuer() && self.scope == other.scope
    }
}

impl Scope {
    fn new(point: &IssuingDistributionPoint<'_>) -> Self {
        Self {
            only_users: point.only_contains_user_certs,
            only_authorities: point.only_contains_ca_certs,
            urls: point
                .distribution_point
                .iter()
                .flat_map(urls)
                .map(str::to_owned)
                .collect(),
        }
    }

    fn has_role(&self, is_authority: bool) -> bool {
        if is_authority {
            !self.only_users
        } else {
            !self.only_authorities
        }
    }

    /// Whether the certificate refers to one of [`Self::urls`], or to no list.
    fn covers_by_url(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
            return false;
        };
        let points = match parsed.get_extension_unique(&OID_X509_EXT_CRL_DISTRIBUTION_POINTS) {
            Ok(None) => return true,
            Ok(Some(extension)) => extension.parsed_extension(),
            Err(_) => return false,
        };
        let ParsedExtension::CRLDistributionPoints(points) = points else {
            return false;
        };
        // Points with another issuer, or for some reasons only, are for other lists (section 4.2.1.13).
        let complete = points
            .iter()
            .filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
        let mut urls = complete
            .filter_map(|point| point.distribution_point.as_ref())
            .flat_map(urls);
        urls.any(|url| self.urls.iter().any(|own| own == url))
    }
}

fn urls<'a>(name: &'a DistributionPointName<'_>) -> impl Iterator<Item = &'a str> {
    let names = match name {
        DistributionPointName::FullName(names) => &names[..],
        DistributionPointName::NameRelativeToCRLIssuer(_) => &[],
    };
    names.iter().filter_map(|name| match name {
        GeneralName::URI(url) => Some(*url),
        _ => None,
    })
}

fn list_scope<'a>(list: &'a CertificateRevocationList<'_>) -> Option<&'a IssuingDistributionPoint<'a>> {
    list.extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(point) => Some(point),
            _ => None,
        })
}

/// Why a list cannot be used, and mostly what to do.
fn unsupported(error: &webpki::Error, list: &CertificateRevocationList<'_>) -> String {
    use webpki::Error;
    let what = match error {
        Error::UnsupportedDeltaCrl => "it has only what has changed (delta CRL): the complete list is needed",
        Error::UnsupportedIndirectCrl => {
            "it has certificates of other authorities (indirect CRL): the list of each authority is needed"
        }
        Error::UnsupportedRevocationReasonsPartitioning => {
            "it is for some reasons only (onlySomeReasons): a list for all reasons is needed"
        }
        Error::UnsupportedCrlIssuingDistributionPoint => {
            "its issuingDistributionPoint has no full name: give it one (openssl: `fullname = URI:…`), or leave it out"
        }
        Error::UnsupportedCriticalExtension => "it has a critical extension that is not supported",
        _ if list.next_update().is_none() => {
            "it does not say when it will be replaced (nextUpdate), which is needed (openssl ca: `-crldays`)"
        }
        _ if list.extensions().is_empty() => {
            "it is of version 1, or has no number: version 2 with a number is needed (openssl ca: `crlnumber` in its \
             configuration)"
        }
        _ => return error.to_string(),
    };
    what.to_owned()
}

/// The signed bytes of a certificate or a list, with their signature (sections 4.1.1 and 5.1.1).
struct SignedParts<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

fn signed_parts(der: &[u8]) -> Option<SignedParts<'_>> {
    let (_, outer) = Any::from_der(der).ok()?;
    let (rest, _) = Any::from_der(outer.data).ok()?;
    let message = &outer.data[..outer.data.len() - rest.len()];
    let (rest, algorithm) = Any::from_der(rest).ok()?;
    let (_, signature) = Any::from_der(rest).ok()?;
    // A bit string without unused bits in its last byte.
    let [0, signature @ ..] = signature.data else {
        return None;
    };
    Some(SignedParts {
        message,
        algorithm: algorithm.data,
        signature,
    })
}

impl SignedParts<'_> {
    fn has_algorithm(&self, algorithm: &dyn SignatureVerificationAlgorithm) -> bool {
        algorithm.signature_alg_id().as_ref() == self.algorithm
    }
}

/// Whether a certificate or a list is signed with this key.
pub(super) fn is_signed_with(
    der: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let (Some(parts), Ok(key)) = (signed_parts(der), RawPublicKeyEntity::try_from(key)) else {
        return false;
    };
    let mut algorithms = algorithms.all.iter().filter(|one| parts.has_algorithm(**one));
    algorithms.any(|one| key.verify_signature(*one, parts.message, parts.signature).is_ok())
}

#[cfg(test)]
mod tests;
