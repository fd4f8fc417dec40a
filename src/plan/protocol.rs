//! The protocol that the clients of a listener speak.

/// The protocol of a listener's clients. It decides what is read of a session before the session is routed, how the
/// session is refused, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Any protocol over TCP, with or without TLS.
    Tcp,
    /// PostgreSQL.
    Postgres {
        /// Whether sessions in the clear are refused.
        tls_required: bool,
        /// The treatment of a cancel request for which no server is found.
        cancel_unplaced: UnplacedCancel,
    },
    /// MySQL and MariaDB, whose servers send first.
    Mysql,
    /// Redis, with or without TLS.
    Redis,
}

/// The treatment of a cancel request of PostgreSQL for which no server is found: its key is not known, and its client
/// has no sessions whose keys are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnplacedCancel {
    /// It is dropped.
    #[default]
    Drop,
    /// It goes to the servers of the listener's pools: to a limited number, and first to those that are up.
    Fanout,
}

impl Protocol {
    /// Whether it is PostgreSQL.
    #[must_use]
    pub const fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// Whether it is the protocol of a database: a client that ends its stream waits for no answer, and the end of the
    /// server's stream is the end of the session.
    #[must_use]
    pub const fn is_database(self) -> bool {
        !matches!(self, Self::Tcp)
    }
}
