//! stub
pub mod hello;
use std::time::Duration;
/// Bounds on what is read before a route is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SniffLimits {
    /// From accept to the whole ClientHello, absolute.
    pub hello_timeout: Duration,
    /// Bytes that may be held for it.
    pub hello_bytes_max: usize,
}
