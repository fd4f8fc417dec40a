//! What is known of a session's TLS and of its PostgreSQL startup, for the access log.

use std::borrow::Cow;

use crate::sniff::postgres::StartupMessage;
use crate::tls::TlsSummary;

/// The TLS that is terminated or begun here, on either side of a session.
#[derive(Debug, Default)]
pub struct SessionTls {
    /// The TLS that was agreed with the client.
    pub client: Option<TlsSummary>,
    /// The TLS that was agreed with the server.
    pub server: Option<TlsSummary>,
    /// Why TLS has failed: the name of an alert, or another word.
    pub error: Option<Cow<'static, str>>,
    /// Why a certificate was refused: the client's, or the server's.
    pub refusal: Option<Box<str>>,
}

/// The TLS and the PostgreSQL startup of a session; few sessions have either.
#[derive(Debug, Default)]
pub struct SessionProtocol {
    /// The TLS.
    pub tls: SessionTls,
    /// The StartupMessage of a PostgreSQL session, in the clear or decrypted here.
    pub startup: Option<StartupMessage>,
}
