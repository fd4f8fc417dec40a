//! A clone that has been started: a process of the keeper, or what a hook has started.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ports::{Port, Ports};
use crate::addr::ServerAddr;
use crate::check::exec::{PATH, output};
use crate::error::chain;
use crate::scale::keeper::{Keeper, KeptProcess, ProcessEvent, StartClone};
use crate::scale::{CloneCommand, CloneHook, CloneSource, fill};

/// How long the hook `stop` may take, unless this process ends: then [`KILL_AFTER`].
const STOP_HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// The time between SIGTERM and SIGKILL for a clone that did not work, or when this process ends.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(10);

/// A clone that has been started.
pub(super) struct Instance {
    pub(super) address: ServerAddr,
    pub(super) pid: Option<u32>,
    kind: Kind,
    pool: Arc<str>,
    name: Arc<str>,
}

enum Kind {
    Process { process: KeptProcess, _port: Port },
    Hooked(CloneHook),
}

/// What was started, its address, and its PID.
type Started = (Kind, ServerAddr, Option<u32>);

/// Whom a clone is started for.
pub(super) struct Launch<'a> {
    pub(super) pool: &'a Arc<str>,
    pub(super) name: &'a Arc<str>,
    pub(super) keeper: &'a Keeper,
    pub(super) ports: &'a Ports,
    /// Cancelled when this process ends.
    pub(super) ending: &'a CancellationToken,
}

impl Launch<'_> {
    /// Starts a clone, within this time. Dropping the future stops a process; what a hook has started by then stays.
    pub(super) async fn start(&self, source: &CloneSource, limit: Duration) -> Result<Instance, String> {
        let started = match source {
            CloneSource::Command(command) => timeout(limit, self.start_process(command)).await,
            CloneSource::Hook(hook) => Ok(self.run_start_hook(hook, limit).await),
        };
        let (kind, address, pid) = started.map_err(|_| String::from("it does not start"))??;
        Ok(Instance {
            address,
            pid,
            kind,
            pool: Arc::clone(self.pool),
            name: Arc::clone(self.name),
        })
    }

    async fn start_process(&self, command: &CloneCommand) -> Result<Started, String> {
        let CloneCommand {
            words,
            env,
            user,
            ports,
        } = command;
        let port = self.ports.take(ports);
        let port = port.ok_or_else(|| format!("no port of {}-{} is free", ports.start(), ports.end()))?;
        let number = port.number.to_string();
        let values = [("port", &*number), ("name", self.name), ("pool", self.pool)];
        let filled = |text: &str| fill(text, &values);
        let own = [
            ("PATH", PATH),
            ("PORT", &number),
            ("ACEQUIA_POOL", self.pool),
            ("ACEQUIA_CLONE", self.name),
        ];
        let own = own.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let configured = env.iter().map(|(key, value)| (key.to_string(), filled(value)));
        let mut process = self
            .keeper
            .start(StartClone {
                words: words.iter().map(|word| filled(word)).collect(),
                env: own.chain(configured).collect(),
                user: user.as_deref().map(str::to_owned),
            })
            .map_err(|error| chain(&error))?;
        let pid = loop {
            match process.event().await {
                ProcessEvent::Started(pid) => break pid,
                ProcessEvent::NotStarted(error) => return Err(error),
                ProcessEvent::Ended(status) => return Err(status),
                ProcessEvent::Output(line, suppressed) => self.log(&line, suppressed),
            }
        };
        let address = ServerAddr::new((Ipv4Addr::LOCALHOST, port.number).into());
        Ok((Kind::Process { process, _port: port }, address, Some(pid)))
    }

    async fn run_start_hook(&self, hook: &CloneHook, limit: Duration) -> Result<Started, String> {
        let command = hook_command(&hook.start, hook, &[("name", self.name), ("pool", self.pool)]);
        // Cancel safe: a command that is dropped is killed.
        let printed = tokio::select! {
            printed = timeout(limit, output(command)) => printed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = self.ending.cancelled() => Err(io::Error::other("acequia ends")),
        };
        let address = printed.map_err(|error| format!("the hook `start` has failed: {}", chain(&error)));
        let address = address.and_then(|printed| {
            let address = printed.parse::<SocketAddr>();
            address.map_err(|_| format!("the hook `start` printed `{printed}`, which is no IP address with a port"))
        });
        if address.is_err() {
            // It may have started something all the same.
            run_stop_hook(hook, self.pool, self.name, "", self.ending).await;
        }
        Ok((Kind::Hooked(hook.clone()), ServerAddr::new(address?), None))
    }

    fn log(&self, line: &str, suppressed: u64) {
        log_output(self.pool, self.name, line, suppressed);
    }
}

fn log_output(pool: &str, clone: &str, line: &str, suppressed: u64) {
    let suppressed = Some(suppressed).filter(|suppressed| *suppressed > 0);
    tracing::info!(pool, clone, line, suppressed, "printed by a clone");
}

fn hook_command(words: &[Box<str>], hook: &CloneHook, values: &[(&str, &str)]) -> Command {
    let filled: Vec<_> = words.iter().map(|word| fill(word, values)).collect();
    let mut command = Command::new(&filled[0]);
    command
        .args(&filled[1..])
        .env_clear()
        .env("PATH", PATH)
        .envs(hook.env.iter().map(|(key, value)| (&**key, fill(value, values))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

async fn run_stop_hook(hook: &CloneHook, pool: &str, clone: &str, address: &str, ending: &CancellationToken) {
    let values = [("name", clone), ("pool", pool), ("address", address)];
    let command = hook_command(&hook.stop, hook, &values);
    let too_late = async {
        let _ = timeout(STOP_HOOK_TIMEOUT - KILL_AFTER, ending.cancelled()).await;
        sleep(KILL_AFTER).await;
    };
    let stopped = tokio::select! {
        stopped = output(command) => stopped,
        () = too_late => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = stopped {
        let error = chain(&error);
        tracing::warn!(
            pool,
            clone,
            address,
            error,
            "the hook `stop` has failed: the clone may still run"
        );
    }
}

impl Instance {
    /// Waits until it has ended by itself, and logs what it prints meanwhile. Returns how it has ended. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        let Kind::Process { process, .. } = &mut self.kind else {
            return pending().await; // only its checks tell
        };
        loop {
            match process.event().await {
                ProcessEvent::Output(line, suppressed) => log_output(&self.pool, &self.name, &line, suppressed),
                ProcessEvent::NotStarted(how) | ProcessEvent::Ended(how) => return how,
                ProcessEvent::Started(_) => {}
            }
        }
    }

    /// Stops it, and waits until it has ended: a process gets SIGTERM, and SIGKILL after this time, or [`KILL_AFTER`] this
    /// process begins to end.
    pub(super) async fn stop(mut self, kill_after: Duration, ending: &CancellationToken) {
        if let Kind::Hooked(hook) = &self.kind {
            return run_stop_hook(hook, &self.pool, &self.name, &self.address.to_string(), ending).await;
        }
        if !ending.is_cancelled() {
            self.terminate(kill_after);
            tokio::select! {
                _ = self.ended() => return,
                () = ending.cancelled() => {}
            }
        }
        self.terminate(kill_after.min(KILL_AFTER));
        self.ended().await;
    }

    /// Sends SIGTERM to its process, and SIGKILL after this time.
    fn terminate(&self, kill_after: Duration) {
        if let Kind::Process { process, .. } = &self.kind {
            process.stop(kill_after);
        }
    }
}
