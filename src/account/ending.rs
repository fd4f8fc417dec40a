//! Why a session ended: one word, the same in metrics, access log and API.

macro_rules! endings {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal,)*) => {
        /// Why a session ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Ending {
            $($(#[doc = $doc])* $name,)*
        }

        impl Ending {
            /// All endings, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word for metrics, access log and API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// Its meaning, in one or two sentences.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }
    };
}

endings! {
    /// Both sides finished, the client first; or a reset came after the client had finished, and no byte was lost.
    ClientClosed = "client_closed",
    /// Both sides finished, the server first; or the server closed instead of answering a request for TLS. Or the
    /// server finished first, and then the client closed without ending its TLS stream, or (on a listener for a
    /// database) had received everything and was silent for 5 s, or a reset lost no byte.
    ServerClosed = "server_closed",
    /// The client reset the connection.
    ClientReset = "client_reset",
    /// The server reset the connection.
    ServerReset = "server_reset",
    /// The client stopped responding: keepalive or retransmission timed out, or it did not read during a PostgreSQL
    /// login.
    ClientLost = "client_lost",
    /// The server stopped responding: keepalive or retransmission timed out, or it did not answer a request for TLS or
    /// did not read during a PostgreSQL login.
    ServerLost = "server_lost",
    /// The client closed the connection without ending its TLS stream, while the server was not finished.
    ClientTruncated = "client_truncated",
    /// The server closed the connection without ending its TLS stream.
    ServerTruncated = "server_truncated",
    /// No byte in either direction for the idle timeout.
    IdleTimeout = "idle_timeout",
    /// No byte for the half-close timeout after one side had closed.
    HalfCloseTimeout = "half_close_timeout",
    /// The connection of a peer in front does not begin with a valid PROXY header.
    ProxyInvalid = "proxy_invalid",
    /// The PROXY header, the ClientHello, the first packets of a PostgreSQL client, the rest of the TLS handshake, or
    /// the HTTP request on a listener that redirects did not arrive in time; or `hello_memory` ran out, and this
    /// session was among those that had waited longest, or needed memory for its TLS handshake.
    HelloTimeout = "hello_timeout",
    /// The ClientHello, or the first packet of a PostgreSQL client, is larger than `hello_max`, or the head of the HTTP
    /// request than 16 KiB.
    HelloTooLong = "hello_too_long",
    /// The first bytes look like TLS but are not a valid ClientHello; or, on a listener for PostgreSQL, the first
    /// packets or their order are not valid.
    HelloInvalid = "hello_invalid",
    /// On a listener that redirects: the HTTP request is not valid, or names a host that is not redirected.
    RequestInvalid = "request_invalid",
    /// The request of the client was redirected to another listener.
    Redirected = "redirected",
    /// An ACME server that validates a name for a certificate was answered.
    AcmeChallenge = "acme_challenge",
    /// The client closed before its PROXY header, its ClientHello, its first packets for PostgreSQL, the TLS handshake,
    /// or its HTTP request was complete, or while it waited for a server.
    ClientLeftEarly = "client_left_early",
    /// The TLS handshake with the client failed, or the client sent invalid TLS or an alert later.
    TlsFailed = "tls_failed",
    /// The server sent invalid TLS or an alert after its TLS handshake.
    ServerTlsFailed = "server_tls_failed",
    /// The client's certificate was refused, or the client has none.
    TlsClientRefused = "tls_client_refused",
    /// No route matched, and the listener has no default pool.
    NoRoute = "no_route",
    /// The route refuses its clients, or a PostgreSQL client does not use TLS as the listener or the pool requires.
    Refused = "refused",
    /// Refused, or cut later, because of the client's address: by a guard, or because `accept_proxy` does not trust it.
    Denied = "denied",
    /// A guard refused the client because this client, or all clients together, had reached a limit.
    Limited = "limited",
    /// No server of the pool could be picked.
    NoServer = "no_server",
    /// All servers had their maximum of sessions, and the pool has no queue.
    ServersFull = "servers_full",
    /// The client had to wait for a server, and the queue of the pool was full.
    QueueFull = "queue_full",
    /// The client waited in the queue for the longest permitted time.
    QueueTimeout = "queue_timeout",
    /// Every attempt to connect failed.
    ConnectFailed = "connect_failed",
    /// The server of a PostgreSQL client refused TLS after we had agreed to it in the server's stead, or where the
    /// listener requires it; or bytes followed its answer to the request for TLS.
    ServerRefusedTls = "server_refused_tls",
    /// It was a request to cancel the query of a PostgreSQL session.
    Cancel = "cancel",
    /// Cut at the end of the drain.
    Drained = "drained",
    /// Cut by an operator.
    Killed = "killed",
    /// Cut because its server went down, has a role that the pool does not use, or is too far behind.
    ServerDown = "server_down",
    /// Cut because its server is drained or disabled, or has left the pool.
    ServerDrained = "server_drained",
    /// Cut because a server of a better priority is up again or, for a session on a fallback, a server of the pool that
    /// the session was meant for.
    FailedBack = "failed_back",
    /// Ended at rest (silent for `idle_for` after the server's last byte), or cut later, because it was older than
    /// `max_session_age`.
    Aged = "aged",
    /// Ended at rest (see `aged`) because its server had more than its share of the sessions.
    Rebalanced = "rebalanced",
    /// An internal error.
    Internal = "internal",
}

impl Ending {
    /// Whether the session failed because of its server, the lack of a server, or an internal error.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::ServerReset
                | Self::ServerLost
                | Self::ServerTruncated
                | Self::ServerTlsFailed
                | Self::NoServer
                | Self::ServersFull
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::ConnectFailed
                | Self::ServerRefusedTls
                | Self::ServerDown
                | Self::Internal
        )
    }

    /// Whether this is how a port scan or the health check of a balancer in front of us ends. Such a session is
    /// empty if it also moved no byte, sent no ClientHello, and did not wait in a queue. Empty sessions are not logged
    /// by default.
    #[must_use]
    pub const fn is_probe_like(self) -> bool {
        matches!(self, Self::ClientClosed | Self::ClientReset | Self::ClientLeftEarly)
    }
}
