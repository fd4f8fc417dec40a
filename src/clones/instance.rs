//! A started clone: a process of the keeper, a container, or whatever a hook has started.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::clone_name::CloneName;
use super::container::{RunningContainer, pull};
use super::own_containers::OwnContainers;
use super::ports::{Port, Ports};
use crate::addr::ServerAddr;
use crate::check::exec::{PATH, output};
use crate::error::chain;
use crate::scale::keeper::{Keeper, KeptProcess, ProcessEvent, StartClone};
use crate::scale::{CloneCommand, CloneContainer, CloneHook, CloneKind, fill};

/// How long the hook `stop` may take, unless this process ends: then [`KILL_AFTER`].
const STOP_HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// The time between SIGTERM and SIGKILL for a clone that did not work, or when this process ends.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(10);

/// A clone that has been started.
pub(super) struct Instance {
    pub(super) address: ServerAddr,
    pub(super) pid: Option<u32>,
    kind: Kind,
    name: CloneName,
}

enum Kind {
    Process { process: KeptProcess, _port: Port },
    Container(RunningContainer),
    Hooked(CloneHook),
}

/// What was started, its address, and its PID.
type Started = (Kind, ServerAddr, Option<u32>);

/// What the start of a clone needs besides its kind.
pub(super) struct Launch<'a> {
    pub(super) name: &'a CloneName,
    pub(super) keeper: &'a Keeper,
    pub(super) ports: &'a Ports,
    pub(super) containers: &'a Arc<OwnContainers>,
    /// Cancelled when this process ends.
    pub(super) ending: &'a CancellationToken,
}

impl Launch<'_> {
    /// Gets the image of a clone if it is missing. That may take longer than the start.
    pub(super) async fn prepare(&self, kind: &CloneKind) -> Result<(), String> {
        match kind {
            CloneKind::Docker(container) => pull(container, self.name).await,
            CloneKind::Command(_) | CloneKind::Hook(_) => Ok(()),
        }
    }

    /// Starts a clone within `limit`. Dropping the future stops a process or a container; what a hook has started by then
    /// stays.
    pub(super) async fn start(&self, kind: &CloneKind, limit: Duration) -> Result<Instance, String> {
        let started = match kind {
            CloneKind::Command(command) => timeout(limit, self.start_process(command)).await,
            CloneKind::Docker(container) => timeout(limit, self.start_container(container)).await,
            CloneKind::Hook(hook) => Ok(self.run_start_hook(hook, limit).await),
        };
        let (kind, address, pid) = started.map_err(|_| String::from("it does not start"))??;
        Ok(Instance {
            address,
            pid,
            kind,
            name: self.name.clone(),
        })
    }

    async fn start_container(&self, container: &CloneContainer) -> Result<Started, String> {
        let (container, address) = RunningContainer::start(container, self.name, self.containers).await?;
        Ok((Kind::Container(container), address, None))
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
        let values = self.name.values(&number);
        let path = std::iter::once(("PATH".to_owned(), PATH.to_owned()));
        let mut process = self
            .keeper
            .start(StartClone {
                words: words.iter().map(|word| fill(word, &values)).collect(),
                env: path.chain(self.name.environment(&number, env)).collect(),
                user: user.as_deref().map(str::to_owned),
            })
            .map_err(|error| chain(&error))?;
        let pid = loop {
            match process.event().await {
                ProcessEvent::Started(pid) => break pid,
                ProcessEvent::NotStarted(error) => return Err(error),
                ProcessEvent::Ended(status) => return Err(status),
                ProcessEvent::Output(line, suppressed) => self.name.log_line(&line, suppressed),
            }
        };
        let address = ServerAddr::new((Ipv4Addr::LOCALHOST, port.number).into());
        Ok((Kind::Process { process, _port: port }, address, Some(pid)))
    }

    async fn run_start_hook(&self, hook: &CloneHook, limit: Duration) -> Result<Started, String> {
        let CloneName { pool, clone } = self.name;
        let command = hook_command(&hook.start, hook, &[("name", clone), ("pool", pool)]);
        // Cancel safe: a command that is dropped is killed.
        let printed = tokio::select! {
            printed = timeout(limit, output(command)) => printed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = self.ending.cancelled() => Err(io::Error::other("acequia ends")),
        };
        let address = printed.map_err(|error| format!("the hook `start` has failed: {}", chain(&error)));
        let address = address.and_then(|printed| {
            let address = printed.parse::<SocketAddr>();
            address.map_err(|_| format!("the hook `start` printed `{printed}`, which is not an IP address with a port"))
        });
        if address.is_err() {
            // It may have started something nevertheless.
            run_stop_hook(hook, self.name, "", self.ending).await;
        }
        Ok((Kind::Hooked(hook.clone()), ServerAddr::new(address?), None))
    }
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

async fn run_stop_hook(hook: &CloneHook, name: &CloneName, address: &str, ending: &CancellationToken) {
    let CloneName { pool, clone } = name;
    let values = [("name", &**clone), ("pool", pool), ("address", address)];
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
            %pool,
            %clone,
            address,
            error,
            "the hook `stop` has failed: the clone may still run"
        );
    }
}

impl Instance {
    /// Waits until it has ended by itself, and logs what it prints meanwhile. Returns how it has ended. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        match &mut self.kind {
            Kind::Process { process, .. } => process_ended(process, &self.name).await,
            Kind::Container(container) => container.ended().await,
            Kind::Hooked(_) => pending().await, // only its checks tell
        }
    }

    /// The name of its container; `None`: it is none.
    pub(super) fn container(&self) -> Option<&str> {
        match &self.kind {
            Kind::Container(container) => Some(container.name()),
            Kind::Process { .. } | Kind::Hooked(_) => None,
        }
    }

    /// Stops it, and waits until it has ended. A process or a container gets SIGTERM, and SIGKILL after `kill_after`, or
    /// [`KILL_AFTER`] after this process begins to end. What is left of one that has ended is removed.
    pub(super) async fn stop(self, kill_after: Duration, ending: &CancellationToken) {
        let Self {
            address, kind, name, ..
        } = self;
        match kind {
            Kind::Process { process, _port } => stop_process(process, &name, kill_after, ending).await,
            Kind::Container(container) => {
                let kill_after = if ending.is_cancelled() {
                    kill_after.min(KILL_AFTER)
                } else {
                    kill_after
                };
                let too_late = async {
                    ending.cancelled().await;
                    sleep(KILL_AFTER).await;
                };
                container.stop(kill_after, &name, too_late).await;
            }
            Kind::Hooked(hook) => run_stop_hook(&hook, &name, &address.to_string(), ending).await,
        }
    }
}

/// Waits until a process has ended, and logs what it prints meanwhile. Returns how it has ended. Cancel safe.
async fn process_ended(process: &mut KeptProcess, name: &CloneName) -> String {
    loop {
        match process.event().await {
            ProcessEvent::Output(line, suppressed) => name.log_line(&line, suppressed),
            ProcessEvent::NotStarted(how) | ProcessEvent::Ended(how) => return how,
            ProcessEvent::Started(_) => {}
        }
    }
}

async fn stop_process(mut process: KeptProcess, name: &CloneName, kill_after: Duration, ending: &CancellationToken) {
    if !ending.is_cancelled() {
        process.stop(kill_after);
        tokio::select! {
            _ = process_ended(&mut process, name) => return,
            () = ending.cancelled() => {}
        }
    }
    process.stop(kill_after.min(KILL_AFTER));
    process_ended(&mut process, name).await;
}
