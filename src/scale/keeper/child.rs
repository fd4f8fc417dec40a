//! The processes of a keeper: starts one, and ends all.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};

use super::message::StartClone;
use crate::check::exec::close_on_exec;
use crate::error::with_context;
use crate::user;

/// Starts a clone in a process group of its own. Also returns the end of the pipe from which its output is read.
///
/// # Errors
/// Those of starting it, with the path of the program.
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
    close_on_exec();
    // It is reaped by `reap`, which knows all children.
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
pub(super) fn kill_all() {
    loop {
        for child in children() {
            let _ = kill_process(child, Signal::KILL);
        }
        // Bounded: every child has been killed, and a killed process starts no other.
        if wait(WaitOptions::empty()).is_err() {
            return; // there is no child
        }
    }
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
