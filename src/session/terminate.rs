//! The TLS handshake with a client whose TLS is terminated here.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::handshake_settings::HandshakeSettings;
use super::refusal::Refusal;
use super::steps::Routed;
use crate::account::{Ending, Entry, HandshakeResult};
use crate::plan::Protocol;
use crate::redirect::HTTPS_EXPECTED;
use crate::refuse::{PlainRefusal, Reply};
use crate::sniff::alert::Alert;
use crate::sniff::hello::Hello;
use crate::sniff::{HeldBytes, Sniffed};
use crate::tls::{
    HandshakeError, TlsConnection, TlsSummary, error_text, error_word, handshake_with_client,
    is_about_client_certificate, version_word,
};

/// The number of TLS 1.2 on the wire.
const TLS_1_2: u16 = 0x0303;

impl<'a> Routed<'a> {
    /// Takes the settings of the handshake, if one is to be completed.
    pub(super) fn take_handshake(mut self) -> (Self, Option<HandshakeSettings<'a>>) {
        let handshake = self.handshake.take();
        (self, handshake)
    }

    /// Completes the handshake with a client whose TLS is terminated here.
    #[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
    pub(super) fn terminate(mut self, handshake: HandshakeSettings<'a>) -> impl Future<Output = Result<Self, Refusal>> {
        async move {
            let sniffed = self.sniffed.take();
            let tls = complete_handshake(self.client, self.entry, handshake, sniffed).await;
            self.tls = Some(tls.map_err(|refusal| match refusal {
                Refusal::NotTls if self.state.plan.protocol == Protocol::Redis => {
                    let reply = PlainRefusal::TlsRequired.redis();
                    Refusal::Responded(Ending::TlsFailed, Reply::Message(reply))
                }
                refusal => refusal,
            })?);
            Ok(self)
        }
    }
}

/// Completes the handshake with a client whose TLS is terminated here. Returns its TLS, with its ClientHello.
///
/// # Errors
/// The client does not begin with TLS, or the handshake failed.
pub(super) async fn complete_handshake(
    client: &TcpStream,
    entry: &mut Entry,
    handshake: HandshakeSettings<'_>,
    mut sniffed: Option<Sniffed>,
) -> Result<(Box<TlsConnection>, Hello), Refusal> {
    let HandshakeSettings {
        tls,
        alpn,
        deadline,
        memory,
    } = handshake;
    if let Some(sniffed) = &mut sniffed {
        // A failure is ignored: the bytes so far decide what the client gets.
        let _ = timeout_at(deadline, read_http_method(client, entry, sniffed)).await;
    }
    if sniffed.as_ref().is_some_and(Sniffed::is_http_request) {
        entry.info().tls_mut().error = Some("http_request".into());
        return Err(Refusal::Responded(
            Ending::TlsFailed,
            Reply::Message(HTTPS_EXPECTED.into()),
        ));
    }
    let Some((hello, first_bytes)) = sniffed.and_then(Sniffed::into_hello) else {
        entry.info().tls_mut().error = Some("not_tls".into());
        return Err(Refusal::NotTls);
    };
    if hello.newest_version < TLS_1_2 {
        // rustls would first complain about missing signature algorithms, which older clients do not send.
        entry.info().tls_mut().error = Some("protocol_version".into());
        entry.handshake_finished("", HandshakeResult::Failed, Duration::ZERO);
        let alert = Alert::ProtocolVersion.record(Some(hello.newest_version));
        return Err(Refusal::Responded(Ending::TlsFailed, Reply::Alert(alert)));
    }
    let started = Instant::now();
    let config = tls
        .config(alpn)
        .expect("the listener has a configuration for each of its ALPN lists");
    let mut connection = TlsConnection::server(config).map_err(|error| Refusal::Handshake(error.into()))?;
    let mut held = HeldBytes::new(memory);
    let result = handshake_with_client(client, &mut connection, first_bytes.into_vec(), deadline, |bytes| {
        held.set(bytes)
    });
    let result = result.await;
    drop(held);
    record_handshake(entry, &connection, started, result.as_ref().err());
    result.map_err(Refusal::Handshake)?;
    let summary = TlsSummary::new(connection.negotiated());
    if summary.resumed {
        entry.tls_session_resumed();
    }
    entry.info().tls_mut().client = Some(summary);
    entry.traffic().up.restart(); // from now on the plaintext is counted
    Ok((Box::new(connection), hello))
}

/// Reads more bytes while those so far may be the beginning of an HTTP method. The first byte alone does not
/// show whether the client speaks HTTP.
async fn read_http_method(client: &TcpStream, entry: &Entry, sniffed: &mut Sniffed) -> io::Result<()> {
    while sniffed.may_be_http_method() {
        client.readable().await?;
        let mut buffer = [0; 1024];
        match client.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => {
                entry.traffic().up.add(bytes);
                sniffed.push(&buffer[..bytes]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Counts the handshake. If it has failed by an error of TLS, keeps that error for the log.
fn record_handshake(entry: &Entry, connection: &TlsConnection, started: Instant, error: Option<&HandshakeError>) {
    let result = match error {
        None => HandshakeResult::Ok,
        Some(HandshakeError::Tls(error)) => {
            let mut info = entry.info();
            let tls = info.tls_mut();
            tls.error = Some(error_word(error));
            if is_about_client_certificate(error) {
                tls.refusal = Some(error_text(error).into());
                HandshakeResult::ClientRefused
            } else {
                HandshakeResult::Failed
            }
        }
        Some(HandshakeError::TooSlow | HandshakeError::NoRoom) => HandshakeResult::Timeout,
        Some(HandshakeError::LeftEarly | HandshakeError::Io(_)) => HandshakeResult::ClientLeft,
    };
    let negotiated = connection.negotiated();
    let version = version_word(negotiated.protocol_version());
    entry.handshake_finished(version, result, started.elapsed());
}
