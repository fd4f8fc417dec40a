//! Clones that two commands of the operator start and stop.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::KILL_AFTER;
use super::clone_name::CloneName;
use super::hook_addresses::{HookAddress, HookAddresses};
use crate::addr::ServerAddr;
use crate::command::{CommandOutput, PATH, Printed, run_command};
use crate::error::chain;
use crate::scale::{CloneHook, PrintedLine, PrintedPipe, fill};

/// How long the hook `stop` may take, unless this process ends: then [`KILL_AFTER`].
const STOP_HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait for the last line of a hook that has failed.
const LAST_LINE_TIMEOUT: Duration = Duration::from_millis(200);

/// A clone that a hook has started, or may have started although it failed.
pub(super) struct HookedClone {
    hook: CloneHook,
    /// The address that the hook `start` has printed; `None`: it has printed none, or one of another clone.
    address: Option<HookAddress>,
}

impl HookedClone {
    /// Runs the hook `start` for at most `limit`. Returns the clone, which must be stopped even after an error, and
    /// its address.
    pub(super) async fn start(
        hook: &CloneHook,
        name: &CloneName,
        addresses: &HookAddresses,
        limit: Duration,
        shutdown: &CancellationToken,
    ) -> (Self, Result<ServerAddr, String>) {
        let mut clone = Self {
            hook: hook.clone(),
            address: None,
        };
        let printed = Mutex::default();
        // Cancel safe: a command that is dropped is killed.
        let ran = tokio::select! {
            biased;
            ran = timeout(limit, run(&hook.start, hook, name, None, &printed)) => ran.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = shutdown.cancelled() => Err(io::Error::other("acequia ends")),
        };
        let first_line = match &ran {
            Ok(ran) => ran.output.line.clone(),
            Err(_) => printed.lock().whole_first_line().unwrap_or_default(), // it was killed, or did not run
        };
        let address = clone.take_address(ran, &first_line, name, addresses);
        (clone, address)
    }

    /// Takes the address that `start` has printed. It is kept even if the command has failed, because `stop` gets it.
    fn take_address(
        &mut self,
        ran: io::Result<HookOutput>,
        first_line: &str,
        name: &CloneName,
        addresses: &HookAddresses,
    ) -> Result<ServerAddr, String> {
        let failed = |error: io::Error| format!("the hook `start` has failed: {}", chain(&error));
        if let Ok(address) = first_line.parse::<SocketAddr>() {
            let taken = addresses.take(address, &name.clone);
            self.address = Some(taken.map_err(|other| {
                format!("the hook `start` printed `{address}`, which is the address of clone `{other}`")
            })?);
        }
        ran.and_then(HookOutput::success).map_err(failed)?;
        let address = self.address.as_ref().map(|taken| ServerAddr::new(taken.address));
        address
            .ok_or_else(|| format!("the hook `start` printed `{first_line}`, which is not an IP address with a port"))
    }

    /// Runs the hook `stop`.
    pub(super) async fn stop(self, name: &CloneName, shutdown: &CancellationToken) {
        let address = self.address.as_ref().map(|taken| taken.address.to_string());
        let address = address.unwrap_or_default();
        // The hook may take STOP_HOOK_TIMEOUT in all, but only KILL_AFTER once this process ends.
        let too_late = async {
            let _ = timeout(STOP_HOOK_TIMEOUT - KILL_AFTER, shutdown.cancelled()).await;
            sleep(KILL_AFTER).await;
        };
        let printed = Mutex::default();
        let stopped = tokio::select! {
            stopped = run(&self.hook.stop, &self.hook, name, Some(&address), &printed) => stopped.and_then(HookOutput::success),
            () = too_late => Err(io::ErrorKind::TimedOut.into()),
        };
        if let Err(error) = stopped {
            let (CloneName { pool, clone }, error) = (name, chain(&error));
            tracing::warn!(%pool, %clone, address, error, "the hook `stop` has failed: the clone may still run");
        }
    }
}

/// How a hook has ended, and what it has printed.
struct HookOutput {
    output: CommandOutput,
    /// The last line of its standard error, if it has failed; `None`: it has not failed, there is no such line, or the
    /// pipe was still open after [`LAST_LINE_TIMEOUT`].
    last_error: Option<String>,
}

impl HookOutput {
    /// The first line of its output.
    ///
    /// # Errors
    /// It has failed. The error has its exit status, and the last line of its standard error, or else the first line of
    /// its output.
    fn success(self) -> io::Result<String> {
        let CommandOutput { status, line } = self.output;
        let line = self.last_error.unwrap_or(line);
        CommandOutput { status, line }.success()
    }
}

/// Runs a hook. What it prints to its standard error is logged, and its output is put into `printed`. Dropping the
/// future kills the command.
async fn run(
    words: &[Box<str>],
    hook: &CloneHook,
    name: &CloneName,
    address: Option<&str>,
    printed: &Mutex<Printed>,
) -> io::Result<HookOutput> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let errors = tokio::spawn(log_errors(reader, name.clone()));
    let status = run_command(command(words, hook, name, address, writer), printed).await?;
    let line = printed.lock().first_line();
    let output = CommandOutput { status, line };
    let last_error = match status.success() {
        true => None,
        false => match timeout(LAST_LINE_TIMEOUT, errors).await {
            Ok(Ok(Ok(last))) => last,
            _ => None, // a process that the hook has left behind still holds the pipe
        },
    };
    Ok(HookOutput { output, last_error })
}

/// Logs the lines that are printed to this pipe, except those that [`PrintedPipe`] suppresses, until no process holds
/// it any more. Returns the last line.
async fn log_errors(pipe: OwnedFd, name: CloneName) -> io::Result<Option<String>> {
    let (mut pipe, mut last) = (PrintedPipe::new(pipe)?, None);
    while let Some(lines) = pipe.next().await? {
        for PrintedLine { line, suppressed } in lines {
            name.log_line(&line, suppressed);
            last = Some(line);
        }
    }
    Ok(last)
}

fn command(words: &[Box<str>], hook: &CloneHook, name: &CloneName, address: Option<&str>, errors: OwnedFd) -> Command {
    let CloneName { pool, clone } = name;
    let mut values = vec![("name", &**clone), ("pool", pool)];
    values.extend(address.map(|address| ("address", address)));
    let filled: Vec<_> = words.iter().map(|word| fill(word, &values)).collect();
    let mut command = Command::new(&filled[0]);
    command
        .args(&filled[1..])
        .env_clear()
        .env("PATH", PATH)
        .envs(hook.env.iter().map(|(key, value)| (&**key, fill(value, &values))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors);
    command
}
