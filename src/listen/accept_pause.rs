//! The reasons why accepting pauses.

/// Why accepting pauses although a client waits. Metrics count these pauses; a pause for another reason is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptPause {
    /// No descriptor is left.
    Descriptors,
    /// No memory is left, or epoll can watch no more sockets.
    Memory,
    /// `max_connections` is reached.
    Limit,
}

impl AcceptPause {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Descriptors, Self::Memory, Self::Limit];

    /// The word for it in metrics and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Limit => "limit",
        }
    }
}
