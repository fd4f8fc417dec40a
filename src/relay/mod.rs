//! stub
use std::time::Duration;
/// How long a relay may be quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// No byte either way; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// No byte after one side has finished; `None`: for ever.
    pub half_close_timeout: Option<Duration>,
}
