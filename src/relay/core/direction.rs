//! One direction of a session: from the peer that sends to the one that receives. An engine moves the bytes.

/// The state of a direction.
#[derive(Debug)]
pub(super) struct Direction {
    /// Bytes read and not sent yet. A u32 saves memory: every session has two directions.
    unsent: u32,
    state: DirectionState,
    /// Whether nothing of the sender's stream is missing, so that a reset loses nothing of it: the stream has ended by
    /// an orderly close, or by a truncation that counts as one (see [`Core::broke`](super::Core::broke)); or, in TLS,
    /// its latest bytes are a close_notify. The end that an engine reports after a break does not count.
    is_complete: bool,
    /// Whether the engine leaves bytes of the sender unread. See [`Core::set_held_back`](super::Core::set_held_back).
    is_held_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectionState {
    /// The sender may send more.
    Open,
    /// The sender has finished; unsent bytes and the end itself must still be forwarded.
    Ended,
    /// The end was forwarded to the receiver, or never will be: nothing more happens in this direction.
    Done,
}

/// The next action of an engine in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Next {
    /// Nothing is unsent: read from the sender.
    Read,
    /// Send the unsent bytes. An engine that reads on meanwhile must bound the bytes that it holds.
    Send,
    /// Shut down the receiver's connection for writing: everything read has been sent.
    ShutDown,
    /// Nothing more. Unsent bytes are to be discarded.
    Nothing,
}

impl Direction {
    pub(super) fn new(unsent: usize) -> Self {
        Self {
            unsent: count(unsent),
            state: DirectionState::Open,
            is_complete: false,
            is_held_back: false,
        }
    }

    pub(super) fn next(&self) -> Next {
        match self.state {
            DirectionState::Done => Next::Nothing,
            _ if self.unsent > 0 => Next::Send,
            DirectionState::Open => Next::Read,
            DirectionState::Ended => Next::ShutDown,
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.unsent as usize
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state != DirectionState::Open
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == DirectionState::Done
    }

    pub(super) fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    pub(super) fn set_held_back(&mut self, is_held_back: bool) {
        self.is_held_back = is_held_back;
    }

    pub(super) fn received(&mut self, bytes: usize) {
        debug_assert_eq!(self.state, DirectionState::Open, "bytes after the end");
        self.unsent += count(bytes);
        self.is_complete = false;
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.unsent(), "more is sent than was read");
        self.unsent -= count(bytes);
    }

    /// The stream of the sender is over, whether by an orderly close or by a break.
    pub(super) fn end(&mut self) {
        if self.state == DirectionState::Open {
            self.state = DirectionState::Ended;
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Nothing of the sender's stream is missing. In TLS, this may be known before the end.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// The end was forwarded to the receiver.
    pub(super) fn shut_down(&mut self) {
        debug_assert_eq!(self.next(), Next::ShutDown, "the end is forwarded when it is not due");
        self.state = DirectionState::Done;
    }

    /// Skips forwarding the end to the receiver, if nothing else is left to do.
    pub(super) fn skip_end(&mut self) {
        if self.next() == Next::ShutDown {
            self.state = DirectionState::Done;
        }
    }

    /// The receiver's connection has broken. Unsent bytes are lost.
    pub(super) fn abandon(&mut self) {
        self.unsent = 0;
        self.state = DirectionState::Done;
    }
}

/// Converts a number of unsent bytes, which is far below 4 GiB.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("buffers and pipes are bounded")
}
