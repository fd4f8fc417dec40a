//! Watches a file, and reports when it is to be read again: after an event in its directories, and regularly.
//!
//! Editors write another file and rename it, and Kubernetes replaces a symbolic link next to the file. Therefore two
//! directories are watched: that of the configured path, and that of the file to which the path resolves. The caller
//! finds out whether the bytes of the file have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::units::format_duration;

/// The file is read after this long without an event. Before that, somebody may still be writing it.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// The longest wait for a quiet period: other files in the same directory may change all the time.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);

/// The file is also read this often without an event: inotify(7) reports neither writes of other machines nor a change
/// of a link above the watched directories.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Creates a watcher that watches no directory yet. The watcher sends a message for each event that may be a change,
/// and drops the sender when it has failed and will not report events any more.
type NewWatcher = dyn Fn(Sender<()>) -> notify::Result<RecommendedWatcher> + Send + Sync;

/// Watches the directories of a file. Without inotify the file is only read regularly.
pub struct FileWatch {
    file: PathBuf,
    new_watcher: Arc<NewWatcher>,
    poll_interval: Duration,
    /// `None`: it is not created yet, or could not be. Every call of [`Self::watch`] tries again.
    inotify: Option<Inotify>,
    /// Whether the log says that the file is only polled.
    is_polling: bool,
}

/// The watched directories.
struct Inotify {
    watcher: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
    /// One message stands for all events since the last message was received.
    events: Receiver<()>,
}

impl FileWatch {
    /// A watch of this file, which need not exist.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self::with(file, Arc::new(new_watcher), POLL_INTERVAL)
    }

    fn with(file: PathBuf, new_watcher: Arc<NewWatcher>, poll_interval: Duration) -> Self {
        Self {
            file,
            new_watcher,
            poll_interval,
            inotify: None,
            is_polling: false,
        }
    }

    /// Waits until the file is to be read: an event and a quiet period after it, or the poll interval.
    pub async fn changed(&mut self) {
        let Some(Inotify { events, .. }) = &mut self.inotify else {
            return sleep(self.poll_interval).await;
        };
        match timeout(self.poll_interval, events.recv()).await {
            Ok(Some(())) => {}
            Ok(None) => return sleep(self.poll_interval).await, // `watch` then creates a new watcher
            Err(_) => return,
        }
        let end = Instant::now() + QUIET_WAIT_MAX;
        while Instant::now() < end && matches!(timeout(QUIET_PERIOD, events.recv()).await, Ok(Some(()))) {}
    }

    /// Watches the directories of the file, which may be others now. To be called before each read of the file, so that
    /// a later change causes an event. `None`: the runtime shuts down.
    ///
    /// This is done on a thread that may block: the file may be on a network file system that does not respond.
    pub async fn watch(mut self) -> Option<Self> {
        let (file, new_watcher) = (self.file.clone(), Arc::clone(&self.new_watcher));
        let poll_interval = self.poll_interval;
        let is_polling = self.is_polling;
        let watch = move || {
            let result = self.watch_directories();
            self.log(result);
            self
        };
        match spawn_blocking(watch).await {
            Ok(watching) => Some(watching),
            // The crate `notify` panics if its thread has just ended. The watch is lost then, and begins anew.
            Err(error) => error.is_panic().then(|| Self {
                is_polling,
                ..Self::with(file, new_watcher, poll_interval)
            }),
        }
    }

    /// Watches the directories anew: a link may resolve to another directory now, or a directory may have been
    /// replaced.
    ///
    /// # Errors
    /// The system has no inotify instance or not enough watches left, a directory may not be read, or the new watcher
    /// has failed at once. A directory that does not exist is no error.
    fn watch_directories(&mut self) -> notify::Result<()> {
        let mut inotify = match self.inotify.take() {
            Some(inotify) if !inotify.has_failed() => inotify,
            _ => Inotify::new(&*self.new_watcher)?,
        };
        // A new watcher may have failed at once.
        if inotify.has_failed() {
            return Err(notify::Error::generic("the thread that reads its events has ended"));
        }
        let result = inotify.watch_directories(&self.file);
        self.inotify = Some(inotify);
        result
    }

    /// Logs once that the file is only polled, and once that it is watched again.
    fn log(&mut self, result: notify::Result<()>) {
        let was_polling = std::mem::replace(&mut self.is_polling, result.is_err());
        match result {
            Err(error) if !was_polling => tracing::warn!(
                file = %self.file.display(),
                %error,
                interval = format_duration(self.poll_interval),
                "cannot watch a file, reading it regularly (see fs.inotify in sysctl)"
            ),
            Ok(()) if was_polling => tracing::info!(file = %self.file.display(), "watching the file again"),
            _ => {}
        }
    }
}

impl Inotify {
    /// A new watcher, which watches no directory yet.
    fn new(new_watcher: &NewWatcher) -> notify::Result<Self> {
        let (sender, events) = mpsc::channel(1);
        Ok(Self {
            watcher: new_watcher(sender)?,
            directories: BTreeSet::new(),
            events,
        })
    }

    /// Whether no event will be reported any more.
    fn has_failed(&self) -> bool {
        self.events.is_closed()
    }

    /// Replaces the watches by those of the directories that the file has now.
    fn watch_directories(&mut self, file: &Path) -> notify::Result<()> {
        for directory in std::mem::take(&mut self.directories) {
            let _ = self.watcher.unwatch(&directory); // fails if the directory was removed
        }
        let mut result = Ok(());
        for directory in directories(file) {
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(directory);
                }
                Err(_) if !directory.exists() => {} // it may exist next time
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

/// Creates a watcher that uses inotify(7).
fn new_watcher(sender: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut sender = Some(sender);
    notify::recommended_watcher(move |event: notify::Result<Event>| match (event, &sender) {
        (Ok(event), Some(sender)) if may_be_a_change(&event) => drop(sender.try_send(())), // full: one message is enough
        (Ok(_), _) => {}
        (Err(_), _) => sender = None, // it cannot read its events
    })
}

/// The directory of the path as given, and that of the file to which the path resolves. Their paths are canonical, so
/// that a directory occurs only once: inotify has one watch for a directory, whatever path is given for it.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = std::fs::canonicalize(file).ok();
    [Some(parent(file)), real.map(|real| parent(&real))]
        .into_iter()
        .flatten()
        .map(|directory| std::fs::canonicalize(&directory).unwrap_or(directory))
        .collect()
}

/// Whether the file may have changed. Reading it is an event too, and must not cause another read.
fn may_be_a_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_may_be_removed_and_created_again_in_a_directory_with_two_names() {
        let directory = tempfile::tempdir().unwrap();
        let alias = directory.path().join("alias");
        std::fs::create_dir(directory.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", &alias).unwrap();
        let file = alias.join("acequia.toml");
        std::fs::write(&file, "").unwrap();
        let mut watch = FileWatch::new(file.clone());
        watch.watch_directories().unwrap();
        for _ in 0..2 {
            for change in [|file| std::fs::remove_file(file), |file| std::fs::write(file, "")] {
                change(&file).unwrap();
                let event = timeout(POLL_INTERVAL / 2, watch.changed()).await;
                event.expect("an event reports it before the next poll");
                watch.watch_directories().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_directory_may_be_removed_and_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("etc");
        let file = inner.join("acequia.toml");
        let mut watch = FileWatch::new(file.clone());
        for _ in 0..2 {
            std::fs::create_dir(&inner).unwrap();
            watch.watch_directories().unwrap(); // as at each poll
            std::fs::write(&file, "").unwrap();
            let event = timeout(POLL_INTERVAL / 2, watch.changed()).await;
            event.expect("an event reports it before the next poll");
            std::fs::remove_dir_all(&inner).unwrap();
            watch.changed().await;
        }
    }

    fn no_watcher(_: Sender<()>) -> notify::Result<RecommendedWatcher> {
        Err(notify::Error::generic("no inotify instance is left"))
    }

    #[tokio::test(start_paused = true)]
    async fn without_inotify_the_file_is_polled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("acequia.toml");
        std::fs::write(&file, "old").unwrap();
        let mut watch = FileWatch::with(file.clone(), Arc::new(no_watcher), POLL_INTERVAL);
        for _ in 0..3 {
            let watched = Instant::now();
            watch = watch.watch().await.unwrap();
            watch.changed().await;
            assert_eq!(watched.elapsed(), POLL_INTERVAL);
        }
    }

    #[tokio::test]
    async fn a_watcher_is_created_again_after_it_could_not_be_created_or_has_failed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("acequia.toml");
        std::fs::write(&file, "").unwrap();
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let new = move |sender| match attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 | 1 => no_watcher(sender),
            2 => notify::recommended_watcher(|_| {}), // drops `sender`, as when its thread ends
            _ => new_watcher(sender),
        };
        let mut watch = FileWatch::with(file.clone(), Arc::new(new), Duration::from_millis(1));
        for is_polling in [true, true, true, false] {
            watch = watch.watch().await.unwrap();
            assert_eq!(watch.is_polling, is_polling);
            watch.changed().await;
        }
        watch.poll_interval = POLL_INTERVAL;
        std::fs::write(&file, "new").unwrap();
        let event = timeout(POLL_INTERVAL / 2, watch.changed()).await;
        event.expect("an event reports it before the next poll");
    }
}
