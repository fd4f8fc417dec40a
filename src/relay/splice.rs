//! Splicing: bytes go from socket to pipe to socket inside the kernel.
//!
//! A pipe is filled only when it is empty, so that EAGAIN on filling has one meaning: the socket has nothing.
//! SPLICE_F_MORE is never set: it corks the socket for up to 200 ms.
//!
//! Linux does not splice past urgent data: before it the socket looks empty, or at its end when the sender has finished.
//! So both answers are believed only of a socket that has nothing for recv(2) either.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::Interest;

use super::wire::Wire;

/// An unprivileged user has 16384 pipe pages: 256 pipes of this size.
const PIPE_BYTES: usize = 256 * 1024;

/// Pipes a thread may have when nobody has said otherwise.
const PIPES_MAX_DEFAULT: usize = 64;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), made: 0, max: PIPES_MAX_DEFAULT }) };
}

/// The pipes of one thread.
struct Pool {
    free: Vec<(OwnedFd, OwnedFd)>,
    made: usize,
    max: usize,
}

/// Bounds the pipes of the calling thread. Each is two descriptors.
pub fn limit_pipes(max: usize) {
    POOL.with_borrow_mut(|pool| pool.max = max);
}

/// What came of filling a pipe.
#[derive(Clone, Copy, Debug)]
pub(super) enum Filled {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing, and nothing will come: the end of the stream.
    End,
    /// Nothing, but there are bytes that only recv(2) can have.
    Refused,
}

/// A pipe on loan from the thread's pool, and the bytes in it.
#[derive(Debug)]
pub(super) struct Pipe {
    /// `None` only while dropping.
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// An empty pipe; `None` when the budget of descriptors or the user's pipe pages are used up: then copy.
    pub(super) fn take() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            if let Some(ends) = pool.free.pop() {
                return Some(Self {
                    ends: Some(ends),
                    held: 0,
                });
            }
            if pool.made >= pool.max {
                return None;
            }
            let ends = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
            // Past `pipe-user-pages-soft` the kernel refuses to enlarge: such a small pipe is worse than a copy.
            fcntl_setpipe_size(&ends.1, PIPE_BYTES).ok()?;
            pool.made += 1;
            Some(Self {
                ends: Some(ends),
                held: 0,
            })
        })
    }

    /// Bytes in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves what the socket has into the empty pipe.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &impl Wire) -> Poll<io::Result<Filled>> {
        debug_assert_eq!(self.held, 0, "a pipe is filled only when it is empty");
        let (_, into) = self.ends();
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || fill(from, into)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(filled) => {
                    if let Filled::Bytes(bytes) = filled {
                        self.held = bytes;
                        #[cfg(test)]
                        SPLICED.set(SPLICED.get() + bytes as u64);
                    }
                    return Poll::Ready(Ok(filled));
                }
            }
        }
    }

    /// Moves on to the socket until the pipe is empty.
    pub(super) fn poll_empty(&mut self, cx: &mut Context<'_>, to: &impl Wire) -> Poll<io::Result<()>> {
        while self.held > 0 {
            ready!(to.poll_write_ready(cx))?;
            let (out, _) = self.ends();
            match to.try_io(Interest::WRITABLE, || Ok(to.splice_from(out, self.held)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(sent) => self.held -= sent,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn ends(&self) -> &(OwnedFd, OwnedFd) {
        self.ends.as_ref().expect("the ends leave only in drop")
    }
}

impl Drop for Pipe {
    /// Empty pipes go back to the pool; one with bytes in it is closed with them.
    fn drop(&mut self) {
        let ends = self.ends.take();
        // A thread that ends has no pool any more; then the pipe is closed here.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            match ends {
                Some(ends) if self.held == 0 => pool.free.push(ends),
                _ => pool.made -= 1,
            }
        });
    }
}

fn fill(from: &impl Wire, into: &OwnedFd) -> io::Result<Filled> {
    let nothing = match from.splice_into(into) {
        Ok(0) => Ok(Filled::End),
        Ok(bytes) => return Ok(Filled::Bytes(bytes)),
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => return Err(error.into()),
    };
    match from.recv(&mut [0], RecvFlags::PEEK) {
        Ok(1..) => Ok(Filled::Refused),
        Ok(_) | Err(Errno::AGAIN) => nothing,
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
thread_local! {
    static SPLICED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The pipes of the calling thread.
#[cfg(test)]
pub(super) struct Pipes {
    /// There are so many.
    pub(super) made: usize,
    /// Of these nobody holds so many.
    pub(super) free: usize,
    /// Bytes that went through them so far.
    pub(super) spliced: u64,
}

/// What the calling thread's pool is like.
#[cfg(test)]
pub(super) fn pipes() -> Pipes {
    POOL.with_borrow(|pool| Pipes {
        made: pool.made,
        free: pool.free.len(),
        spliced: SPLICED.get(),
    })
}
