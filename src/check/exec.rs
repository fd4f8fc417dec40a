//! The check `exec`: a command of the operator decides.
//!
//! The environment of the command describes the server. The command gets nothing of the environment of this process.

use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck};
use crate::command::{CommandOutput, PATH, Printed, run_command};
use crate::error::os_error;
use crate::units::format_duration;

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "exec",
    health_keys: &["command"],
    pool_keys: &[],
    service: None,
};

/// The most commands that run at once, over all pools.
const PROCESSES_MAX: usize = 64;

static PROCESSES: Semaphore = Semaphore::const_new(PROCESSES_MAX);

/// The check `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCheck {
    /// The absolute path of a program.
    pub program: Box<str>,
    /// Its arguments.
    pub arguments: Vec<Box<str>>,
}

impl Check for ExecCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { program, arguments } = self;
        vec![("health.command", format!("{program:?} {arguments:?}"))]
    }

    fn is_of_one_pool(&self) -> bool {
        true // it gets the pool's name
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(ExecProbe {
            check: self,
            target,
            printed: Mutex::default(),
        })
    }
}

struct ExecProbe {
    check: Arc<ExecCheck>,
    target: CheckTarget,
    /// What the latest run has printed. A blocking mutex: locked for a few statements.
    printed: Mutex<Printed>,
}

impl Probe for ExecProbe {
    fn limit(&self) -> Option<&'static Semaphore> {
        Some(&PROCESSES)
    }

    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            *self.printed.lock() = Printed::default();
            execute(self.command(), &self.printed).await?;
            Ok(CheckPass::default())
        })
    }

    fn timed_out(&self) -> io::Error {
        let printed = self.printed.lock().reason();
        let gap = if printed.is_empty() { "" } else { ": " };
        let timeout = format_duration(self.target.timeout);
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no exit within {timeout}{gap}{printed}"),
        )
    }
}

impl ExecProbe {
    fn command(&self) -> Command {
        let CheckTarget {
            address,
            pool_and_server,
            ..
        } = &self.target;
        let (pool, name) = pool_and_server.as_ref().expect("it is set for a check of one pool");
        let mut command = Command::new(&*self.check.program);
        command
            .args(self.check.arguments.iter().map(|argument| &**argument))
            .env_clear()
            .env("PATH", PATH)
            .env("ACEQUIA_POOL", &**pool)
            .env("ACEQUIA_SERVER", &**name)
            .env("ACEQUIA_ADDRESS", address.host_text())
            .env(
                "ACEQUIA_PORT",
                address.port().map_or_else(String::new, |port| port.to_string()),
            )
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Runs a command to its end. What it prints is put into `printed`, where it stays even if this future is dropped.
///
/// # Errors
/// It cannot be started, or it fails. The error of a failure has its exit status and a part of its output.
async fn execute(command: Command, printed: &Mutex<Printed>) -> Result<(), CheckFailure> {
    let status = run_command(command, printed)
        .await
        .map_err(|error| match os_error(&error) {
            // No further process may be started (fork(2)): RLIMIT_NPROC, or `TasksMax=` of the unit.
            Some(libc::EAGAIN) => CheckFailure::Shortage(error),
            _ => CheckFailure::local(error),
        })?;
    let line = printed.lock().reason();
    CommandOutput { status, line }.success()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn run(script: &str) -> Result<(), String> {
        let printed = Mutex::default();
        let ran = timeout(Duration::from_secs(20), execute(shell(script), &printed))
            .await
            .expect("it ends");
        ran.map_err(|failure| match failure {
            CheckFailure::Io(error) => crate::error::chain(&error),
            failure => format!("{failure:?}"),
        })
    }

    #[tokio::test]
    async fn the_exit_status_decides_and_the_first_line_is_the_reason() {
        assert_eq!(run("echo fine").await, Ok(()));
        let failed = run("echo; echo 'disk full'; exit 2").await.unwrap_err();
        assert_eq!(failed, "exit status: 2");
        let failed = run("printf 'disk full \\n more'; exit 2").await.unwrap_err();
        assert_eq!(failed, "exit status: 2: disk full");
        assert!(run("kill -9 $$").await.unwrap_err().starts_with("signal: 9"));
        let missing = execute(Command::new("/nonexistent/check"), &Mutex::default()).await;
        assert!(matches!(missing, Err(CheckFailure::Local(error)) if error.to_string().contains("/nonexistent/check")));
    }

    #[tokio::test]
    async fn a_reason_ends_with_the_last_line_of_the_standard_error() {
        let failed = run("echo trying >&2; echo 'cat: no such file' >&2; echo >&2; exit 3").await;
        assert_eq!(failed.unwrap_err(), "exit status: 3: cat: no such file");
        let failed = run("echo CRITICAL; printf 'refused' >&2; exit 2").await;
        assert_eq!(failed.unwrap_err(), "exit status: 2: CRITICAL; standard error: refused");
        assert_eq!(run("echo noise >&2").await, Ok(()));
    }

    #[tokio::test]
    async fn long_output_does_not_delay_the_result() {
        let endless = run("yes").await.unwrap_err();
        assert!(endless.ends_with(": y"), "it is killed by SIGPIPE: {endless}");
        assert_eq!(run("head -c 60000 /dev/zero").await, Ok(()));
        assert_eq!(
            run("head -c 3000000 /dev/zero >&2").await,
            Ok(()),
            "the standard error may be long"
        );
        let failed = run("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo last >&2; exit 1").await;
        assert_eq!(
            failed.unwrap_err().len(),
            "exit status: 1: ".len() + crate::text::LINE_BYTES_MAX
        );
        for left in ["sleep 1000 & echo left", "yes >&2 & echo left"] {
            assert_eq!(
                run(left).await,
                Ok(()),
                "a process that is left behind does not delay the result"
            );
        }
    }
}
