//! Whether the certificates of a chain are revoked (RFC 5280, section 6.3).
//!
//! An authority is its name and its key: one that changes its key has two lists for a while, and each counts for what its key
//! has signed.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use rustls::{CertificateError, RootCertStore};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath, spki_for_anchor};
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;

use super::file::{TlsFileError, revocations};
use super::revocation_list::{RevocationList, is_signed_with};
use super::words::bounded;

/// The authorities that are trusted, and the lists of what is revoked.
#[derive(Debug)]
pub(super) struct Revocations {
    /// Of those about the same certificates only the newest.
    lists: Vec<RevocationList>,
    roots: Arc<RootCertStore>,
    /// Those of `roots` that are revoked.
    revoked: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// An authority that is trusted.
struct Trusted<'a> {
    certificate: &'a CertificateDer<'a>,
    parsed: X509Certificate<'a>,
    anchor: &'a TrustAnchor<'static>,
    key: SubjectPublicKeyInfoDer<'static>,
}

impl Revocations {
    /// Parses the lists of the text in `crl_file`, for these certificates of `ca_file`, which are `roots`. The second part of
    /// the result is what is wrong with the files, though they can be used.
    ///
    /// # Errors
    /// A list cannot be used, or would lock out the clients of its authority.
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
        this.forget_outdated();
        warnings.extend(this.find_revoked((crl_file, ca_file), &trusted));
        Ok((this, warnings))
    }

    /// When the first of the lists should be replaced, in seconds since the Unix epoch.
    pub(super) fn next_update(&self) -> Option<i64> {
        self.lists.iter().filter_map(RevocationList::next_update).min()
    }

    /// Accepts a certificate with a chain to an authority that is trusted, of which nothing is revoked. Of the certificate
    /// itself this must be known; of the authorities in between it is rare that all have a list.
    ///
    /// # Errors
    /// Why there is no such chain; what else may be wrong with the certificate has to be looked for before.
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

    fn check(&self, path: &VerifiedPath<'_>) -> Result<(), CertificateError> {
        let anchor = path.anchor();
        let is_anchor = |revoked: &TrustAnchor<'_>| {
            revoked.subject == anchor.subject && revoked.subject_public_key_info == anchor.subject_public_key_info
        };
        if self.revoked.iter().any(is_anchor) {
            return Err(CertificateError::Revoked);
        }
        let authorities = || path.intermediate_certificates();
        let keys = authorities().map(Cert::subject_public_key_info);
        let keys = keys.chain([spki_for_anchor(anchor)]);
        let certificates = std::iter::once(&**path.end_entity()).chain(authorities());
        for (depth, (certificate, key)) in certificates.zip(keys).enumerate() {
            let (issuer, serial, is_authority) = (certificate.issuer(), certificate.serial(), depth > 0);
            match self.is_revoked(&certificate.der(), is_authority, serial, issuer, &key) {
                Some(true) => return Err(CertificateError::Revoked),
                None if !is_authority => return Err(CertificateError::UnknownRevocationStatus),
                Some(false) | None => {}
            }
        }
        Ok(())
    }

    /// Whether a certificate that was issued with this key is revoked; `None`: no list of its issuer covers it.
    fn is_revoked(
        &self,
        certificate: &CertificateDer<'_>,
        is_authority: bool,
        serial: &[u8],
        issuer: &[u8],
        key: &SubjectPublicKeyInfoDer<'static>,
    ) -> Option<bool> {
        let lists = self.lists.iter().filter(|list| {
            list.issuer() == issuer
                && list.covers(certificate, is_authority)
                && list.is_signed_with(key, &self.algorithms)
        });
        lists.map(|list| list.has(serial)).reduce(|one, other| one || other)
    }

    /// Finds out which of the lists are signed by these authorities. The result is what is wrong, though it does no harm.
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
        let unknown = self
            .lists
            .iter()
            .filter(|list| !trusted.iter().any(|authority| has_signed(authority, list)));
        let unknown: Vec<_> = unknown.collect();
        let unlisted = trusted
            .iter()
            .filter(|authority| !self.lists.iter().any(|list| has_signed(authority, list)));
        let unlisted: Vec<_> = unlisted.collect();
        for list in unknown {
            let name = list.name();
            if unlisted.iter().any(|authority| is_named(authority, list)) {
                let what = format!(
                    "{name} is not signed with the key that this authority has in {shown}, and no other list is: its clients \
                     would be refused. If it has a new key, add its new certificate there; otherwise get its list again"
                );
                return Err(TlsFileError::new(crl_file, what));
            }
            if trusted.iter().any(|authority| is_named(authority, list)) {
                let crl_file = crl_file.display();
                warnings.push(format!(
                    "{crl_file}: {name} is not signed with the key that this authority has in {shown}: it counts only for \
                     clients that send the certificate of its authority"
                ));
            }
        }
        warnings.extend(unlisted.iter().map(|authority| {
            let (subject, serial) = (authority.subject(), authority.parsed.raw_serial_as_string());
            format!(
                "{shown}: there is no list of `{subject}` (serial number {serial}): clients whose certificates it has issued \
                 itself are refused"
            )
        }));
        Ok(warnings)
    }

    /// Keeps the newest of those about the same certificates: a file to which lists are appended has older ones, too.
    fn forget_outdated(&mut self) {
        self.lists.sort_by(RevocationList::by_age);
        let mut newest: Vec<RevocationList> = Vec::with_capacity(self.lists.len());
        for list in self.lists.drain(..) {
            if !newest.iter().any(|newer| newer.is_about_the_same(&list)) {
                newest.push(list);
            }
        }
        self.lists = newest;
    }

    /// Finds out which of these authorities are revoked by others of them, or were issued by one that is. (A path ends at an
    /// authority that is trusted: its own certificate is not looked at there.) The result is a warning about each.
    fn find_revoked(&mut self, (crl_file, ca_file): (&Path, &Path), trusted: &[Trusted<'_>]) -> Vec<String> {
        let issuers = |authority: &Trusted<'_>| -> Vec<usize> {
            let is_issuer = |index: &usize| authority.is_issued_by(&trusted[*index], &self.algorithms);
            (0..trusted.len()).filter(is_issuer).collect()
        };
        let issuers: Vec<_> = trusted.iter().map(issuers).collect();
        let is_listed = |(authority, issuers): (&Trusted<'_>, &Vec<usize>)| {
            let (certificate, serial) = (authority.certificate, authority.parsed.raw_serial());
            let mut issuers = issuers.iter().map(|index| &trusted[*index]);
            issuers.any(|Trusted { anchor, key, .. }| {
                self.is_revoked(certificate, true, serial, &anchor.subject, key) == Some(true)
            })
        };
        let mut revoked: Vec<_> = trusted.iter().zip(&issuers).map(is_listed).collect();
        // Once for each authority that may stand above another.
        for _ in trusted {
            for (index, issuers) in issuers.iter().enumerate() {
                revoked[index] |= !issuers.is_empty() && issuers.iter().all(|issuer| revoked[*issuer]);
            }
        }
        // One that has several certificates is revoked if all of them are.
        let with_status = || trusted.iter().zip(&revoked);
        let is_trusted = |one: &Trusted<'_>| {
            with_status().any(|(other, revoked)| !revoked && one.subject_and_key() == other.subject_and_key())
        };
        let (shown, crl_file) = (ca_file.display(), crl_file.display());
        let mut warnings = Vec::new();
        for authority in trusted {
            let subject = authority.subject();
            if !is_trusted(authority) {
                self.revoked.push(authority.anchor.clone());
                warnings.push(format!(
                    "{shown}: `{subject}`, or the authority that has issued it, is revoked by {crl_file}: clients whose \
                     certificates it has issued are refused"
                ));
            } else if let Some(list) = self.lists.iter().find(|list| authority.may_be_in(list)) {
                let list = list.name();
                warnings.push(format!(
                    "{shown}: `{subject}` is in {list}, whose authority is not in this file: it is accepted until it is \
                     removed here"
                ));
            }
        }
        warnings
    }
}

/// The authorities, with what of them can be parsed.
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

    /// Whether a list has it that no authority of the file has signed: it may be of the one that has issued it.
    fn may_be_in(&self, list: &RevocationList) -> bool {
        let parsed = EndEntityCert::try_from(self.certificate);
        parsed.is_ok_and(|own| !list.is_verified() && list.issuer() == own.issuer() && list.has(own.serial()))
    }

    /// Whether it was issued by this other authority.
    fn is_issued_by(&self, issuer: &Self, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        self.parsed.issuer().as_raw() == issuer.parsed.subject().as_raw()
            && self.key != issuer.key
            && is_signed_with(self.certificate, &issuer.key, algorithms)
    }
}
