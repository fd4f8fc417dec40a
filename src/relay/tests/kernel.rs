//! A deterministic model of the kernel's side of the two sockets of a session, and of their peers.
//!
//! The rules are those of Linux (6.18: `net/ipv4/tcp.c`, `tcp_input.c`, `tcp_output.c`, `net/core/stream.c`), as far as
//! recv(2), send(2), splice(2) and epoll(7) show them, and above them tokio's readiness (`runtime/io/scheduled_io.rs`).
//!
//! The value of a byte follows from its position in the stream, so that bytes that are lost, doubled or sent the wrong
//! way are nearly always found at once.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::task::Waker;

use rustix::io::{Errno, Result as CallResult};
use tokio::io::Ready;
use tokio::sync::oneshot;

use super::*;
use crate::relay::core::SendQueue;
use crate::relay::engine::poll::TURN_BYTES;

/// The most bytes that a peer sends, or the relay sends, at once.
pub(super) const PIECE_BYTES_MAX: usize = 1 << 20;

/// Fewer system calls are made in one poll: no turn needs so many, even in pieces of a few bytes.
const CALLS_A_POLL_MAX: u32 = 20_000;

/// The streams in the two directions. Each repeats 0, 1, … with its own prime period, so that a wrong offset is nearly
/// always found. Bytes of the other direction are found once there are more of them than a period has.
static STREAMS: LazyLock<[Vec<u8>; 2]> =
    LazyLock::new(|| [251, 241].map(|period| (0..PIECE_BYTES_MAX + period).map(|at| (at % period) as u8).collect()));

/// `length` bytes of the stream towards `to`, from `position` on.
fn bytes(to: Side, position: usize, length: usize) -> &'static [u8] {
    let (stream, period) = match to {
        Side::Server => (&STREAMS[0], 251),
        Side::Client => (&STREAMS[1], 241),
    };
    &stream[position % period..][..length]
}

/// The first bytes for the server.
pub(super) fn first_bytes(length: usize) -> Vec<u8> {
    bytes(Side::Server, 0, length).to_vec()
}

/// What happens, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) when: When,
    pub(super) act: Act,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// Within a poll, after this many more system calls of the relay; if it makes fewer, as soon as it sleeps.
    Calls(u8),
    /// This long after the step before.
    Millis(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// A peer sends bytes.
    Sends(Side, usize),
    /// A peer takes bytes out of our send queue.
    Consumes(Side, usize),
    /// A peer shuts its writing side down.
    Ends(Side),
    /// As `Ends`, by a peer that should have sent a close_notify before: its stream is cut off.
    Truncates(Side),
    /// The connection to a peer breaks.
    Breaks(Side, Fault),
    /// Somebody cuts the session.
    Cut,
}

/// The two sockets, and all that is still to happen to them.
pub(super) struct World {
    pub(super) client: End,
    pub(super) server: End,
    steps: VecDeque<Step>,
    /// Whether the system splices out of sockets, and into them; `Err`: the error of such a splice.
    pub(super) splices: [CallResult<()>; 2],
    cut: Option<oneshot::Sender<()>>,
    /// The side whose end of stream the relay read first, and when.
    pub(super) first_ended: Option<(Side, Instant)>,
    /// When the relay last read or sent bytes, and when a peer last consumed some.
    pub(super) moved_at: Instant,
    pub(super) consumed_at: Option<Instant>,
    /// System calls of the relay's last poll.
    calls: u32,
    /// Whether readiness or the cut has woken the relay since its last poll.
    pub(super) was_woken: bool,
}

/// One of our sockets.
pub(super) struct End {
    /// How far its peer's stream has arrived, and how far the relay has read it.
    pub(super) arrived: usize,
    pub(super) read: usize,
    /// How many bytes of the peer's stream the relay has read since its last poll began, or since an error was taken
    /// off the socket.
    pub(super) turn_bytes: usize,
    /// The peer's FIN has arrived (SOCK_DONE).
    pub(super) ended: bool,
    /// A read has returned the end of the stream.
    pub(super) end_read: bool,
    /// The stream was cut off. The socket does not know: the relay finds it out by reading.
    is_truncated: bool,
    /// How far the relay has sent the stream towards the peer, and how far the peer has consumed it.
    pub(super) sent: usize,
    pub(super) consumed: usize,
    /// The relay has shut its writing side down.
    pub(super) shut_down: bool,
    /// When it broke, and why.
    pub(super) broke: Option<(Instant, Fault)>,
    /// The error that no call has returned yet (sk_err).
    error: Option<Errno>,
    /// Size of the send queue, and whether an event must follow once it has room again (SOCK_NOSPACE).
    queue_size: usize,
    no_space: bool,
    /// epoll has an event to report.
    event: bool,
    /// A read has emptied the receive queue since the last event: another read is a wasted call.
    pub(super) drained: bool,
    /// The readiness that tokio has cached, and the wakers that it calls.
    pub(super) ready: Ready,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) fault_watcher: Option<Waker>,
    pub(super) read_closed_watcher: Option<Waker>,
}

impl End {
    fn new(first: usize, queue_size: usize) -> Self {
        Self {
            arrived: first,
            read: first,
            turn_bytes: 0,
            ended: false,
            end_read: false,
            is_truncated: false,
            sent: 0,
            consumed: 0,
            shut_down: false,
            broke: None,
            error: None,
            queue_size,
            no_space: false,
            event: true,
            drained: false,
            ready: Ready::EMPTY,
            reader: None,
            writer: None,
            fault_watcher: None,
            read_closed_watcher: None,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.sent - self.consumed
    }

    /// Whether the direction that reads from it has used up its turn. Unless it has to wait for the receiver, it is
    /// polled again without an event.
    pub(super) fn has_had_its_turn(&self) -> bool {
        self.turn_bytes >= TURN_BYTES
    }

    /// `sk_stream_is_writeable`: a third of the queue is free. A closed socket is writable: the write returns the
    /// error.
    pub(super) fn is_writable(&self) -> bool {
        self.shut_down || self.broke.is_some() || self.queued() <= self.queue_size / 3 * 2
    }

    /// Whether a read would return something new: bytes, an error, or the end for the first time.
    pub(super) fn is_readable(&self) -> bool {
        self.arrived > self.read || ((self.ended || self.broke.is_some()) && !self.end_read)
    }

    /// What a read returns when no bytes are left (`tcp_recvmsg_locked`): the end comes before the error, and the error
    /// once. After the error, every read returns the end.
    pub(super) fn read_empty(&mut self) -> CallResult<usize> {
        if self.ended {
            return Ok(0);
        }
        match self.take_error() {
            Some(error) => Err(error),
            None if self.broke.is_some() => Ok(0),
            None => Err(Errno::AGAIN),
        }
    }

    /// Takes the error off the socket. If it is the server's, the relay next delivers what the server had sent before,
    /// in a new turn.
    pub(super) fn take_error(&mut self) -> Option<Errno> {
        self.error.take().inspect(|_| self.turn_bytes = 0)
    }

    /// `tcp_sendmsg_locked` and `sk_stream_error`: the error once, then EPIPE. Otherwise how many of `length` bytes it
    /// takes; if fewer, an event will follow.
    fn takes(&mut self, length: usize) -> CallResult<usize> {
        if self.broke.is_some() || self.shut_down {
            return Err(self.take_error().unwrap_or(Errno::PIPE));
        }
        let free = self.queue_size - self.queued();
        self.no_space |= free < length;
        if free == 0 {
            Err(Errno::AGAIN)
        } else {
            Ok(length.min(free))
        }
    }

    /// `tcp_reset` and `tcp_write_err`: queued bytes are lost, but not the bytes that have arrived. The error of
    /// a reset is EPIPE if the peer's FIN had arrived and our side was not shut down. The error of a timeout is that of
    /// an earlier ICMPv6 message: here EACCES, which the relay could mistake for a refusal of splice(2).
    fn breaks(&mut self, fault: Fault) {
        let is_closed = self.ended && self.shut_down && self.queued() == 0;
        if self.broke.is_some() || is_closed || self.is_truncated {
            return;
        }
        self.error = Some(match fault {
            Fault::Lost => Errno::ACCESS,
            Fault::Reset if self.ended && !self.shut_down => Errno::PIPE,
            Fault::Reset => Errno::CONNRESET,
            Fault::Truncated | Fault::Tls => unreachable!("a socket does not break so; see `Act::Truncates`"),
        });
        self.broke = Some((Instant::now(), fault));
        self.event = true;
    }

    /// What epoll reports (`tcp_poll`), as mio and tokio read it. Sets SOCK_NOSPACE if the socket is not writable.
    fn readiness(&mut self) -> Ready {
        let (broke, mut ready) = (self.broke.is_some(), Ready::EMPTY);
        if self.arrived > self.read || self.ended || broke {
            ready |= Ready::READABLE;
        }
        if self.ended || broke {
            ready |= Ready::READ_CLOSED;
        }
        if self.is_writable() {
            ready |= Ready::WRITABLE;
        } else {
            self.no_space = true;
        }
        if broke || (self.ended && self.shut_down) {
            ready |= Ready::READ_CLOSED | Ready::WRITE_CLOSED;
        }
        if self.error.is_some() {
            ready |= Ready::ERROR;
        }
        ready
    }

    /// Delivers the event, if there is one. Returns whether that woke a task.
    fn deliver_events(&mut self) -> bool {
        if !std::mem::take(&mut self.event) {
            return false;
        }
        self.drained = false;
        let readiness = self.readiness();
        self.ready |= readiness;
        let woken = [
            self.reader.take_if(|_| readiness.is_readable()),
            self.writer.take_if(|_| readiness.is_writable()),
            self.fault_watcher.take_if(|_| readiness.is_error()),
            self.read_closed_watcher.take_if(|_| readiness.is_read_closed()),
        ];
        let wakes = woken.iter().any(Option::is_some);
        woken.into_iter().flatten().for_each(Waker::wake);
        wakes
    }
}

impl World {
    /// Two connected sockets with send queues of these sizes (client's, server's), and a session whose first bytes were
    /// read before.
    pub(super) fn new(
        first: usize,
        queue_sizes: [usize; 2],
        splices: [CallResult<()>; 2],
        steps: &[Step],
        cut: oneshot::Sender<()>,
    ) -> Self {
        Self {
            client: End::new(first, queue_sizes[0]),
            server: End::new(0, queue_sizes[1]),
            steps: steps.iter().copied().collect(),
            splices,
            cut: Some(cut),
            first_ended: None,
            moved_at: Instant::now(),
            consumed_at: None,
            calls: 0,
            was_woken: false,
        }
    }

    pub(super) fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_none()
    }

    /// The time from the last step to the next one; zero for one that waits for calls.
    pub(super) fn next_step_in(&self) -> Option<Duration> {
        self.steps.front().map(|step| match step.when {
            When::Calls(_) => Duration::ZERO,
            When::Millis(millis) => Duration::from_millis(millis),
        })
    }

    /// Lets the next step happen. Returns `false` if there is none.
    pub(super) fn step(&mut self) -> bool {
        let step = self.steps.pop_front();
        step.inspect(|step| self.act(step.act)).is_some()
    }

    /// To be called after the last step. If the session `ends_well`, the peers receive what they are sent, in large
    /// pieces, and end. Otherwise the session is cut.
    pub(super) fn end_peers(&mut self, ends_well: bool) {
        if !ends_well {
            return self.act(Act::Cut);
        }
        for side in [Side::Client, Side::Server] {
            self.end_mut(side).queue_size = PIECE_BYTES_MAX;
            self.act(Act::Consumes(side, usize::MAX));
            self.act(Act::Ends(side));
        }
    }

    pub(super) fn begins_poll(&mut self) {
        (self.calls, self.was_woken) = (0, false);
        (self.client.turn_bytes, self.server.turn_bytes) = (0, 0);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Sends(side, bytes) => {
                let end = self.end_mut(side);
                if !end.ended && end.broke.is_none() {
                    end.arrived += bytes;
                    end.event = true;
                }
            }
            Act::Consumes(side, bytes) => {
                let end = self.end_mut(side);
                let consumed = end.queued().min(bytes);
                if consumed == 0 || end.broke.is_some() {
                    return;
                }
                end.consumed += consumed;
                // `sk_stream_write_space`: there is an event only after SOCK_NOSPACE was set.
                if end.no_space && end.is_writable() {
                    (end.no_space, end.event) = (false, true);
                }
                self.consumed_at = Some(Instant::now());
            }
            Act::Ends(side) => {
                let end = self.end_mut(side);
                if !end.ended && end.broke.is_none() {
                    (end.ended, end.event) = (true, true);
                }
            }
            Act::Truncates(side) => {
                let end = self.end_mut(side);
                if !end.ended && end.broke.is_none() {
                    (end.ended, end.is_truncated, end.event) = (true, true, true);
                }
            }
            Act::Breaks(side, fault) => self.end_mut(side).breaks(fault),
            Act::Cut => {
                if let Some(cut) = self.cut.take() {
                    let _ = cut.send(());
                    self.was_woken = true;
                }
            }
        }
    }

    /// epoll_wait(2).
    pub(super) fn deliver_events(&mut self) {
        self.was_woken |= [self.client.deliver_events(), self.server.deliver_events()].contains(&true);
    }

    /// To be called before each system call: steps of the script may happen then.
    pub(super) fn call(&mut self) {
        self.calls += 1;
        assert!(self.calls < CALLS_A_POLL_MAX, "a poll without end");
        while let Some(Step {
            when: When::Calls(left),
            ..
        }) = self.steps.front_mut()
        {
            if *left > 0 {
                *left -= 1;
                return;
            }
            self.step();
        }
    }

    /// Steps that have not happened yet.
    pub(super) fn steps_left(&self) -> usize {
        self.steps.len()
    }

    /// recv(2). `give` is passed the bytes, and returns how many of them it has received.
    pub(super) fn receive(
        &mut self,
        side: Side,
        max: usize,
        give: impl FnOnce(&'static [u8]) -> usize,
    ) -> CallResult<usize> {
        let end = self.end_mut(side);
        let available = (end.arrived - end.read).min(max);
        if available > 0 {
            let given = give(bytes(side.other(), end.read, available));
            end.read += given;
            end.turn_bytes += given;
            self.moved_at = Instant::now();
            return Ok(given);
        }
        let answer = end.read_empty();
        if answer == Ok(0) && !end.end_read {
            end.end_read = true;
            if end.ended && !end.is_truncated {
                self.first_ended.get_or_insert((side, Instant::now()));
            }
        }
        answer
    }

    /// Whether the end of the stream that was just read is a truncation; returns `true` once. The truncation then
    /// breaks this side. A truncation by the client breaks nothing if the relay assumes that the server has finished.
    pub(super) fn take_truncation(&mut self, side: Side) -> bool {
        let server = &self.server;
        // The relay has read the end of the server's stream, and knows of no fault of the server.
        let seems_finished = server.end_read && (server.broke.is_none() || server.error.is_some());
        let end = self.end_mut(side);
        let is_truncated = std::mem::take(&mut end.is_truncated);
        if is_truncated && !(side == Side::Client && seems_finished) {
            end.broke = Some((Instant::now(), Fault::Truncated));
        }
        is_truncated
    }

    /// send(2). `get` is passed how many bytes are taken, and returns them.
    pub(super) fn send<B: AsRef<[u8]>>(
        &mut self,
        side: Side,
        length: usize,
        get: impl FnOnce(usize) -> B,
    ) -> CallResult<usize> {
        let available = self.end(side.other()).read;
        let end = self.end_mut(side);
        let taken = end.takes(length)?;
        let expected = bytes(side, end.sent, taken);
        assert!(
            get(taken).as_ref() == expected,
            "{side:?}, byte {}: another value than was sent",
            end.sent
        );
        end.sent += taken;
        assert!(end.sent <= available, "{side:?} gets bytes that nobody has sent");
        self.moved_at = Instant::now();
        Ok(taken)
    }

    /// shutdown(2).
    pub(super) fn shut_down(&mut self, side: Side) {
        let from = self.end(side.other());
        let (read, complete) = (from.read, from.ended && from.end_read);
        assert!(!from.shut_down, "both sockets are closed next: a needless call");
        assert!(complete, "{side:?} gets an end of stream that the peer has not sent");
        let end = self.end_mut(side);
        assert_eq!(end.sent, read, "{side:?} gets the end of stream before the last byte");
        (end.shut_down, end.event) = (true, true);
    }

    /// The error that no call has returned yet, once.
    pub(super) fn take_error(&mut self, side: Side) -> Option<Errno> {
        self.end_mut(side).take_error()
    }

    pub(super) fn queue(&self, side: Side) -> SendQueue {
        let queued = self.end(side).queued();
        SendQueue {
            unacknowledged_segments: u32::from(queued > 0),
            not_sent_bytes: queued as u32,
        }
    }
}
