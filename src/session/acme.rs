//! The step that answers an ACME server: by a TLS handshake, the server validates that we control a name.

use std::sync::Arc;

use rustls::ServerConfig;

use super::refusal::Refusal;
use super::steps::Identified;
use crate::account::Ending;
use crate::acme::ACME_TLS_ALPN;
use crate::refuse::Reply;
use crate::sniff::{HeldBytes, Sniffed};
use crate::tls::{TlsConnection, handshake_with_client};

impl Identified<'_> {
    /// The TLS settings for a client that is an ACME server and validates a name in our pending order
    /// (RFC 8737). `None`: the client is routed. Validations of other names are routed, too, because the servers of a
    /// pool may have an ACME client of their own. Also returns `self`, because each step takes its input by value.
    pub(super) fn find_challenge(self) -> (Self, Option<Arc<ServerConfig>>) {
        let challenge = self.challenge();
        (self, challenge)
    }

    fn challenge(&self) -> Option<Arc<ServerConfig>> {
        let hello = self.sniffed.as_ref().and_then(Sniffed::hello)?;
        if !hello.alpn.iter().eq([ACME_TLS_ALPN]) {
            return None;
        }
        self.state.challenges.tls_config(hello.server_name()?.as_str())
    }

    /// Completes the handshake with the ACME server. The session ends after that.
    pub(super) async fn answer_challenge(self, config: Arc<ServerConfig>) -> Refusal {
        let first = self.sniffed.map(|sniffed| sniffed.first.into_vec()).unwrap_or_default();
        let mut connection = match TlsConnection::server(config) {
            Ok(connection) => connection,
            Err(error) => return Refusal::Handshake(error.into()),
        };
        let deadline = self.at + self.state.plan.sniff.hello_timeout;
        let mut held = HeldBytes::new(&self.state.hello_memory);
        let handshake =
            handshake_with_client(self.client, &mut connection, first, deadline, |bytes| held.set(bytes)).await;
        match handshake {
            Ok(()) => {
                let mut close_notify = Vec::new();
                connection.close(&mut close_notify);
                Refusal::Responded(Ending::AcmeChallenge, Reply::Message(close_notify))
            }
            Err(error) => Refusal::Handshake(error),
        }
    }
}
