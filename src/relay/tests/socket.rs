//! The sockets of a session in the [model of the kernel](super::kernel), as the `poll` engine uses them.

use std::os::fd::OwnedFd;

use parking_lot::{Mutex, MutexGuard};
use rustix::io::{Errno, Result as CallResult};
use rustix::net::RecvFlags;
use tokio::io::{Interest, Ready};

use super::kernel::{PIECE_BYTES_MAX, World};
use super::*;
use crate::relay::core::SendQueue;
use crate::relay::engine::poll::{Socket, TURN_BYTES};

/// One of our two sockets, to be relayed.
pub(super) struct ModelSocket<'a> {
    pub(super) world: &'a Mutex<World>,
    pub(super) side: Side,
}

impl ModelSocket<'_> {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    /// Makes a system call, which `answer` carries out.
    fn call<R>(&self, answer: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.world();
        world.call();
        answer(&mut world)
    }

    fn receive(&self, max: usize, give: impl FnOnce(&'static [u8]) -> usize) -> CallResult<usize> {
        self.call(|world| {
            let can_send = world.end(self.side.other()).ready.is_writable();
            assert!(can_send, "it reads what it cannot send");
            assert!(
                world.end(self.side).turn_bytes < TURN_BYTES,
                "it reads on after its turn"
            );
            world.receive(self.side, max, give)
        })
    }

    fn send_bytes<B: AsRef<[u8]>>(&self, length: usize, get: impl FnOnce(usize) -> B) -> CallResult<usize> {
        self.call(|world| world.send(self.side, length, get))
    }
}

impl Socket for ModelSocket<'_> {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut world = self.world();
        let end = world.end_mut(self.side);
        if end.ready.is_readable() {
            return Poll::Ready(Ok(()));
        }
        end.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut world = self.world();
        let end = world.end_mut(self.side);
        if end.ready.is_writable() {
            return Poll::Ready(Ok(()));
        }
        end.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Does what tokio's `Registration::try_io` and `ScheduledIo::clear_readiness` do: a closed socket stays ready.
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let (open, closed) = match interest {
            Interest::READABLE => (Ready::READABLE, Ready::READ_CLOSED),
            _ => (Ready::WRITABLE, Ready::WRITE_CLOSED),
        };
        let ready = self.world().end(self.side).ready;
        if (ready & (open | closed)).is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let answer = call();
        if answer
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        {
            let mut world = self.world();
            let end = world.end_mut(self.side);
            end.ready = end.ready - open;
        }
        answer
    }

    fn readable_bytes(&self) -> usize {
        self.call(|world| {
            let end = world.end(self.side);
            end.arrived - end.read
        })
    }

    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> CallResult<usize> {
        if flags.contains(RecvFlags::PEEK) {
            return self.call(|world| {
                let end = world.end_mut(self.side);
                let there = (end.arrived - end.read).min(buffer.len());
                if there > 0 { Ok(there) } else { end.read_empty() }
            });
        }
        let all = buffer.len();
        {
            let world = self.world();
            let end = world.end(self.side);
            assert!(!end.drained || end.ready.is_read_closed(), "a needless read");
        }
        let answer = self.receive(all, |bytes| {
            buffer[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        });
        let short = answer.is_ok_and(|read| 0 < read && read < all);
        self.world().end_mut(self.side).drained = short || answer == Err(Errno::AGAIN);
        answer
    }

    fn send(&self, bytes: &[u8]) -> CallResult<usize> {
        self.send_bytes(bytes.len(), |taken| &bytes[..taken])
    }

    /// The pipe is a real one, so that the pool of pipes is tested too.
    fn splice_into(&self, pipe: &OwnedFd, bytes_max: usize) -> CallResult<usize> {
        let [out_of_sockets, _] = self.world().splices;
        out_of_sockets?; // an error where the system does not support this splice
        self.receive(PIECE_BYTES_MAX.min(bytes_max), |bytes| {
            rustix::io::write(pipe, bytes).expect("an empty pipe has room")
        })
    }

    fn splice_from(&self, pipe: &OwnedFd, bytes: usize) -> CallResult<usize> {
        let [_, into_sockets] = self.world().splices;
        into_sockets?;
        self.send_bytes(bytes, |taken| {
            let mut buffer = vec![0; taken];
            let given = rustix::io::read(pipe, &mut buffer).expect("the pipe has what is asked for");
            buffer.truncate(given);
            buffer
        })
    }

    fn shut_down(&self) {
        self.call(|world| world.shut_down(self.side));
    }

    fn fault(&self) -> impl Future<Output = Fault> + Send {
        FaultWatch(self)
    }

    fn read_closed(&self) -> impl Future<Output = ()> + Send {
        ReadClosedWatch(self)
    }

    fn queue(&self) -> Option<SendQueue> {
        self.call(|world| Some(world.queue(self.side)))
    }
}

/// The model of [`socket_fault`]: takes the error off the socket.
struct FaultWatch<'a>(&'a ModelSocket<'a>);

impl Future for FaultWatch<'_> {
    type Output = Fault;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fault> {
        let mut world = self.0.world();
        let end = world.end_mut(self.0.side);
        if end.ready.is_error() {
            if let Some(error) = end.take_error() {
                return Poll::Ready(Fault::classify(&error.into()));
            }
            end.ready = end.ready - Ready::ERROR;
        }
        end.fault_watcher = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for FaultWatch<'_> {
    fn drop(&mut self) {
        self.0.world.lock().end_mut(self.0.side).fault_watcher = None;
    }
}

/// The model of [`read_closed`](crate::socket::read_closed).
struct ReadClosedWatch<'a>(&'a ModelSocket<'a>);

impl Future for ReadClosedWatch<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut world = self.0.world();
        let end = world.end_mut(self.0.side);
        if end.ready.is_read_closed() {
            return Poll::Ready(());
        }
        end.read_closed_watcher = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for ReadClosedWatch<'_> {
    fn drop(&mut self) {
        self.0.world.lock().end_mut(self.0.side).read_closed_watcher = None;
    }
}
