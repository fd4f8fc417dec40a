//! The configuration: a file -> a [`Plan`], or a [`Report`] of all that is wrong with it.
//!
//! `file` reads the text into a tree with places, `parse` turns the tree into a plan, [`report`] shows what was
//! found. Nothing at run time looks back here.

mod file;
pub mod keys;
mod parse;
mod peers;
pub mod report;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::plan::{AdminSocket, Plan};
use file::{Table, Value};
use report::{Notice, Place, Report, Source};

/// Where a configuration is looked for when none is named, first one first.
pub const PLACES: [&str; 2] = ["./acequia.toml", "/etc/acequia/acequia.toml"];

/// Room for some 300,000 servers. What is longer is no configuration, but something named by mistake.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What is configured.
    pub plan: Plan,
    /// What works, but hardly as meant; often empty.
    pub warnings: Report,
}

impl Loaded {
    /// What it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        self.warnings.text()
    }
}

/// The file to load: the one named, else the first of [`PLACES`] that exists.
///
/// # Errors
/// None was named and none exists.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Report> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => first_of(&PLACES.map(Path::new)),
    }
}

fn first_of(places: &[&Path]) -> Result<PathBuf, Report> {
    if let Some(found) = places.iter().find(|place| place.exists()) {
        return Ok(found.to_path_buf());
    }
    let looked: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    let what = format!("there is no configuration: neither {} exists", looked.join(" nor "));
    Err(Report::unreadable("acequia.toml", what, "name one with -c FILE"))
}

/// Reads a file.
///
/// # Errors
/// Why it cannot be read, or every mistake in it.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let bytes = bytes_of(path)
        .map_err(|error| Report::unreadable(&name, format!("cannot read the configuration: {error}"), ""))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = "this file is too long for a configuration";
        return Err(Report::unreadable(&name, what, "at most 16 MiB are read"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => read(&name, &text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let notice = Notice::mistake(Place::Bytes(valid..valid + 1), "this is not UTF-8", "");
            Err(Report::new(Arc::new(Source::new(name, text)), vec![notice]))
        }
    }
}

/// One byte more than it may have, so that a longer one is seen, whatever its directory says of it.
fn bytes_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where a process with this configuration has its Unix socket, as far as the file tells; what else is wrong with it
/// plays no part. `None`: it cannot be read, or not far enough.
#[must_use]
pub fn admin_socket(path: &Path) -> Option<AdminSocket> {
    let text = String::from_utf8(bytes_of(path).ok()?).ok()?;
    let below = |table: Table, key: &str| {
        let entry = table.entries.into_iter().find(|entry| entry.key == key)?;
        Some(entry.node.value)
    };
    let admin = if is_json(path) {
        below(file::json(&text).ok()?, "admin")
    } else {
        file::rough_toml(&text, "admin")
    };
    let socket = match admin {
        Some(Value::Table(admin)) => below(admin, "socket"),
        _ => None,
    };
    match socket {
        Some(Value::Text(text)) if text == "off" => Some(AdminSocket::Off),
        Some(Value::Text(text)) => Some(AdminSocket::At(text.into())),
        _ => Some(AdminSocket::Usual),
    }
}

fn is_json(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
}

/// Reads a text; `name` is what messages call it, and tells JSON (it ends in `.json`) from TOML.
///
/// # Errors
/// Every mistake in it.
pub fn read(name: &str, text: &str) -> Result<Loaded, Report> {
    let source = Arc::new(Source::new(name, text));
    let root = if is_json(Path::new(name)) {
        file::json(source.text())
    } else {
        file::toml(source.text())
    };
    match root.and_then(|root| parse::plan(&source, &root)) {
        Ok((plan, warnings)) => Ok(Loaded {
            plan,
            warnings: Report::new(source, warnings),
        }),
        Err(mistakes) => Err(Report::new(source, mistakes)),
    }
}
