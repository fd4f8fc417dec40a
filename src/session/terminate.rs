//! The TLS handshake with a client whose TLS ends here.

use tokio::time::{Instant, timeout_at};

use super::refusal::Refusal;
use super::steps::Routed;
use super::termination::Termination;
use crate::account::HandshakeResult;
use crate::sniff::{Opening, Sniffed};
use crate::tls::{
    HandshakeError, TlsConnection, TlsSummary, error_word, is_about_client_certificate, shake_hands, version_word,
};

impl Routed<'_> {
    /// Completes the handshake with a client whose TLS ends here; others go on as they are.
    pub(super) async fn terminate(self) -> Result<Self, Refusal> {
        if self.termination.is_none() {
            return Ok(self);
        }
        // Boxed: few of the clients that are waited for are in this step.
        Box::pin(self.shake_hands()).await
    }

    async fn shake_hands(mut self) -> Result<Self, Refusal> {
        let Some(Termination { tls, alpn, deadline }) = self.termination.take() else {
            return Ok(self);
        };
        let Some(Sniffed {
            opening: Opening::Hello(hello),
            first,
            ..
        }) = self.sniffed.take()
        else {
            self.entry.info().tls_mut().error = Some("not_tls".into());
            return Err(Refusal::NotTls);
        };
        let started = Instant::now();
        let config = tls
            .config(alpn)
            .expect("there is one for each list of protocols of the listener");
        let mut connection = TlsConnection::server(config).map_err(|error| Refusal::Handshake(error.into()))?;
        let handshake = shake_hands(self.client, &mut connection, first.into_vec());
        let result = timeout_at(deadline, handshake).await;
        let result = result.map_or(Err(Refusal::HandshakeTimeout), |result| {
            result.map_err(Refusal::Handshake)
        });
        record(&self, &connection, started, result.as_ref().err());
        result?;
        let summary = TlsSummary::of(connection.negotiated());
        let has_expired = summary.peer.as_ref().is_some_and(|peer| peer.has_expired());
        let is_resumed = summary.resumed;
        self.entry.info().tls_mut().client = Some(summary);
        if is_resumed {
            self.entry.session_resumed();
            if has_expired {
                // It was verified when the ticket was issued, which may be hours ago.
                return Err(Refusal::ClientCertificateExpired);
            }
        }
        self.entry.traffic().up.restart(); // what counts from now on is the plaintext
        self.tls = Some((Box::new(connection), hello));
        Ok(self)
    }
}

/// Counts the handshake, and keeps for the log why it has failed.
fn record(routed: &Routed<'_>, connection: &TlsConnection, started: Instant, refusal: Option<&Refusal>) {
    let result = match refusal {
        None => HandshakeResult::Ok,
        Some(Refusal::Handshake(HandshakeError::Tls(error))) => {
            let mut info = routed.entry.info();
            let tls = info.tls_mut();
            tls.error = Some(error_word(error));
            if is_about_client_certificate(error) {
                tls.client_refusal = Some(error.to_string().into());
                HandshakeResult::ClientRefused
            } else {
                HandshakeResult::Failed
            }
        }
        Some(Refusal::HandshakeTimeout) => HandshakeResult::Timeout,
        Some(_) => HandshakeResult::ClientLeft,
    };
    let negotiated = connection.negotiated();
    let version = version_word(negotiated.protocol_version());
    routed.entry.handshake_finished(version, result, started.elapsed());
}
