//! Certificates of the pools that clients reach by server name, and connectors that verify them.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The certificate of a pool that clients reach by server name. Each such pool has its own certificate, so that a
/// client detects wrong routing.
pub struct Identity {
    certificate: CertificateDer<'static>,
    pub acceptor: TlsAcceptor,
}

impl Identity {
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("the names are valid");
        let certificate = CertificateDer::from(made.cert);
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .expect("key and certificate match");
        Self {
            certificate,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }
}

/// A connector that trusts only these certificates.
pub fn connector(identities: &[&Identity]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for identity in identities {
        roots
            .add(identity.certificate.clone())
            .expect("a generated certificate is valid");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
