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
use tokio::time::{Instant, sleep, timeout};

use crate::config::FILE_BYTES_MAX;
use crate::reload::Reloader;

/// A file that is being written is left alone until nothing has happened for so long, …
const CALM: Duration = Duration::from_millis(100);

/// … but not for longer than this: something else in the same directory may never rest.
const UNREST_MAX: Duration = Duration::from_secs(2);

/// How often it is looked unasked: of what other machines write, or of a link further up, nobody is told.
const LOOK: Duration = Duration::from_secs(10);

/// Asks for a reload whenever the bytes of the file are others than before, at first than `read`, for as long as it is
/// polled.
pub(super) async fn keep(file: PathBuf, read: String, reloader: Reloader) {
    let mut watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "cannot watch the configuration: reload it by SIGHUP");
            return;
        }
    };
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
    /// Of no directory yet.
    fn new() -> notify::Result<Self> {
        let (tell, happened) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| may_matter(&event)) {
                let _ = tell.try_send(()); // full: it is known already
            }
        })?;
        Ok(Self {
            watcher,
            directories: BTreeSet::new(),
            happened,
        })
    }

    /// Waits until something has happened and calm has come back, or until it is time to look.
    async fn settled(&mut self) {
        match timeout(LOOK, self.happened.recv()).await {
            Ok(Some(())) => {}
            Ok(None) => return sleep(LOOK).await, // the watcher is gone; that is said nowhere else
            Err(_) => return,
        }
        let end = Instant::now() + UNREST_MAX;
        while Instant::now() < end && matches!(timeout(CALM, self.happened.recv()).await, Ok(Some(()))) {}
    }

    /// [`Self::follow`], where nobody else waits for it: the file may be another machine's, which may not answer. `None`:
    /// the runtime is going down.
    async fn following(mut self, file: PathBuf) -> Option<Self> {
        let follow = move || {
            self.follow(&file);
            self
        };
        spawn_blocking(follow).await.ok()
    }

    /// A link may lead elsewhere now, and a directory be another one of the same name: so all are watched anew.
    fn follow(&mut self, file: &Path) {
        for before in std::mem::take(&mut self.directories) {
            let _ = self.watcher.unwatch(&before); // the system may have done so: it was removed
        }
        for directory in directories(file) {
            if self.watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok() {
                self.directories.insert(directory); // otherwise it is tried again next time
            }
        }
    }
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
        let mut watch = Watch::new().unwrap();
        watch.follow(&file);
        for _ in 0..2 {
            for change in [|file| std::fs::remove_file(file), |file| std::fs::write(file, "")] {
                change(&file).unwrap();
                let told = timeout(LOOK / 2, watch.settled()).await;
                told.expect("it is told, and not only found by looking");
                watch.follow(&file);
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
        let mut watch = Watch::new().unwrap();
        for _ in 0..2 {
            std::fs::create_dir(&inner).unwrap();
            watch.follow(&file); // as when it is looked unasked
            std::fs::write(&file, "").unwrap();
            let told = timeout(LOOK / 2, watch.settled()).await;
            told.expect("it is told, and not only found by looking");
            std::fs::remove_dir_all(&inner).unwrap();
            watch.settled().await;
        }
    }
}
