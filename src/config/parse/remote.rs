//! `[remote]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::address::InvalidValue;
use super::list::entries;
use super::providers::Providers;
use super::{Problems, Section, value};
use crate::config::keys;
use crate::plan::{RemotePlan, RemoteTrust, has_dot_dot};
use crate::text::{is_name, is_unsafe};

const FROM_EXAMPLE: &str = r#"from = "etcd:/acequia/edge""#;

const ALLOW_HINT: &str = r#"write "exec", or "files:/etc/acequia/certs/" with the path of a directory or file"#;

/// The longest key. etcd has no limit of its own.
const KEY_BYTES_MAX: usize = 1024;

/// What one entry of `allow` permits.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Allowed {
    Commands,
    Files(PathBuf),
}

/// Where the rest of the configuration is; `None`: in this file, or `[remote]` is not valid.
pub(super) fn remote(file: &Section<'_>, providers: &Providers, problems: &mut Problems<'_>) -> Option<RemotePlan> {
    let (position, node) = file.entry("remote")?;
    let section = Section::open(node, position, &keys::REMOTE, problems)?;
    let from = section.required("from", FROM_EXAMPLE, problems);
    let key = from.and_then(|node| value::parsed(node, key_of, problems));
    if !providers.has_etcd {
        let hint = r#"add [providers.etcd] with endpoints = ["https://10.0.0.2:2379"]"#;
        problems.error(position, "the endpoints of etcd are not configured", hint);
    }
    let mut allowed = RemoteTrust::default();
    for entry in entries(&section, "allow", problems, allow) {
        match entry {
            Allowed::Commands => allowed.commands = true,
            Allowed::Files(path) => allowed.files.push(path),
        }
    }
    Some(RemotePlan {
        instance: instance(&section, problems)?,
        etcd: Arc::clone(providers.etcd.as_ref()?),
        key: key?,
        allowed,
    })
}

/// The key in the value of `from`, such as `/acequia/edge` in `etcd:/acequia/edge`.
fn key_of(text: &str) -> Result<Box<str>, InvalidValue> {
    let is_valid = |key: &&str| {
        (1..=KEY_BYTES_MAX).contains(&key.len())
            && !key.ends_with('/')
            && !key.contains(|c: char| c.is_whitespace() || is_unsafe(c))
    };
    let key = text.strip_prefix("etcd:").filter(is_valid);
    let invalid = || String::from("invalid place of the shared configuration");
    key.map(Into::into)
        .ok_or_else(|| (invalid(), format!("write {FROM_EXAMPLE}")))
}

/// `instance`, else the name of this machine.
fn instance(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let is_valid = |name: &str| is_name(name) && !name.contains('/');
    if let Some(node) = section.get("instance") {
        let hint = "write a name without spaces, quotes and `/`, which no other instance has";
        let name = value::string(node, hint, problems)?;
        if !is_valid(name) {
            problems.error(&node.position, "invalid name of an instance", hint);
        }
        return Some(name.into());
    }
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    if !is_valid(&name) {
        let hint = r#"add instance = "edge-1", a name that no other instance has"#;
        problems.error(section.position(), "this machine has no usable host name", hint);
    }
    Some(name.into_owned().into())
}

/// Converts an entry of `allow`.
fn allow(text: &str) -> Result<Allowed, InvalidValue> {
    if text == "exec" {
        return Ok(Allowed::Commands);
    }
    let path = text.strip_prefix("files:").map(Path::new);
    match path.filter(|path| path.is_absolute() && !has_dot_dot(path) && !text.contains('\0')) {
        Some(path) => Ok(Allowed::Files(path.into())),
        None => Err((format!("`{text}` cannot be allowed"), String::from(ALLOW_HINT))),
    }
}
