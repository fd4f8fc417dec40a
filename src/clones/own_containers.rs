//! Knows which containers are ours, and removes those that nobody holds.
//!
//! All our containers have a label with a random number of this process. If the start of a container failed half way,
//! this process no longer holds it, and it is removed here. The containers of a process that has ended are removed by
//! its keeper (see [`crate::scale::keeper`]), or else by the next process with the same `state_dir`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::instance_file::{EndedInstance, InstanceFile, ended_instances};
use crate::back_off::BackOff;
use crate::blocking::blocking;
use crate::docker::{DockerEngine, DockerError, remove_labelled_until};
use crate::error::chain;
use crate::scale::keeper::{ContainerKeeper, HeldContainers};

/// The label of all our containers. Its value tells one process of acequia from another.
pub(super) const INSTANCE_LABEL: &str = "acequia.instance";

/// How long engines are asked, after our start, for containers that were left behind. An engine may start after us.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// The containers of this process.
pub(super) struct OwnContainers {
    /// The value of [`INSTANCE_LABEL`].
    pub(super) instance: String,
    /// Where the files of instances are; `None`: there is no `state_dir`.
    directory: Option<PathBuf>,
    keeper: ContainerKeeper,
    /// The number of the next container, as a part of its name.
    next: AtomicU64,
    // A blocking mutex: locked while a file is written, so only on threads that may block.
    engines: Mutex<Engines>,
    /// Containers that may exist although nobody holds them.
    // A blocking mutex: locked for a few lines.
    unheld: Mutex<BTreeSet<ContainerPlace>>,
    unheld_changed: Notify,
}

/// The name of a container, and the socket of its engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ContainerPlace {
    pub(super) socket: Arc<Path>,
    pub(super) name: String,
}

/// The engines that are written in the instance file of this process.
#[derive(Default)]
struct Engines {
    sockets: BTreeSet<PathBuf>,
    /// `None`: it is not created yet.
    file: Option<InstanceFile>,
}

impl Engines {
    fn write(&mut self, directory: &Path, instance: &str, socket: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(InstanceFile::create(directory, instance)?),
        };
        file.add(socket)
    }
}

/// One container that this process holds. When this value is dropped, the container is removed, unless it already was.
/// In contrast, [`HeldContainers`] are all our containers at one engine, which the keeper removes when we have ended.
pub(super) struct HeldContainer {
    pub(super) place: ContainerPlace,
    is_removed: bool,
    own: Arc<OwnContainers>,
}

impl OwnContainers {
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        Self {
            instance: format!("{:016x}", fastrand::u64(..)),
            directory: state_dir.map(|directory| directory.join("clones")),
            keeper: ContainerKeeper::default(),
            next: AtomicU64::new(1),
            engines: Mutex::default(),
            unheld: Mutex::default(),
            unheld_changed: Notify::new(),
        }
    }

    /// Tells the keeper to remove our containers at this engine when this process has ended, and writes the engine into
    /// the instance file. To be called before a container is created there.
    ///
    /// # Errors
    /// There is no keeper that would remove the container.
    pub(super) async fn prepare(self: &Arc<Self>, socket: &Path) -> Result<(), String> {
        let label = label(&self.instance);
        let held = HeldContainers {
            socket: socket.to_owned(),
            label,
        };
        self.keeper.hold(held).map_err(|error| chain(&error))?;
        let (own, socket) = (Arc::clone(self), socket.to_owned());
        let _ = spawn_blocking(move || own.write(socket)).await;
        Ok(())
    }

    /// Writes the engine into the instance file of this process. Blocks.
    fn write(&self, socket: PathBuf) {
        let mut engines = self.engines.lock();
        let Some(directory) = &self.directory else { return };
        if engines.sockets.contains(&socket) {
            return;
        }
        match engines.write(directory, &self.instance, &socket) {
            Ok(()) => drop(engines.sockets.insert(socket)),
            Err(error) => {
                let (directory, error) = (directory.display(), chain(&error));
                tracing::warn!(%directory, error, "the next start will not find containers that a crash leaves behind");
            }
        }
    }

    /// Holds a container that is to be created for a clone.
    pub(super) fn hold(self: &Arc<Self>, socket: &Arc<Path>, clone: &str) -> HeldContainer {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let clone = clone.replace(|c| !is_valid(c), "-");
        let number = self.next.fetch_add(1, Relaxed);
        HeldContainer {
            place: ContainerPlace {
                socket: Arc::clone(socket),
                name: format!("acequia-{clone}-{}-{number}", self.instance),
            },
            is_removed: false,
            own: Arc::clone(self),
        }
    }

    /// Until the shutdown, removes containers as soon as nobody holds them.
    pub(super) async fn remove_unheld(&self, shutdown: &CancellationToken) {
        let removing = async {
            loop {
                self.unheld_changed.notified().await;
                let mut back_off = BackOff::default();
                while !self.try_remove_unheld().await {
                    back_off.pause().await; // not logged: the failed start has been logged already
                }
            }
        };
        shutdown.run_until_cancelled(removing).await;
    }

    /// Removes each container in `unheld` if that is possible. Returns whether none remains.
    async fn try_remove_unheld(&self) -> bool {
        let unheld = self.unheld.lock().clone();
        for place in unheld {
            if place.remove().await.is_ok() {
                self.unheld.lock().remove(&place);
            }
        }
        self.unheld.lock().is_empty()
    }

    /// Removes the instance file if no container is left. To be called when all clones have ended. Blocks.
    pub(super) fn finish(&self) {
        if self.unheld.lock().is_empty()
            && let Some(file) = self.engines.lock().file.take()
        {
            let _ = file.remove(); // if that fails, the next start looks for containers in vain
        }
    }

    /// Removes the containers that ended instances have left behind.
    pub(super) async fn remove_orphans(&self, shutdown: &CancellationToken) {
        let Some(directory) = self.directory.clone() else {
            return;
        };
        let shown = directory.display().to_string();
        let own_instance = self.instance.clone();
        match blocking(move || ended_instances(&directory, &own_instance)).await {
            Ok(ended) => {
                let until = Instant::now() + ORPHANS_PATIENCE;
                // All at once: an engine that is gone for good must not use up the time of the others.
                let removals = ended.into_iter().map(|instance| remove_orphans_of(instance, until));
                shutdown.run_until_cancelled(join_all(removals)).await;
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    directory = shown,
                    error,
                    "cannot look for containers that a crash has left behind"
                );
            }
        }
    }
}

/// Removes the containers of an instance that has ended.
async fn remove_orphans_of(ended: EndedInstance, until: Instant) {
    let label = label(&ended.instance);
    let removals = ended
        .sockets
        .iter()
        .map(|socket| remove_labelled_until(socket, &label, until));
    let mut is_complete = true;
    for (socket, removed) in ended.sockets.iter().zip(join_all(removals).await) {
        let socket = socket.display();
        match removed {
            Ok(0) => {}
            Ok(containers) => {
                tracing::warn!(%socket, label, containers, "containers that a crash had left behind are removed");
            }
            Err(error) => {
                is_complete = false;
                let error = chain(&*error);
                tracing::warn!(
                    %socket,
                    label,
                    error,
                    "containers that a crash has left behind cannot be removed: the next start tries it again"
                );
            }
        }
    }
    if is_complete {
        let _ = spawn_blocking(|| ended.forget()).await; // if that fails, the next start looks again
    }
}

fn label(instance: &str) -> String {
    format!("{INSTANCE_LABEL}={instance}")
}

impl ContainerPlace {
    /// Removes the container, and kills it if it runs.
    pub(super) async fn remove(&self) -> Result<(), DockerError> {
        DockerEngine::connect(&self.socket).await?.remove(&self.name).await
    }
}

impl HeldContainer {
    /// Ends the hold: the container was removed.
    pub(super) fn mark_removed(mut self) {
        self.is_removed = true;
    }
}

impl Drop for HeldContainer {
    fn drop(&mut self) {
        if !self.is_removed {
            self.own.unheld.lock().insert(self.place.clone());
            self.own.unheld_changed.notify_one();
        }
    }
}
