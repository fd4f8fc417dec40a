//! Certificates of the servers that are reached by name, and clients that insist on them.

use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Two pools are reached by name, each with a certificate of its own: who is led astray notices.
pub struct Identity {
    certificate: CertificateDer<'static>,
    pub acceptor: TlsAcceptor,
}

impl Identity {
    pub fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("names are names");
        let certificate = CertificateDer::from(made.cert);
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has all that they need")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .expect("key and certificate were made together");
        Self {
            certificate,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }
}

/// Trusts these and nobody else.
pub fn connector(identities: &[&Identity]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for identity in identities {
        roots.add(identity.certificate.clone()).expect("it was made here");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has all that they need")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
