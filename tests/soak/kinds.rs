//! The kinds of clients: their shares, what they do, and how their sessions may end.

use std::time::Duration;

use fastrand::Rng;

use crate::header::Header;
use crate::order::{Manner, Order, Pace};
use crate::site::{SHOP, WEB};

/// A kind of client.
pub struct Kind {
    pub name: &'static str,
    /// The share of all clients, relative to the sum of all shares.
    pub share: u32,
    pub listener: &'static str,
    /// How its sessions may end when neither a server dies nor the operator interferes.
    pub endings: &'static [&'static str],
    pub script: fn(&mut Rng) -> Script,
}

/// What one client does.
pub enum Script {
    Talk(Talk),
    /// Sends these bytes and reads to the end of the stream.
    Bytes(Vec<u8>),
    /// Sends this part of a real hello, in 65,536ths, and leaves.
    PartOfHello(u16, Leave),
    /// Sends the first part of a PROXY header, and leaves.
    PartOfHeader(Header, Leave),
    /// Sends a real hello a byte at a time.
    Drip,
    /// Sends nothing.
    Nothing(Leave),
}

/// A session with a server.
#[derive(Clone, Copy)]
pub struct Talk {
    /// Bytes of content from the client.
    pub up: u32,
    /// Bytes of content from the server.
    pub down: u32,
    pub manner: Manner,
    /// The pace of the client, and of the server.
    pub paces: [Pace; 2],
    /// A PROXY header before everything else.
    pub header: Option<Header>,
    /// The server name that the client asks for by TLS; `None`: it uses no TLS.
    pub name: Option<&'static str>,
    pub leaves: Option<Leave>,
}

/// How a client leaves early.
#[derive(Clone, Copy, Debug)]
pub struct Leave {
    pub after: Duration,
    /// By a reset, else by an ordinary close.
    pub by_reset: bool,
}

impl Leave {
    fn within(rng: &mut Rng, milliseconds: u64) -> Self {
        Self {
            after: Duration::from_micros(rng.u64(..milliseconds * 1000)),
            by_reset: rng.bool(),
        }
    }
}

fn talk(up: u32, down: u32, manner: Manner) -> Talk {
    Talk {
        up,
        down,
        manner,
        paces: [Pace::Full; 2],
        header: None,
        name: None,
        leaves: None,
    }
}

fn session(up: u32, down: u32, manner: Manner) -> Script {
    Script::Talk(talk(up, down, manner))
}

fn paced(up: u32, down: u32, manner: Manner, paces: [Pace; 2]) -> Script {
    Script::Talk(Talk {
        paces,
        ..talk(up, down, manner)
    })
}

/// A session of random manner and length.
fn any(rng: &mut Rng, bytes_max: u32) -> Talk {
    let manners = [Manner::Both, Manner::ServerEndsFirst, Manner::AfterTheEnd];
    talk(
        rng.u32(..bytes_max),
        rng.u32(..bytes_max),
        manners[rng.usize(..manners.len())],
    )
}

fn to(name: &'static str, rng: &mut Rng) -> Script {
    Script::Talk(Talk {
        name: Some(name),
        ..any(rng, 100)
    })
}

fn named(rng: &mut Rng, bytes_max: u32) -> Talk {
    let names = [SHOP, WEB].concat();
    Talk {
        name: Some(names[rng.usize(..names.len())]),
        ..any(rng, bytes_max)
    }
}

fn fronted(rng: &mut Rng) -> Talk {
    Talk {
        header: Some(Header::any(rng)),
        ..any(rng, 20_000)
    }
}

/// A session that occupies its server for about a second.
fn lasting(rng: &mut Rng) -> Talk {
    Talk {
        paces: [Pace::Full, Pace::Trickle],
        ..talk(rng.u32(..500), rng.u32(500..1_500), Manner::Both)
    }
}

/// The session of a good client, whose time is measured while others drip: short, and by name.
pub fn good() -> Talk {
    Talk {
        name: Some(SHOP[0]),
        ..talk(100, 1_000, Manner::Both)
    }
}

/// The session `talk`, but the client leaves early, probably in the middle.
fn broken_off(talk: Talk, leave: Leave) -> Script {
    Script::Talk(Talk {
        leaves: Some(leave),
        ..talk
    })
}

fn bulk(rng: &mut Rng) -> u32 {
    rng.u32(1 << 20..6 << 20)
}

const WELL: &[&str] = &["client_closed", "server_closed"];
const LEFT: &[&str] = &["client_closed", "server_closed", "client_reset", "server_reset"];
const LEFT_UNROUTED: &[&str] = &["client_left_early", "client_reset"];

#[rustfmt::skip] // a table
pub const KINDS: &[Kind] = &[
    Kind { name: "short", share: 30, listener: "plain", endings: WELL,
        script: |rng| session(rng.u32(..2_000), rng.u32(..8_000), Manner::Both) },
    Kind { name: "half-closed by the client", share: 10, listener: "plain", endings: &["client_closed"],
        script: |rng| session(rng.u32(..100_000), rng.u32(..100_000), Manner::AfterTheEnd) },
    Kind { name: "half-closed by the server", share: 8, listener: "hash", endings: WELL,
        script: |rng| session(rng.u32(..100_000), rng.u32(..100_000), Manner::ServerEndsFirst) },
    Kind { name: "the server speaks first", share: 8, listener: "greeting", endings: WELL,
        script: |rng| session(rng.u32(..2_000), rng.u32(..8_000), Manner::Both) },
    Kind { name: "PROXY header to the server", share: 4, listener: "proxied", endings: WELL,
        script: |rng| session(rng.u32(..2_000), rng.u32(..8_000), Manner::Both) },
    Kind { name: "servers that come and go", share: 4, listener: "moving", endings: WELL,
        script: |rng| session(rng.u32(..2_000), rng.u32(..300_000), Manner::Both) },
    Kind { name: "some servers bad", share: 4, listener: "mixed", endings: WELL,
        script: |rng| session(rng.u32(..2_000), rng.u32(..8_000), Manner::Both) },
    Kind { name: "by name", share: 16, listener: "names", endings: WELL,
        script: |rng| Script::Talk(named(rng, 20_000)) },
    Kind { name: "by name, bulk", share: 2, listener: "names", endings: WELL,
        script: |rng| Script::Talk(named(rng, 2 << 20)) },
    Kind { name: "by name, client leaves", share: 3, listener: "names",
        endings: &["client_closed", "server_closed", "client_reset", "server_reset", "client_left_early"],
        script: |rng| broken_off(named(rng, 2 << 20), Leave::within(rng, 30)) },
    Kind { name: "bulk up", share: 2, listener: "plain", endings: WELL,
        script: |rng| session(bulk(rng), 100, Manner::Both) },
    Kind { name: "bulk down", share: 2, listener: "hash", endings: WELL,
        script: |rng| session(100, bulk(rng), Manner::ServerEndsFirst) },
    Kind { name: "bulk both ways", share: 2, listener: "plain", endings: WELL,
        script: |rng| session(bulk(rng), bulk(rng), Manner::Both) },
    Kind { name: "slow client", share: 2, listener: "plain", endings: WELL,
        script: |rng| paced(1_000, bulk(rng), Manner::ServerEndsFirst, [Pace::Slow, Pace::Full]) },
    Kind { name: "slow server", share: 2, listener: "plain", endings: WELL,
        script: |rng| paced(bulk(rng), 1_000, Manner::Both, [Pace::Full, Pace::Slow]) },
    Kind { name: "long", share: 1, listener: "plain", endings: WELL,
        script: |rng| paced(rng.u32(..20_000), rng.u32(..20_000), Manner::Both, [Pace::Trickle; 2]) },
    Kind { name: "client resets", share: 6, listener: "plain", endings: LEFT,
        script: |rng| broken_off(any(rng, 2 << 20), Leave { by_reset: true, ..Leave::within(rng, 40) }) },
    Kind { name: "client closes early", share: 4, listener: "plain", endings: LEFT,
        script: |rng| broken_off(any(rng, 2 << 20), Leave { by_reset: false, ..Leave::within(rng, 40) }) },
    Kind { name: "server resets", share: 6, listener: "plain", endings: &["server_reset"],
        script: |rng| session(rng.u32(..300_000), rng.u32(..300_000), Manner::ServerResets) },
    Kind { name: "visit", share: 5, listener: "plain", endings: LEFT,
        script: |rng| Script::Nothing(Leave::within(rng, 3)) },
    Kind { name: "visit where names are read", share: 2, listener: "names", endings: LEFT_UNROUTED,
        script: |rng| Script::Nothing(Leave::within(rng, 3)) },
    Kind { name: "leaves amid its hello", share: 4, listener: "names", endings: LEFT_UNROUTED,
        script: |rng| Script::PartOfHello(rng.u16(..), Leave::within(rng, 10)) },
    Kind { name: "drips its hello", share: 1, listener: "names", endings: &["hello_timeout"],
        script: |_| Script::Drip },
    // A record of 512 bytes, in which a handshake message begins that is not a ClientHello.
    Kind { name: "bad hello", share: 4, listener: "names", endings: &["hello_invalid"],
        script: |rng| Script::Bytes([&[22, 3, 1, 2, 0][..], &random(rng, 2, 40..512)].concat()) },
    // A record of 16 KiB, in which a hello of 60 KiB begins.
    Kind { name: "long hello", share: 1, listener: "names", endings: &["hello_too_long"],
        script: |_| Script::Bytes([&[22, 3, 1, 0x40, 0, 1, 0, 0xf0, 0][..], &[0; 20_000]].concat()) },
    Kind { name: "no TLS", share: 2, listener: "names", endings: &["no_route"],
        script: |rng| Script::Bytes(random(rng, 1, 1..300)) },
    Kind { name: "refused name", share: 2, listener: "names", endings: &["refused"],
        script: |rng| to("refused.example.com", rng) },
    Kind { name: "unknown name", share: 2, listener: "names", endings: &["no_route"],
        script: |rng| to("unknown.example.com", rng) },
    Kind { name: "waits in a queue", share: 14, listener: "queued",
        endings: &["client_closed", "server_closed", "queue_full", "queue_timeout"],
        script: |rng| Script::Talk(lasting(rng)) },
    Kind { name: "leaves a queue", share: 5, listener: "queued",
        endings: &["client_closed", "server_closed", "client_reset", "server_reset", "client_left_early", "queue_full", "queue_timeout"],
        script: |rng| broken_off(lasting(rng), Leave::within(rng, 1_500)) },
    Kind { name: "denied or not", share: 8, listener: "denying", endings: &["client_closed", "server_closed", "denied"],
        script: |rng| session(rng.u32(..2_000), rng.u32(..50_000), Manner::Both) },
    Kind { name: "limited at times", share: 10, listener: "limited", endings: &["client_closed", "server_closed", "limited"],
        script: |rng| paced(rng.u32(..400), rng.u32(..400), Manner::Both, [Pace::Full, Pace::Trickle]) },
    Kind { name: "behind a proxy", share: 8, listener: "fronted", endings: WELL,
        script: |rng| Script::Talk(fronted(rng)) },
    Kind { name: "behind a proxy, leaves", share: 3, listener: "fronted",
        endings: &["client_closed", "server_closed", "client_reset", "server_reset", "client_left_early"],
        script: |rng| broken_off(fronted(rng), Leave::within(rng, 30)) },
    Kind { name: "part of a PROXY header", share: 2, listener: "fronted", endings: LEFT_UNROUTED,
        script: |rng| Script::PartOfHeader(Header::any(rng), Leave::within(rng, 10)) },
    Kind { name: "bad PROXY header", share: 2, listener: "fronted", endings: &["proxy_invalid"],
        script: |rng| Script::Bytes(random(rng, b'P', 20..300)) },
    Kind { name: "refusing servers", share: 2, listener: "refusing", endings: &["connect_failed"],
        script: |_| session(100, 100, Manner::Both) },
    Kind { name: "hanging server", share: 1, listener: "hanging", endings: &["connect_failed"],
        script: |_| session(100, 100, Manner::Both) },
    Kind { name: "leaves during the connect", share: 1, listener: "hanging", endings: &["client_reset", "connect_failed"],
        script: |rng| broken_off(talk(100, 100, Manner::Both), Leave::within(rng, 500)) },
    Kind { name: "silent", share: 1, listener: "quiet", endings: &["idle_timeout"],
        script: |rng| session(rng.u32(..2_000), 0, Manner::Silence) },
    Kind { name: "silent after a half-close", share: 1, listener: "quiet", endings: &["half_close_timeout"],
        script: |rng| session(rng.u32(..2_000), 0, Manner::HalfSilence) },
];

/// The byte `first`, and random bytes after it; the total length is one of `lengths`.
fn random(rng: &mut Rng, first: u8, lengths: std::ops::Range<usize>) -> Vec<u8> {
    let length = rng.usize(lengths);
    std::iter::once(first)
        .chain(std::iter::repeat_with(|| rng.u8(..)))
        .take(length)
        .collect()
}

/// A random kind, weighted by the shares.
pub fn choose(rng: &mut Rng) -> &'static Kind {
    let all: u32 = KINDS.iter().map(|kind| kind.share).sum();
    let mut number = rng.u32(..all);
    for kind in KINDS {
        if number < kind.share {
            return kind;
        }
        number -= kind.share;
    }
    unreachable!("shares add up")
}

impl Talk {
    /// The order that its server gets.
    pub fn order(&self, session: u32) -> Order {
        Order {
            session,
            up: self.up,
            down: self.down,
            manner: self.manner,
            pace: self.paces[1],
        }
    }
}
