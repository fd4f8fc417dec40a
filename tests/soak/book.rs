//! What both sides know of every session.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};

use crate::wire::Tally;

/// How it ended for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should: all that was to come came, and nothing else.
    Well,
    /// The other side finished before all was there.
    Short,
    /// A TLS alert.
    Alert,
    /// A reset, or any other error.
    Broken,
    /// It broke off itself, as it was to.
    Left,
    /// The server died.
    Died,
    /// What came was not what was sent.
    Wrong,
    /// Nothing came for longer than anything may take.
    Stalled,
}

impl End {
    pub fn of(told: io::Result<()>) -> Self {
        let Err(error) = told else { return Self::Well };
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (error.kind(), tls) {
            (_, Some(rustls::Error::AlertReceived(_))) => Self::Alert,
            (io::ErrorKind::InvalidData, _) => Self::Wrong,
            (io::ErrorKind::UnexpectedEof, _) => Self::Short,
            _ => Self::Broken,
        }
    }
}

/// What one side saw.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub sent: u64,
    pub received: u64,
    pub end: End,
}

impl Side {
    pub fn new(tally: &Tally, end: End) -> Self {
        Self {
            sent: tally.sent.load(Relaxed),
            received: tally.received.load(Relaxed),
            end,
        }
    }
}

/// A session, as far as it is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// What kind of client it was, and what it saw.
    pub client: Option<(&'static str, Side)>,
    /// `None`: no server ever heard its order.
    pub server: Option<Side>,
}

#[derive(Default)]
pub struct Book {
    pages: Mutex<HashMap<u32, Page>>,
}

impl Book {
    pub fn client(&self, session: u32, kind: &'static str, side: Side) {
        self.pages().entry(session).or_default().client = Some((kind, side));
    }

    pub fn server(&self, session: u32, side: Side) {
        self.pages().entry(session).or_default().server = Some(side);
    }

    pub fn pages(&self) -> MutexGuard<'_, HashMap<u32, Page>> {
        self.pages.lock().expect("nobody panics with it")
    }
}

/// Every client has an address of its own on loopback: whoever sees it knows the session.
pub fn address(session: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((127 << 24 | 1 << 16) + session)
}

/// The session whose client has this address; `None`: none of ours.
pub fn session(address: Ipv4Addr) -> Option<u32> {
    address
        .to_bits()
        .checked_sub(127 << 24 | 1 << 16)
        .filter(|session| *session < 254 << 16)
}
