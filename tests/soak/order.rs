//! The order: the instruction that begins each [`Talk`](crate::kinds::Talk). The client sends it, and the server does
//! what it says.

use std::time::Duration;

/// The parameters of a session that both sides know.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The number of the session.
    pub session: u32,
    /// Bytes of content from the client, after the order.
    pub up: u32,
    /// Bytes of content from the server.
    pub down: u32,
    pub manner: Manner,
    /// The pace of the server.
    pub pace: Pace,
}

/// The course of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Both send at the same time. When the client has received everything, it half-closes; then the server does.
    Both,
    /// Both send at the same time; the server half-closes as soon as it has sent everything.
    ServerEndsFirst,
    /// The client sends and half-closes; only then does the server answer.
    AfterTheEnd,
    /// The server resets when it has sent everything.
    ServerResets,
    /// The client sends; then both are silent, and neither half-closes.
    Silence,
    /// The client sends and half-closes; the server sends nothing and does not half-close.
    HalfSilence,
}

impl Manner {
    /// Indexed by discriminant.
    const ALL: [Self; 6] = [
        Self::Both,
        Self::ServerEndsFirst,
        Self::AfterTheEnd,
        Self::ServerResets,
        Self::Silence,
        Self::HalfSilence,
    ];
}

/// How fast one side reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Full,
    /// Much slower than acequia.
    Slow,
    /// 100 bytes every 100 ms.
    Trickle,
}

impl Pace {
    /// Indexed by discriminant.
    const ALL: [Self; 3] = [Self::Full, Self::Slow, Self::Trickle];

    /// Bytes at a time.
    pub fn chunk(self) -> usize {
        match self {
            Self::Full => 64 * 1024,
            Self::Slow => 16 * 1024,
            Self::Trickle => 100,
        }
    }

    /// Waits between two chunks.
    pub async fn rest(self) {
        match self {
            Self::Full => {}
            Self::Slow => tokio::time::sleep(Duration::from_millis(4)).await,
            Self::Trickle => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl Order {
    pub const BYTES: usize = 14;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.session.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.up.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.down.to_be_bytes());
        bytes[12] = self.manner as u8;
        bytes[13] = self.pace as u8;
        bytes
    }

    /// `None` if the bytes are not an order.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Self {
            session: number(0),
            up: number(4),
            down: number(8),
            manner: *Manner::ALL.get(usize::from(bytes[12]))?,
            pace: *Pace::ALL.get(usize::from(bytes[13]))?,
        })
    }
}
