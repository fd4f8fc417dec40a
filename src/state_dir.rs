//! State that outlives a restart, in files of `state_dir`: the remembered primaries, the servers that sources have
//! listed and those that operators have added, the announced routes, and the configuration texts from the store.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::blocking::blocking;
use crate::error::{chain, with_context};
use crate::live::{KeptServer, Live};
use crate::plan::{KeptAnnouncement, ListedServer, RemoteTexts};
use crate::pool::KnownPrimary;
use crate::regular_file;

/// The file with the primaries that are remembered, by pool.
const PRIMARIES: &str = "primaries.json";

/// The file with the servers that were listed last, by pool.
const SERVERS: &str = "servers.json";

/// The file with the servers that operators have added, by pool.
const ADDED: &str = "added-servers.json";

/// The file with the routes that were announced last.
const ANNOUNCED: &str = "announced-routes.json";

/// The file with the texts of the store that were in force last.
const TEXTS: &str = "remote.json";

/// The file that is locked by the process that uses the directory (flock(2)). It is never removed: otherwise a process
/// that has just opened it would lock a file that no other process finds.
const LOCK: &str = "lock";

/// The wait after a failed write, before the next try.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The pause after each write of the servers that were listed, and of the routes that were announced: they may change
/// often.
const LISTED_INTERVAL: Duration = Duration::from_secs(1);

/// The longest wait for the last writes: the disk may not answer, and the process must end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The remembered state of pools, by pool, and of routes.
#[derive(Debug, Default)]
pub struct RememberedState {
    /// The primaries.
    pub primaries: BTreeMap<Box<str>, KnownPrimary>,
    /// The servers that sources have listed last.
    pub servers: BTreeMap<Box<str>, Vec<ListedServer>>,
    /// The servers that operators have added.
    pub added_servers: BTreeMap<Box<str>, Vec<KeptServer>>,
    /// The routes that were announced last.
    pub announced: Vec<KeptAnnouncement>,
}

/// The files of `state_dir` whose latest write failed, or `state_dir` itself if its file system is read-only, each with
/// the reason. A restart would lose the latest changes.
#[derive(Debug, Default)]
pub struct UnsavedFiles(Mutex<BTreeMap<PathBuf, Box<str>>>); // a blocking mutex: locked for a few lines

impl UnsavedFiles {
    /// The path and the reason of each.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let files = self.0.lock();
        let lines = files.iter().map(|(file, why)| format!("{}: {why}", file.display()));
        lines.collect()
    }
}

/// The directory of the state that outlives a restart. Until it is dropped, no other process can open it: two processes
/// would overwrite each other's files.
#[derive(Clone, Debug)]
pub struct StateDir {
    directory: PathBuf,
    unsaved: Arc<UnsavedFiles>,
    /// Locked as long as it is open. A child process does not inherit it.
    _lock: Arc<File>,
}

impl StateDir {
    /// Opens this directory, and creates it if it does not exist. If its file system has become read-only, the state in
    /// it is used, and the directory counts as one of the unsaved files.
    ///
    /// # Errors
    /// The directory cannot be created, no file can be created in it, or its lock file cannot be opened or locked; or
    /// it is open already, in this or another process.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let (lock_file, unsaved) = (directory.join(LOCK), UnsavedFiles::default());
        let write_test = fs::create_dir_all(directory).and_then(|()| tempfile::tempfile_in(directory).map(drop));
        let opened = match write_test {
            Ok(()) => regular_file::open_to_lock(&lock_file)
                .map_err(|error| with_context(error, lock_file.display().to_string())),
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                unsaved.0.lock().insert(directory.to_owned(), error.to_string().into());
                // A directory that was never used has no lock file. Then the reason to report is the file system.
                regular_file::open(&lock_file).map_err(|_| error)
            }
            Err(error) => Err(error),
        };
        let locked = opened.and_then(|opened| lock(opened, &lock_file));
        Ok(Self {
            directory: directory.to_owned(),
            unsaved: Arc::new(unsaved),
            _lock: Arc::new(locked.map_err(|error| with_context(error, directory.display().to_string()))?),
        })
    }

    /// Checks whether this directory could be opened and its state be read, without a change: the directory is neither
    /// created nor locked.
    ///
    /// # Errors
    /// Those of [`Self::open`] and [`Self::remembered`], except that the directory may be open already.
    pub fn check(directory: &Path) -> io::Result<()> {
        let lock_file = directory.join(LOCK);
        let checked = match regular_file::check_directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                regular_file::open(&lock_file).map(drop).map_err(|_| error)
            }
            Ok(()) => match regular_file::open_existing_to_lock(&lock_file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(with_context(error, lock_file.display().to_string()))
                }
                _ => Ok(()), // a missing one would be created
            },
            checked => checked,
        };
        checked.map_err(|error| with_context(error, directory.display().to_string()))?;
        for name in [TEXTS, SERVERS, ADDED, ANNOUNCED] {
            read(directory, name)?;
        }
        load_primaries(directory).map(drop)
    }

    /// The files that cannot be written.
    #[must_use]
    pub fn unsaved(&self) -> Arc<UnsavedFiles> {
        Arc::clone(&self.unsaved)
    }

    /// Reads the state of pools and routes.
    ///
    /// # Errors
    /// - A file of the directory exists and cannot be read. Its contents must not be forgotten because of a disk fault,
    ///   a lack of memory or descriptors, or a process that runs as another user than before.
    /// - The file of primaries is not valid. Without its contents, an old primary that is found first would be taken
    ///   for the right one.
    pub fn remembered(&self) -> io::Result<RememberedState> {
        // Only for the error: the start reads the texts before, and ignores errors then, because the store may answer.
        read(&self.directory, TEXTS)?;
        Ok(RememberedState {
            primaries: load_primaries(&self.directory)?,
            servers: self.load(SERVERS)?,
            added_servers: self.load(ADDED)?,
            announced: self.load(ANNOUNCED)?,
        })
    }

    /// The texts of the store that were in force last; `None`: there were none.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn texts(&self) -> io::Result<Option<RemoteTexts>> {
        self.load(TEXTS)
    }

    /// Reads a file. If its contents are not valid, the file is renamed, and a warning is logged.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    fn load<T: DeserializeOwned + Default>(&self, name: &str) -> io::Result<T> {
        let Some(bytes) = read(&self.directory, name)? else {
            return Ok(T::default());
        };
        let file = self.directory.join(name);
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            let kept = self.directory.join(format!("{name}.invalid"));
            let (shown, error) = (file.display(), chain(&error));
            tracing::warn!(file = %shown, error, kept = %kept.display(), "the file is not valid: it is ignored, and kept under another name");
            if let Err(error) = fs::rename(&file, kept) {
                tracing::warn!(file = %shown, %error, "cannot rename the file");
            }
            T::default()
        }))
    }

    /// Replaces a file, whole or not at all. Only the user of this process may read it.
    ///
    /// # Errors
    /// It cannot be written.
    fn save(&self, name: &str, contents: &impl Serialize) -> io::Result<()> {
        regular_file::replace(&self.directory.join(name), &serde_json::to_vec_pretty(contents)?)
    }

    /// Starts a task that writes each file whenever the state in it changes.
    #[must_use = "dropping it ends the writing"]
    pub fn keep(self, live: Arc<Live>, texts: watch::Receiver<Option<Arc<RemoteTexts>>>) -> StateKeeper {
        let end = CancellationToken::new();
        let keeping = self.keep_until(end.clone(), live, texts);
        StateKeeper {
            end,
            task: AbortOnDropHandle::new(tokio::spawn(keeping)),
        }
    }

    async fn keep_until(
        self,
        end: CancellationToken,
        live: Arc<Live>,
        mut texts: watch::Receiver<Option<Arc<RemoteTexts>>>,
    ) {
        let primaries = async {
            while has_changed(live.primary_changed(), &end).await {
                self.save_until_done(PRIMARIES, || live.known_primaries(), &end).await;
            }
        };
        let listed = async {
            while has_changed(live.listed_changed(), &end).await {
                self.save_until_done(SERVERS, || live.listed_servers(), &end).await;
                let _ = end.run_until_cancelled(sleep(LISTED_INTERVAL)).await;
            }
        };
        let announced = async {
            while has_changed(live.announced_changed(), &end).await {
                self.save_until_done(ANNOUNCED, || live.announced(), &end).await;
                let _ = end.run_until_cancelled(sleep(LISTED_INTERVAL)).await;
            }
        };
        let mut changes = live.subscribe_added();
        let added = async {
            while has_changed(changes.changed(), &end).await {
                self.save_until_done(ADDED, || live.added_servers(), &end).await;
            }
        };
        let remote = async {
            while has_changed(texts.changed(), &end).await {
                let latest = texts.borrow_and_update().clone();
                if let Some(latest) = latest {
                    self.save_until_done(TEXTS, || RemoteTexts::clone(&latest), &end).await;
                }
            }
        };
        tokio::join!(primaries, listed, announced, added, remote);
    }

    /// Writes a file. Tries again until it succeeds, or until a try fails after `end`. Each try calls `contents` anew.
    async fn save_until_done<T: Serialize + Send + 'static>(
        &self,
        name: &'static str,
        contents: impl Fn() -> T,
        end: &CancellationToken,
    ) {
        while !self.try_save(name, contents()).await {
            if end.is_cancelled() {
                return;
            }
            let _ = end.run_until_cancelled(sleep(RETRY_AFTER)).await;
        }
    }

    /// Writes a file. Returns whether that has succeeded; a failure is logged.
    async fn try_save(&self, name: &'static str, contents: impl Serialize + Send + 'static) -> bool {
        let dir = self.clone();
        let saved = blocking(move || dir.save(name, &contents)).await;
        let file = self.directory.join(name);
        let Err(error) = saved else {
            let mut unsaved = self.unsaved.0.lock();
            unsaved.remove(&self.directory); // its file system is no longer read-only
            if unsaved.remove(&file).is_some() {
                tracing::info!(file = %file.display(), "the file is written again");
            }
            return true;
        };
        tracing::warn!(file = %file.display(), %error, "cannot write the file: a restart would lose the latest changes");
        self.unsaved.0.lock().insert(file, error.to_string().into());
        false
    }
}

/// Reads the primaries.
///
/// # Errors
/// The file is there, and cannot be read or is not valid.
fn load_primaries(directory: &Path) -> io::Result<BTreeMap<Box<str>, KnownPrimary>> {
    let Some(bytes) = read(directory, PRIMARIES)? else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let file = directory.join(PRIMARIES);
        let why = format!(
            "the contents of {} are not valid: restore the file, or remove it to begin without a known primary",
            file.display()
        );
        with_context(error.into(), why)
    })
}

/// The contents of a file; `None`: there is none.
fn read(directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = directory.join(name);
    match regular_file::read(&file, u64::MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(with_context(error, file.display().to_string())),
    }
}

/// Locks the file until it is dropped. `path` is for the error.
///
/// # Errors
/// It cannot be locked, or is locked already.
fn lock(file: File, path: &Path) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another acequia uses it, `lslocks` shows which: stop it, or give each a directory of its own",
        )),
        Err(TryLockError::Error(error)) => Err(with_context(error, format!("cannot lock {}", path.display()))),
    }
}

/// Waits for a change. Returns whether there was one before `end`. The change is looked for first (`biased`), so that
/// one that came shortly before `end` is still written.
async fn has_changed<T>(changed: impl Future<Output = T>, end: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        _ = changed => true,
        () = end.cancelled() => false,
    }
}

/// Writes the files of a [`StateDir`]. Dropping this ends the writing.
#[derive(Debug)]
pub struct StateKeeper {
    end: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl StateKeeper {
    /// Tries, for 5 seconds at most, to write the changes that are not written yet. Then ends.
    pub async fn finish(self) {
        self.end.cancel();
        if timeout(FINISH_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("writing to `state_dir` takes too long: a restart may forget the latest changes");
        }
    }
}

#[cfg(test)]
mod tests;
