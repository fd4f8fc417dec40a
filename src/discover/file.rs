//! Servers that are listed in a file: in JSON, in TOML, or one server per line. The file is watched.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::source::{FollowFuture, ListAnswer, Reports, ServerSource};
use crate::error::chain;
use crate::file_watch::FileWatch;
use crate::plan::{ListedEntries, ListedServer, ServerEntry, listed_entries};
use crate::pool::MemberConfig;
use crate::regular_file;
use crate::text::{Reason, parse_digits, without_byte_order_mark};
use crate::toml_nesting::too_deep;

/// The longest file: enough for 10,000 servers with all their keys.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file that lists servers.
pub(super) struct FileSource {
    path: PathBuf,
    defaults: MemberConfig,
}

impl FileSource {
    pub(super) fn new(path: PathBuf, defaults: MemberConfig) -> Self {
        Self { path, defaults }
    }
}

impl ServerSource for FileSource {
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> FollowFuture<'a> {
        Box::pin(async {
            let mut watch = FileWatch::new(self.path.clone());
            while let Some(mut watching) = watch.watch().await {
                let (path, defaults) = (self.path.clone(), self.defaults);
                let read = spawn_blocking(move || read(&path, defaults)).await;
                reports.report(read.unwrap_or_else(|panicked| Err(Reason::new(&panicked.to_string()))));
                watching.changed().await;
                watch = watching;
            }
            Reason::new("the process ends")
        })
    }
}

/// Reads the list. A `.json` file has an array of servers, or an object with the key `servers`. A `.toml` file has the
/// key `servers`. Any other file has one server a line: its address and then `KEY=VALUE`, as in
/// `10.0.0.1:5432 weight=2`; a word that begins with `#` begins a comment.
///
/// # Errors
/// The file cannot be read or is too long, or is not a whole valid list.
pub(super) fn read(path: &Path, defaults: MemberConfig) -> ListAnswer {
    let bytes = regular_file::read(path, FILE_BYTES_MAX).map_err(|error| Reason::from(chain(&error)))?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let line = line_at(&bytes, error.valid_up_to());
        Reason::from(format!("line {line}: not UTF-8"))
    })?;
    let text = without_byte_order_mark(text);
    if text.is_empty() {
        // This is not an empty list: programs that overwrite a file truncate it first.
        return Err(Reason::new("the file is empty"));
    }
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    let entries = match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("json") => listed_entries(json(text)?, defaults),
        Some("toml") => listed_entries(toml(text)?, defaults),
        _ => lines(text, defaults),
    };
    entries.map(Into::into)
}

/// The number of the line at an offset, from 1.
fn line_at(text: &[u8], offset: usize) -> usize {
    1 + text[..offset].iter().filter(|byte| **byte == b'\n').count()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFile {
    servers: Vec<ListedServer>,
}

/// The servers of a JSON text: an array, or an object with the key `servers`.
pub(super) fn json(text: &str) -> Result<Vec<ListedServer>, Reason> {
    let text = without_byte_order_mark(text); // a response of HTTP may have one, too
    let list = if text.trim_start().starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(text).map(|ListFile { servers }| servers)
    };
    list.map_err(|error| {
        let what = if error.is_data() { "" } else { "not valid JSON: " };
        Reason::from(format!("{what}{error}"))
    })
}

fn toml(text: &str) -> Result<Vec<ListedServer>, Reason> {
    if !text.ends_with('\n') {
        return Err(unended_line());
    }
    if too_deep(text).is_some() {
        return Err(Reason::new("tables and lists are nested too deep"));
    }
    let list = ::toml::from_str(text).map(|ListFile { servers }| servers);
    list.map_err(|error| {
        // `Display` of the error has several lines, because it quotes the text.
        let line = line_at(text.as_bytes(), error.span().map_or(0, |span| span.start));
        Reason::from(format!("line {line}: {}", error.message()))
    })
}

fn lines(text: &str, defaults: MemberConfig) -> Result<Vec<ServerEntry>, Reason> {
    if !text.ends_with('\n') {
        return Err(unended_line());
    }
    let mut entries = ListedEntries::default();
    for (number, text) in (1_usize..).zip(text.lines()) {
        let added = match line(text) {
            Ok(Some(server)) => entries.add(server, defaults),
            Ok(None) => Ok(()),
            Err(message) => Err(message.into()),
        };
        added.map_err(|why| Reason::from(format!("line {number}: {why}")))?;
    }
    Ok(entries.into_vec())
}

/// The error for a text without a line feed at its end. The text may be the beginning of a list, cut within a value:
/// `weight=1`, the beginning of `weight=10`, would be valid, too.
fn unended_line() -> Reason {
    Reason::new("the last line has no line feed at its end: add one; without it, the file may be half written")
}

/// Parses one line. `None`: the line is empty or has only a comment.
fn line(text: &str) -> Result<Option<ListedServer>, String> {
    let mut words = text.split_whitespace().take_while(|word| !word.starts_with('#'));
    let Some(address) = words.next() else { return Ok(None) };
    let mut server = ListedServer::at(address.to_owned());
    let mut keys = Vec::new();
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("`{word}` is not KEY=VALUE"))?;
        if keys.contains(&key) {
            return Err(format!("duplicate key `{key}`"));
        }
        keys.push(key);
        let not_a_number = || format!("`{value}` is not a number that `{key}` can have");
        match key {
            "name" => server.name = Some(value.to_owned()),
            "weight" => server.weight = Some(parse_digits(value).ok_or_else(not_a_number)?),
            "priority" => server.priority = Some(parse_digits(value).ok_or_else(not_a_number)?),
            "draining" => server.draining = value.parse().map_err(|_| "`draining` is true or false".to_owned())?,
            _ => {
                return Err(format!(
                    "unknown key `{key}`; known keys: `name`, `weight`, `priority`, `draining`"
                ));
            }
        }
    }
    Ok(Some(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toml_that_is_nested_too_deep_is_an_error() {
        // 79 nested tables, each with a dotted key of 79 parts. The crate `toml` bounds both numbers to about 80, but
        // not their product, the number of levels.
        let keys = vec!["a"; 79].join(".");
        let deep = format!("{}1{}", format!("{{ {keys} = ").repeat(79), " }".repeat(79));
        let error = read_as("a.toml", &format!("servers = []\nx = {deep}\n")).unwrap_err();
        assert!(error.contains("nested too deep"), "{error}");
    }

    /// Reads a file that has this name and text. Displays each server as `LABEL=ADDRESS WEIGHT PRIORITY`, with
    /// ` draining` behind that if it drains.
    fn read_as(name: &str, text: &str) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let shown = |entry: &ServerEntry| {
            let config = entry.member_config;
            let draining = if config.is_draining { " draining" } else { "" };
            let (weight, priority) = (config.weight, config.priority);
            format!("{}={} {weight} {priority}{draining}", entry.label(), entry.written)
        };
        let entries = read(&path, MemberConfig::default()).map_err(|reason| reason.to_string())?;
        Ok(entries.servers.iter().map(shown).collect())
    }

    #[test]
    fn all_three_list_formats_are_equivalent() {
        let expected = ["10.0.0.1:1=10.0.0.1:1 1 0", "b=b.test:2 3 1 draining"];
        let expected = Ok(expected.map(String::from).to_vec());
        let json =
            r#"["10.0.0.1:1", {"address": "b.test:2", "name": "b", "weight": 3, "priority": 1, "draining": true}]"#;
        assert_eq!(read_as("list.json", json), expected);
        assert_eq!(read_as("list.json", &format!(r#"{{"servers": {json}}}"#)), expected);
        let toml = "servers = [\"10.0.0.1:1\", { address = \"b.test:2\", name = \"b\", weight = 3, priority = 1, \
                    draining = true }]\n";
        assert_eq!(read_as("list.toml", toml), expected);
        let lines = "# ours\n10.0.0.1:1\n\n  b.test:2 name=b weight=3 priority=1 draining=true #big\n";
        assert_eq!(read_as("list", lines), expected);
        assert_eq!(read_as("list.txt", "# none\n"), Ok(vec![]));
        let hash_in_a_word = read_as("list", "unix:/run/app#1.sock name=a#b # c\n");
        assert_eq!(hash_in_a_word, Ok(vec![String::from("a#b=unix:/run/app#1.sock 1 0")]));
    }

    #[test]
    fn a_list_truncated_within_a_line_is_not_valid() {
        for (name, text) in [
            ("list.json", r#"["10.0.0.1:10", {"address": "b.test:2", "weight": 30}]"#),
            (
                "list.toml",
                "servers = [\"10.0.0.1:10\", { address = \"b.test:2\", weight = 30 }]\n",
            ),
            ("list.toml", "[[servers]]\naddress = \"b.test:2\"\nweight = 30\n"),
            ("list", "10.0.0.1:1 name=abc\n"),
        ] {
            assert!(read_as(name, text).is_ok(), "{name}");
            // A `[[servers]]` table that is cut behind the line with its address is a valid list.
            let lengths = (0..text.len()).filter(|length| !text[..*length].ends_with(".test:2\"\n"));
            for length in lengths {
                let cut = read_as(name, &text[..length]);
                assert!(cut.is_err(), "{name}: {}: {cut:?}", &text[..length]);
            }
        }
    }

    #[test]
    fn an_error_names_the_line_and_what_is_wrong() {
        for (name, text, error) in [
            (
                "list",
                "10.0.0.1:1\n10.0.0.2:1 wieght=3\n",
                "line 2: unknown key `wieght`",
            ),
            ("list", "10.0.0.1:1 weight\n", "line 1: `weight` is not KEY=VALUE"),
            (
                "list",
                "10.0.0.1:1 weight=x\n",
                "line 1: `x` is not a number that `weight` can have",
            ),
            (
                "list",
                "10.0.0.1:1 weight=1 name=a weight=0\n",
                "line 1: duplicate key `weight`",
            ),
            ("list", "10.0.0.1:1\n\n10.0.0.2\n", "line 3: `10.0.0.2` has no port"),
            (
                "list",
                "10.0.0.1:1\n10.0.0.1:1\n",
                "line 2: server `10.0.0.1:1` is listed twice",
            ),
            ("list.toml", "servers = [\"10.0.0.1:1\"\n", "line 1: unclosed array"),
            ("list.toml", "\nserver = []\n", "line 2: unknown field `server`"),
            (
                "list.toml",
                "[[servers]]\naddress = \"a.test:1\"\nweight = 1\nweight = 0\n",
                "line 4: duplicate key",
            ),
            ("list.json", "[\"10.0.0.1:1\",\n 7]", "line 2"),
            (
                "list.json",
                "[\n{\"address\": \"a.test:1\",\n\"weight\": 1, \"weight\": 0}]",
                "duplicate field `weight` at line 3",
            ),
            (
                "list.json",
                "{\"servers\": [],\n\"servers\": []}",
                "duplicate field `servers` at line 2",
            ),
        ] {
            let found = read_as(name, text).unwrap_err();
            // A `\n` would be an escaped line feed: the error should have one line.
            assert!(found.contains(error) && !found.contains("\\n"), "{text}: {found}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_accepted() {
        for (name, text) in [
            ("list", "10.0.0.1:1\n"),
            ("list.json", "[\"10.0.0.1:1\"]"),
            ("list.toml", "servers = [\"10.0.0.1:1\"]\n"),
        ] {
            let read = read_as(name, &format!("\u{feff}{text}"));
            assert_eq!(read, Ok(vec![String::from("10.0.0.1:1=10.0.0.1:1 1 0")]), "{name}");
        }
    }
}
