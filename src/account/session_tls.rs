//! What a client's bytes say, for the access log: the TLS that ends here, and the session that a PostgreSQL client asks for.

use std::borrow::Cow;

use crate::sniff::postgres::StartupMessage;
use crate::tls::TlsSummary;

/// What is known about the TLS that ends here.
#[derive(Debug, Default)]
pub struct SessionTls {
    /// What was agreed with the client.
    pub client: Option<TlsSummary>,
    /// What was agreed with the server.
    pub server: Option<TlsSummary>,
    /// Why TLS has failed: the name of an alert, or another word.
    pub error: Option<Cow<'static, str>>,
    /// Why a certificate was refused: the client's, or the server's.
    pub refusal: Option<Box<str>>,
}

/// What the bytes of its client have shown about a session.
#[derive(Debug, Default)]
pub struct SessionProtocol {
    /// The TLS that ends here.
    pub tls: SessionTls,
    /// The StartupMessage of a PostgreSQL session in the clear.
    pub startup: Option<StartupMessage>,
}
