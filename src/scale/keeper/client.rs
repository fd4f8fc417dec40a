//! Our end of the socket to the keeper.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::message::{Event, HeldContainers, KeeperRequest, StartClone, line_of};
use crate::check::exec::close_on_exec;

/// This program, also after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";

/// The pause before a keeper that has ended is started again for containers.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The keeper. It is started with the first process that it is to hold, and again if it has ended.
#[derive(Clone, Default)]
pub struct Keeper {
    // A std mutex: locked for a few lines.
    shared: Arc<Mutex<KeeperState>>,
}

#[derive(Default)]
struct KeeperState {
    next_id: u64,
    /// `None`: it does not run.
    requests: Option<UnboundedSender<KeeperRequest>>,
    processes: HashMap<u64, HeldProcess>,
    containers: BTreeSet<HeldContainers>,
}

/// A process that the keeper holds, or is about to start.
struct HeldProcess {
    group: Option<Pid>,
    events: UnboundedSender<ProcessEvent>,
}

/// What happens to a process.
#[derive(Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It runs, with this PID.
    Started(u32),
    /// It could not be started.
    NotStarted(String),
    /// It has printed a line; this many before it are not reported.
    Output(String, u64),
    /// It has ended; the text says how. Nothing follows.
    Ended(String),
}

/// A process that the keeper holds. Dropping this kills it.
pub struct KeptProcess {
    id: u64,
    keeper: Keeper,
    events: UnboundedReceiver<ProcessEvent>,
}

impl Keeper {
    /// Has the keeper start a process. To be called within a runtime.
    ///
    /// # Errors
    /// The keeper cannot be started. If the process itself cannot be started, its first event says so.
    pub fn start(&self, clone: StartClone) -> io::Result<KeptProcess> {
        let mut shared = self.lock();
        let requests = self.requests(&mut shared)?;
        let id = shared.next_id;
        shared.next_id += 1;
        let (sender, events) = unbounded_channel();
        let held = HeldProcess {
            group: None,
            events: sender,
        };
        shared.processes.insert(id, held);
        let _ = requests.send(KeeperRequest::Start { id, clone }); // if the keeper has ended, `run` reports that
        Ok(KeptProcess {
            id,
            keeper: self.clone(),
            events,
        })
    }

    /// Has the keeper remove containers when we have ended, whatever the reason. To be called within a runtime.
    ///
    /// # Errors
    /// The keeper cannot be started.
    pub fn hold_containers(&self, held: HeldContainers) -> io::Result<()> {
        let mut shared = self.lock();
        let requests = self.requests(&mut shared)?;
        if shared.containers.insert(held.clone()) {
            let _ = requests.send(KeeperRequest::HoldContainers(held)); // if the keeper has ended, `run` tells the next one
        }
        Ok(())
    }

    /// The sender of requests to the keeper. The keeper is started if it does not run.
    fn requests(&self, shared: &mut KeeperState) -> io::Result<UnboundedSender<KeeperRequest>> {
        if let Some(requests) = &shared.requests {
            return Ok(requests.clone());
        }
        let requests = self.connect()?;
        for held in &shared.containers {
            let _ = requests.send(KeeperRequest::HoldContainers(held.clone()));
        }
        Ok(shared.requests.insert(requests).clone())
    }

    /// Starts the keeper.
    fn connect(&self) -> io::Result<UnboundedSender<KeeperRequest>> {
        let (ours, theirs) = net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        close_on_exec();
        let keeper = Command::new(PROGRAM)
            .arg("keeper")
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .process_group(0) // signals of a terminal are for us
            .spawn()
            .map_err(|error| crate::error::with_context(error, "cannot start the keeper of clones"))?;
        let (sender, requests) = unbounded_channel();
        tokio::spawn(self.clone().run(ours, requests, keeper));
        Ok(sender)
    }

    /// Exchanges messages with the keeper until it ends.
    async fn run(self, socket: UnixStream, mut requests: UnboundedReceiver<KeeperRequest>, mut keeper: Child) {
        let error = self.exchange(socket, &mut requests).await.err();
        let lost = self.disconnect();
        if !lost.is_empty() {
            let error = error.map(|error| crate::error::chain(&error));
            tracing::error!(
                clones = lost.len(),
                error,
                "the keeper of clones has ended: they are started again"
            );
        }
        for HeldProcess { group, events } in lost.into_values() {
            // Without the keeper, nobody would end them.
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = events.send(ProcessEvent::Ended("the keeper has ended".into()));
        }
        let _ = spawn_blocking(move || keeper.wait()).await;
        self.hold_again().await;
    }

    /// Starts the keeper again if there may be containers. (Whoever starts a process starts the keeper for it.)
    async fn hold_again(&self) {
        loop {
            sleep(RESTART_PAUSE).await;
            let mut shared = self.lock();
            if shared.containers.is_empty() || self.requests(&mut shared).is_ok() {
                return;
            }
        }
    }

    /// Forgets the connection. Returns the processes that are lost with it.
    fn disconnect(&self) -> HashMap<u64, HeldProcess> {
        let mut shared = self.lock();
        shared.requests = None;
        std::mem::take(&mut shared.processes)
    }

    async fn exchange(&self, socket: UnixStream, requests: &mut UnboundedReceiver<KeeperRequest>) -> io::Result<()> {
        let (reader, mut writer) = socket.into_split();
        let mut events = BufReader::new(reader).lines();
        loop {
            tokio::select! {
                // Both are cancel safe: a line that is not complete is kept.
                event = events.next_line() => match event? {
                    None => return Ok(()),
                    Some(line) => self.deliver(serde_json::from_str(&line)?),
                },
                Some(request) = requests.recv() => writer.write_all(&line_of(&request)).await?,
            }
        }
    }

    fn deliver(&self, event: Event) {
        let mut shared = self.lock();
        let (id, event) = match event {
            Event::Started { id, pid } => {
                if let Some(held) = shared.processes.get_mut(&id) {
                    held.group = i32::try_from(pid).ok().and_then(Pid::from_raw);
                }
                (id, ProcessEvent::Started(pid))
            }
            Event::NotStarted { id, error } => (id, ProcessEvent::NotStarted(error)),
            Event::Output { id, line, suppressed } => (id, ProcessEvent::Output(line, suppressed)),
            Event::Ended { id, status } => (id, ProcessEvent::Ended(status)),
        };
        let is_last = matches!(event, ProcessEvent::NotStarted(_) | ProcessEvent::Ended(_));
        if let Some(held) = shared.processes.get(&id) {
            let _ = held.events.send(event); // nobody may wait for it any more
        }
        if is_last {
            shared.processes.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, KeeperState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptProcess {
    /// The next event. Cancel safe.
    pub async fn event(&mut self) -> ProcessEvent {
        let ended = || ProcessEvent::Ended("it has ended".into());
        self.events.recv().await.unwrap_or_else(ended)
    }

    /// Ends the process: its group gets SIGTERM, and SIGKILL after this time.
    pub fn stop(&self, kill_after: Duration) {
        let shared = self.keeper.lock();
        if let (Some(requests), true) = (&shared.requests, shared.processes.contains_key(&self.id)) {
            let kill_after_ms = u64::try_from(kill_after.as_millis()).unwrap_or(u64::MAX);
            let _ = requests.send(KeeperRequest::Stop {
                id: self.id,
                kill_after_ms,
            });
        }
    }
}

impl Drop for KeptProcess {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
