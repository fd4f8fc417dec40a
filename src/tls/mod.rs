//! TLS that ends here: certificates of listeners and what is agreed with clients, and the TLS of one connection.
//!
//! A [`ListenerTls`] holds what handshakes are made with. Its files are read again while it is in force; what is broken does
//! not replace what is not. A [`TlsConnection`] is the TLS of one connection without IO; [`shake_hands`] completes its
//! handshake on a socket.

mod file;
mod certificate;
mod store;
mod client_auth;
mod tickets;
mod listener;
mod engine;
mod connection;
mod handshake;
mod words;

pub use certificate::{Certificate, CertificateSource};
pub use client_auth::ClientAuthPlan;
pub use connection::{RECORD_BYTES_MAX, TlsConnection};
pub use file::{TlsFileError, read_authorities};
pub use handshake::{HandshakeError, shake_hands};
pub use listener::{ListenerTls, ListenerTlsPlan, MinVersion, Protocols, TlsReload};
pub use store::CertificateStore;
pub use words::{PeerCertificate, TlsSummary, error_word, is_about_client_certificate, version_word};
