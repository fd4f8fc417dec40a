//! What outlives a restart, each in a file of `state_dir`: the primaries that are remembered, the servers that the sources of
//! pools have listed and that operators have added, the routes that were announced, and the texts of the store that the
//! configuration is from.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

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

/// The file that the process which uses the folder has locked (flock(2)). It is never removed: a process that waits to open it
/// would lock a file that no other finds.
const LOCK: &str = "lock";

/// The time until a file that could not be written is written again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The least time between two writes of the servers that were listed, and of the routes that were announced.
const LISTED_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time for the last writes: the disk may not answer, and the process must end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// What is remembered of pools, by pool, and of routes.
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

/// The folder of what outlives a restart. Until it is dropped, no other process can open it: two would overwrite what the
/// other one remembers.
#[derive(Clone, Debug)]
pub struct StateDir {
    folder: PathBuf,
    /// Locked as long as it is open. A child process does not inherit it.
    _lock: Arc<File>,
}

impl StateDir {
    /// Opens this folder, which is created if it does not exist.
    ///
    /// # Errors
    /// The folder cannot be created, or no file can be created in it; or it is open already, in this or another process.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let is_usable = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        let locked = is_usable.and_then(|_| lock(&folder.join(LOCK)));
        Ok(Self {
            folder: folder.to_owned(),
            _lock: Arc::new(locked.map_err(|error| with_context(error, folder.display().to_string()))?),
        })
    }

    /// Reads what is remembered of pools and routes.
    ///
    /// # Errors
    /// A file of the folder is there and cannot be read. What it holds is not to be forgotten for a fault of the disk, a
    /// shortage of this host, or because this process runs as another user than before.
    pub fn remembered(&self) -> io::Result<RememberedState> {
        self.texts()?;
        Ok(RememberedState {
            primaries: self.load(PRIMARIES)?,
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

    /// Reads a file. Contents that are not valid are kept in a file beside it, and a warning is logged.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    fn load<T: DeserializeOwned + Default>(&self, name: &str) -> io::Result<T> {
        let file = self.folder.join(name);
        let bytes = match regular_file::read(&file, u64::MAX - 1) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
            Err(error) => return Err(with_context(error, file.display().to_string())),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            let kept = self.folder.join(format!("{name}.invalid"));
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
        regular_file::replace(&self.folder.join(name), &serde_json::to_vec_pretty(contents)?)
    }

    /// Starts to write the files whenever their contents change.
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
            while is_next(live.primary_changed(), &end).await {
                self.save_until_done(PRIMARIES, || live.known_primaries(), &end).await;
            }
        };
        let listed = async {
            while is_next(live.listed_changed(), &end).await {
                self.save_until_done(SERVERS, || live.listed_servers(), &end).await;
                let _ = end.run_until_cancelled(sleep(LISTED_INTERVAL)).await;
            }
        };
        let announced = async {
            while is_next(live.announced_changed(), &end).await {
                self.save_until_done(ANNOUNCED, || live.announced(), &end).await;
                let _ = end.run_until_cancelled(sleep(LISTED_INTERVAL)).await;
            }
        };
        let mut changes = live.subscribe_added();
        let added = async {
            while is_next(changes.changed(), &end).await {
                self.save_until_done(ADDED, || live.added_servers(), &end).await;
            }
        };
        let texts = async {
            while is_next(texts.changed(), &end).await {
                let latest = texts.borrow_and_update().clone();
                if let Some(texts) = latest {
                    self.save_until_done(TEXTS, || RemoteTexts::clone(&texts), &end).await;
                }
            }
        };
        tokio::join!(primaries, listed, announced, added, texts);
    }

    /// Writes a file, again and again until that succeeds, or fails after `end`.
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

    /// Writes a file. A failure is logged.
    async fn try_save(&self, name: &'static str, contents: impl Serialize + Send + 'static) -> bool {
        let dir = self.clone();
        let saved = spawn_blocking(move || dir.save(name, &contents)).await;
        let Err(error) = saved.unwrap_or_else(|error| Err(io::Error::other(error))) else {
            return true;
        };
        let file = self.folder.join(name);
        tracing::warn!(file = %file.display(), %error, "cannot write the file: a restart would forget what it is to hold");
        false
    }
}

/// Locks this file, which is created if it does not exist, until the returned one is dropped.
///
/// # Errors
/// It cannot be opened or locked, or is locked already.
fn lock(path: &Path) -> io::Result<File> {
    let file = regular_file::open_to_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another acequia uses it, `lslocks` shows which: stop it, or give each a folder of its own",
        )),
        Err(TryLockError::Error(error)) => Err(with_context(error, format!("cannot lock {}", path.display()))),
    }
}

/// Waits for a change, and returns true; false: there was none before `end`.
async fn is_next<T>(changed: impl Future<Output = T>, end: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        _ = changed => true,
        () = end.cancelled() => false,
    }
}

/// Writes the files of a [`StateDir`] until it is dropped.
#[derive(Debug)]
pub struct StateKeeper {
    end: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl StateKeeper {
    /// Ends after the latest changes are written, or cannot be.
    pub async fn finish(self) {
        self.end.cancel();
        if timeout(FINISH_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("writing to `state_dir` takes too long: a restart may forget the latest changes");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    fn primaries() -> BTreeMap<Box<str>, KnownPrimary> {
        let known = KnownPrimary {
            server: "10.0.0.1:5432".into(),
            system_identifier: Some(u64::MAX - 1),
            timeline: Some(4),
            ..KnownPrimary::default()
        };
        BTreeMap::from([("writers".into(), known)])
    }

    #[test]
    fn what_is_saved_is_loaded_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateDir::open(&folder.path().join("new")).unwrap();
        assert!(file.remembered().unwrap().primaries.is_empty());
        file.save(PRIMARIES, &BTreeMap::<Box<str>, KnownPrimary>::new())
            .unwrap();
        file.save(PRIMARIES, &primaries()).unwrap();
        assert_eq!(file.remembered().unwrap().primaries, primaries());
        let path = folder.path().join("new").join(PRIMARIES);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let left = fs::read_dir(folder.path().join("new")).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LOCK, PRIMARIES], "no other file is left");
    }

    #[test]
    fn a_folder_that_is_in_use_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = StateDir::open(folder.path()).unwrap();
        let error = chain(&StateDir::open(folder.path()).unwrap_err());
        let expected = format!("{}: another acequia uses it", folder.path().display());
        assert!(error.starts_with(&expected), "{error}");
        // A file that is still being written keeps it.
        let writing = open.clone();
        drop(open);
        assert!(StateDir::open(folder.path()).is_err());
        drop(writing);
        StateDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_file_of_an_earlier_or_later_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateDir::open(folder.path()).unwrap();
        // Before a timeline could be overruled, and with something that is not known yet.
        for more in ["", r#", "later": {}"#] {
            let contents = format!(
                r#"{{"writers": {{"server": "10.0.0.1:5432", "system_identifier": {}, "timeline": 4{more}}}}}"#,
                u64::MAX - 1
            );
            fs::write(folder.path().join(PRIMARIES), contents).unwrap();
            assert_eq!(file.remembered().unwrap().primaries, primaries());
        }
    }

    #[test]
    fn contents_that_are_not_valid_are_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateDir::open(folder.path()).unwrap();
        for contents in ["", "{", "[]", r#"{"p": {"server": 1}}"#] {
            fs::write(folder.path().join(PRIMARIES), contents).unwrap();
            assert!(file.remembered().unwrap().primaries.is_empty());
            assert!(!folder.path().join(PRIMARIES).exists());
            let kept = fs::read_to_string(folder.path().join("primaries.json.invalid")).unwrap();
            assert_eq!(kept, contents);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_names_it_and_stays() {
        for (make, name) in [
            ("mkfifo", PRIMARIES),
            ("mkdir", SERVERS),
            ("mkfifo", ADDED),
            ("mkdir", TEXTS),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(name);
            assert!(Command::new(make).arg(&file).status().unwrap().success());
            let error = StateDir::open(folder.path()).unwrap().remembered().unwrap_err();
            assert_eq!(error.to_string(), file.display().to_string());
            assert_eq!(chain(&error), format!("{}: not a regular file", file.display()));
            assert!(file.exists());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateDir::open(file.path()).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
