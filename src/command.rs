//! Runs commands of the operator: checks, and hooks of clones.
//!
//! A command runs without a shell, in a process group of its own, which is killed when the command has ended or is
//! cancelled. The command inherits no descriptors (see [`descriptors`] for kernels before 5.11) and no ambient
//! capabilities.

mod descriptors;
mod group;
mod printed;

use std::io;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::blocking::blocking;
use crate::error::with_context;
pub(crate) use descriptors::set_close_on_exec_on_all;
use group::ProcessGroup;
pub(crate) use printed::Printed;
use printed::{PrintedStream, StreamPipe};

/// `PATH` of the commands.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The pause after a read that has not emptied its pipe. Such reads use up none of tokio's budget for the task, so that
/// without a pause a command that prints all the time would keep the thread busy.
const FLOOD_PAUSE: Duration = Duration::from_millis(10);

/// How a command has ended, and what is shown of what it has printed.
pub(crate) struct CommandOutput {
    pub(crate) status: ExitStatus,
    /// [`Printed::first_line`], [`Printed::reason`], or the last line of its standard error.
    pub(crate) line: String,
}

impl CommandOutput {
    /// The `line`.
    ///
    /// # Errors
    /// The command has failed. The error has its exit status and that line.
    pub(crate) fn success(self) -> io::Result<String> {
        let Self { status, line } = self;
        if status.success() {
            return Ok(line);
        }
        let gap = if line.is_empty() { "" } else { ": " };
        Err(io::Error::other(format!("{status}{gap}{line}")))
    }
}

/// Runs a command to its end, and puts what it prints into `printed`, where it stays even if this future is dropped.
/// The standard output of the command must be piped. Dropping the future kills the command.
///
/// # Errors
/// It cannot be started or watched.
pub(crate) async fn run_command(command: Command, printed: &Mutex<Printed>) -> io::Result<ExitStatus> {
    let program = command.get_program().to_string_lossy().into_owned();
    // On a thread that may block, because starting a program reads its file. If nobody waits for the result any more,
    // it is dropped there, which kills the command.
    let started = blocking(move || ProcessGroup::start(command)).await;
    let (group, pipes) = started.map_err(|error| with_context(error, format!("cannot run {program}")))?;
    let mut output = StreamPipe::new(PrintedStream::Output, Some(pipes.stdout))?;
    let mut errors = StreamPipe::new(PrintedStream::Errors, pipes.stderr)?;
    let exit = group.watch()?;
    // `biased`, with the exit first: a process that is left behind may print for ever.
    loop {
        let may_have_more = tokio::select! {
            biased;
            exited = exit.readable() => {
                let _ready = exited?;
                break;
            }
            () = output.readable() => output.read(printed),
            () = errors.readable() => errors.read(printed),
        };
        if may_have_more {
            sleep(FLOOD_PAUSE).await;
        }
    }
    output.read(printed);
    errors.read(printed);
    printed.lock().finish();
    // Processes that the command has left behind are killed.
    group.reap()
}
