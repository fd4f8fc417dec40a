//! The child processes of a keeper, which is itself a child process of acequia: starts a clone, and ends all that the
//! clone has started.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use tokio::time::{Instant, sleep};

use super::message::StartClone;
use crate::command::set_close_on_exec_on_all;
use crate::error::with_context;
use crate::text::first_and_more;
use crate::user;

/// How long all children may take to end after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two attempts to reap killed children.
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// The most processes named in an error.
const SHOWN_MAX: usize = 10;

/// Starts a clone in a process group of its own. Also returns the end of the pipe from which its output is read.
///
/// # Errors
/// It cannot be started.
pub(super) fn start(clone: &StartClone) -> io::Result<(Pid, OwnedFd)> {
    let (program, arguments) = clone.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(clone.env.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    set_close_on_exec_on_all();
    // Not waited for here: `reap` reaps all children.
    let child = match &clone.user {
        None => command.spawn(),
        Some(name) => user::run_as(name, || command.spawn())
            .map_err(|error| with_context(error, format!("cannot become user `{name}`")))?,
    };
    let child = child.map_err(|error| with_context(error, format!("cannot run {program}")))?;
    Ok((Pid::from_child(&child), reader))
}

/// Sends a signal to all processes of a group.
pub(super) fn signal(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal); // all may have ended
}

/// Reaps one child that has ended; `None`: there is none.
pub(super) fn reap() -> Option<(Pid, WaitStatus)> {
    wait(WaitOptions::NOHANG).ok().flatten()
}

/// How a process has ended, in words.
pub(super) fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => String::from("an unknown end"),
    }
}

/// Kills all children until none is left, also those that have become our children because their parents have ended.
///
/// # Errors
/// Some still run: we have no permission to kill them, for example because their program is setuid; or they do not end
/// within [`KILL_TIMEOUT`], for example because they are in an uninterruptible wait.
pub(super) async fn kill_all() -> io::Result<()> {
    kill_until_none(
        children,
        |child| kill_process(child, Signal::KILL),
        || wait(WaitOptions::NOHANG),
    )
    .await
}

async fn kill_until_none<T>(
    children: impl Fn() -> HashSet<Pid>,
    kill: impl Fn(Pid) -> Result<(), Errno>,
    reap: impl Fn() -> Result<Option<T>, Errno>,
) -> io::Result<()> {
    let deadline = Instant::now() + KILL_TIMEOUT; // holds even if children start others without end
    loop {
        let left = children();
        // ESRCH: the child has ended.
        let kills = left.iter().map(|child| kill(*child));
        let refused = kills
            .filter(|killed| killed.is_err_and(|error| error != Errno::SRCH))
            .count();
        let mut reaped = 0;
        // One attempt more than children: its error tells that none is left.
        for _ in 0..=left.len() {
            match reap() {
                Err(_) => return Ok(()), // there is no child
                Ok(Some(_)) => reaped += 1,
                Ok(None) => break,
            }
        }
        // If we may kill none of them, another attempt does not help.
        let is_hopeless = reaped == 0 && !left.is_empty() && refused == left.len();
        if is_hopeless || Instant::now() >= deadline {
            return Err(still_running(left));
        }
        sleep(REAP_PAUSE).await;
    }
}

fn still_running(children: HashSet<Pid>) -> io::Error {
    let mut pids: Vec<i32> = children.into_iter().map(Pid::as_raw_pid).collect();
    pids.sort_unstable();
    let mut message = String::from("processes of a clone cannot be killed and may still run");
    if !pids.is_empty() {
        message += ": ";
        message += &first_and_more(pids.iter(), SHOWN_MAX).join(", ");
    }
    io::Error::other(message)
}

/// The children of this process; empty with a kernel that does not list them (CONFIG_PROC_CHILDREN).
fn children() -> HashSet<Pid> {
    let mut children = HashSet::new();
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        children.extend(pids.filter_map(Pid::from_raw));
    }
    children
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn pids(raw: &[i32]) -> HashSet<Pid> {
        raw.iter().copied().filter_map(Pid::from_raw).collect()
    }

    /// Kills children. Killing those in `protected` is not permitted; those in `stuck` do not end. Returns the result
    /// and the time that it took.
    async fn killed(all: &[i32], protected: &[i32], stuck: &[i32]) -> (Result<(), String>, Duration) {
        let (left, dead) = (RefCell::new(pids(all)), RefCell::new(HashSet::new()));
        let kill = |child| {
            if pids(protected).contains(&child) {
                return Err(Errno::PERM);
            }
            if !pids(stuck).contains(&child) {
                dead.borrow_mut().insert(child);
            }
            Ok(())
        };
        let reap = || {
            if left.borrow().is_empty() {
                return Err(Errno::CHILD);
            }
            let next = dead.borrow().iter().next().copied();
            Ok(next.map(|child| {
                dead.borrow_mut().remove(&child);
                left.borrow_mut().remove(&child)
            }))
        };
        let began = Instant::now();
        let ended = kill_until_none(|| left.borrow().clone(), kill, reap).await;
        (ended.map_err(|error| error.to_string()), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn children_that_cannot_be_killed_are_left() {
        assert_eq!(killed(&[2, 3, 4], &[], &[]).await, (Ok(()), Duration::ZERO));
        let left = |pids: &str| {
            Err(format!(
                "processes of a clone cannot be killed and may still run: {pids}"
            ))
        };
        assert_eq!(killed(&[2, 3, 4], &[3], &[]).await, (left("3"), REAP_PAUSE));
        let (ended, after) = killed(&[2, 3, 4], &[3], &[4]).await;
        assert_eq!(ended, left("3, 4"));
        assert!(after >= KILL_TIMEOUT && after < 2 * KILL_TIMEOUT, "{after:?}");
    }

    /// The empty list stands for a kernel that does not list children.
    #[tokio::test(start_paused = true)]
    async fn children_that_start_others_without_end_are_left() {
        for (children, shown) in [(&[][..], ""), (&[2, 3], ": 2, 3")] {
            let began = Instant::now();
            let ended = kill_until_none(|| pids(children), |_| Ok(()), || Ok(Some(()))).await;
            let expected = format!("processes of a clone cannot be killed and may still run{shown}");
            assert_eq!(ended.unwrap_err().to_string(), expected);
            assert!(began.elapsed() < 2 * KILL_TIMEOUT);
        }
    }
}
