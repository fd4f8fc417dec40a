//! What outlives a restart: the primaries that are remembered, in a file of `state_dir`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::error::{chain, with_context};
use crate::live::Live;
use crate::pool::KnownPrimary;

/// The name of the file.
const FILE: &str = "primaries.json";

/// The time until a file that could not be written is written again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The file with the primaries that are remembered, by pool.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
}

impl StateFile {
    /// Opens the file in this folder, which is created if it does not exist.
    ///
    /// # Errors
    /// The folder cannot be created, or no file can be created in it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let is_usable = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        is_usable.map_err(|error| with_context(error, folder.display().to_string()))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Reads the file. Contents that are not valid are kept in a file beside it, and a warning is logged.
    #[must_use]
    pub fn load(&self) -> BTreeMap<Box<str>, KnownPrimary> {
        let file = self.folder.join(FILE);
        let read = fs::read(&file).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        match read {
            Ok(primaries) => primaries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                let kept = self.folder.join(format!("{FILE}.invalid"));
                let (file, error) = (file.display(), chain(&error));
                tracing::warn!(%file, error, kept = %kept.display(), "no primary is remembered: the file is not valid, and is kept under another name");
                if let Err(error) = fs::rename(self.folder.join(FILE), kept) {
                    tracing::warn!(%file, %error, "cannot rename the file");
                }
                BTreeMap::new()
            }
        }
    }

    /// Replaces the file, whole or not at all. Only the user of this process may read it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, primaries: &BTreeMap<Box<str>, KnownPrimary>) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?; // mode 0600
        file.write_all(&serde_json::to_vec_pretty(primaries)?)?;
        file.as_file().sync_all()?;
        file.persist(self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Writes the file whenever a primary changes, for as long as it is polled.
    pub async fn keep(self, live: Arc<Live>) {
        loop {
            live.primary_changed().await;
            while let Err(error) = self.save_now(live.known_primaries()).await {
                let folder = self.folder.display();
                tracing::warn!(%folder, %error, "cannot write which primaries are known: a restart would forget them");
                sleep(RETRY_AFTER).await;
            }
        }
    }

    async fn save_now(&self, primaries: BTreeMap<Box<str>, KnownPrimary>) -> io::Result<()> {
        let file = self.clone();
        let saved = spawn_blocking(move || file.save(&primaries)).await;
        saved.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn primaries() -> BTreeMap<Box<str>, KnownPrimary> {
        let known = KnownPrimary {
            server: "10.0.0.1:5432".into(),
            system_identifier: Some(u64::MAX - 1),
            timeline: Some(4),
            overruled: None,
        };
        BTreeMap::from([("writers".into(), known)])
    }

    #[test]
    fn what_is_saved_is_loaded_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(&folder.path().join("new")).unwrap();
        assert!(file.load().is_empty());
        file.save(&BTreeMap::new()).unwrap();
        file.save(&primaries()).unwrap();
        assert_eq!(file.load(), primaries());
        let path = folder.path().join("new").join(FILE);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(folder.path().join("new")).unwrap().count(),
            1,
            "no other file is left"
        );
    }

    #[test]
    fn contents_that_are_not_valid_are_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(folder.path()).unwrap();
        for contents in ["", "{", "[]", r#"{"p": {"server": "a", "unknown": 1}}"#] {
            fs::write(folder.path().join(FILE), contents).unwrap();
            assert!(file.load().is_empty());
            assert!(!folder.path().join(FILE).exists());
            let kept = fs::read_to_string(folder.path().join("primaries.json.invalid")).unwrap();
            assert_eq!(kept, contents);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateFile::open(file.path()).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
