//! Sessions that a pool without a usable server has passed on to its fallback.

use std::sync::Arc;

/// The pool that a session on the servers of its fallback was meant for. Each such session holds a reference.
#[derive(Debug)]
pub struct FallbackOrigin {
    pool: Arc<str>,
}

impl FallbackOrigin {
    /// The origin of a pool's fallback sessions; it has none yet.
    #[must_use]
    pub fn new(pool: Arc<str>) -> Arc<Self> {
        Arc::new(Self { pool })
    }

    /// The name of the pool.
    #[must_use]
    pub fn pool(&self) -> &Arc<str> {
        &self.pool
    }
}
