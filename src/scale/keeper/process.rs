//! The keeper itself.

use std::collections::{BTreeSet, HashMap};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, set_child_subreaper, setrlimit};
use rustix::thread::clear_ambient_capability_set;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, sleep_until};

use super::message::{Event, HeldContainers, KeeperRequest, line_of};
use super::{child, containers, output};

/// The soft limit of open files that programs expect: those that use select(2) fail above it.
const OPEN_FILES: u64 = 1024;

/// The most events that wait to be sent. Whoever has more waits.
const EVENTS_MAX: usize = 64;

/// Runs the keeper until its standard input, a socket, closes. On return, all that it has started is dead, and our containers
/// are removed.
///
/// # Errors
/// Standard input is no such socket, the system refuses what the keeper needs, or containers were not removed.
pub fn run() -> io::Result<()> {
    set_child_subreaper(Some(Pid::INIT))?; // any PID: it stands for `true`
    let _ = clear_ambient_capability_set(); // without ambient capabilities there are none to clear
    reset_limits()?;
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut keeper = HeldProcesses::default();
        let ended = keeper.serve(socket.into()).await;
        child::kill_all(keeper.children.keys().copied());
        ended.and(containers::remove_all(&keeper.containers).await)
    })
}

/// Sets the usual limit of open files for clones: we have raised the soft limit for our sessions.
fn reset_limits() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: Some(maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES))),
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// What the keeper holds.
#[derive(Default)]
struct HeldProcesses {
    /// By the leaders of their process groups.
    children: HashMap<Pid, Child>,
    containers: BTreeSet<HeldContainers>,
}

struct Child {
    id: u64,
    /// When it gets SIGKILL; `None`: it has not been asked to end.
    kill_at: Option<Instant>,
}

impl HeldProcesses {
    async fn serve(&mut self, socket: net::UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let (reader, mut writer) = UnixStream::from_std(socket)?.into_split();
        let mut requests = BufReader::new(reader).lines();
        let mut child_ended = signal(SignalKind::child())?;
        // These signals are meant for us: we end the keeper by closing its socket. They are handled and not ignored, because
        // the processes that it starts then have the default again.
        let _handled = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ];
        let (events, mut to_tell) = channel(EVENTS_MAX);
        loop {
            let event = tokio::select! {
                // All of them are cancel safe: a line that is not complete is kept.
                request = requests.next_line() => match request? {
                    None => return Ok(()),
                    Some(line) => self.follow(serde_json::from_str(&line)?, &events),
                },
                _ = child_ended.recv() => {
                    while let Some(event) = self.reap() {
                        writer.write_all(&line_of(&event)).await?;
                    }
                    None
                }
                event = to_tell.recv() => event,
                () = self.wait_for_next_kill() => {
                    self.kill_overdue();
                    None
                }
            };
            if let Some(event) = event {
                writer.write_all(&line_of(&event)).await?;
            }
        }
    }

    fn follow(&mut self, request: KeeperRequest, events: &Sender<Event>) -> Option<Event> {
        match request {
            KeeperRequest::Start { id, clone } => Some(match child::start(&clone) {
                Ok((pid, pipe)) => {
                    self.children.insert(pid, Child { id, kill_at: None });
                    tokio::spawn(output::forward(id, pipe, events.clone()));
                    Event::Started {
                        id,
                        pid: pid.as_raw_pid().unsigned_abs(),
                    }
                }
                Err(error) => Event::NotStarted {
                    id,
                    error: crate::error::chain(&error),
                },
            }),
            KeeperRequest::Stop { id, kill_after_ms } => {
                let stopped = self.children.iter_mut().find(|(_, child)| child.id == id);
                if let Some((pid, child)) = stopped {
                    child::signal(*pid, Signal::TERM);
                    child.kill_at = Some(Instant::now() + Duration::from_millis(kill_after_ms));
                }
                None
            }
            KeeperRequest::HoldContainers(held) => {
                self.containers.insert(held);
                None
            }
        }
    }

    /// Reaps until a clone has ended; `None`: none has.
    fn reap(&mut self) -> Option<Event> {
        while let Some((pid, status)) = child::reap() {
            // Others have become our children because their parents have ended.
            if let Some(Child { id, .. }) = self.children.remove(&pid) {
                child::signal(pid, Signal::KILL); // what it has left in its group
                return Some(Event::Ended {
                    id,
                    status: child::describe(status),
                });
            }
        }
        None
    }

    async fn wait_for_next_kill(&self) {
        match self.children.values().filter_map(|child| child.kill_at).min() {
            Some(at) => sleep_until(at).await,
            None => pending().await,
        }
    }

    fn kill_overdue(&mut self) {
        let now = Instant::now();
        for (pid, child) in &mut self.children {
            if child.kill_at.is_some_and(|at| at <= now) {
                child::signal(*pid, Signal::KILL);
                child.kill_at = None;
            }
        }
    }
}
