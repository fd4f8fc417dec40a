//! Where a route leads.

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<T> {
    /// To a pool.
    Pool(T),
    /// Nowhere: the client is refused.
    Refuse,
}

impl<T> Target<T> {
    /// The pool; `None`: the client is refused.
    pub fn pool(&self) -> Option<&T> {
        match self {
            Self::Pool(pool) => Some(pool),
            Self::Refuse => None,
        }
    }
}
