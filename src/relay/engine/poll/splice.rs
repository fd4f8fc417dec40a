//! Splicing: bytes move from socket to pipe to socket inside the kernel.
//!
//! A pipe is filled only when it is empty, so that EAGAIN on filling has one meaning: the socket has no data.
//! SPLICE_F_MORE is never set: it corks the socket for up to 200 ms.
//!
//! Linux does not splice past urgent data: the socket then looks empty, or at its end if the sender has finished. So
//! both results are verified by recv(2).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, read};
use rustix::net::RecvFlags;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::socket::Socket;
use crate::optional::OptionalCall;

static SPLICE: OptionalCall = OptionalCall::new("splice", "bulk data is copied, which takes more CPU time");

/// By default, an unprivileged user has 16384 pipe pages (`pipe-user-pages-soft`): 256 pipes of this size.
const PIPE_BYTES: usize = 256 * 1024;

/// The limit on a thread's pipes until [`limit_pipes`] sets another.
const PIPES_MAX_DEFAULT: usize = 64;

thread_local! {
    static POOL: RefCell<PipePool> = const { RefCell::new(PipePool { free: Vec::new(), open: 0, max: PIPES_MAX_DEFAULT }) };
}

/// The pipes of one thread.
struct PipePool {
    free: Vec<(OwnedFd, OwnedFd)>,
    /// The number of open pipes: those in `free`, and those on loan.
    open: usize,
    max: usize,
}

/// Bounds the number of pipes of the calling thread. Each takes two descriptors.
pub fn limit_pipes(max: usize) {
    POOL.with_borrow_mut(|pool| pool.max = max);
}

/// Stops splicing on the calling thread, because the system does not support it.
fn stop_splicing(error: Errno) {
    SPLICE.record_failure(&error);
    POOL.with_borrow_mut(|pool| {
        pool.max = 0;
        pool.open -= pool.free.len();
        pool.free.clear();
    });
}

/// The result of filling a pipe.
#[derive(Clone, Copy, Debug)]
pub(super) enum Filled {
    /// The number of bytes, at least one.
    Bytes(usize),
    /// The end of the stream.
    End,
    /// Nothing, although recv(2) finds bytes; or the system does not support splice(2).
    Refused,
}

/// The result of sending out of a pipe.
#[derive(Debug)]
pub(super) enum Sent {
    /// The number of bytes that were sent.
    Bytes(usize),
    /// The system does not support splice(2). The value is the bytes that were left in the pipe.
    Refused(Box<[u8]>),
}

/// A pipe on loan from the thread's pool, and the bytes in it.
#[derive(Debug)]
pub(super) struct Pipe {
    /// `None` only while dropping.
    ends: Option<(OwnedFd, OwnedFd)>,
    filled_bytes: usize,
}

impl Pipe {
    /// Takes an empty pipe. `None`: the caller copies instead, because the thread's pipes are all in use, the system is
    /// short of descriptors, memory or pipe pages, or it does not support splice(2).
    pub(super) fn take() -> Option<Self> {
        let ends = POOL.with_borrow_mut(|pool| {
            if let Some(ends) = pool.free.pop() {
                return Ok(Some(ends));
            }
            if pool.open >= pool.max {
                return Ok(None);
            }
            let ends = new_pipe()?;
            pool.open += 1;
            Ok(Some(ends))
        });
        let ends = ends.unwrap_or_else(|error| {
            if !is_shortage(error) {
                stop_splicing(error);
            }
            None
        });
        ends.map(|ends| Self {
            ends: Some(ends),
            filled_bytes: 0,
        })
    }

    /// Moves at most `bytes_max` bytes of what the socket has received into the empty pipe.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &impl Socket,
        bytes_max: usize,
    ) -> Poll<io::Result<Filled>> {
        debug_assert_eq!(self.filled_bytes, 0, "the pipe to be filled is not empty");
        let pipe = self.ends();
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || fill(from, pipe, bytes_max)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(filled) => {
                    if let Filled::Bytes(bytes) = filled {
                        self.filled_bytes = bytes;
                        #[cfg(test)]
                        SPLICED.set(SPLICED.get() + bytes as u64);
                    }
                    return Poll::Ready(Ok(filled));
                }
            }
        }
    }

    /// Sends once, as much as the socket accepts, at least a byte.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, to: &impl Socket) -> Poll<io::Result<Sent>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let pipe = self.ends();
            match to.try_io(Interest::WRITABLE, || Ok(to.splice_from(&pipe.0, self.filled_bytes)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(errno) if !is_connection_error(errno, pipe) => {
                        stop_splicing(errno);
                        return Poll::Ready(self.read_out().map(Sent::Refused));
                    }
                    _ => return Poll::Ready(Err(error)),
                },
                Ok(sent) => {
                    self.filled_bytes -= sent;
                    return Poll::Ready(Ok(Sent::Bytes(sent)));
                }
            }
        }
    }

    /// Empties the pipe by read(2).
    fn read_out(&mut self) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; self.filled_bytes].into_boxed_slice();
        let mut left = &mut bytes[..];
        while !left.is_empty() {
            let read = read(&self.ends().0, &mut *left)?;
            self.filled_bytes -= read;
            left = &mut left[read..];
        }
        Ok(bytes)
    }

    fn ends(&self) -> &(OwnedFd, OwnedFd) {
        self.ends.as_ref().expect("the ends are taken only in drop")
    }
}

impl Drop for Pipe {
    /// Returns the pipe to the pool. Closes it instead if it has bytes in it, or if the thread now has more pipes than
    /// it may have.
    fn drop(&mut self) {
        let ends = self.ends.take();
        // While a thread ends, its pool may be gone already; then the pipe is closed here.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            match ends {
                Some(ends) if self.filled_bytes == 0 && pool.open <= pool.max => pool.free.push(ends),
                _ => pool.open -= 1,
            }
        });
    }
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let ends = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    // Past `pipe-user-pages-soft` the kernel refuses to enlarge pipes (EPERM); splicing through a small one is worse
    // than copying.
    fcntl_setpipe_size(&ends.1, PIPE_BYTES)?;
    Ok(ends)
}

/// Whether the error is a temporary shortage.
fn is_shortage(error: Errno) -> bool {
    matches!(
        error,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::BUSY | Errno::PERM
    )
}

/// Whether an error of splice(2) comes from the connection: recv(2) or send(2) would return it too. In Linux, these
/// include the errors of `tcp_reset`, of `tcp_write_err`, and of ICMP (`icmp_err_convert`, `tab_unreach` of ICMPv6).
/// Any other error is taken to mean that the system does not support splice(2).
///
/// EACCES and EOPNOTSUPP may mean either. A connection's error is returned only once: if it were taken for a refusal,
/// the stream would seem to end normally. So the system is asked with another splice, without a connection.
fn is_connection_error(error: Errno, pipe: &(OwnedFd, OwnedFd)) -> bool {
    if matches!(error, Errno::ACCESS | Errno::OPNOTSUPP) {
        // Linux answers EINVAL to a splice within one pipe. If the answer is `error` again, the error comes from the
        // system, not from the connection.
        return splice(&pipe.0, None, &pipe.1, None, 1, SpliceFlags::NONBLOCK) != Err(error);
    }
    matches!(
        error,
        Errno::CONNRESET
            | Errno::PIPE
            | Errno::TIMEDOUT
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::CONNABORTED
            | Errno::CONNREFUSED
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::NETDOWN
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::MSGSIZE
            | Errno::NOTCONN
            | Errno::SHUTDOWN
    )
}

fn fill(from: &impl Socket, pipe: &(OwnedFd, OwnedFd), bytes_max: usize) -> io::Result<Filled> {
    let result_without_bytes = match from.splice_into(&pipe.1, bytes_max) {
        Ok(0) => Ok(Filled::End),
        Ok(bytes) => return Ok(Filled::Bytes(bytes)),
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) if is_connection_error(error, pipe) => return Err(error.into()),
        Err(error) => {
            stop_splicing(error);
            return Ok(Filled::Refused);
        }
    };
    match from.recv(&mut [0], RecvFlags::PEEK) {
        Ok(1..) => Ok(Filled::Refused),
        Ok(_) | Err(Errno::AGAIN) => result_without_bytes,
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
thread_local! {
    static SPLICED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Statistics of the calling thread's pipes.
#[cfg(test)]
pub(in crate::relay) struct Pipes {
    pub(in crate::relay) open: usize,
    /// The pipes that are not in use.
    pub(in crate::relay) free: usize,
    /// Bytes spliced so far.
    pub(in crate::relay) spliced: u64,
}

/// The statistics of the calling thread's pipes.
#[cfg(test)]
pub(in crate::relay) fn pipes() -> Pipes {
    POOL.with_borrow(|pool| Pipes {
        open: pool.open,
        free: pool.free.len(),
        spliced: SPLICED.get(),
    })
}
