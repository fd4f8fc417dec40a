//! Our end of the socket to a keeper, the child process that starts and ends a clone.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::marked::Mark;
use super::message::{HeldContainers, KeeperRequest, ProcessEvent, StartClone, line_of};
use crate::command::set_close_on_exec_on_all;
use crate::error::{chain, with_context};

/// This program, also after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";

/// The pause before a keeper of containers that has ended is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A running keeper, and our end of the socket to it. The keeper ends when the socket closes.
struct KeeperProcess {
    child: Child,
    socket: UnixStream,
}

impl KeeperProcess {
    /// Starts a keeper. To be called within a runtime.
    fn start() -> io::Result<Self> {
        let (ours, theirs) = net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        set_close_on_exec_on_all();
        let child = Command::new(PROGRAM)
            .arg("keeper")
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .process_group(0) // signals of a terminal are for us
            .spawn()
            .map_err(|error| with_context(error, "cannot start a keeper"))?;
        Ok(Self { child, socket })
    }

    /// Exchanges messages with the keeper until it ends, `requests` is closed, `deliver` breaks, or an error occurs.
    /// Then closes the socket, and waits until the keeper has ended.
    async fn exchange(
        self,
        mut requests: UnboundedReceiver<KeeperRequest>,
        mut deliver: impl FnMut(ProcessEvent) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let Self { mut child, socket } = self;
        let exchange = async {
            let (reader, mut writer) = socket.into_split();
            let mut events = BufReader::new(reader).lines();
            loop {
                tokio::select! {
                    // Both are cancel safe: a line that is not complete is kept.
                    event = events.next_line() => match event? {
                        Some(line) if deliver(serde_json::from_str(&line)?).is_continue() => {}
                        Some(_) | None => return Ok(()),
                    },
                    request = requests.recv() => match request {
                        None => return Ok(()),
                        Some(request) => writer.write_all(&line_of(&request)).await?,
                    },
                }
            }
        };
        let exchanged = exchange.await;
        let _ = spawn_blocking(move || child.wait()).await;
        exchanged
    }
}

/// A process that is held by a keeper of its own. Dropping this kills the process, and everything that it has started.
pub struct KeptProcess {
    requests: UnboundedSender<KeeperRequest>,
    events: UnboundedReceiver<ProcessEvent>,
}

impl KeptProcess {
    /// Starts a process through a keeper. To be called within a runtime.
    ///
    /// # Errors
    /// The keeper cannot be started. If the process itself cannot be started, its first event says so.
    pub fn start(mut clone: StartClone) -> io::Result<Self> {
        let mark = Mark::new();
        clone.env.push(mark.variable());
        let user = clone.user.clone();
        let keeper = KeeperProcess::start()?;
        let (requests, to_send) = unbounded_channel();
        let (sender, events) = unbounded_channel();
        let _ = requests.send(KeeperRequest::Start(clone)); // the receiver is here
        tokio::spawn(async move {
            let (mut group, mut is_over) = (None, false);
            let exchanged = keeper.exchange(to_send, |event| {
                if let ProcessEvent::Started(pid) = event {
                    group = i32::try_from(pid).ok().and_then(Pid::from_raw);
                }
                is_over = matches!(event, ProcessEvent::NotStarted(_) | ProcessEvent::Ended(_));
                let _ = sender.send(event); // fails if the `KeptProcess` was dropped
                match is_over {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            let error = exchanged.await.err();
            if is_over {
                return;
            }
            // If the `KeptProcess` was not dropped, its keeper has failed.
            if !sender.is_closed() {
                let error = error.map(|error| chain(&error));
                tracing::error!(error, "the keeper of a clone has ended: the clone is started again");
                if let Some(group) = group {
                    let _ = kill_process_group(group, Signal::KILL); // it may have ended, too
                }
            }
            // A keeper that was killed has not ended the clone.
            mark.kill_all(user).await;
        });
        Ok(Self { requests, events })
    }

    /// A process without a keeper. It has no events until the returned sender is dropped, and has ended then.
    #[cfg(test)]
    pub fn without_events() -> (Self, UnboundedSender<ProcessEvent>) {
        let (requests, _) = unbounded_channel();
        let (sender, events) = unbounded_channel();
        (Self { requests, events }, sender)
    }

    /// The next event. Cancel safe.
    pub async fn event(&mut self) -> ProcessEvent {
        let ended = || ProcessEvent::Ended("its keeper has ended".into());
        self.events.recv().await.unwrap_or_else(ended)
    }

    /// Ends the process: its group gets SIGTERM, and SIGKILL after this time.
    pub fn stop(&self, kill_after: Duration) {
        let kill_after_ms = u64::try_from(kill_after.as_millis()).unwrap_or(u64::MAX);
        let _ = self.requests.send(KeeperRequest::Stop { kill_after_ms }); // its keeper may have ended
    }
}

/// The keeper of our containers. It is started when the first container is held, and again if it has ended.
#[derive(Clone, Default)]
pub struct ContainerKeeper {
    // A blocking mutex: locked for a few lines.
    shared: Arc<Mutex<KeeperState>>,
}

#[derive(Default)]
struct KeeperState {
    /// `None`: the keeper does not run.
    requests: Option<UnboundedSender<KeeperRequest>>,
    containers: BTreeSet<HeldContainers>,
}

impl ContainerKeeper {
    /// Tells the keeper to remove these containers when we have ended, whatever the reason. To be called within a
    /// runtime.
    ///
    /// # Errors
    /// The keeper cannot be started.
    pub fn hold(&self, held: HeldContainers) -> io::Result<()> {
        let mut shared = self.shared.lock();
        let is_new = shared.containers.insert(held.clone());
        match shared.requests.clone() {
            // A keeper that has just ended does not get this. The next one gets all containers.
            Some(requests) if is_new => {
                let _ = requests.send(KeeperRequest::HoldContainers(held));
            }
            Some(_) => {}
            None => self.start(&mut shared)?,
        }
        Ok(())
    }

    /// Starts the keeper, and sends it all containers to hold.
    fn start(&self, shared: &mut KeeperState) -> io::Result<()> {
        let keeper = KeeperProcess::start()?;
        let (requests, to_send) = unbounded_channel();
        for held in &shared.containers {
            let _ = requests.send(KeeperRequest::HoldContainers(held.clone())); // the receiver is here
        }
        shared.requests = Some(requests);
        tokio::spawn(self.clone().run(keeper, to_send));
        Ok(())
    }

    /// Exchanges messages with the keeper until it ends. Then starts another one.
    async fn run(self, keeper: KeeperProcess, requests: UnboundedReceiver<KeeperRequest>) {
        let error = keeper.exchange(requests, |_| ControlFlow::Continue(())).await.err();
        let error = error.map(|error| chain(&error));
        tracing::error!(error, "the keeper of containers has ended: it is started again");
        self.shared.lock().requests = None;
        let mut is_logged = false;
        loop {
            sleep(RESTART_PAUSE).await;
            let mut shared = self.shared.lock();
            if shared.requests.is_some() {
                return; // `hold` has started it
            }
            let Err(error) = self.start(&mut shared) else { return };
            if !std::mem::replace(&mut is_logged, true) {
                let error = chain(&error);
                tracing::error!(
                    error,
                    "the keeper of containers cannot be started again: this is tried every second"
                );
            }
        }
    }
}
