//! Finds the containers of an acequia that was killed: by a file in the directory `clones` of `state_dir`.
//!
//! Here, an instance is a process of acequia; an `Instance` of `instance.rs` is a started clone. Each process that
//! starts containers has a file in that directory. The name of the file is the value of the label of these containers;
//! its lines are the sockets of the engines that run them. Only one process at a time uses a `state_dir`, so all files
//! but that of this process are files of processes that have ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::chain;
use crate::regular_file;

/// The longest file: more than the paths of sockets need.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The file of this process.
pub(super) struct InstanceFile {
    path: PathBuf,
    file: File,
}

impl InstanceFile {
    /// Creates the file of an instance.
    ///
    /// # Errors
    /// It cannot be created.
    pub(super) fn create(directory: &Path, instance: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join(instance);
        Ok(Self {
            file: File::create_new(&path)?,
            path,
        })
    }

    /// Adds the socket of an engine.
    ///
    /// # Errors
    /// The socket cannot be written. The file is then cut back, if that is possible, and the call may be repeated.
    pub(super) fn add(&mut self, socket: &Path) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        let line = [socket.as_os_str().as_bytes(), b"\n"].concat();
        let written = self.file.write_all_at(&line, end).and_then(|()| self.file.sync_all());
        written.inspect_err(|_| drop(self.file.set_len(end)))
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
#[derive(Debug)]
pub(super) struct EndedInstance {
    /// The value of the label of its containers.
    pub(super) instance: String,
    /// The sockets of the engines that may run its containers.
    pub(super) sockets: Vec<PathBuf>,
    path: PathBuf,
}

impl EndedInstance {
    /// Removes the file of the instance: none of its containers is left.
    ///
    /// # Errors
    /// Its file cannot be removed.
    pub(super) fn forget(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// The instances that have ended: all but our own.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn ended_instances(directory: &Path, own: &str) -> io::Result<Vec<EndedInstance>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let others = names.filter(|name| name != own);
    Ok(others.filter_map(|name| ended_instance(directory, name)).collect())
}

/// Reads the file of an instance. `None`: it cannot be read, which is logged, or its name is not that of an instance.
fn ended_instance(directory: &Path, instance: String) -> Option<EndedInstance> {
    if !instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let path = directory.join(&instance);
    let read = regular_file::read(&path, FILE_BYTES_MAX).inspect_err(|error| {
        let (file, error) = (path.display(), chain(error));
        tracing::warn!(%file, error, "cannot look for containers that a crash has left behind");
    });
    let text = read.ok()?;
    // A last line without an end is ignored: the process was killed while it wrote the line, before it started a
    // container at that engine.
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let lines = lines
        .filter_map(|line| line.strip_suffix(b"\n"))
        .filter(|line| !line.is_empty());
    Some(EndedInstance {
        instance,
        sockets: lines.map(|line| OsString::from_vec(line.to_vec()).into()).collect(),
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(directory: &Path, own: &str) -> Vec<(String, Vec<PathBuf>)> {
        let ended = ended_instances(directory, own).unwrap();
        ended.into_iter().map(|ended| (ended.instance, ended.sockets)).collect()
    }

    #[test]
    fn files_of_other_instances_are_found_until_they_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("clones");
        assert_eq!(ended(&directory, "00aa"), []);
        let mut file = InstanceFile::create(&directory, "00aa").unwrap();
        file.add(Path::new("/run/docker.sock")).unwrap();
        file.add(Path::new("/run/other.sock")).unwrap();
        fs::write(directory.join("no-instance"), "/run/docker.sock\n").unwrap();
        assert_eq!(ended(&directory, "00aa"), []);
        let sockets = ["/run/docker.sock", "/run/other.sock"].map(PathBuf::from);
        assert_eq!(ended(&directory, "00bb"), [("00aa".to_owned(), sockets.to_vec())]);
        let half_written = "/run/docker.sock\n/run/other.sock\n/run/doc";
        fs::write(directory.join("00aa"), half_written).unwrap();
        assert_eq!(ended(&directory, "00bb"), [("00aa".to_owned(), sockets.to_vec())]);
        for ended in ended_instances(&directory, "00bb").unwrap() {
            ended.forget().unwrap();
        }
        assert_eq!(ended(&directory, "00bb"), []);
        InstanceFile::create(&directory, "00bb").unwrap().remove().unwrap();
        assert_eq!(ended(&directory, "00cc"), []);
    }
}
