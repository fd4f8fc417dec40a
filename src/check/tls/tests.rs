use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use std::net::SocketAddr;

use super::*;
use crate::tls::error_chain;

const NAME: &str = "db.example";

/// A certificate for [`NAME`] with its private key, and the authority that has issued it.
struct Keys {
    /// In PEM.
    authority: String,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    times: CertificateTimes,
}

fn keys() -> Keys {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2031, 2, 3);
    let times = CertificateTimes {
        not_before: params.not_before.unix_timestamp(),
        not_after: params.not_after.unix_timestamp(),
    };
    let certificate = params.signed_by(&key, &authority).unwrap();
    Keys {
        authority: authority.pem(),
        certificate: certificate.der().clone(),
        key: key.serialize_der(),
        times,
    }
}

/// A server that completes handshakes, and then reads until the client closes.
async fn server(keys: &Keys, alpn: &[&str]) -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let key = PrivateKeyDer::try_from(keys.key.clone()).unwrap();
    let mut config = config.with_single_cert(vec![keys.certificate.clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else {
                continue;
            };
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    address
}

fn probe(check: TlsCheck, address: SocketAddr) -> TlsProbe {
    let target = CheckTarget::for_test(address);
    TlsProbe::new(Arc::new(check), target)
}

async fn checked(check: TlsCheck, address: SocketAddr) -> Result<Option<CertificateTimes>, String> {
    let checked = probe(check, address).handshake().await;
    checked.map_err(|failure| match failure {
        CheckFailure::Io(error) => error_chain(&error),
        failure => failure.reason().into_owned(),
    })
}

fn verifying(directory: &tempfile::TempDir, authority: &str, sni: &str) -> TlsCheck {
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, authority).unwrap();
    TlsCheck {
        sni: Some(ServerName::from_config(sni).unwrap()),
        verify: Some(true),
        ca_file: Some(file),
        alpn: Vec::new(),
    }
}

#[tokio::test]
async fn any_certificate_passes_and_its_validity_is_reported() {
    let keys = keys();
    let address = server(&keys, &[]).await;
    assert_eq!(checked(TlsCheck::default(), address).await, Ok(Some(keys.times)));
}

#[tokio::test]
async fn a_certificate_is_verified_if_configured() {
    let (keys, directory) = (keys(), tempfile::tempdir().unwrap());
    let address = server(&keys, &[]).await;
    assert!(
        checked(verifying(&directory, &keys.authority, NAME), address)
            .await
            .is_ok()
    );
    let other_name = checked(verifying(&directory, &keys.authority, "other.example"), address).await;
    assert!(other_name.unwrap_err().contains("not valid for name"));
    let unknown_authority = checked(verifying(&directory, &self::keys().authority, NAME), address).await;
    assert!(unknown_authority.unwrap_err().contains("invalid peer certificate"));
    let empty = checked(verifying(&directory, "", NAME), address).await;
    assert!(empty.unwrap_err().contains("ca_file"));
}

#[tokio::test]
async fn a_changed_ca_file_is_read_again() {
    let (keys, directory) = (keys(), tempfile::tempdir().unwrap());
    let address = server(&keys, &[]).await;
    let probe = probe(verifying(&directory, "", NAME), address);
    let empty = probe.handshake().await.unwrap_err();
    assert!(empty.reason().starts_with("ca_file: "), "{}", empty.reason());
    std::fs::write(directory.path().join("ca.pem"), &keys.authority).unwrap();
    assert!(probe.handshake().await.is_ok());
    std::fs::remove_file(directory.path().join("ca.pem")).unwrap();
    let missing = probe.handshake().await.unwrap_err();
    assert!(
        matches!(missing, CheckFailure::Local(_)),
        "a missing file says nothing about the server"
    );
    assert!(missing.reason().starts_with("ca_file: "), "{}", missing.reason());
}

#[tokio::test]
async fn the_server_must_select_a_protocol_if_some_are_offered() {
    let keys = keys();
    let offering = |alpn: &[&str]| TlsCheck {
        alpn: alpn.iter().map(|protocol| Box::from(*protocol)).collect(),
        ..TlsCheck::default()
    };
    let choosing = server(&keys, &["h2"]).await;
    assert!(checked(offering(&["http/1.1", "h2"]), choosing).await.is_ok());
    let refused = checked(offering(&["smtp"]), choosing).await.unwrap_err();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    let without_alpn = server(&keys, &[]).await;
    let unselected = checked(offering(&["h2"]), without_alpn).await.unwrap_err();
    assert!(unselected.contains("h2"), "{unselected}");
}

#[tokio::test]
async fn a_server_without_tls_fails_and_a_silent_one_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(100), checked(TlsCheck::default(), address)).await;
    assert!(silent.is_err(), "only the caller limits the time");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"220 smtp.example ready\r\n").await;
        }
    });
    let error = checked(TlsCheck::default(), address).await.unwrap_err();
    assert!(error.starts_with("the server does not speak TLS: "), "{error}");
}

#[tokio::test]
async fn an_unknown_authority_fails_with_the_system_authorities() {
    let keys = keys();
    let address = server(&keys, &[]).await;
    let check = TlsCheck {
        verify: Some(true),
        sni: Some(ServerName::from_config(NAME).unwrap()),
        ..TlsCheck::default()
    };
    let unknown = checked(check, address).await.unwrap_err();
    assert!(unknown.contains("invalid peer certificate"), "{unknown}");
}

/// `openssl req -x509` makes such certificates.
#[tokio::test]
async fn a_server_certificate_with_ca_true_is_refused_and_the_error_says_why() {
    let (mut keys, directory) = (keys(), tempfile::tempdir().unwrap());
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    keys.certificate = certificate.der().clone();
    keys.key = key.serialize_der();
    let address = server(&keys, &[]).await;
    let refused = checked(verifying(&directory, &certificate.pem(), NAME), address).await;
    let error = refused.unwrap_err();
    assert!(error.contains("that of an authority, with CA:TRUE"), "{error}");
}
