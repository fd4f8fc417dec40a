//! The record of every session, from the client's and the server's side.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};

use crate::wire::Tally;

/// How a session ended for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All expected bytes came, and nothing else.
    Well,
    /// The other side half-closed too early.
    Short,
    /// A TLS alert.
    Alert,
    /// A reset, or any other error.
    Broken,
    /// The client left as its [`Script`](crate::kinds::Script) says, or the server reset as the order says.
    Left,
    /// The server died.
    Died,
    /// The bytes that came are not the expected ones.
    Wrong,
    /// This side took longer than [`crate::client::PATIENCE`].
    Stalled,
}

impl End {
    pub fn from_result(result: io::Result<()>) -> Self {
        let Err(error) = result else { return Self::Well };
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (error.kind(), tls) {
            (_, Some(rustls::Error::AlertReceived(_))) => Self::Alert,
            (io::ErrorKind::InvalidData, _) => Self::Wrong,
            (io::ErrorKind::UnexpectedEof, _) => Self::Short,
            _ => Self::Broken,
        }
    }
}

/// One side of a session: the bytes on its socket, and its end.
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

/// A session. A side is added when it has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// The kind of client, and its side.
    pub client: Option<(&'static str, Side)>,
    /// Stays `None` if no server reads the client's [`Order`](crate::order::Order).
    pub server: Option<Side>,
}

/// The records of all sessions.
#[derive(Default)]
pub struct Records {
    records: Mutex<HashMap<u32, Record>>,
}

impl Records {
    pub fn set_client(&self, session: u32, kind: &'static str, side: Side) {
        self.all().entry(session).or_default().client = Some((kind, side));
    }

    pub fn set_server(&self, session: u32, side: Side) {
        self.all().entry(session).or_default().server = Some(side);
    }

    pub fn all(&self) -> MutexGuard<'_, HashMap<u32, Record>> {
        self.records.lock().expect("no thread panics while it holds the lock")
    }
}

/// The network of the clients' own addresses.
const OWN: u32 = 127 << 24;

/// The address of the first client. 127.0/16 is for acequia and the servers.
const FIRST: u32 = OWN + (1 << 16);

/// The number of addresses from [`FIRST`] to the end of 127.254/16.
const ADDRESSES: u32 = 254 << 16;

/// The network of the addresses in PROXY headers.
pub const NAMED: u32 = 10 << 24;

/// The loopback address of a session's client: each has its own, so that servers and logs identify the session.
pub fn address(session: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST + session)
}

/// The address that a proxy in front gives for a session's client.
pub fn address_in_header(session: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(address(session).to_bits() - OWN + NAMED)
}

/// The session whose client has this address; `None`: it is not the address of a client.
pub fn session(address: Ipv4Addr) -> Option<u32> {
    address
        .to_bits()
        .checked_sub(FIRST)
        .filter(|session| *session < ADDRESSES)
}
