//! What a finished session proves about its server.
//!
//! A server that accepts connections and closes them before any byte has passed does not serve its sessions, although
//! every connect works.

use std::time::Duration;

use tokio::time::Instant;

use crate::addr::ClientHost;

/// A session that lasts at least this long counts as served, even if no byte has passed.
pub const SERVED_AFTER: Duration = Duration::from_secs(1);

/// How many client addresses unserved sessions must come from before they count. If there are fewer, the server may
/// refuse these clients for good reasons.
const CLIENTS_MIN: usize = 3;

/// The facts of a finished session that its server's health depends on.
#[derive(Clone, Copy, Debug)]
pub struct FinishedSession {
    /// The client.
    pub client: ClientHost,
    /// When the connection to the server was made.
    pub connected_at: Instant,
    /// The time from `connected_at` to the end of the session.
    pub duration: Duration,
    /// Whether a byte was read that the client sent to the server.
    pub client_sent: bool,
    /// Whether a byte from the server was received.
    pub server_sent: bool,
    /// How the server, as the first side, ended the session. `None`: the session ended in another way, or `server_sent`
    /// is true, so that the end does not matter.
    pub server_ended: Option<ServerEnd>,
}

/// How a server ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEnd {
    /// By an orderly close.
    Closed,
    /// Its connection broke, in one of the ways of [`Fault`](crate::socket::Fault): by a reset, for example.
    Aborted,
}

/// What a finished session proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionOutcome {
    /// The server served it.
    Served,
    /// The server did not serve it, and the client did not cause that.
    Unserved,
    /// It proves nothing.
    Inconclusive,
}

impl FinishedSession {
    /// What the session proves.
    ///
    /// Once the client has sent a byte and the server none, an early end by the server is inconclusive: otherwise a
    /// client could eject servers by sending what they reject. With `count_resets`, [`ServerEnd::Aborted`] means
    /// unserved even if the client has sent bytes.
    #[must_use]
    pub fn outcome(&self, count_resets: bool) -> SessionOutcome {
        if self.server_sent || self.duration >= SERVED_AFTER {
            return SessionOutcome::Served;
        }
        match self.server_ended {
            Some(_) if !self.client_sent => SessionOutcome::Unserved,
            Some(ServerEnd::Aborted) if count_resets => SessionOutcome::Unserved,
            _ => SessionOutcome::Inconclusive,
        }
    }
}

/// Consecutive sessions that a server did not serve, and the first client addresses that they came from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UnservedSessions {
    consecutive: u32,
    clients: [Option<ClientHost>; CLIENTS_MIN],
    /// When the first of these sessions ended.
    first_ended_at: Option<Instant>,
}

impl UnservedSessions {
    /// Adds a session of this client that ended now.
    pub(super) fn add(&mut self, client: ClientHost, now: Instant) {
        self.consecutive = self.consecutive.saturating_add(1);
        self.first_ended_at.get_or_insert(now);
        if !self.clients.contains(&Some(client))
            && let Some(free) = self.clients.iter_mut().find(|slot| slot.is_none())
        {
            *free = Some(client);
        }
    }

    /// How many of the sessions count as failed connects: all, once they came from enough client addresses, else none.
    pub(super) fn countable(&self) -> u32 {
        if self.clients.iter().all(Option::is_some) {
            self.consecutive
        } else {
            0
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.consecutive == 0
    }

    /// Whether the first of these sessions had already ended at `connected_at`, when another session connected.
    pub(super) fn first_ended_before(&self, connected_at: Instant) -> bool {
        self.first_ended_at.is_some_and(|ended_at| connected_at >= ended_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq)]
    enum SentBy {
        Nobody,
        Client,
        Both,
    }

    /// A session that ended this way after `duration_ms` milliseconds.
    fn finished(server_ended: Option<ServerEnd>, duration_ms: u64, sent_by: SentBy) -> FinishedSession {
        FinishedSession {
            client: ClientHost::Ip([192, 0, 2, 1].into()),
            connected_at: Instant::now(),
            duration: Duration::from_millis(duration_ms),
            client_sent: sent_by != SentBy::Nobody,
            server_sent: sent_by == SentBy::Both,
            server_ended,
        }
    }

    #[test]
    fn only_an_early_end_by_the_server_is_unserved() {
        use SentBy::{Both, Client, Nobody};
        use ServerEnd::{Aborted, Closed};
        use SessionOutcome::{Inconclusive, Served, Unserved};
        for (session, by_default, with_resets) in [
            (finished(Some(Aborted), 999, Nobody), Unserved, Unserved),
            (finished(Some(Closed), 0, Nobody), Unserved, Unserved),
            (finished(Some(Aborted), 0, Client), Inconclusive, Unserved),
            (finished(Some(Closed), 0, Client), Inconclusive, Inconclusive),
            (finished(None, 0, Nobody), Inconclusive, Inconclusive),
            (finished(None, 0, Client), Inconclusive, Inconclusive),
            (finished(Some(Aborted), 0, Both), Served, Served),
            (finished(Some(Aborted), 1000, Nobody), Served, Served),
        ] {
            let outcomes = (session.outcome(false), session.outcome(true));
            assert_eq!(outcomes, (by_default, with_resets), "{session:?}");
        }
    }

    #[test]
    fn unserved_sessions_count_after_three_client_addresses() {
        let mut unserved = UnservedSessions::default();
        let now = Instant::now();
        for (client, counted) in [(1, 0), (1, 0), (2, 0), (1, 0), (3, 5), (4, 6), (1, 7)] {
            unserved.add(ClientHost::Ip([192, 0, 2, client].into()), now);
            assert_eq!(unserved.countable(), counted);
        }
    }
}
