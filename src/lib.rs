//! acequia divides TCP connections.

pub mod addr;
pub mod name;
pub mod socket;
pub mod tcp_info;
pub mod listen;
pub mod sniff;
pub mod route;
pub mod pool;
pub mod dial;
pub mod relay;
pub mod account;
pub mod plan;
pub mod live;
pub mod session;
pub mod probe;
pub mod config;
pub mod descriptors;
pub mod drain;
pub mod worker;
pub mod admin;
pub mod app;
pub mod cli;
