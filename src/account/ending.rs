//! Why a session ended: one word, the same in metrics, log and API.

macro_rules! endings {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a session ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Ending {
            $($(#[$doc])* $name,)*
        }

        impl Ending {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

endings! {
    /// Both finished well, the client first.
    ClientClosed = "client_closed",
    /// Both finished well, the server first.
    ServerClosed = "server_closed",
    /// The client reset.
    ClientReset = "client_reset",
    /// The server reset.
    ServerReset = "server_reset",
    /// The client no longer answered: keepalive or retransmission gave up.
    ClientLost = "client_lost",
    /// The server no longer answered.
    ServerLost = "server_lost",
    /// No byte either way for too long.
    IdleTimeout = "idle_timeout",
    /// No byte for too long after one side had finished.
    HalfCloseTimeout = "half_close_timeout",
    /// The ClientHello was not there in time.
    HelloTimeout = "hello_timeout",
    /// The ClientHello is larger than may be held.
    HelloTooLong = "hello_too_long",
    /// It looked like TLS and was no ClientHello.
    HelloInvalid = "hello_invalid",
    /// The client finished before it had said where it wants to go.
    ClientLeftEarly = "client_left_early",
    /// No route took it, and the listener has no pool of its own.
    NoRoute = "no_route",
    /// A route refuses it.
    Refused = "refused",
    /// The pool had no server to offer.
    NoServer = "no_server",
    /// Every attempt to connect failed.
    ConnectFailed = "connect_failed",
    /// Cut at the end of a drain.
    Drained = "drained",
    /// Cut by an operator.
    Killed = "killed",
    /// Cut, for its server went down.
    ServerDown = "server_down",
    /// Cut, for its server is being drained or was disabled.
    ServerDrained = "server_drained",
    /// Cut, for a better tier is back.
    FailedBack = "failed_back",
    /// A fault of ours.
    Internal = "internal",
}

impl Ending {
    /// Whether a session that moved no byte and ended so is one that nobody wants a line about: a port scan, or the
    /// check of whoever is in front.
    #[must_use]
    pub const fn is_probe_like(self) -> bool {
        matches!(self, Self::ClientClosed | Self::ClientReset | Self::ClientLeftEarly)
    }
}
