//! `[guards.NAME]`, and the guards that listeners and routes refer to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::list::entries;
use super::named::NamedSections;
use super::{Problems, Section, address, process, value};
use crate::config::file::{KeyValue, Node};
use crate::config::{FILE_BYTES_MAX, keys};
use crate::guard::{GuardId, GuardRules, NetworkSet, Rate, RefuseWith, SourceBits};
use crate::plan::GuardPlan;
use crate::text::{Reason, counted, without_byte_order_mark};
use crate::{regular_file, units};

/// Sources that `rate_per_source` remembers unless the file says otherwise; they take 3.4 MB.
const SOURCES_DEFAULT: u32 = 100_000;

/// The most sources that `sources_max` may allow; they take 340 MB.
const SOURCES_MAX: u32 = 10_000_000;

/// The most bad lines of a file that are reported.
const BAD_LINES_MAX: usize = 3;

/// The keys that only say how the others, the rules, refuse or limit clients.
const MODIFIERS: [&str; 5] = ["burst", "by", "sources_max", "refuse_with", "report_only"];

const SECOND: Duration = Duration::from_secs(1);

const REFUSE_WITH: [(&str, RefuseWith); 2] = [("reset", RefuseWith::Reset), ("close", RefuseWith::End)];

/// The guards of the file, by name.
pub(super) struct Guards<'a> {
    sections: NamedSections<'a, GuardId>,
    pub(super) in_order: Vec<Arc<GuardPlan>>,
}

impl<'a> Guards<'a> {
    pub(super) fn read(file: &Section<'a>, problems: &mut Problems<'_>) -> Self {
        let convert = |entry, problems: &mut Problems<'_>| guard(entry, problems).map(Arc::new);
        let (sections, in_order) = NamedSections::convert(file, ["guards", "guard"], problems, GuardId, convert);
        Self { sections, in_order }
    }

    /// The guards that `guards = […]` of a listener or a route refers to.
    pub(super) fn find(&mut self, section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<GuardId> {
        let nodes = section
            .get("guards")
            .map_or(&[][..], |node| value::one_or_many(node, problems));
        let mut found = Vec::new();
        for node in nodes {
            let Some(id) = self.find_one(node, problems) else {
                continue;
            };
            if found.contains(&id) {
                problems.error(&node.position, "this guard is listed twice", "remove one");
            } else {
                found.push(id);
            }
        }
        found
    }

    fn find_one(&mut self, node: &Node, problems: &mut Problems<'_>) -> Option<GuardId> {
        let name = value::string(node, "write the name of a guard: [guards.NAME]", problems)?;
        self.sections.find(name, &node.position, None, problems)
    }

    /// Warns of each guard that nothing refers to.
    pub(super) fn warn_unused(&self, problems: &mut Problems<'_>) {
        let hint = "no listener or route refers to it";
        self.sections.warn_unused(hint, problems);
    }
}

/// Converts a guard. `None` if it is not a table.
fn guard(entry: &KeyValue, problems: &mut Problems<'_>) -> Option<GuardPlan> {
    let section = Section::open(&entry.node, &entry.position, &keys::GUARD, problems)?;
    let mut rules = keys::GUARD.keys.iter().filter(|key| !MODIFIERS.contains(key));
    if rules.all(|key| section.is_missing(key)) {
        problems.error(
            &entry.position,
            "this guard has no rule",
            "add `allow`, `deny` or a limit",
        );
    }
    let rate = rate(&section, "rate", None, problems);
    let burst = section.integer("burst", 1..=1_000_000, problems);
    let rate_per_source = self::rate(&section, "rate_per_source", burst, problems);
    for key in ["burst", "sources_max"] {
        if let Some((position, _)) = section.entry(key)
            && section.is_missing("rate_per_source")
        {
            problems.warning(
                position,
                format!("`{key}` is never used"),
                "it belongs to `rate_per_source`",
            );
        }
    }
    let rules = GuardRules {
        allow: networks(&section, ["allow", "allow_file"], problems),
        deny: networks(&section, ["deny", "deny_file"], problems).unwrap_or_default(),
        sessions: sessions(&section, "sessions", problems),
        sessions_per_source: sessions(&section, "sessions_per_source", problems),
        rate,
        rate_per_source,
        bandwidth: bandwidth(&section, "bandwidth", problems),
        bandwidth_per_session: bandwidth(&section, "bandwidth_per_session", problems),
        by: source_bits(&section, problems),
        sources_max: section
            .integer("sources_max", 1..=SOURCES_MAX, problems)
            .unwrap_or(SOURCES_DEFAULT) as usize,
        report_only: section.boolean("report_only", problems).unwrap_or(false),
        refuse_with: section
            .one_of("refuse_with", &REFUSE_WITH, problems)
            .unwrap_or_default(),
    };
    Some(GuardPlan {
        name: entry.key.as_str().into(),
        rules,
    })
}

fn sessions(section: &Section<'_>, key: &str, problems: &mut Problems<'_>) -> Option<u32> {
    section.integer(key, process::CONNECTIONS, problems)
}

/// A rate. `burst`: how many it allows at once; `None`: as many as in a second, at least one.
fn rate(section: &Section<'_>, key: &str, burst: Option<u32>, problems: &mut Problems<'_>) -> Option<Rate> {
    let parse =
        |text: &str| units::parse_rate(text).map_err(|error| (format!("`{text}` is not a rate"), error.to_string()));
    let (count, period) = section.parsed(key, parse, problems)?;
    let of_a_second = u64::from(count) * SECOND.as_millis() as u64 / period.as_millis() as u64;
    let burst = burst.unwrap_or(u32::try_from(of_a_second).unwrap_or(u32::MAX).max(1));
    Some(Rate::new(count, period, burst))
}

/// Bytes a second.
fn bandwidth(section: &Section<'_>, key: &str, problems: &mut Problems<'_>) -> Option<u64> {
    let parse = |text: &str| {
        units::parse_bandwidth(text).map_err(|error| (format!("`{text}` is not a bandwidth"), error.to_string()))
    };
    section.parsed(key, parse, problems)
}

fn source_bits(section: &Section<'_>, problems: &mut Problems<'_>) -> SourceBits {
    let default = SourceBits::default();
    let by = section.child("by", &keys::GUARD_BY, problems);
    let mut bits = |key, max: u8| {
        let bits = by.integer(key, 0..=u32::from(max), problems);
        bits.and_then(|bits| u8::try_from(bits).ok())
    };
    SourceBits {
        ipv4: bits("ipv4", 32).unwrap_or(default.ipv4),
        ipv6: bits("ipv6", 128).unwrap_or(default.ipv6),
    }
}

/// The networks of `key`, and those in the file that `file_key` names. `None`: both keys are missing, or the
/// path is not valid, which is reported.
fn networks(section: &Section<'_>, [key, file_key]: [&str; 2], problems: &mut Problems<'_>) -> Option<NetworkSet> {
    let mut networks: Vec<IpNet> = entries(section, key, problems, address::network);
    if let Some(node) = section.get(file_key) {
        let path = value::path(node, problems)?;
        let path = problems.resolve_path(&path);
        // Errors of a remote configuration are written back to its store, whose readers must not see local files.
        let may_quote = !problems.is_remote(&node.position);
        let bytes = regular_file::read(&path, FILE_BYTES_MAX);
        match bytes.as_deref().map(|bytes| parse_networks(&path, bytes, may_quote)) {
            Ok(Ok(read)) if read.is_empty() && file_key == "allow_file" && networks.is_empty() => {
                let message = format!("{} has no network: nobody would be allowed", path.display());
                problems.error(&node.position, message, "add networks or addresses, one per line");
            }
            Ok(Ok(read)) => {
                if read.is_empty() {
                    let message = format!("{} has no network", path.display());
                    let hint = "a program that writes it should write another file and rename that";
                    problems.warning(&node.position, message, hint);
                }
                networks.extend(read);
            }
            Ok(Err(errors)) => errors
                .into_iter()
                .for_each(|(message, hint)| problems.error(&node.position, message, hint)),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                match error.kind() {
                    io::ErrorKind::InvalidData => problems.error(&node.position, message, ""), // it is too long
                    _ => problems.unreadable(&node.position, message),
                }
            }
        }
    } else if section.get(key).is_none() {
        return None;
    }
    Some(networks.into_iter().collect())
}

/// Parses a file with one network or address per line. The error of a bad line names the file and the line, and quotes
/// the line if `may_quote`. A file whose last line has no line feed is refused: it may be only partly written, and the
/// beginning of an address may be another valid address.
fn parse_networks(path: &Path, bytes: &[u8], may_quote: bool) -> Result<Vec<IpNet>, Vec<address::InvalidValue>> {
    let name = path.display();
    let text = String::from_utf8_lossy(bytes);
    let text = without_byte_order_mark(&text);
    let (mut networks, mut errors, mut bad_lines) = (Vec::new(), Vec::new(), 0);
    if !text.is_empty() && !text.ends_with('\n') {
        let hint = "end it with a line feed; a program that writes it should write another file and rename that";
        return Err(vec![(format!("the last line of {name} is cut off"), hint.into())]);
    }
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (message, hint) = match address::network(line) {
            Ok(network) => {
                networks.push(network);
                continue;
            }
            Err(_) if !may_quote => (Reason::new("not a network"), String::new()),
            Err((message, hint)) => (Reason::new(&message), hint), // a line may be as long as the file
        };
        bad_lines += 1;
        if bad_lines <= BAD_LINES_MAX {
            errors.push((format!("{name}, line {number}: {message}"), hint));
        }
    }
    if bad_lines > BAD_LINES_MAX {
        let more = counted(bad_lines - BAD_LINES_MAX, "more line");
        errors.push((format!("{name}: {more} with errors"), String::new()));
    }
    if errors.is_empty() { Ok(networks) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::config::read;
    use crate::config::report::ColorChoice;
    use crate::guard::{GuardRules, Rate};
    use crate::regular_file::make_fifo;

    fn text(guard: &str) -> String {
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:1\"\npool = \"p\"\nguards = [\"g\"]\n[guards.g]\n{guard}\n\
             [pools.p]\nservers = [\"127.0.0.1:2\"]"
        )
    }

    fn rules(guard: &str) -> Result<GuardRules, String> {
        match read("a.toml", &text(guard)) {
            Ok(loaded) => Ok(loaded.plan.guards[0].rules.clone()),
            Err(report) => Err(report.render(ColorChoice::Never)),
        }
    }

    fn rules_with_file(key: &str, path: &Path) -> Result<GuardRules, String> {
        rules(&format!("{key} = \"{}\"", path.display()))
    }

    #[test]
    fn the_default_burst_of_a_rate_is_one_second() {
        let second = std::time::Duration::from_secs(1);
        let rules = rules("rate = \"2000/s\"\nrate_per_source = \"90/m\"").unwrap();
        assert_eq!(rules.rate, Some(Rate::new(2000, second, 2000)));
        assert_eq!(rules.rate_per_source, Some(Rate::new(90, 60 * second, 1)));
        let with_burst = self::rules("rate_per_source = \"20/s\"\nburst = 50").unwrap();
        assert_eq!(with_burst.rate_per_source, Some(Rate::new(20, second, 50)));
    }

    #[test]
    fn guard_errors_name_the_valid_forms() {
        for (guard, expected) in [
            ("rate = \"20\"", "as in \"20/s\""),
            ("rate = \"0/s\"", "as in \"20/s\""),
            ("bandwidth = \"50MiB\"", "as in \"50MiB/s\""),
            ("bandwidth = \"1B/s\"", "at least 1KiB/s"),
            ("deny = \"10.0.0.1/8\"", "write \"10.0.0.0/8\""),
            ("by = { ipv4 = 33 }", "at most 32"),
            ("sessions = 0", "at least 1"),
            ("", "add `allow`, `deny` or a limit"),
            (
                "refuse_with = \"close\"\nburst = 5\nby = { ipv4 = 24 }\nsources_max = 5\nreport_only = true",
                "add `allow`, `deny` or a limit",
            ),
            ("deny_file = \"/nonexistent\"", "cannot read /nonexistent"),
            ("maxconn = 3", "acequia calls it `sessions`"),
        ] {
            let report = rules(guard).unwrap_err();
            assert!(report.contains(expected), "{guard}: {report}");
        }
    }

    #[test]
    fn a_network_file_has_one_network_per_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks");
        let denied = || rules_with_file("deny_file", &path);
        fs::write(
            &path,
            "\u{feff}# blocked\n10.0.0.0/8\n\n192.0.2.1 # one\n2001:db8::/32\n",
        )
        .unwrap();
        assert_eq!(denied().unwrap().deny.ranges(), 3);
        fs::write(&path, "10.0.0.0/8\n10.0.0.1/33\n").unwrap();
        assert!(
            denied()
                .unwrap_err()
                .contains("networks, line 2: `10.0.0.1/33` is not a network")
        );
        fs::write(&path, "x\n".repeat(5)).unwrap();
        let error = denied().unwrap_err();
        assert!(
            error.contains("networks, line 3: ") && error.contains("networks: 2 more lines with errors"),
            "{error}"
        );
        fs::write(&path, "x".repeat(1 << 20) + "\n").unwrap();
        assert!(denied().unwrap_err().len() < 1_000);
        fs::write(&path, "10.0.0.0/8\n10.0.0.1").unwrap();
        let error = denied().unwrap_err();
        assert!(
            error.contains("networks is cut off") && error.contains("line feed"),
            "{error}"
        );
    }

    #[test]
    fn a_network_file_is_a_regular_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks");
        make_fifo(&path);
        let error = rules_with_file("deny_file", &path).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn an_empty_network_file_is_an_error_only_as_allow_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks");
        fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(rules_with_file("deny_file", &path).unwrap().deny.ranges(), 0);
        let warnings = read("a.toml", &text(&format!("deny_file = \"{}\"", path.display())))
            .unwrap()
            .warnings
            .render(ColorChoice::Never);
        assert!(warnings.contains("networks has no network"), "{warnings}");
        let error = rules_with_file("allow_file", &path).unwrap_err();
        assert!(error.contains("nobody would be allowed"), "{error}");
    }
}
