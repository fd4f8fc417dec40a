//! A running command and all that it has started, as one process group.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::thread::clear_ambient_capability_set;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::descriptors::set_close_on_exec_on_all;
use crate::readiness;

/// The pause between two attempts to reap a killed command.
const REAP_PAUSE: Duration = Duration::from_millis(100);

/// A running command. Dropping it kills its process group with SIGKILL, which no process can ignore. Processes that
/// have left the group are not found.
pub(super) struct ProcessGroup {
    /// `None`: it has been reaped. Before that, no other process can have its PID, nor another group its number.
    child: Option<Child>,
}

/// The read ends of the pipes that a command writes to.
pub(super) struct OutputPipes {
    pub(super) stdout: OwnedFd,
    /// `None`: its standard error is not a pipe of ours.
    pub(super) stderr: Option<OwnedFd>,
}

impl ProcessGroup {
    /// Starts a command whose standard output is a pipe. May block.
    ///
    /// # Errors
    /// Those of starting it.
    pub(super) fn start(mut command: Command) -> io::Result<(Self, OutputPipes)> {
        // The command would inherit the ambient capabilities of this thread. An error means that the kernel has none.
        let _ = clear_ambient_capability_set();
        set_close_on_exec_on_all();
        let mut child = command.process_group(0).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let group = Self { child: Some(child) };
        let pipes = OutputPipes {
            stdout: stdout.expect("the standard output is a pipe").into(),
            stderr: stderr.map(OwnedFd::from),
        };
        Ok((group, pipes))
    }

    /// Returns a descriptor that becomes readable when the command itself has ended. To be called within a runtime.
    ///
    /// # Errors
    /// Those of pidfd_open(2) and epoll_ctl(2).
    pub(super) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let pid = self.pid().expect("it is not reaped yet");
        readiness::watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
    }

    /// Kills what is left of the group, and reaps the command, which must have ended.
    ///
    /// # Errors
    /// Those of wait(2).
    pub(super) fn reap(mut self) -> io::Result<ExitStatus> {
        self.kill();
        let mut child = self.child.take().expect("it is not reaped yet");
        child.wait()
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL); // all may have ended
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
        let Some(mut child) = self.child.take() else { return };
        // The child dies soon, unless the kernel holds it; a task reaps it when it has died. The task polls, because
        // there may be no free descriptor to wait with. Without a runtime, this process is about to end and need not
        // reap.
        if let (Ok(None), Ok(runtime)) = (child.try_wait(), Handle::try_current()) {
            runtime.spawn(async move {
                while let Ok(None) = child.try_wait() {
                    sleep(REAP_PAUSE).await;
                }
            });
        }
    }
}
