//! The process of a keeper, a child process of acequia. It starts a clone or holds containers, and ends them when its
//! socket closes.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitStatus, getrlimit, set_child_subreaper, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::message::{HeldContainers, KeeperRequest, ProcessEvent, StartClone, line_of};
use super::{child, containers, output};

/// The soft limit of open files that programs expect: those that use select(2) fail above it.
const OPEN_FILES: u64 = 1024;

/// The maximum number of events that wait to be sent. Tasks with more events wait.
const EVENTS_MAX: usize = 64;

/// How long to wait for the last output of a process that has ended. All processes that held its pipe are dead when the
/// wait begins, unless one cannot be killed, or the pipe was passed to a process elsewhere.
const OUTPUT_END_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a keeper until its standard input, a socket, closes. If it returns without an error, all processes that it has
/// started are dead, and the containers that it holds are removed.
///
/// # Errors
/// Standard input is not a socket, a request is not valid, the system refuses what the keeper needs, containers were
/// not removed, or processes still run that cannot be killed.
pub fn run() -> io::Result<()> {
    set_child_subreaper(Some(Pid::INIT))?; // any PID: it stands for `true`
    drop_capabilities();
    reset_limits()?;
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut keeper = Keeper::default();
        let ended = keeper.serve(socket.into()).await;
        let killed = child::kill_all().await;
        let removed = containers::remove_all(&keeper.containers).await;
        ended.and(killed).and(removed)
    })
}

/// Makes sure that programs get no capability when they are started, even as root (capabilities(7), P'(permitted)). If
/// the keeper lacks CAP_SETPCAP, programs that are started as root, or that have file capabilities, may still get some.
/// The keeper keeps its own capabilities: it needs them to start a clone as another user.
fn drop_capabilities() {
    let _ = clear_ambient_capability_set(); // fails on a kernel without ambient capabilities
    if let Ok(own) = capabilities(None) {
        let inheritable = CapabilitySet::empty();
        let _ = set_capabilities(None, CapabilitySets { inheritable, ..own }); // fails only under a seccomp filter
    }
    for capability in CapabilitySet::all().iter() {
        // Fails if the kernel does not know the capability, or without CAP_SETPCAP.
        let _ = remove_capability_from_bounding_set(capability);
    }
}

/// Sets the usual limit of open files for clones: acequia has raised the soft limit for its sessions.
fn reset_limits() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: Some(maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES))),
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A keeper, and what it holds.
#[derive(Default)]
struct Keeper {
    /// The process of the clone; `None`: it was not started, or has ended.
    leader: Option<Leader>,
    containers: BTreeSet<HeldContainers>,
}

/// The process of a clone, which leads its process group.
struct Leader {
    pid: Pid,
    /// Forwards what it prints.
    output: JoinHandle<io::Result<()>>,
    /// When it gets SIGKILL; `None`: it has not been asked to end, or has got SIGKILL.
    kill_at: Option<Instant>,
}

impl Leader {
    /// Sets when it gets SIGKILL. A later request cannot delay it.
    fn kill_after(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
    }
}

impl Keeper {
    async fn serve(&mut self, socket: net::UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let (reader, mut writer) = UnixStream::from_std(socket)?.into_split();
        let mut requests = BufReader::new(reader).lines();
        let mut child_ended = signal(SignalKind::child())?;
        // These signals do not end the keeper: they are meant for acequia, which ends it by closing the socket. They
        // are handled instead of ignored, because the processes that the keeper starts would inherit an ignored signal.
        let _handled = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ];
        let (events, mut to_send) = channel(EVENTS_MAX);
        loop {
            tokio::select! {
                // All branches are cancel safe: a line that is not complete is kept.
                request = requests.next_line() => match request? {
                    None => return Ok(()),
                    Some(line) => self.handle(serde_json::from_str(&line)?, &events),
                },
                _ = child_ended.recv() => self.reap(&events).await,
                Some(event) = to_send.recv() => writer.write_all(&line_of(&event)).await?,
                () = self.wait_for_kill_time() => self.kill(),
            }
        }
    }

    fn handle(&mut self, request: KeeperRequest, events: &Sender<ProcessEvent>) {
        match request {
            KeeperRequest::Start(clone) => {
                let event = match self.start(&clone, events) {
                    Ok(pid) => ProcessEvent::Started(pid.as_raw_pid().unsigned_abs()),
                    Err(error) => ProcessEvent::NotStarted(crate::error::chain(&error)),
                };
                let _ = events.try_send(event); // it is the first one, so there is room
            }
            KeeperRequest::Stop { kill_after_ms } => {
                if let Some(leader) = &mut self.leader {
                    child::signal(leader.pid, Signal::TERM);
                    leader.kill_after(Duration::from_millis(kill_after_ms));
                }
            }
            KeeperRequest::HoldContainers(held) => drop(self.containers.insert(held)),
        }
    }

    fn start(&mut self, clone: &StartClone, events: &Sender<ProcessEvent>) -> io::Result<Pid> {
        let (pid, pipe) = child::start(clone)?;
        self.leader = Some(Leader {
            pid,
            output: tokio::spawn(output::forward(pipe, events.clone())),
            kill_at: None,
        });
        Ok(pid)
    }

    /// Reaps the children that have ended. If the process of the clone is one of them, kills everything that the clone
    /// has started, also what has left its process group, and reports the end.
    async fn reap(&mut self, events: &Sender<ProcessEvent>) {
        while let Some((pid, status)) = child::reap() {
            // Only the end of the leader is reported. Other processes became children of the keeper when their parents
            // ended.
            if let Some(leader) = self.leader.take_if(|leader| leader.pid == pid) {
                child::signal(pid, Signal::KILL); // the rest of its group
                let _ = child::kill_all().await; // `run` tries it again
                tokio::spawn(report_end(leader.output, status, events.clone()));
            }
        }
    }

    async fn wait_for_kill_time(&self) {
        match self.leader.as_ref().and_then(|leader| leader.kill_at) {
            Some(at) => sleep_until(at).await,
            None => pending().await,
        }
    }

    fn kill(&mut self) {
        if let Some(leader) = &mut self.leader {
            child::signal(leader.pid, Signal::KILL);
            leader.kill_at = None;
        }
    }
}

/// Reports how a process has ended, after its last output.
async fn report_end(output: JoinHandle<io::Result<()>>, status: WaitStatus, events: Sender<ProcessEvent>) {
    let _ = timeout(OUTPUT_END_TIMEOUT, output).await;
    let _ = events.send(ProcessEvent::Ended(child::describe(status))).await; // fails if acequia has closed the socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_request_to_stop_does_not_delay_the_kill() {
        let mut leader = Leader {
            pid: Pid::INIT, // gets no signal here
            output: tokio::spawn(async { Ok(()) }),
            kill_at: None,
        };
        let seconds = Duration::from_secs;
        let began = Instant::now();
        for (wait, kill_after) in [(12, 12), (20, 12), (10, 10)] {
            leader.kill_after(seconds(wait));
            assert_eq!(leader.kill_at, Some(began + seconds(kill_after)));
        }
    }
}
