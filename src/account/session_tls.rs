//! The TLS of a session, as its access log record shows it.

use std::borrow::Cow;

use crate::tls::TlsSummary;

/// What is known about the TLS of a session that ends here.
#[derive(Debug, Default)]
pub struct SessionTls {
    /// What was agreed with the client.
    pub client: Option<TlsSummary>,
    /// What was agreed with the server.
    pub server: Option<TlsSummary>,
    /// Why TLS has failed: the name of an alert, or another word.
    pub error: Option<Cow<'static, str>>,
    /// Why the client's certificate was refused.
    pub client_refusal: Option<Box<str>>,
}
