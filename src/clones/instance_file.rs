//! Finds the containers of an acequia that was killed: by a file in the folder `clones` of `state_dir`.
//!
//! Each process that starts containers has a file there. Its name is the label of these containers, its lines are the sockets
//! of the engines, and it is locked (flock(2)) for as long as the process lives. Whoever gets the lock knows that the process
//! has ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::regular_file;

/// The longest file: more than the paths of sockets need.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The file of this process. The lock ends when it is dropped.
pub(super) struct InstanceFile {
    path: PathBuf,
    locked: File,
}

impl InstanceFile {
    /// Creates the file of an instance.
    ///
    /// # Errors
    /// It cannot be created or locked.
    pub(super) fn create(folder: &Path, instance: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        // It gets its name only when it is locked, so that nobody else can lock it first.
        let file = NamedTempFile::new_in(folder)?;
        file.as_file().try_lock()?;
        let path = folder.join(instance);
        Ok(Self {
            locked: file.persist(&path)?,
            path,
        })
    }

    /// Adds the socket of an engine.
    ///
    /// # Errors
    /// It cannot be written. The file is as before then, so that this may be called again.
    pub(super) fn add(&mut self, socket: &Path) -> io::Result<()> {
        let end = self.locked.metadata()?.len();
        let line = [socket.as_os_str().as_bytes(), b"\n"].concat();
        let written = self
            .locked
            .write_all_at(&line, end)
            .and_then(|()| self.locked.sync_all());
        written.inspect_err(|_| drop(self.locked.set_len(end)))
    }

    /// Removes the file: there are no containers any more.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// An instance that has ended, and may have left containers behind.
pub(super) struct EndedInstance {
    /// The value of the label.
    pub(super) instance: String,
    /// The sockets of the engines.
    pub(super) sockets: Vec<PathBuf>,
    path: PathBuf,
    /// Keeps others from removing the same containers.
    _locked: File,
}

impl EndedInstance {
    /// Forgets the instance: it has left nothing behind.
    ///
    /// # Errors
    /// Its file cannot be removed.
    pub(super) fn forget(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// The instances that have ended.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn ended_instances(folder: &Path) -> io::Result<Vec<EndedInstance>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| ended_instance(folder, name)).collect())
}

/// `None`: the instance is alive, somebody else has found it, or this is no such file.
fn ended_instance(folder: &Path, instance: String) -> Option<EndedInstance> {
    if !instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let path = folder.join(&instance);
    let file = regular_file::open(&path).ok()?;
    file.try_lock().ok()?;
    let mut text = Vec::new();
    (&file).take(FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Some(EndedInstance {
        instance,
        sockets: lines.map(|line| OsString::from_vec(line.to_vec()).into()).collect(),
        path,
        _locked: file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(folder: &Path) -> Vec<(String, Vec<PathBuf>)> {
        let ended = ended_instances(folder).unwrap();
        ended.into_iter().map(|ended| (ended.instance, ended.sockets)).collect()
    }

    #[test]
    fn an_instance_has_ended_when_its_lock_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("clones");
        assert_eq!(ended(&folder), []);
        let mut file = InstanceFile::create(&folder, "00aa").unwrap();
        file.add(Path::new("/run/docker.sock")).unwrap();
        file.add(Path::new("/run/other.sock")).unwrap();
        fs::write(folder.join("no-instance"), "/run/docker.sock\n").unwrap();
        assert_eq!(ended(&folder), []);
        drop(file);
        let sockets = ["/run/docker.sock", "/run/other.sock"].map(PathBuf::from);
        assert_eq!(ended(&folder), [("00aa".to_owned(), sockets.to_vec())]);
        for ended in ended_instances(&folder).unwrap() {
            assert!(ended_instances(&folder).unwrap().is_empty(), "two have found it");
            ended.forget().unwrap();
        }
        assert_eq!(ended(&folder), []);
        InstanceFile::create(&folder, "00bb").unwrap().remove().unwrap();
        assert_eq!(ended(&folder), []);
    }
}
