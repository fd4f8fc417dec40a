//! Where the servers of pools are. So far there is one source besides fixed addresses: host names, resolved by the system.
//!
//! [`Resolver`] bounds the lookups of all pools together; [`PoolNames`] decides when which name of a pool is looked up,
//! and hands the addresses that are found to [`crate::live::Live::set_addresses`]. It is the only writer of a pool's
//! servers while the pool is in force. [`crate::health`] polls it, so that a new server is checked at once.

mod resolver;
mod names;

pub use names::{PoolNames, resolve_new_names};
pub use resolver::Resolver;
