//! What a finished session says of its server: a server that accepts and ends sessions before anything has passed has
//! served nobody, although every connect works.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// A session that lasts as long as this counts as served, even if it was silent.
pub const AT_ONCE: Duration = Duration::from_secs(1);

/// Sessions of one or two client addresses prove nothing: it may be these that the server does not want.
const CLIENTS_MIN: usize = 3;

/// What is known of a session that is over, as far as its server's health is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// Whom the session was for.
    pub client: IpAddr,
    /// When the server was connected to.
    pub connected: Instant,
    /// How long the session lasted after that.
    pub lasted: Duration,
    /// Whether a byte of the client has been sent on, or read to be sent on.
    pub client_spoke: bool,
    /// Whether a byte of the server has come.
    pub server_spoke: bool,
    /// How the server ended the session, if it did so before the client.
    pub server_ended: Option<ServerEnd>,
}

/// How a server ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEnd {
    /// In an orderly way.
    Closed,
    /// By a reset, or it was lost.
    Broke,
}

/// What a finished session proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The server serves.
    Served,
    /// It served nobody, and that was not the client's doing.
    Unserved,
    /// Nothing.
    Nothing,
}

impl Finished {
    /// Once the client has said something the server may have had good reasons: a client could otherwise take servers out
    /// for everybody by provoking them. `count_resets`: a reset counts all the same.
    #[must_use]
    pub fn proof(&self, count_resets: bool) -> Proof {
        if self.server_spoke || self.lasted >= AT_ONCE {
            return Proof::Served;
        }
        match self.server_ended {
            Some(_) if !self.client_spoke => Proof::Unserved,
            Some(ServerEnd::Broke) if count_resets => Proof::Unserved,
            _ => Proof::Nothing,
        }
    }
}

/// Sessions in a row that a server did not serve, and for whom the first few were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unserved {
    in_a_row: u32,
    clients: [Option<IpAddr>; CLIENTS_MIN],
    /// When the first of them was over.
    since: Option<Instant>,
}

impl Unserved {
    /// One more.
    pub(super) fn add(&mut self, client: IpAddr, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.since.get_or_insert(now);
        if !self.clients.contains(&Some(client))
            && let Some(free) = self.clients.iter_mut().find(|known| known.is_none())
        {
            *free = Some(client);
        }
    }

    /// How many count as failed connects: all, once they were for enough client addresses.
    pub(super) fn counted(&self) -> u32 {
        if self.clients.iter().all(Option::is_some) {
            self.in_a_row
        } else {
            0
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.in_a_row == 0
    }

    /// Whether a session that connected then says anything new.
    pub(super) fn is_older_than(&self, connected: Instant) -> bool {
        self.since.is_some_and(|since| connected >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that the server ended so, after so many milliseconds; whether the client and the server had spoken.
    fn finished(server_ended: Option<ServerEnd>, lasted_ms: u64, client_spoke: bool, server_spoke: bool) -> Finished {
        Finished {
            client: IpAddr::from([192, 0, 2, 1]),
            connected: Instant::now(),
            lasted: Duration::from_millis(lasted_ms),
            client_spoke,
            server_spoke,
            server_ended,
        }
    }

    #[test]
    fn only_a_server_that_ends_at_once_and_unprovoked_has_served_nobody() {
        use ServerEnd::{Broke, Closed};
        for (session, by_default, with_resets) in [
            (
                finished(Some(Broke), 999, false, false),
                Proof::Unserved,
                Proof::Unserved,
            ),
            (
                finished(Some(Closed), 0, false, false),
                Proof::Unserved,
                Proof::Unserved,
            ),
            (finished(Some(Broke), 0, true, false), Proof::Nothing, Proof::Unserved),
            (finished(Some(Closed), 0, true, false), Proof::Nothing, Proof::Nothing),
            (finished(None, 0, false, false), Proof::Nothing, Proof::Nothing),
            (finished(None, 0, true, false), Proof::Nothing, Proof::Nothing),
            (finished(Some(Broke), 0, true, true), Proof::Served, Proof::Served),
            (finished(Some(Broke), 1000, false, false), Proof::Served, Proof::Served),
        ] {
            let proofs = (session.proof(false), session.proof(true));
            assert_eq!(proofs, (by_default, with_resets), "{session:?}");
        }
    }

    #[test]
    fn they_count_once_they_were_for_three_addresses() {
        let mut unserved = Unserved::default();
        let now = Instant::now();
        for (client, counted) in [(1, 0), (1, 0), (2, 0), (1, 0), (3, 5), (4, 6), (1, 7)] {
            unserved.add(IpAddr::from([192, 0, 2, client]), now);
            assert_eq!(unserved.counted(), counted);
        }
        assert!(size_of::<Unserved>() <= 96, "however many clients there are");
    }
}
