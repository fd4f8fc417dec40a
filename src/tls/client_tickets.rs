//! Tickets for clients with certificates: a TLS session can be resumed at most until the certificate of its client
//! expires.
//!
//! When a TLS session is resumed, the client sends no certificate. rustls does not verify the earlier certificate
//! again, and issues further tickets. Therefore a ticket contains when the certificate expires, and is not accepted
//! after that. Then a full handshake follows, in which the client can send a new certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::parse_x509_certificate;

use super::words::unix_now;

/// The length of the time of expiry at the start of a ticket's content.
const TIME_BYTES: usize = 8;

/// The longest session state that is put into a ticket, in bytes. The state contains the client's certificate chain.
/// TLS would allow 64 KiB (RFC 8446, section 4.6.1). The limit is lower, to send less: a client of TLS 1.3 gets two
/// tickets.
const STATE_BYTES_MAX: usize = 16 << 10;

/// The verifier and the ticketer for one connection. They share the time at which the client's certificate expires: the
/// client's tickets are valid at most until then.
pub(super) fn for_one_client(
    verifier: &Arc<dyn ClientCertVerifier>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> (Arc<dyn ClientCertVerifier>, Arc<dyn ProducesTickets>) {
    let expires = Arc::new(AtomicI64::new(i64::MAX));
    let verifier = ExpiryRecorder {
        verifier: Arc::clone(verifier),
        expires: Arc::clone(&expires),
    };
    let ticketer = ClientTicketer {
        ticketer: Arc::clone(ticketer),
        expires,
    };
    (Arc::new(verifier), Arc::new(ticketer))
}

/// Verifies as `verifier` does, and records when the accepted certificate expires.
#[derive(Debug)]
struct ExpiryRecorder {
    verifier: Arc<dyn ClientCertVerifier>,
    /// In seconds since the Unix epoch.
    expires: Arc<AtomicI64>,
}

/// Makes tickets that contain when the client's certificate expires.
#[derive(Debug)]
struct ClientTicketer {
    ticketer: Arc<dyn ProducesTickets>,
    /// When the client's certificate expires, in seconds since the Unix epoch. It is recorded from the verified
    /// certificate or from the decrypted ticket. [`i64::MAX`]: the client has shown no certificate.
    expires: Arc<AtomicI64>,
}

impl ClientTicketer {
    /// Decrypts a ticket, and records its time of expiry for further tickets. `now` is in seconds since the Unix epoch.
    /// `None`: the ticket is not valid now.
    fn decrypt_at(&self, ticket: &[u8], now: i64) -> Option<Vec<u8>> {
        let state = self.ticketer.decrypt(ticket)?;
        let (expires, state) = state.split_first_chunk::<TIME_BYTES>()?;
        let expires = i64::from_be_bytes(*expires);
        if expires < now {
            return None;
        }
        self.expires.store(expires, Relaxed);
        Some(state.to_vec())
    }
}

impl ProducesTickets for ClientTicketer {
    fn enabled(&self) -> bool {
        self.ticketer.enabled()
    }

    fn lifetime(&self) -> u32 {
        let left = self.expires.load(Relaxed).saturating_sub(unix_now()).max(0);
        self.ticketer.lifetime().min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        if state.len() > STATE_BYTES_MAX {
            return None;
        }
        let expires = self.expires.load(Relaxed).to_be_bytes();
        self.ticketer.encrypt(&[&expires, state].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(ticket, unix_now())
    }
}

impl ClientCertVerifier for ExpiryRecorder {
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(certificate, intermediates, now)?;
        let expires = parse_x509_certificate(certificate).map(|(_, parsed)| parsed.validity().not_after.timestamp());
        // A certificate that cannot be parsed counts as expired. This does not happen: the verifier has accepted it.
        self.expires.store(expires.unwrap_or(0), Relaxed);
        Ok(verified)
    }

    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs;

    use super::*;

    fn shared_ticketer() -> Arc<dyn ProducesTickets> {
        aws_lc_rs::Ticketer::new().unwrap()
    }

    fn client_ticketer(shared: &Arc<dyn ProducesTickets>, expires: i64) -> ClientTicketer {
        ClientTicketer {
            ticketer: Arc::clone(shared),
            expires: Arc::new(AtomicI64::new(expires)),
        }
    }

    #[test]
    fn tickets_expire_with_the_certificate_even_if_issued_after_resumption() {
        let shared = shared_ticketer();
        let first = client_ticketer(&shared, 1_000).encrypt(b"state").unwrap();
        let resumed = client_ticketer(&shared, i64::MAX);
        assert_eq!(resumed.decrypt_at(&first, 1_000).as_deref(), Some(&b"state"[..]));
        assert_eq!(resumed.lifetime(), 0);
        let second = resumed.encrypt(b"more").unwrap();
        let next = client_ticketer(&shared, i64::MAX);
        assert_eq!(next.decrypt_at(&second, 1_000).as_deref(), Some(&b"more"[..]));
        for ticket in [&first, &second] {
            assert_eq!(next.decrypt_at(ticket, 1_001), None);
        }
    }

    #[test]
    fn a_session_state_over_the_limit_is_put_into_no_ticket() {
        let too_long = vec![0; STATE_BYTES_MAX + 1];
        assert_eq!(client_ticketer(&shared_ticketer(), 1_000).encrypt(&too_long), None);
    }

    #[test]
    fn a_client_without_a_certificate_gets_tickets_of_the_usual_lifetime() {
        let shared = shared_ticketer();
        let issuer = client_ticketer(&shared, i64::MAX);
        assert_eq!(issuer.lifetime(), shared.lifetime());
        let ticket = issuer.encrypt(b"state").unwrap();
        assert!(client_ticketer(&shared, 0).decrypt_at(&ticket, i64::MAX).is_some());
    }
}
