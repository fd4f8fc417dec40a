//! The processes of a clone whose keeper, the child process of acequia that ends the clone, was killed. They are found
//! by a mark in their environment, which a process inherits from the one that has started it, even if it calls
//! `setsid`.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::sleep;

use crate::blocking::blocking;
use crate::error::chain;
use crate::user::run_as;

/// The environment variable that holds the mark.
const VARIABLE: &str = "ACEQUIA_KEEPER";

/// How often marked processes are looked for at most: each may start another one before it is killed.
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

    /// Kills all processes that have the mark and run as our user or as `user`, the user of the clone; `None`: that is
    /// ours. A process that we may not signal is left, and so is one that has replaced its environment.
    pub(super) async fn kill_all(self, user: Option<String>) {
        for _ in 0..LOOKS_MAX {
            sleep(PAUSE).await; // a process that was being started may get the mark only now
            let user = user.clone();
            // Reading an environment waits for a lock of its process.
            match blocking(move || self.kill_now(user.as_deref())).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        error,
                        "what a clone has started may still run: its processes cannot be looked for"
                    );
                    return;
                }
            }
        }
    }

    /// Kills the processes that have the mark at this moment. Returns the number of those that were killed.
    ///
    /// # Errors
    /// The processes cannot be listed, or we may not become the user.
    fn kill_now(self, user: Option<&str>) -> io::Result<usize> {
        let kill = || io::Result::Ok(pids()?.filter(|pid| self.kill(*pid).is_ok()).count());
        let killed = kill()?;
        match user {
            // Reading the environment of another user's process requires a capability that containers seldom have, such
            // as CAP_SYS_PTRACE.
            Some(user) => Ok(killed + run_as(user, kill)??),
            None => Ok(killed),
        }
    }

    /// Kills a process if it has the mark.
    ///
    /// # Errors
    /// It has another mark or none, it has ended, or we may not read its environment or signal it.
    fn kill(self, pid: Pid) -> io::Result<()> {
        // Opened before the environment is read, because the PID may be that of another process a moment later.
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
fn pids() -> io::Result<impl Iterator<Item = Pid>> {
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
    Ok(fs::read_dir("/proc")?.flatten().filter_map(pid))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use rustix::process::geteuid;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    #[test]
    fn processes_of_another_user_are_found_without_the_capability_to_look_into_them() {
        if !geteuid().is_root() {
            return;
        }
        let mark = Mark::new();
        let start = || {
            let mut command = Command::new("cat");
            command.env_clear().envs([mark.variable()]).stdin(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut child = run_as("nobody", start).unwrap();
        let mut thread_capabilities = capabilities(None).unwrap();
        // Each of these three lets a process read the environments of other users' processes.
        let readers = CapabilitySet::SYS_PTRACE | CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
        thread_capabilities.effective.remove(readers);
        thread_capabilities.permitted.remove(readers);
        set_capabilities(None, thread_capabilities).unwrap();
        assert_eq!(Mark::new().kill_now(Some("nobody")).unwrap(), 0, "it has another mark");
        assert_eq!(mark.kill_now(None).unwrap(), 0, "its environment cannot be read");
        assert_eq!(mark.kill_now(Some("nobody")).unwrap(), 1);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(mark.kill_now(Some("nobody-has-this-name")).is_err());
    }
}
