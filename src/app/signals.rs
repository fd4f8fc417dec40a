//! The signals that the process handles.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process waits for.
pub(super) struct Signals {
    /// End the process: SIGTERM, SIGINT, SIGQUIT.
    pub(super) end: EndSignals,
    /// Opens the access log again: SIGUSR1.
    pub(super) reopen: Signal,
    /// Reloads the configuration: SIGHUP.
    pub(super) reload: Signal,
}

/// The signals that end the process.
pub(super) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// Whether a SIGINT has come: the next one cuts.
    was_interrupted: bool,
    is_cut_requested: bool,
}

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Sessions may continue for the drain timeout.
    Drain,
    /// All sessions are cut at once.
    Cut,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        // SIGXFSZ by default ends a process when a log reaches the limit of file sizes (setrlimit(2)). With a handler,
        // the write fails instead. The handler stays when the stream is dropped.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
        Ok(Self {
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                quit: signal(SignalKind::quit())?,
                was_interrupted: false,
                is_cut_requested: false,
            },
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl EndSignals {
    /// Waits for the first of these signals. Cancel safe.
    pub(super) async fn first(&mut self) -> End {
        tokio::select! {
            _ = self.terminate.recv() => End::Drain,
            _ = self.interrupt.recv() => {
                self.was_interrupted = true;
                End::Drain
            }
            _ = self.quit.recv() => {
                self.is_cut_requested = true;
                End::Cut
            }
        }
    }

    /// Waits, while the process drains, for a request to cut the remaining sessions: SIGQUIT, or the second SIGINT.
    /// Further SIGTERMs are ignored, because supervisors send more than one, and to a whole process group. Returns at
    /// once if such a request has already come. Cancel safe.
    pub(super) async fn cut_requested(&mut self) {
        while !self.is_cut_requested {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => self.is_cut_requested = std::mem::replace(&mut self.was_interrupted, true),
                _ = self.quit.recv() => self.is_cut_requested = true,
            }
        }
    }
}
