//! One direction of a session: from the peer that sends to the one that receives.

/// How far a direction is.
#[derive(Debug)]
pub(super) struct Direction {
    /// Bytes read and not sent yet. Every session has two of these: half a word is enough.
    unsent: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The sender may send more.
    Open,
    /// The sender has finished; unsent bytes and the end itself are still to be passed on.
    Ended,
    /// The receiver has been told of the end, or never will be.
    Done,
}

/// What an engine must or may do next in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Next {
    /// Nothing is unsent: read from the sender.
    Read,
    /// Send the unsent bytes. An engine that reads on meanwhile must bound what it holds.
    Send,
    /// Shut down the receiver's connection for writing: everything read has been sent.
    ShutDown,
    /// Nothing any more. Bytes that are still held are discarded.
    Nothing,
}

impl Direction {
    pub(super) fn new(unsent: usize) -> Self {
        Self {
            unsent: count(unsent),
            state: State::Open,
        }
    }

    pub(super) fn next(&self) -> Next {
        match self.state {
            State::Done => Next::Nothing,
            _ if self.unsent > 0 => Next::Send,
            State::Open => Next::Read,
            State::Ended => Next::ShutDown,
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.unsent as usize
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state != State::Open
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn received(&mut self, bytes: usize) {
        debug_assert_eq!(self.state, State::Open, "bytes after the end");
        self.unsent += count(bytes);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.unsent(), "more is sent than was read");
        self.unsent -= count(bytes);
    }

    /// The sender has finished.
    pub(super) fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Ended;
        }
    }

    /// The receiver has been told of the end.
    pub(super) fn finish(&mut self) {
        debug_assert_eq!(self.next(), Next::ShutDown, "the end comes after the last byte");
        self.state = State::Done;
    }

    /// Ends without telling the receiver, if only that is left to do.
    pub(super) fn settle(&mut self) {
        if self.next() == Next::ShutDown {
            self.state = State::Done;
        }
    }

    /// The receiver has broken. Unsent bytes are lost.
    pub(super) fn abandon(&mut self) {
        self.unsent = 0;
        self.state = State::Done;
    }
}

/// Bytes that are held at once: far fewer than 4 GiB.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("buffers and pipes are bounded")
}
