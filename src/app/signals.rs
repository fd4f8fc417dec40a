//! The signals we listen to.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// All of them.
pub(super) struct Signals {
    pub(super) end: EndSignals,
    /// Open the access log again.
    pub(super) reopen: Signal,
    /// Read the configuration again.
    pub(super) reload: Signal,
}

/// Those that end the process.
pub(super) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    was_interrupted: bool,
}

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Sessions may go on for a while.
    Drain,
    /// Sessions are cut at once.
    Cut,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                quit: signal(SignalKind::quit())?,
                was_interrupted: false,
            },
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl EndSignals {
    /// Waits for the first of them. Cancel safe.
    pub(super) async fn come(&mut self) -> End {
        tokio::select! {
            _ = self.terminate.recv() => End::Drain,
            _ = self.interrupt.recv() => {
                self.was_interrupted = true;
                End::Drain
            }
            _ = self.quit.recv() => End::Cut,
        }
    }

    /// Waits, while the process drains, until it is to cut what is left: SIGQUIT, or the second SIGINT. SIGTERM never
    /// says so: supervisors send it more than once, and to a whole process group. Cancel safe.
    pub(super) async fn hurry(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {
                    if std::mem::replace(&mut self.was_interrupted, true) {
                        return;
                    }
                }
                _ = self.quit.recv() => return,
            }
        }
    }
}
