//! Facts from a client's bytes, for the access log: the TLS that is terminated here, and the session that a PostgreSQL
//! client requests.

use std::borrow::Cow;

use crate::sniff::postgres::StartupMessage;
use crate::tls::TlsSummary;

/// The facts about the TLS that is terminated here.
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

/// The facts about a session from the bytes of its client.
#[derive(Debug, Default)]
pub struct SessionProtocol {
    /// The TLS that is terminated here.
    pub tls: SessionTls,
    /// The StartupMessage of a PostgreSQL session in the clear.
    pub startup: Option<StartupMessage>,
}
