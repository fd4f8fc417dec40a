//! `[remote]`: the configuration that a fleet shares in a store.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::etcd::{EtcdPlan, FollowedKeys, KeyRange};

/// The most keys of the store that one configuration may consist of.
const KEYS_MAX: usize = 1000;

/// `[remote]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePlan {
    /// How the store is reached.
    pub etcd: Arc<EtcdPlan>,
    /// The key of the shared configuration. The configuration consists of the text of this key and the texts of the
    /// keys below it: those that begin with this key and `/`, except for the statuses of instances.
    pub key: Box<str>,
    /// The name of this process in the store.
    pub instance: Box<str>,
    /// Which commands, containers, files and Unix sockets the texts may name. Other settings need no permission.
    pub allowed: RemoteTrust,
}

impl RemotePlan {
    /// Where the texts are: `etcd:` and the key.
    #[must_use]
    pub fn location(&self) -> String {
        format!("etcd:{}", self.key)
    }

    /// The keys of the texts: the key itself, and the keys below it except for the statuses of instances.
    #[must_use]
    pub fn keys(&self) -> FollowedKeys {
        let below = format!("{}/", self.key);
        let [before, after] = KeyRange::with_prefix_but_not(&below, &self.status_prefix());
        FollowedKeys {
            read: vec![KeyRange::one(&self.key), before, after],
            watched: KeyRange::through_prefix(&self.key, &below),
            keys_max: KEYS_MAX,
        }
    }

    /// Whether a key is one of [`Self::keys`].
    #[must_use]
    pub fn is_text(&self, key: &[u8]) -> bool {
        let Some(rest) = key.strip_prefix(self.key.as_bytes()) else {
            return false;
        };
        rest.is_empty() || rest.starts_with(b"/") && !key.starts_with(self.status_prefix().as_bytes())
    }

    /// The key that this process writes its status to.
    #[must_use]
    pub fn status_key(&self) -> String {
        self.status_prefix() + &self.instance
    }

    fn status_prefix(&self) -> String {
        format!("{}/status/", self.key)
    }
}

/// What the texts of a store may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteTrust {
    /// Whether they may name programs and containers to run.
    pub commands: bool,
    /// The files and Unix sockets that they may name, and the directories below which they may name all of them.
    pub files: Vec<PathBuf>,
}

impl RemoteTrust {
    /// Why a text may not name this file; `None`: it may. A symbolic link counts as the file that it leads to.
    #[must_use]
    pub fn refusal(&self, path: &Path) -> Option<&'static str> {
        if !path.is_absolute() || has_dot_dot(path) {
            return Some("the path is not absolute, or has `..`");
        }
        let Ok(real) = resolved(path) else {
            return Some("where the path leads to is not known");
        };
        let is_below = |allowed: &PathBuf| resolved(allowed).is_ok_and(|allowed| real.starts_with(allowed));
        (!self.files.iter().any(is_below)).then_some("the store may not name this file")
    }
}

/// Whether a part of the path is `..`.
#[must_use]
pub fn has_dot_dot(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// An absolute path without symbolic links. Parts of the path that do not exist are taken as they are written.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        // A missing file. A link to a missing file stays an error: its own path does not tell which file would be read.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            match (path.parent(), path.file_name()) {
                (Some(directory), Some(name)) => Ok(resolved(directory)?.join(name)),
                _ => Err(error),
            }
        }
        found_or_error => found_or_error,
    }
}

/// The texts of the keys of a store, as they were at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteTexts {
    /// The [`RemotePlan::location`] that they were read from.
    pub from: String,
    /// In the order of the keys.
    pub texts: Vec<RemoteText>,
}

/// The text of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteText {
    /// The key.
    pub key: String,
    /// Its value. Replacement characters stand for bytes that are not UTF-8.
    pub text: String,
    /// The offset in `text` of the first replacement character that stands for such bytes; `None`: there is none. It is
    /// not saved: only texts that were in force are saved, and these are valid UTF-8.
    #[serde(skip)]
    pub not_utf8_at: Option<usize>,
    /// The revision of its last change.
    pub revision: i64,
}

impl RemoteText {
    /// The text of a key and a value as they are in the store.
    #[must_use]
    pub fn new(key: &[u8], value: &[u8], revision: i64) -> Self {
        Self {
            key: String::from_utf8_lossy(key).into_owned(),
            text: String::from_utf8_lossy(value).into_owned(),
            not_utf8_at: str::from_utf8(value).err().map(|error| error.valid_up_to()),
            revision,
        }
    }
}

/// Tells versions of the texts apart: each change raises the revision or deletes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextVersion {
    /// The highest of the keys' revisions (`mod_revision` of etcd); 0 if there are no keys.
    pub revision: i64,
    /// The number of keys.
    pub keys: usize,
}

impl RemoteTexts {
    /// Their version.
    #[must_use]
    pub fn version(&self) -> TextVersion {
        TextVersion {
            revision: self.texts.iter().map(|text| text.revision).max().unwrap_or(0),
            keys: self.texts.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn plan(key: &str) -> RemotePlan {
        let etcd = EtcdPlan {
            endpoints: Vec::new(),
            login: None,
            ca_file: None,
            identity: None,
        };
        RemotePlan {
            etcd: Arc::new(etcd),
            key: key.into(),
            instance: "one".into(),
            allowed: RemoteTrust::default(),
        }
    }

    #[test]
    fn the_texts_are_the_key_and_the_keys_below_it_but_not_the_statuses() {
        let plan = plan("/a");
        assert_eq!(plan.status_key(), "/a/status/one");
        for (key, is_text) in [
            ("/a", true),
            ("/a/", true),
            ("/a/pools", true),
            ("/a/status", true),
            ("/a/status0", true),
            ("/a/status/one", false),
            ("/a-b", false),
            ("/ab", false),
            ("/", false),
        ] {
            assert_eq!(plan.is_text(key.as_bytes()), is_text, "{key}");
        }
    }

    #[test]
    fn an_allowed_directory_covers_the_files_below_it_once_links_are_resolved() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["certs", "certs-of-others", "secrets", "certs/below"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("secrets/key"), "").unwrap();
        symlink(at("secrets/key"), at("certs/link")).unwrap();
        symlink(at("secrets"), at("certs/directory")).unwrap();
        symlink(at("secrets/later"), at("certs/dangling")).unwrap();
        symlink(at("certs"), at("alias")).unwrap();
        let trust = RemoteTrust {
            commands: false,
            files: vec![at("certs"), at("one.pem")],
        };
        for (name, is_allowed) in [
            ("certs/a.pem", true),
            ("certs/below/new/a.pem", true),
            ("certs", true),
            ("alias/a.pem", true),
            ("one.pem", true),
            ("one.pem.key", false),
            ("certs-of-others/a.pem", false),
            ("secrets/key", false),
            ("certs/link", false),
            ("certs/directory/key", false),
            ("certs/directory/new", false),
            ("certs/dangling", false),
            ("certs/../secrets/key", false),
            ("certs/below/../a.pem", false),
        ] {
            assert_eq!(trust.refusal(&at(name)).is_none(), is_allowed, "{name}");
        }
        assert!(trust.refusal(Path::new("certs/a.pem")).is_some());
        assert!(RemoteTrust::default().refusal(&at("certs/a.pem")).is_some());
        let aliased = RemoteTrust {
            files: vec![at("alias")],
            ..trust
        };
        assert!(
            aliased.refusal(&at("certs/a.pem")).is_none(),
            "an allowed directory may be a link"
        );
    }

    #[test]
    fn every_change_makes_a_new_version() {
        let texts = |revisions: &[i64]| RemoteTexts {
            from: String::from("etcd:/a"),
            texts: revisions
                .iter()
                .map(|revision| RemoteText::new(revision.to_string().as_bytes(), b"", *revision))
                .collect(),
        };
        let versions = [&[3, 7][..], &[3, 8], &[8], &[]].map(|revisions| {
            let TextVersion { revision, keys } = texts(revisions).version();
            (revision, keys)
        });
        assert_eq!(versions, [(7, 2), (8, 2), (8, 1), (0, 0)]);
    }
}
