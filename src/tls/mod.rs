//! TLS that ends or begins here: the certificates of listeners, what is negotiated with clients and with servers, and
//! the TLS of one connection.
//!
//! A [`ListenerTls`] configures handshakes with clients, a [`PoolTls`] those with servers. Their files are read again
//! while they are in force; a broken file does not replace a good one. A [`TlsConnection`] is the TLS of one connection
//! without IO; [`handshake_with_client`] and [`handshake_with_server`] complete its handshake on a socket.
//!
//! **A new setting** is a field of [`ListenerTlsPlan`] or [`PoolTlsPlan`]. It needs:
//! - its key in `config/keys.rs`, and its parser in `config/parse/tls.rs` or `config/parse/pool_tls.rs`;
//! - an entry in `files` of the same plan, if it names a file;
//! - for a listener, its comparison in `plan/changed/listener.rs`;
//! - the names that other proxies have for it in `config/synonyms/tls.rs`, and its conversion in `import`;
//! - a description in `conf/full.toml` and `docs/tls.md`, and the kind of its value in `tests/it/config/schema.rs`.
//!
//! Whether a client's TLS ends here is decided by `route` ([`TlsMode`](crate::route::TlsMode)). If it does,
//! `session/terminate.rs` runs the handshake.

mod words;
mod last_expiry_check;
mod file;
mod ocsp;
mod certificate;
mod acme_certificate;
mod location;
mod store;
mod revocation_list;
mod revocation;
mod client_auth;
mod tickets;
mod client_tickets;
mod listener;
mod rustls_connection;
mod connection;
mod verification;
mod pool;
mod handshake;

pub use acme_certificate::AcmeCertificate;
pub use certificate::{Certificate, CertificateFiles, certificate_names, parse_certificate};
pub use client_auth::ClientAuthPlan;
#[cfg(test)]
pub(crate) use connection::tests::{connected_with_ticket, tls12_pair_with_key_limit};
pub use connection::{RECORD_BYTES_MAX, TlsConnection};
pub use file::{PemText, TlsFileError};
pub use handshake::{HandshakeError, handshake_with_client, handshake_with_server};
pub use listener::{ListenerTls, ListenerTlsPlan, MinVersion, Protocols, TlsReload};
pub use location::CertificateLocation;
pub use pool::{
    ClientChoice, OfferedProtocols, PoolTls, PoolTlsPlan, ResumableSessions, SentSni, client_config, client_config_of,
    unverified_config,
};
pub use store::CertificateStore;
pub use words::{
    PeerCertificate, TlsSummary, error_chain, error_text, error_word, has_unknown_issuer, is_about_client_certificate,
    issuer_time, shown_warnings, version_word,
};
