//! Tests that change the state of a whole process or machine: resource limits, namespaces, the clock, the panic hook.
//! All but `panics` are black-box tests.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod bind_source;
mod clock;
mod least_privilege;
mod network;
mod out_of_descriptors;
mod panics;
mod pipe_pages;
mod refused_calls;
