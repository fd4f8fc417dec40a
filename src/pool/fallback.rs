//! Sessions that a pool without a usable server has passed on to its fallback.

use std::sync::Arc;

/// Names the pool that has passed on sessions to its fallback. Each of these sessions holds a reference, so that the
/// pool knows whether there are any.
#[derive(Debug)]
pub struct FallbackOrigin {
    pool: Arc<str>,
}

impl FallbackOrigin {
    /// The origin for the sessions of `pool` on its fallback. There are none yet.
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
