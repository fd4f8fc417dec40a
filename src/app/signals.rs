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
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl EndSignals {
    /// One of them comes. Cancel safe.
    pub(super) async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
