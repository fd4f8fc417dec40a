//! Health checks: one file for each kind.
//!
//! `kind.rs` is the interface: a [`Check`] is a configured check of one kind, a [`Probe`] is a check of one server,
//! ready to run. [`crate::health`] decides when each check runs, and what follows from its result.
//!
//! **A new kind** needs:
//! - a file here with its settings, its keys and how it runs, and an entry in [`KINDS`];
//! - a file in `config/parse/check/` that reads its keys, and an entry in `READERS` there. A test compares the lists;
//! - other proxies' words for it, in `KIND_SYNONYMS` of `config/parse/check/mod.rs`, and for its keys, in
//!   `config/synonyms/pool.rs`;
//! - its conversion from HAProxy in `import/haproxy/check.rs`;
//! - a description in `conf/full.toml`, from which the schema takes it, and in `docs/checks.md`;
//! - its name and keys in the tables of `tests/it/config/schema.rs`, which generates the schema.
//!
//! The `protocol` of a listener has nothing to do with checks: it says what clients speak.

mod kind;
mod file;
mod password_login;
mod stream;
mod bounded;
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
