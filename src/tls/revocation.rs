//! Whether the certificates of a chain are revoked (RFC 5280, section 6.3).
//!
//! An authority that changes its key has two lists for a while. To show that a certificate is not revoked, a list must
//! be signed with the same key as the certificate, because different authorities may have the same name. To show that
//! it is revoked, a list may be signed with any known key of an authority with the name of the issuer, because the
//! issuer may sign its lists with its new key.

use std::borrow::Borrow;
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use rustls::{CertificateError, RootCertStore};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath, spki_for_anchor};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;

use super::file::{TlsFileError, revocations};
use super::revocation_list::{RevocationList, is_signed_with};
use super::words::bounded;

/// The trusted authorities, and the lists of revoked certificates.
#[derive(Debug)]
pub(super) struct Revocations {
    /// Of several lists that are known to be about the same certificates, only the newest.
    lists: Vec<RevocationList>,
    roots: Arc<RootCertStore>,
    /// The authorities of `roots` that are revoked.
    revoked: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The key that has signed a certificate of a chain.
struct IssuerKey {
    key: SubjectPublicKeyInfoDer<'static>,
    /// Whether lists that are signed with it count.
    may_sign_lists: bool,
}

/// An authority that is trusted.
struct Trusted<'a> {
    certificate: &'a CertificateDer<'a>,
    parsed: X509Certificate<'a>,
    anchor: &'a TrustAnchor<'static>,
    key: SubjectPublicKeyInfoDer<'static>,
}

impl Revocations {
    /// Parses the lists in the text of `crl_file`. `certificates` and `roots` are both the authorities of `ca_file`, in
    /// the same order. Also returns warnings: problems of files that can be used nevertheless.
    ///
    /// # Errors
    /// A list cannot be used, or it would lock out all clients of its authority.
    pub(super) fn new(
        (crl_file, text): (&Path, &[u8]),
        (ca_file, certificates): (&Path, &[CertificateDer<'_>]),
        roots: &Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<(Self, Vec<String>), TlsFileError> {
        let lists = revocations(crl_file, text)?.into_iter();
        let lists: Result<Vec<_>, _> = lists.map(|list| RevocationList::new(list, &algorithms)).collect();
        let trusted = trusted(certificates, roots);
        let mut this = Self {
            lists: lists.map_err(|what| TlsFileError::new(crl_file, what))?,
            roots: Arc::clone(roots),
            revoked: Vec::new(),
            algorithms,
        };
        let mut warnings = this.match_keys((crl_file, ca_file), &trusted)?;
        this.keep_newest_lists();
        warnings.extend(this.find_revoked((crl_file, ca_file), &trusted));
        Ok((this, warnings))
    }

    /// The earliest time at which one of the lists should be replaced, in seconds since the Unix epoch.
    pub(super) fn next_update(&self) -> Option<i64> {
        self.lists.iter().filter_map(RevocationList::next_update).min()
    }

    /// Accepts a client certificate with a chain to a trusted authority, if no certificate of the chain is revoked. A
    /// list must show that the client certificate is not revoked. An intermediate authority needs such a list only if
    /// a list with the name of its issuer is, or could be, signed with the key of its issuer: it is rare that all
    /// authorities have a list.
    ///
    /// # Errors
    /// There is no such chain. Other problems of the certificate have to be found before this is called.
    pub(super) fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let refusal = Cell::new(None);
        let check = |path: &VerifiedPath<'_>| {
            self.check(path).map_err(|error| {
                refusal.set(Some(error));
                webpki::Error::CertRevoked
            })
        };
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let verified = certificate.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            intermediates,
            now,
            KeyUsage::client_auth(),
            None,
            Some(&check),
        );
        match verified {
            Ok(_) => Ok(()),
            Err(_) => Err(refusal.take().unwrap_or(CertificateError::UnknownIssuer)),
        }
    }

    /// Checks all certificates of a chain. The signatures of the chain are verified already.
    fn check(&self, path: &VerifiedPath<'_>) -> Result<(), CertificateError> {
        let anchor = path.anchor();
        let is_anchor = |revoked: &TrustAnchor<'_>| {
            revoked.subject == anchor.subject && revoked.subject_public_key_info == anchor.subject_public_key_info
        };
        if self.revoked.iter().any(is_anchor) {
            return Err(CertificateError::Revoked);
        }
        let authorities = || path.intermediate_certificates();
        let issuers = authorities().map(|authority| IssuerKey {
            key: authority.subject_public_key_info(),
            may_sign_lists: may_sign_lists(authority),
        });
        let issuers = issuers.chain([IssuerKey {
            key: spki_for_anchor(anchor),
            may_sign_lists: true,
        }]);
        let certificates = std::iter::once(&**path.end_entity()).chain(authorities());
        for (depth, (certificate, issuer)) in certificates.zip(issuers).enumerate() {
            let is_authority = depth > 0; // the first certificate is that of the client
            self.check_certificate(certificate, &issuer, is_authority)?;
        }
        Ok(())
    }

    /// Checks a certificate of a chain.
    fn check_certificate(
        &self,
        certificate: &Cert<'_>,
        issuer: &IssuerKey,
        is_authority: bool,
    ) -> Result<(), CertificateError> {
        let serial = certificate.serial();
        let lists = self.lists_about(&certificate.der(), is_authority, certificate.issuer());
        let is_of_issuer =
            |list: &&&RevocationList| issuer.may_sign_lists && list.is_signed_with(&issuer.key, &self.algorithms);
        // Not `any`, which stops at the first: each comparison also makes the list verified if the key has signed it.
        let of_issuer = lists.iter().filter(is_of_issuer).count();
        let verified = newest(lists.iter().copied().filter(|list| list.is_verified()));
        // Issuer and serial number identify a certificate (RFC 5280, section 4.1.2.2), whichever key signed the list.
        if verified.iter().any(|list| list.has(serial)) {
            return Err(CertificateError::Revoked);
        }
        if of_issuer > 0 {
            return Ok(()); // the lists of its issuer show that it is not revoked
        }
        if !is_authority {
            return Err(CertificateError::UnknownRevocationStatus);
        }
        // The key of an unverified list is not known: it may be another key of this issuer.
        if lists.iter().any(|list| !list.is_verified() && list.has(serial)) {
            return Err(CertificateError::Revoked);
        }
        match lists.iter().all(|list| list.is_of_other_key(&issuer.key)) {
            true => Ok(()), // lists with the name of its issuer, if there are any, are signed with other keys
            false => Err(CertificateError::UnknownRevocationStatus),
        }
    }

    /// The lists that cover a certificate and have the name of its issuer.
    fn lists_about(&self, certificate: &CertificateDer<'_>, is_authority: bool, issuer: &[u8]) -> Vec<&RevocationList> {
        let lists = self.lists.iter();
        lists
            .filter(|list| list.issuer() == issuer && list.covers(certificate, is_authority))
            .collect()
    }

    /// Finds out which lists are signed by these authorities. Returns warnings about lists that have the name of one of
    /// these authorities and are signed by none, and about authorities that have signed no list.
    ///
    /// # Errors
    /// An authority has signed no list, but there is a list with its name that none of these authorities has signed.
    fn match_keys(
        &self,
        (crl_file, ca_file): (&Path, &Path),
        trusted: &[Trusted<'_>],
    ) -> Result<Vec<String>, TlsFileError> {
        let (shown, mut warnings) = (ca_file.display(), Vec::new());
        let is_named =
            |authority: &Trusted<'_>, list: &RevocationList| authority.anchor.subject.as_ref() == list.issuer();
        let has_signed = |authority: &Trusted<'_>, list: &RevocationList| {
            is_named(authority, list) && list.is_signed_with(&authority.key, &self.algorithms)
        };
        let unverified_lists = self
            .lists
            .iter()
            .filter(|list| !trusted.iter().any(|authority| has_signed(authority, list)));
        let without_list = trusted
            .iter()
            .filter(|authority| !self.lists.iter().any(|list| has_signed(authority, list)));
        let without_list: Vec<_> = without_list.collect();
        for list in unverified_lists {
            let name = list.name();
            if without_list.iter().any(|authority| is_named(authority, list)) {
                let what = format!(
                    "{name} is not signed with the key that this authority has in {shown}, and no other list is: its clients \
                     would be refused. If it has a new key, add its new certificate there; otherwise get its list again"
                );
                return Err(TlsFileError::new(crl_file, what));
            }
            if trusted.iter().any(|authority| is_named(authority, list)) {
                let crl_file = crl_file.display();
                warnings.push(format!(
                    "{crl_file}: {name} is not signed with the key that this authority has in {shown}: it counts only \
                     once a client has sent the certificate of its authority"
                ));
            }
        }
        warnings.extend(without_list.iter().map(|authority| {
            let (subject, serial) = (authority.subject(), authority.parsed.raw_serial_as_string());
            format!(
                "{shown}: there is no list of `{subject}` (serial number {serial}): clients whose certificates it has issued \
                 itself are refused"
            )
        }));
        Ok(warnings)
    }

    /// Keeps only the newest of several lists that are known to be about the same certificates. There are older ones if
    /// new lists are appended to the file.
    fn keep_newest_lists(&mut self) {
        self.lists.sort_by(RevocationList::by_age);
        self.lists = newest(self.lists.drain(..));
    }

    /// For each of these certificates of authorities: whether another authority has revoked it, or only revoked
    /// authorities have issued it.
    fn are_revoked(&self, trusted: &[Trusted<'_>]) -> Vec<bool> {
        let issuers_of = |authority: &Trusted<'_>| -> Vec<usize> {
            let is_issuer = |index: &usize| authority.is_issued_by(&trusted[*index], &self.algorithms);
            (0..trusted.len()).filter(is_issuer).collect()
        };
        let issuers: Vec<_> = trusted.iter().map(issuers_of).collect();
        let is_revoked_by_list = |authority: &Trusted<'_>| {
            let has = |list: &RevocationList| list.covers(authority.certificate, true) && authority.is_in(list);
            // The list of an authority does not revoke the authority itself.
            self.lists
                .iter()
                .any(|list| list.is_of_other_key(&authority.key) && has(list))
        };
        let mut revoked: Vec<_> = trusted.iter().map(is_revoked_by_list).collect();
        // Repeated, because each round reaches one more level of authorities; there are at most as many levels as
        // authorities.
        for _ in trusted {
            for (index, issuers) in issuers.iter().enumerate() {
                revoked[index] |= !issuers.is_empty() && issuers.iter().all(|issuer| revoked[*issuer]);
            }
        }
        revoked
    }

    /// Notes which of these authorities are revoked, because `check` cannot find out: a path ends with a trust anchor,
    /// which has no serial number that could be looked up in a list. Returns a warning about each authority that is
    /// revoked or is in an unverified list.
    fn find_revoked(&mut self, (crl_file, ca_file): (&Path, &Path), trusted: &[Trusted<'_>]) -> Vec<String> {
        let revoked = self.are_revoked(trusted);
        // An authority with several certificates is revoked if all of them are.
        let is_revoked = |authority: &Trusted<'_>| {
            let certificates = trusted.iter().zip(&revoked);
            let mut own = certificates.filter(|(other, _)| other.subject_and_key() == authority.subject_and_key());
            own.all(|(_, is_revoked)| *is_revoked)
        };
        let (shown, crl_file) = (ca_file.display(), crl_file.display());
        let mut warnings = Vec::new();
        for authority in trusted {
            let subject = authority.subject();
            if is_revoked(authority) {
                self.revoked.push(authority.anchor.clone());
                warnings.push(format!(
                    "{shown}: `{subject}`, or the authority that has issued it, is revoked by {crl_file}: clients whose \
                     certificates it has issued are refused"
                ));
            } else if let Some(list) = self
                .lists
                .iter()
                .find(|list| !list.is_verified() && authority.is_in(list))
            {
                let list = list.name();
                warnings.push(format!(
                    "{shown}: `{subject}` is in {list}, whose authority is not in this file: `{subject}` is accepted \
                     until it is removed here"
                ));
            }
        }
        warnings
    }
}

/// The lists that have no newer one about the same certificates. `lists` must be sorted, the newest first.
fn newest<L: Borrow<RevocationList>>(lists: impl Iterator<Item = L>) -> Vec<L> {
    let mut newest: Vec<L> = Vec::new();
    for list in lists {
        if !newest
            .iter()
            .any(|newer| newer.borrow().is_about_the_same(list.borrow()))
        {
            newest.push(list);
        }
    }
    newest
}

/// Whether the lists of this authority count (RFC 5280, section 6.3.3 (f)).
fn may_sign_lists(authority: &Cert<'_>) -> bool {
    parse_x509_certificate(&authority.der()).is_ok_and(|(_, parsed)| {
        let usage = parsed.key_usage();
        usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()))
    })
}

/// The authorities whose certificates can be parsed.
fn trusted<'a>(certificates: &'a [CertificateDer<'a>], roots: &'a RootCertStore) -> Vec<Trusted<'a>> {
    let authorities = certificates.iter().zip(&roots.roots);
    let authorities = authorities.filter_map(|(certificate, anchor)| {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        Some(Trusted {
            certificate,
            parsed,
            anchor,
            key: spki_for_anchor(anchor),
        })
    });
    authorities.collect()
}

impl Trusted<'_> {
    /// Its name, for people.
    fn subject(&self) -> Box<str> {
        bounded(&self.parsed.subject().to_string())
    }

    fn subject_and_key(&self) -> (&[u8], &[u8]) {
        (&self.anchor.subject, &self.anchor.subject_public_key_info)
    }

    /// Whether this authority is in this list, and the list has the name of the issuer of this authority.
    fn is_in(&self, list: &RevocationList) -> bool {
        // `list.issuer()` is in DER, without its tag and length.
        let issuer = Any::from_der(self.parsed.issuer().as_raw());
        issuer.is_ok_and(|(_, issuer)| list.issuer() == issuer.data) && list.has(self.parsed.raw_serial())
    }

    /// Whether it was issued by this other authority.
    fn is_issued_by(&self, issuer: &Self, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        self.parsed.issuer().as_raw() == issuer.parsed.subject().as_raw()
            && self.key != issuer.key
            && is_signed_with(self.certificate, &issuer.key, algorithms)
    }
}
