//! `fallback` of a pool.

use std::sync::Arc;

/// What is used while a pool has no usable server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The pool of this name. Pools that refer to each other so form no cycle.
    Pool(Arc<str>),
    /// Of a pool of replicas: the primary among its servers.
    Primary,
}

impl Fallback {
    /// As it is configured.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pool(name) => name,
            Self::Primary => "primary",
        }
    }
}
