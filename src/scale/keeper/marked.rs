//! The processes of a clone whose keeper was killed. They are found by a mark in their environment, which a process inherits from
//! the one that has started it, also in another session.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::sleep;

/// The variable of the environment that has the mark.
const VARIABLE: &str = "ACEQUIA_KEEPER";

/// The most looks: a process may start another one before it is killed.
const LOOKS_MAX: usize = 100;

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A mark that no other clone has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl Mark {
    pub(super) fn new() -> Self {
        Self(fastrand::u64(..))
    }

    /// The variable and its value.
    pub(super) fn variable(self) -> (String, String) {
        (VARIABLE.to_owned(), format!("{:016x}", self.0))
    }

    /// Kills all processes that have the mark. One that we may not signal is left, and so is one that has replaced its
    /// environment.
    pub(super) async fn kill_all(self) {
        for _ in 0..LOOKS_MAX {
            sleep(PAUSE).await; // one that the keeper was starting has the mark only then
            let killed = pids().filter(|pid| self.kill(*pid).is_ok()).count();
            if killed == 0 {
                return;
            }
        }
    }

    /// Kills a process if it has the mark.
    ///
    /// # Errors
    /// It has another mark or none, it has ended, or we may not read its environment or signal it.
    fn kill(self, pid: Pid) -> io::Result<()> {
        // Before its environment is read: the PID may be that of another process a moment later.
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()))?;
        let (name, value) = self.variable();
        let entry = format!("{name}={value}").into_bytes();
        if !environment.split(|byte| *byte == 0).any(|variable| *variable == *entry) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(pidfd_send_signal(process, Signal::KILL)?)
    }
}

/// The PIDs of all processes that we may see.
fn pids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
    entries.filter_map(pid)
}
