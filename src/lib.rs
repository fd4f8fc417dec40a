//! acequia divides TCP connections.
#![allow(missing_docs)]

pub mod account;
pub mod addr;
pub mod cli;
pub mod config;
pub mod dial;
pub mod name;
pub mod plan;
pub mod pool;
pub mod relay;
pub mod route;
pub mod sniff;
pub mod socket;
