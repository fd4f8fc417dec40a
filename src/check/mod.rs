//! Health checks: one file for each kind.
//!
//! `kind.rs` is the interface: a [`Check`] is a configured check of one kind, a [`Probe`] is a check of one server,
//! ready to run. [`crate::health`] decides when each check runs, and what follows from its result.
//!
//! **A new kind** is a file here (its settings, its keys, how it runs) with an entry in [`KINDS`], and a file in
//! `config/parse/check/` (how its keys are read) with an entry in `READERS` there; a test compares the two lists. The
//! names of the kind in other proxies go to `PEERS_KINDS` there, those of its keys to `config/synonyms/pool.rs`, and
//! its conversion from HAProxy to `import/haproxy/check.rs`. It is described in `conf/full.toml`, from which the schema
//! is generated, and in `docs/checks.md`. The `protocol` of a listener is another thing: it says what clients speak.

mod kind;
mod file;
mod password_login;
mod stream;
mod pattern;
pub mod tcp;
pub mod tls;
pub mod http;
pub mod send_expect;
pub mod exec;
pub mod agent;
pub mod postgres;
pub mod mysql;
pub mod redis;

pub use file::password;
pub use kind::{
    CertificateTimes, Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck, Service,
};
pub use password_login::PasswordLogin;
pub use pattern::Pattern;

/// Every kind of check.
pub static KINDS: [&CheckKind; 9] = [
    &tcp::KIND,
    &tls::KIND,
    &http::KIND,
    &send_expect::KIND,
    &exec::KIND,
    &agent::KIND,
    &postgres::KIND,
    &mysql::KIND,
    &redis::KIND,
];
