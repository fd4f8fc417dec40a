//! A change of the configuration file is a reload.
//!
//! Editors write another file and rename it, Kubernetes turns a symbolic link further up: so the directories are
//! watched, of the path as given and of the file it leads to, and what counts is whether the bytes are others.

use std::collections::BTreeSet;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::FILE_BYTES_MAX;
use crate::reload::Reloader;

/// A file that is being written is left alone until nothing has happened for so long, …
const CALM: Duration = Duration::from_millis(100);

/// … but not for ever: something else in the same directory may never rest.
const CALM_STEPS_MAX: u32 = 20;

/// Asks for a reload whenever the bytes of the file are others, for as long as it is polled.
pub(super) async fn keep(file: PathBuf, reloader: Reloader) {
    let mut watch = match Watch::new(&file) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "cannot watch the configuration: reload it by SIGHUP");
            return;
        }
    };
    let mut seen = bytes(&file).await;
    loop {
        watch.settled().await;
        watch.follow(&file);
        let now = bytes(&file).await;
        if now != seen {
            seen = now;
            // What comes of it is told by whoever does it.
            let _ = reloader.reload("a change of the file".to_owned()).await;
        }
    }
}

/// `None`: it cannot be read.
async fn bytes(file: &Path) -> Option<Vec<u8>> {
    let file = file.to_owned();
    let read = move || {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1);
        BufReader::new(file).read_to_end(&mut bytes).map(|_| bytes)
    };
    spawn_blocking(read).await.ok()?.ok()
}

/// The directories that are watched.
struct Watch {
    watcher: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
    /// At most one waits: that something has happened is all there is to know.
    happened: Receiver<()>,
}

impl Watch {
    fn new(file: &Path) -> notify::Result<Self> {
        let (tell, happened) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| may_matter(&event)) {
                let _ = tell.try_send(()); // full: it is known already
            }
        })?;
        let mut watch = Self {
            watcher,
            directories: BTreeSet::new(),
            happened,
        };
        for directory in directories(file) {
            watch.watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            watch.directories.insert(directory);
        }
        Ok(watch)
    }

    /// Waits until something has happened and calm has come back.
    async fn settled(&mut self) {
        if self.happened.recv().await.is_none() {
            return std::future::pending().await; // the watcher is gone; that is said nowhere else
        }
        for _ in 0..CALM_STEPS_MAX {
            if timeout(CALM, self.happened.recv()).await.is_err() {
                return;
            }
        }
    }

    /// A link may lead elsewhere now.
    fn follow(&mut self, file: &Path) {
        let wanted = directories(file);
        for gone in self.directories.difference(&wanted) {
            let _ = self.watcher.unwatch(gone); // the system may have done so: it was removed
        }
        let new: Vec<_> = wanted.difference(&self.directories).cloned().collect();
        self.directories.retain(|directory| wanted.contains(directory));
        for directory in new {
            if self.watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok() {
                self.directories.insert(directory); // otherwise it is tried again next time
            }
        }
    }
}

/// Of the path as given, and of the file at its end.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = std::fs::canonicalize(file).ok();
    [Some(parent(file)), real.map(|real| parent(&real))]
        .into_iter()
        .flatten()
        .collect()
}

/// Reading the file is an event too, and must not lead to reading it again.
fn may_matter(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
