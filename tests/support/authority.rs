//! Certificate authorities of the tests, and their certificates.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams, RsaKeySize, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    serial: u64,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::self_signed(Self::params(name))
    }

    pub fn expired(name: &str) -> Self {
        let mut params = Self::params(name);
        params.not_after = date_time_ymd(2020, 1, 1);
        Self::self_signed(params)
    }

    fn self_signed(params: CertificateParams) -> Self {
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// An intermediate authority, and its certificate, which this authority has issued.
    pub fn subordinate(&self, name: &str) -> (Self, Issued) {
        let serial = fastrand::u64(1..u64::MAX / 2);
        let mut params = Self::params(name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let key_text = key.serialize_pem();
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap();
        let issued = Issued {
            certificate: issuer.as_ref().pem(),
            key: key_text,
            serial,
        };
        (Self { issuer }, issued)
    }

    /// Another certificate for the name and the key of a [`Self::subordinate`]. It does not allow signing revocation
    /// lists.
    pub fn subordinate_without_lists(&self, name: &str, subordinate: &Issued) -> Issued {
        let mut params = Self::params(name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::from_pem(&subordinate.key).unwrap();
        let serial = fastrand::u64(1..u64::MAX / 2);
        params.serial_number = Some(SerialNumber::from(serial));
        Issued {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: subordinate.key.clone(),
            serial,
        }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// Its own certificate.
    pub fn certificate(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// A certificate for these names; the first is its common name, too.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    /// A certificate that is valid from `days.start` to `days.end`, in days from now; negative: before now.
    pub fn issue_between(&self, names: &[&str], days: Range<i64>) -> Issued {
        let at = |days: i64| {
            let distance = Duration::from_secs(days.unsigned_abs() * 86_400);
            let now = SystemTime::now();
            if days < 0 { now - distance } else { now + distance }
        };
        self.issue_with(names, |params| {
            params.not_before = at(days.start).into();
            params.not_after = at(days.end).into();
        })
    }

    /// As [`Self::issue`], valid for this many seconds.
    pub fn issue_for_seconds(&self, names: &[&str], seconds: u64) -> Issued {
        self.issue_with(names, |params| {
            params.not_after = (SystemTime::now() + Duration::from_secs(seconds)).into();
        })
    }

    /// As [`Self::issue`], with an RSA key of 4096 bits: each signature takes some milliseconds.
    pub fn issue_slow(&self, names: &[&str]) -> Issued {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap();
        self.issue_for(&key, names, |_| {})
    }

    /// A certificate whose subject has no common name.
    pub fn issue_without_common_name(&self, name: &str) -> Issued {
        self.issue_with(&[name], |params| params.distinguished_name = DistinguishedName::new())
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.issue_for(&KeyPair::generate().unwrap(), names, change)
    }

    fn issue_for(&self, key: &KeyPair, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let serial = fastrand::u64(1..u64::MAX / 2);
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        Issued {
            certificate: params.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A certificate revocation list (CRL) with these certificates.
    pub fn revocations(&self, revoked: &[&Issued]) -> String {
        self.revocations_until(revoked, date_time_ymd(2090, 1, 1).into())
    }

    /// As [`Self::revocations`], to be replaced at `next_update`.
    pub fn revocations_until(&self, revoked: &[&Issued], next_update: SystemTime) -> String {
        self.revocations_between(revoked, date_time_ymd(2024, 1, 1).into(), next_update)
    }

    /// As [`Self::revocations_until`], issued at `this_update`.
    pub fn revocations_between(&self, revoked: &[&Issued], this_update: SystemTime, next_update: SystemTime) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: SerialNumber::from(issued.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: this_update.into(),
            next_update: next_update.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into a directory, replacing each file by a rename.
    pub fn write(&self, directory: &Path, name: &str) {
        for (ending, text) in [("pem", &self.certificate), ("key", &self.key)] {
            replace(&directory.join(format!("{name}.{ending}")), text);
        }
    }

    /// The certificate followed by that of its authority, as a chain.
    pub fn followed_by(mut self, authority: &Self) -> Self {
        self.certificate.push_str(&authority.certificate);
        self
    }

    /// The chain and the key as rustls takes them.
    pub fn chain_and_key(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (chain.map(Result::unwrap).collect(), key)
    }
}

/// Replaces a file by a rename. Only the owner may read the new one.
pub fn replace(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(next, file).unwrap();
}
