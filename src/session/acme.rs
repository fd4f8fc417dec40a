//! The step in which an ACME server finds out that a name is ours.

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
    /// If the client is an ACME server that validates a name whose order is pending (RFC 8737), completes the
    /// handshake, which ends the session. Other clients go on, and so do validations of other names: servers may have
    /// an ACME client of their own.
    pub(super) async fn answer_challenge(self) -> Result<Self, Refusal> {
        match self.challenge() {
            None => Ok(self),
            // Boxed: other sessions do not pay for it.
            Some(config) => Err(Box::pin(self.handshake_for_challenge(config)).await),
        }
    }

    fn challenge(&self) -> Option<Arc<ServerConfig>> {
        let hello = self.sniffed.as_ref().and_then(Sniffed::hello)?;
        if !hello.alpn.iter().eq([ACME_TLS_ALPN]) {
            return None;
        }
        self.state.challenges.tls_config(hello.server_name()?.as_str())
    }

    async fn handshake_for_challenge(self, config: Arc<ServerConfig>) -> Refusal {
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
