//! Black-box tests of the built binary with real clients and servers, and a few tests of the library; one module per
//! theme.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

#[path = "../support/mod.rs"]
mod support;

mod traffic;
mod hostile;
mod routing;
mod tls;
mod choosing;
mod health;
mod discovery;
mod databases;
mod limits;
mod guards;
mod reload;
mod admin;
mod log;
mod process;
mod config;
