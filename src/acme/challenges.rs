//! The challenges of the order that is under way, as sessions answer them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{self, sign::any_supported_type};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::name::ServerName;

/// The protocol in the ClientHello of a validation (RFC 8737, section 6.2).
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// The path of a validation's request, before the token (RFC 8555, section 8.3).
const HTTP_PREFIX: &str = "/.well-known/acme-challenge/";

/// The challenges that are pending. There are few, because orders are made one at a time. All workers look here, but
/// only for the rare clients that validate a name.
#[derive(Debug, Default)]
pub struct Challenges(Mutex<PendingAnswers>);

#[derive(Debug, Default)]
struct PendingAnswers {
    /// The configurations of handshakes, by the name that is validated.
    tls: HashMap<Arc<str>, Arc<ServerConfig>>,
    /// Key authorizations, by token.
    http: HashMap<Box<str>, Box<str>>,
}

/// A challenge that is answered until this is dropped.
#[derive(Debug)]
pub struct PendingChallenge {
    challenges: Arc<Challenges>,
    /// The key of its answer in the maps of [`PendingAnswers`].
    key: ChallengeKey,
}

#[derive(Debug)]
enum ChallengeKey {
    Tls(Arc<str>),
    Http(Box<str>),
}

impl Challenges {
    /// The configuration of the handshake that validates this name; `None`: no TLS challenge for it is pending.
    #[must_use]
    pub fn tls_config(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.0.lock().tls.get(name).cloned()
    }

    /// The key authorization that a request for this path asks for; `None`: the path has no token of a pending
    /// challenge.
    #[must_use]
    pub fn key_authorization(&self, path: &str) -> Option<Box<str>> {
        let token = path.strip_prefix(HTTP_PREFIX)?;
        self.0.lock().http.get(token).cloned()
    }

    /// Answers handshakes for this name with the digest of a key authorization (RFC 8737, section 3).
    ///
    /// # Errors
    /// The certificate for these handshakes cannot be made.
    pub fn answer_tls(self: &Arc<Self>, name: &ServerName, digest: &[u8]) -> Result<PendingChallenge, rcgen::Error> {
        let config = challenge_config(name.as_str(), digest)?;
        self.0.lock().tls.insert(name.shared(), Arc::new(config));
        Ok(PendingChallenge {
            challenges: Arc::clone(self),
            key: ChallengeKey::Tls(name.shared()),
        })
    }

    /// Answers requests for this token with its key authorization.
    #[must_use]
    pub fn answer_http(self: &Arc<Self>, token: &str, key_authorization: &str) -> PendingChallenge {
        self.0.lock().http.insert(token.into(), key_authorization.into());
        PendingChallenge {
            challenges: Arc::clone(self),
            key: ChallengeKey::Http(token.into()),
        }
    }
}

impl Drop for PendingChallenge {
    fn drop(&mut self) {
        let mut pending = self.challenges.0.lock();
        match &self.key {
            ChallengeKey::Tls(name) => drop(pending.tls.remove(name)),
            ChallengeKey::Http(token) => drop(pending.http.remove(token)),
        }
    }
}

fn challenge_config(name: &str, digest: &[u8]) -> Result<ServerConfig, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = any_supported_type(&key).expect("it was made by the same library");
    // No `with_single_cert`: that would reject the certificate because of the critical extension.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let mut config = builder
        .expect("the provider knows the usual versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_until_it_is_dropped() {
        let challenges = Arc::<Challenges>::default();
        let name = ServerName::from_config("a.example").unwrap();
        let tls = challenges.answer_tls(&name, &[7; 32]).unwrap();
        let http = challenges.answer_http("token", "token.thumb");
        let path = "/.well-known/acme-challenge/token";
        assert!(challenges.tls_config("a.example").is_some() && challenges.tls_config("b.example").is_none());
        assert_eq!(challenges.key_authorization(path).as_deref(), Some("token.thumb"));
        for other in [
            "/token",
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/token?a",
        ] {
            assert_eq!(challenges.key_authorization(other), None, "{other}");
        }
        drop((tls, http));
        assert!(challenges.tls_config("a.example").is_none());
        assert_eq!(challenges.key_authorization(path), None);
    }
}
