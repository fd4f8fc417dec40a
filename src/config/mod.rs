//! The configuration: converts a file to a [`Plan`], or to a [`Report`] of the errors in it.
//!
//! `file` parses TOML or JSON into a tree of values with positions; `parse` converts the tree to a plan and collects
//! the problems, which [`report`] shows. No session uses this module.
//!
//! A file with `[remote]` has only the settings of the process. The rest comes from texts in a store, to which others
//! may write: each text is parsed and merged with the file (`sections`). A setting that a text may not have is an error
//! ([`Loaded::with_texts`]).

mod input;
pub mod report;
pub mod keys;
mod file;
mod synonyms;
mod suggest;
mod sections;
mod parse;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::with_context;
use crate::plan::{AdminSocket, Plan, RemoteTexts};
use crate::regular_file;
use file::{Table, Value};
pub(crate) use parse::address;
use report::{InputText, Position, Problem, Report};

/// The files that are tried, in this order, when the command line names none.
pub const DEFAULT_PATHS: [&str; 2] = ["./acequia.toml", "/etc/acequia/acequia.toml"];

/// The size limit of a configuration: enough for some 300,000 servers. A longer file is probably not a configuration.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// A valid configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub plan: Plan,
    /// Settings that are valid but probably not intended; often empty.
    pub warnings: Report,
}

impl Loaded {
    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> &str {
        self.warnings.input().first_text()
    }

    /// The configuration of a file with `[remote]` and of these texts.
    ///
    /// # Errors
    /// There are no texts, or some are not UTF-8; otherwise as for [`read`], in the file and in the texts.
    pub fn with_texts(&self, texts: &RemoteTexts) -> Result<Self, Report> {
        let input = self.warnings.input();
        let mut all = InputText::new(input.first_name(), input.first_text());
        all.rename(texts.from.clone()); // shown for problems that are in no single text
        let mut not_utf8 = Vec::new();
        for text in &texts.texts {
            let begin = all.push(format!("{}{}", ETCD, text.key), &text.text);
            not_utf8.extend(text.not_utf8_at.map(|at| not_utf8_problem(begin + at)));
        }
        if texts.texts.is_empty() {
            // `Report::render_for_store` shows a problem of the whole input only if the input has a text of the store:
            // hence this empty text.
            all.push(texts.from.clone(), "");
            let key = texts.from.trim_start_matches(ETCD);
            let hint = format!("write one: etcdctl put {key} < FILE");
            let problem = Problem::error(Position::File, "there is no such key, and none below it", hint);
            return Err(Report::new(Arc::new(all), vec![problem]));
        }
        match not_utf8.is_empty() {
            true => convert(all),
            false => Err(Report::new(Arc::new(all), not_utf8)),
        }
    }
}

/// The problem of a text of a store that is not UTF-8. A replacement character stands at this offset of the input.
fn not_utf8_problem(at: usize) -> Problem {
    let position = Position::Bytes(at..at + char::REPLACEMENT_CHARACTER.len_utf8());
    Problem::error(position, "not UTF-8", "write it as UTF-8")
}

/// The name of a text of the store is this prefix and the key of the text.
const ETCD: &str = "etcd:";

/// The file to load: `named`, else the first of [`DEFAULT_PATHS`] that exists, else the first that may exist.
///
/// # Errors
/// No file is named, and none of the default paths exists.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Report> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => first_existing(&DEFAULT_PATHS.map(Path::new)),
    }
}

fn first_existing(paths: &[&Path]) -> Result<PathBuf, Report> {
    let existing = paths.iter().find(|path| path.exists());
    // Without permission it is unknown whether a path exists. Loading this path then fails with the reason.
    if let Some(found) = existing.or_else(|| paths.iter().find(|path| path.try_exists().is_err())) {
        return Ok(found.to_path_buf());
    }
    let tried: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let message = format!("no configuration found: neither {} exists", tried.join(" nor "));
    Err(Report::unreadable("acequia.toml", message, "name a file with -c FILE"))
}

/// A report about a configuration that cannot be read. `name` is its name in messages.
#[must_use]
pub fn unreadable(name: &str, why: &str) -> Report {
    Report::unreadable(name, format!("cannot read the configuration: {why}"), "")
}

/// Loads a file. It may be a pipe, such as `/dev/stdin`: like cat(1), this waits for its writer.
///
/// # Errors
/// Why the file cannot be read: it is too long or not UTF-8, for instance. Otherwise those of [`read`].
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    match File::open(path).and_then(read_bounded) {
        Ok(bytes) => read_bytes(&name, bytes),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            let hint = format!("name a file in it, as in -c {}", path.join("acequia.toml").display());
            let message = "cannot read the configuration: it is a directory";
            Err(Report::unreadable(name, message, hint))
        }
        Err(error) => Err(unreadable(&name, &error.to_string())),
    }
}

/// Loads a file again. It must be a regular file, so that this never waits for another process. `was_pipe`: whether it
/// was read from a pipe before; the error then says so.
///
/// # Errors
/// Those of [`load`].
pub fn load_again(path: &Path, was_pipe: bool) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let error = match read_regular(path) {
        Ok(bytes) => return read_bytes(&name, bytes),
        Err(error) => error,
    };
    let is_other_kind = path.metadata().is_ok_and(|metadata| !metadata.is_file());
    let (message, remedy) = match (was_pipe, is_other_kind) {
        (true, _) => (
            String::from("the configuration was read from a pipe, and cannot be read again"),
            "to reload, restart with `-c` and a regular file",
        ),
        (false, true) => (
            format!("cannot read the configuration: {error}"),
            "put a regular file in its place",
        ),
        (false, false) => return Err(unreadable(&name, &error.to_string())),
    };
    Err(Report::unreadable(name, message, remedy))
}

fn read_bytes(name: &str, bytes: Vec<u8>) -> Result<Loaded, Report> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = "the file is too long for a configuration";
        let problem = Problem::error(Position::File, message, "the limit is 16 MiB");
        return Err(Report::new(Arc::new(InputText::new(name, "")), vec![problem]));
    }
    match String::from_utf8(bytes) {
        Ok(text) => read(name, &text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let problem = Problem::error(Position::Bytes(valid..valid + 1), "not UTF-8", "save the file as UTF-8");
            Err(Report::new(Arc::new(InputText::new(name, text)), vec![problem]))
        }
    }
}

/// Reads a regular file, as [`read_bounded`] does. Never waits for another process.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    regular_file::open(path).and_then(read_bounded)
}

/// Reads at most one byte more than [`FILE_BYTES_MAX`]: enough to tell that a file is too long, whatever size its
/// metadata claims.
fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The admin socket of a process that runs with this file. Invalid settings are ignored; in TOML, also syntax errors.
///
/// # Errors
/// Why the file cannot be read; it must be a regular one. `InvalidData`: it is not UTF-8, or not valid JSON.
pub fn admin_socket(path: &Path) -> io::Result<AdminSocket> {
    let bytes = read_regular(path)
        .map_err(|error| with_context(error, format!("cannot read the configuration {}", path.display())))?;
    let unusable = || {
        let message = format!("{} has errors, which `acequia check` shows", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    let text = String::from_utf8(bytes).map_err(|_| unusable())?;
    let get = |table: Table, key: &str| {
        let entry = table.entries.into_iter().find(|entry| entry.key == key)?;
        Some(entry.node.value)
    };
    let admin = if is_json(path) {
        get(file::json(&text).map_err(|_| unusable())?, "admin")
    } else {
        file::toml_recovered(&text, "admin")
    };
    let socket = match admin {
        Some(Value::Table(admin)) => get(admin, "socket"),
        _ => None,
    };
    Ok(match socket {
        Some(Value::String(text)) if text == "off" => AdminSocket::Off,
        Some(Value::String(text)) => AdminSocket::Path(text.into()),
        _ => AdminSocket::Default,
    })
}

fn is_json(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
}

/// Converts the text of a file: JSON if `name` ends in `.json`, else TOML. Messages show the name.
///
/// # Errors
/// The errors of syntax in the text; if there are none, all other errors.
pub fn read(name: &str, text: &str) -> Result<Loaded, Report> {
    convert(InputText::new(name, text))
}

fn convert(input: InputText) -> Result<Loaded, Report> {
    let input = Arc::new(input);
    let (mut tables, mut errors) = (Vec::new(), Vec::new());
    for (name, text, begin) in input.files() {
        let parsed = if is_json(Path::new(name)) {
            file::json(text)
        } else {
            file::toml(text)
        };
        match parsed {
            Ok(mut table) => {
                table.shift(begin);
                tables.push(table);
            }
            Err(mut found) => {
                found.iter_mut().for_each(|problem| problem.shift(begin));
                errors.extend(found);
            }
        }
    }
    if !errors.is_empty() {
        return Err(Report::new(input, errors));
    }
    let (root, misplaced) = sections::merged(&input, tables);
    match parse::plan(&input, &root, misplaced) {
        Ok((plan, warnings)) => Ok(Loaded {
            plan,
            warnings: Report::new(input, warnings),
        }),
        Err(errors) => Err(Report::new(input, errors)),
    }
}
