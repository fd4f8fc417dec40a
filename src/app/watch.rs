//! A change of the configuration file is a reload.
//!
//! Editors write another file and rename it, Kubernetes turns a symbolic link further up: so the directories are
//! watched, of the path as given and of the file it leads to, and what counts is whether the bytes are others.

use std::collections::BTreeSet;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::config::FILE_BYTES_MAX;
use crate::reload::Reloader;

/// A file that is being written is left alone until nothing has happened for so long, …
const CALM: Duration = Duration::from_millis(100);

/// … but not for longer than this: something else in the same directory may never rest.
const UNREST_MAX: Duration = Duration::from_secs(2);

/// How often the file is read unasked: inotify(7) does not tell of what other machines write, nor of a link further up.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Asks for a reload whenever the bytes of the file are others than before, at first than `read`, for as long as it is
/// polled.
pub(super) async fn keep(file: PathBuf, read: String, reloader: Reloader) {
    Watch::new().keep(file, read, reloader).await;
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

/// Begins to watch, at first nothing. An event is a message; the channel closes when no event will come any more.
type Begin = dyn Fn(Sender<()>) -> notify::Result<RecommendedWatcher> + Send + Sync;

/// Watches the directories of a file, and reads the file regularly in any case: without inotify that is all it does.
struct Watch {
    begin: Arc<Begin>,
    poll_interval: Duration,
    /// `None`: it could not begin, or has broken; that is tried again whenever the file is read.
    inotify: Option<Inotify>,
    /// Whether the file is only polled, which has been said.
    is_polling: bool,
}

/// What is watched.
struct Inotify {
    watcher: RecommendedWatcher,
    directories: BTreeSet<PathBuf>,
    /// At most one waits: that something has happened is all there is to know.
    happened: Receiver<()>,
}

impl Watch {
    fn new() -> Self {
        Self::by(Arc::new(begin), POLL_INTERVAL)
    }

    fn by(begin: Arc<Begin>, poll_interval: Duration) -> Self {
        Self {
            begin,
            poll_interval,
            inotify: None,
            is_polling: false,
        }
    }

    /// [`keep`].
    async fn keep(self, file: PathBuf, read: String, reloader: Reloader) {
        let mut watch = self;
        let mut seen = Some(read.into_bytes());
        // First this, then a look: what happens in between is told.
        while let Some(mut following) = watch.following(file.clone()).await {
            let now = bytes(&file).await;
            if now != seen {
                seen = now;
                // What comes of it is told by whoever does it.
                let _ = reloader.reload("a change of the file".to_owned()).await;
            }
            following.settled().await;
            watch = following;
        }
    }

    /// Waits until something has happened and calm has come back, or until it is time to read the file.
    async fn settled(&mut self) {
        let Some(Inotify { happened, .. }) = &mut self.inotify else {
            return sleep(self.poll_interval).await;
        };
        match timeout(self.poll_interval, happened.recv()).await {
            Ok(Some(())) => {}
            Ok(None) => return sleep(self.poll_interval).await, // it is begun anew after that
            Err(_) => return,
        }
        let end = Instant::now() + UNREST_MAX;
        while Instant::now() < end && matches!(timeout(CALM, happened.recv()).await, Ok(Some(()))) {}
    }

    /// [`Self::follow`], where nobody else waits for it: the file may be another machine's, which may not answer. `None`:
    /// the runtime is going down.
    async fn following(mut self, file: PathBuf) -> Option<Self> {
        let (begin, poll_interval, is_polling) = (Arc::clone(&self.begin), self.poll_interval, self.is_polling);
        let follow = move || {
            let followed = self.follow(&file);
            self.tell(&file, followed);
            self
        };
        match spawn_blocking(follow).await {
            Ok(following) => Some(following),
            // notify panics when its thread has just ended.
            Err(lost) => lost.is_panic().then(|| Self {
                is_polling,
                ..Self::by(begin, poll_interval)
            }),
        }
    }

    /// A link may lead elsewhere now, and a directory be another one of the same name: so all are watched anew.
    ///
    /// # Errors
    /// inotify has no instance for us, or not enough watches. Of a directory that is not there it is none.
    fn follow(&mut self, file: &Path) -> notify::Result<()> {
        let mut inotify = match self.inotify.take() {
            Some(inotify) if !inotify.is_broken() => inotify,
            _ => Inotify::begin(&*self.begin)?,
        };
        if inotify.is_broken() {
            return Err(notify::Error::generic("the thread that reads its events has ended"));
        }
        let followed = inotify.follow(file);
        self.inotify = Some(inotify);
        followed
    }

    /// Says once that the file is only polled, and once that this is over.
    fn tell(&mut self, file: &Path, followed: notify::Result<()>) {
        let was_polling = std::mem::replace(&mut self.is_polling, followed.is_err());
        match followed {
            Err(error) if !was_polling => tracing::warn!(
                file = %file.display(),
                %error,
                interval = ?self.poll_interval,
                "cannot watch the configuration, reading it regularly (see fs.inotify in sysctl)"
            ),
            Ok(()) if was_polling => tracing::info!(file = %file.display(), "watching the configuration again"),
            _ => {}
        }
    }
}

impl Inotify {
    /// Of no directory yet.
    fn begin(begin: &Begin) -> notify::Result<Self> {
        let (tell, happened) = mpsc::channel(1);
        Ok(Self {
            watcher: begin(tell)?,
            directories: BTreeSet::new(),
            happened,
        })
    }

    /// Whether no event will be told any more.
    fn is_broken(&self) -> bool {
        self.happened.is_closed()
    }

    fn follow(&mut self, file: &Path) -> notify::Result<()> {
        for before in std::mem::take(&mut self.directories) {
            let _ = self.watcher.unwatch(&before); // the system may have done so: it was removed
        }
        let mut followed = Ok(());
        for directory in directories(file) {
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.directories.insert(directory)),
                Err(_) if !directory.exists() => {} // it may be there next time
                Err(error) => followed = Err(error),
            }
        }
        followed
    }
}

/// Begins to watch by inotify(7).
fn begin(tell: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut tell = Some(tell);
    notify::recommended_watcher(move |event: notify::Result<Event>| match (event, &tell) {
        (Ok(event), Some(to)) if may_matter(&event) => drop(to.try_send(())), // full: it is known already
        (Ok(_), _) => {}
        (Err(_), _) => tell = None, // it cannot read its events
    })
}

/// Of the path as given, and of the file at its end; by their real names, for one with two names can be watched once.
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

/// Reading the file is an event too, and must not lead to reading it again.
fn may_matter(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_in_a_folder_of_two_names_may_go_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let alias = folder.path().join("alias");
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", &alias).unwrap();
        let file = alias.join("acequia.toml");
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::new();
        watch.follow(&file).unwrap();
        for _ in 0..2 {
            for change in [|file| std::fs::remove_file(file), |file| std::fs::write(file, "")] {
                change(&file).unwrap();
                let told = timeout(POLL_INTERVAL / 2, watch.settled()).await;
                told.expect("it is told, and not only found by looking");
                watch.follow(&file).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn what_changed_before_it_was_watched_is_news() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acequia.toml");
        std::fs::write(&file, "new").unwrap();
        let (reloader, mut requests) = Reloader::new();
        let keeping = keep(file, "old".to_owned(), reloader);
        tokio::select! {
            () = keeping => panic!("it watches no more"),
            request = requests.recv() => assert_eq!(request.unwrap().by, "a change of the file"),
        }
    }

    #[tokio::test]
    async fn a_folder_may_be_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("etc");
        let file = inner.join("acequia.toml");
        let mut watch = Watch::new();
        for _ in 0..2 {
            std::fs::create_dir(&inner).unwrap();
            watch.follow(&file).unwrap(); // as when it is read unasked
            std::fs::write(&file, "").unwrap();
            let told = timeout(POLL_INTERVAL / 2, watch.settled()).await;
            told.expect("it is told, and not only found by looking");
            std::fs::remove_dir_all(&inner).unwrap();
            watch.settled().await;
        }
    }

    fn nothing_to_begin_with(_: Sender<()>) -> notify::Result<RecommendedWatcher> {
        Err(notify::Error::generic("no instance is left"))
    }

    #[tokio::test(start_paused = true)]
    async fn without_inotify_the_file_is_read_regularly() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acequia.toml");
        std::fs::write(&file, "old").unwrap();
        let (reloader, mut requests) = Reloader::new();
        let watch = Watch::by(Arc::new(nothing_to_begin_with), POLL_INTERVAL);
        let keeping = watch.keep(file.clone(), "old".to_owned(), reloader);
        let changing = async {
            for text in ["a", "b", "c"] {
                sleep(POLL_INTERVAL / 3).await;
                std::fs::write(&file, text).unwrap();
                let changed = Instant::now();
                drop(requests.recv().await);
                assert!(changed.elapsed() <= POLL_INTERVAL, "{text}: {:?}", changed.elapsed());
            }
        };
        tokio::select! {
            () = keeping => panic!("it watches no more"),
            () = changing => {}
        }
    }

    #[tokio::test]
    async fn inotify_is_tried_again_when_it_could_not_begin_and_when_it_broke() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acequia.toml");
        std::fs::write(&file, "").unwrap();
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let beginning = move |tell| match attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 | 1 => nothing_to_begin_with(tell),
            2 => notify::recommended_watcher(|_| {}), // and `tell` is gone, as when its thread ends
            _ => begin(tell),
        };
        let mut watch = Watch::by(Arc::new(beginning), Duration::from_millis(1));
        for polls in [true, true, true, false] {
            watch = watch.following(file.clone()).await.unwrap();
            assert_eq!(watch.is_polling, polls);
            watch.settled().await;
        }
        watch.poll_interval = POLL_INTERVAL;
        std::fs::write(&file, "new").unwrap();
        let told = timeout(POLL_INTERVAL / 2, watch.settled()).await;
        told.expect("it is told, and not only found by reading");
    }
}
