//! A started clone: a process, a container, or what a hook (a command of the operator) has started.

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::KILL_AFTER;
use super::clone_name::CloneName;
use super::container::{RunningContainer, pull};
use super::hook::HookedClone;
use super::hook_addresses::HookAddresses;
use super::own_containers::OwnContainers;
use super::ports::{Port, Ports};
use crate::addr::ServerAddr;
use crate::command::PATH;
use crate::error::chain;
use crate::scale::keeper::{KeptProcess, ProcessEvent, StartClone};
use crate::scale::{CloneCommand, CloneContainer, CloneKind, fill};
use crate::units::format_duration;

/// How long acequia, when it shuts down, waits for the process of a clone to end after SIGKILL. The clone's keeper
/// waits for a shorter time, so that its report can still come.
const KILLED_TIMEOUT: Duration = Duration::from_secs(10);

/// A clone that has been started.
pub(super) struct Instance {
    pub(super) address: ServerAddr,
    pub(super) pid: Option<u32>,
    name: CloneName,
    running: RunningClone,
}

/// The running part of a clone.
pub(super) enum RunningClone {
    /// The port stays taken while the process runs.
    Process {
        process: KeptProcess,
        _port: Port,
    },
    Container(RunningContainer),
    Hooked(HookedClone),
}

/// Why a clone was not started.
pub(super) struct FailedStart {
    pub(super) reason: String,
    /// The part that has been started and must be stopped.
    pub(super) to_stop: Option<RunningClone>,
}

impl From<String> for FailedStart {
    fn from(reason: String) -> Self {
        Self { reason, to_stop: None }
    }
}

/// The running part, its address, and its PID.
type Started = (RunningClone, ServerAddr, Option<u32>);

/// What the start of a clone needs besides its kind.
pub(super) struct Launch<'a> {
    pub(super) name: &'a CloneName,
    pub(super) ports: &'a Ports,
    pub(super) hook_addresses: &'a HookAddresses,
    pub(super) containers: &'a Arc<OwnContainers>,
    /// Cancelled when acequia shuts down.
    pub(super) shutdown: &'a CancellationToken,
}

impl Launch<'_> {
    /// Gets the image of a container if the engine does not have it. This is not part of the start, because it may take
    /// longer than the limit for the start.
    pub(super) async fn prepare(&self, kind: &CloneKind) -> Result<(), String> {
        match kind {
            CloneKind::Docker(container) => pull(container, self.name).await,
            CloneKind::Command(_) | CloneKind::Hook(_) => Ok(()),
        }
    }

    /// Starts a clone within `limit`. Fails at once when acequia shuts down.
    pub(super) async fn start(&self, kind: &CloneKind, limit: Duration) -> Result<Instance, FailedStart> {
        let (running, address, pid) = match kind {
            CloneKind::Command(command) => self.in_time(limit, self.start_process(command)).await?,
            CloneKind::Docker(container) => self.in_time(limit, self.start_container(container)).await?,
            CloneKind::Hook(hook) => {
                let started = HookedClone::start(hook, self.name, self.hook_addresses, limit, self.shutdown).await;
                let (clone, address) = started;
                let running = RunningClone::Hooked(clone);
                match address {
                    Ok(address) => (running, address, None),
                    Err(reason) => {
                        let to_stop = Some(running);
                        return Err(FailedStart { reason, to_stop });
                    }
                }
            }
        };
        Ok(Instance {
            address,
            pid,
            running,
            name: self.name.clone(),
        })
    }

    /// Waits for a start. Drops it if it takes too long, or when acequia shuts down: then its process or container is
    /// stopped.
    async fn in_time(
        &self,
        limit: Duration,
        start: impl Future<Output = Result<Started, String>>,
    ) -> Result<Started, String> {
        match self.shutdown.run_until_cancelled(timeout(limit, start)).await {
            Some(Ok(started)) => started,
            Some(Err(_)) => Err(format!("it has not started within {}", format_duration(limit))),
            None => Err("acequia ends".into()),
        }
    }

    async fn start_container(&self, container: &CloneContainer) -> Result<Started, String> {
        let (running, address) = RunningContainer::start(container, self.name, self.containers).await?;
        Ok((RunningClone::Container(running), address, None))
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
        let mut process = KeptProcess::start(StartClone {
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
        Ok((RunningClone::Process { process, _port: port }, address, Some(pid)))
    }
}

impl Instance {
    /// Waits until it has ended by itself, and logs what it prints meanwhile. Returns how it has ended. Cancel safe.
    pub(super) async fn ended(&mut self) -> String {
        match &mut self.running {
            RunningClone::Process { process, .. } => process_ended(process, &self.name).await,
            RunningClone::Container(container) => container.ended().await,
            RunningClone::Hooked(_) => pending().await, // only its checks show that it has ended
        }
    }

    /// The name of its container; `None`: it is not a container.
    pub(super) fn container(&self) -> Option<&str> {
        match &self.running {
            RunningClone::Container(container) => Some(container.name()),
            RunningClone::Process { .. } | RunningClone::Hooked(_) => None,
        }
    }

    /// The part to stop.
    pub(super) fn into_running(self) -> RunningClone {
        self.running
    }
}

impl RunningClone {
    /// Stops it, and waits until it has ended; once acequia shuts down, only for a limited time. A process gets
    /// SIGTERM, a container the signal that its image names (SIGTERM by default). SIGKILL follows after `kill_after`;
    /// once acequia shuts down, within [`KILL_AFTER`]. A container is also removed, even if it has ended by itself.
    /// What a hook has started is stopped by the hook `stop`: this waits for the hook, which has a limited time.
    pub(super) async fn stop(self, name: &CloneName, kill_after: Duration, shutdown: &CancellationToken) {
        match self {
            Self::Process { process, _port } => stop_process(process, name, kill_after, shutdown).await,
            Self::Container(container) => {
                let kill_after = if shutdown.is_cancelled() {
                    kill_after.min(KILL_AFTER)
                } else {
                    kill_after
                };
                let too_late = async {
                    shutdown.cancelled().await;
                    sleep(KILL_AFTER).await;
                };
                container.stop(kill_after, name, too_late).await;
            }
            Self::Hooked(clone) => clone.stop(name, shutdown).await,
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

/// Stops a process, and waits until it has ended. Once acequia shuts down, SIGKILL follows within [`KILL_AFTER`], and
/// the wait ends [`KILLED_TIMEOUT`] later at the latest.
async fn stop_process(mut process: KeptProcess, name: &CloneName, kill_after: Duration, shutdown: &CancellationToken) {
    if !shutdown.is_cancelled() {
        process.stop(kill_after);
        tokio::select! {
            _ = process_ended(&mut process, name) => return,
            () = shutdown.cancelled() => {}
        }
    }
    let kill_after = kill_after.min(KILL_AFTER);
    process.stop(kill_after);
    let ended = timeout(kill_after + KILLED_TIMEOUT, process_ended(&mut process, name)).await;
    if ended.is_err() {
        let CloneName { pool, clone } = name;
        tracing::error!(%pool, %clone, "a clone does not end after SIGKILL: it may still run");
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_process_at_shutdown_is_limited() {
        let (process, _keeper) = KeptProcess::without_events();
        let name = CloneName {
            pool: "app".into(),
            clone: "app-1".into(),
        };
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let began = Instant::now();
        stop_process(process, &name, Duration::from_secs(60), &shutdown).await;
        assert_eq!(began.elapsed().as_secs(), (KILL_AFTER + KILLED_TIMEOUT).as_secs());
    }
}
