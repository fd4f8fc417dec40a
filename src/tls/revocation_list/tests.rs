use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, CustomExtension, IsCa, KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn point(url: &str) -> CrlDistributionPoint {
    CrlDistributionPoint {
        uris: vec![url.to_owned()],
    }
}

/// Whether a certificate is that of an authority: the second argument of `RevocationList::covers`.
const OF_AUTHORITY: bool = true;
const OF_END_ENTITY: bool = false;

fn list(authority: &Authority, number: u64, scope: Option<(&str, CrlScope)>) -> RevocationList {
    let issuing_point = |(url, scope)| CrlIssuingDistributionPoint {
        distribution_point: point(url),
        scope: Some(scope),
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: scope.map(issuing_point),
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = params.signed_by(authority).unwrap();
    RevocationList::new(signed.into(), &default_provider().signature_verification_algorithms).unwrap()
}

fn key(authority: &Authority) -> SubjectPublicKeyInfoDer<'static> {
    let (_, parsed) = parse_x509_certificate(authority.der()).unwrap();
    SubjectPublicKeyInfoDer::from(parsed.public_key().raw.to_vec())
}

fn certificate(authority: &Authority, url: Option<&str>) -> CertificateDer<'static> {
    certificate_with(authority, |params| {
        params.crl_distribution_points = url.map(point).into_iter().collect();
    })
}

fn certificate_with(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    change(&mut params);
    let signed = params.signed_by(&KeyPair::generate().unwrap(), authority);
    signed.unwrap().der().clone()
}

#[test]
fn a_partial_list_covers_certificates_that_refer_to_it_or_to_no_list() {
    let authority = authority();
    let [one, other] = ["http://a.example/1", "http://a.example/2"];
    let part = list(&authority, 1, Some((one, CrlScope::UserCertsOnly)));
    for (url, is_covered) in [(Some(one), true), (Some(other), false), (None, true)] {
        let certificate = certificate(&authority, url);
        assert_eq!(part.covers(&certificate, OF_END_ENTITY), is_covered, "{url:?}");
        assert!(!part.covers(&certificate, OF_AUTHORITY));
        assert!(list(&authority, 1, None).covers(&certificate, OF_AUTHORITY));
    }
    assert!(!part.covers(&CertificateDer::from(vec![0]), OF_END_ENTITY));
    // The value of its cRLDistributionPoints extension is an integer, not a sequence.
    let broken = certificate_with(&authority, |params| {
        let points = CustomExtension::from_oid_content(&[2, 5, 29, 31], vec![2, 1, 0]);
        params.custom_extensions.push(points);
    });
    assert!(!part.covers(&broken, OF_END_ENTITY));
}

#[test]
fn lists_about_the_same_certificates_have_the_same_key_and_the_same_scope() {
    let (authority, namesake) = (authority(), authority());
    let (one, newer) = (list(&authority, 200, None), list(&authority, 1000, None));
    // Until their keys are known, the lists may be of two authorities with the same name.
    assert!(!newer.is_about_the_same(&one) && one.by_age(&newer) == Ordering::Greater);
    let part = list(&authority, 1, Some(("http://a.example/", CrlScope::UserCertsOnly)));
    assert!(!part.is_about_the_same(&one));
    let of_namesake = list(&namesake, 1, None);
    assert!(of_namesake.issuer() == one.issuer() && !of_namesake.is_about_the_same(&one));
    let algorithms = default_provider().signature_verification_algorithms;
    // The key of `one` is known only in the second round.
    for _ in 0..2 {
        assert!(!one.is_signed_with(&key(&namesake), &algorithms));
        assert!(!one.is_of_other_key(&key(&authority)) && one.is_signed_with(&key(&authority), &algorithms));
    }
    assert!(one.is_of_other_key(&key(&namesake)) && !newer.is_of_other_key(&key(&namesake)));
    assert!(!newer.is_about_the_same(&one));
    assert!(newer.is_signed_with(&key(&authority), &algorithms) && newer.is_about_the_same(&one));
}

#[test]
fn the_latest_keys_that_did_not_sign_a_list_are_remembered() {
    let authority = authority();
    let (list, key) = (list(&authority, 1, None), key(&authority));
    let algorithms = default_provider().signature_verification_algorithms;
    // Without an algorithm, the key of the authority is remembered as one that did not sign the list. As long as that
    // key is remembered, the answer is the same with algorithms.
    let no_algorithms = WebPkiSupportedAlgorithms { all: &[], mapping: &[] };
    let ask_for_others = |count| {
        for other in 0..count {
            assert!(!list.is_signed_with(&vec![other].into(), &algorithms));
        }
    };
    let others_max = u8::try_from(OTHER_KEYS_MAX).unwrap();
    assert!(!list.is_signed_with(&key, &no_algorithms));
    ask_for_others(others_max - 1);
    ask_for_others(others_max - 1); // they are remembered already, and displace none
    assert!(!list.is_signed_with(&key, &algorithms) && !list.is_verified());
    ask_for_others(others_max);
    assert!(list.is_signed_with(&key, &algorithms) && list.is_verified());
}
