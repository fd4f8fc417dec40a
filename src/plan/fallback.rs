//! `fallback` of a pool.

use std::sync::Arc;

/// The servers that are used while a pool has no usable server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The pool of this name. Such references form no cycle.
    Pool(Arc<str>),
    /// For a pool of replicas: the primary among its servers.
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
