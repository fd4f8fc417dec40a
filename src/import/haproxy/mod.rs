//! Reads a configuration of HAProxy (configuration manual, sections 2 to 5 and 7).

mod line;
mod address;
mod server;
mod condition;
mod accepted;
mod bind;
mod frontend;
mod check_connection;
mod conversation;
mod differences;
mod http_check;
mod check;
mod backend;

use std::collections::HashMap;
use std::time::Duration;

use super::ImportError;
use super::imported::{Imported, ImportedListener, Remark};
use super::number::duration_value;
use backend::Backend;
use frontend::Frontend;
use line::{HaproxySection, Line, LineOutcome, sections, set_duration, set_integer};

/// Converts the text of a file.
///
/// # Errors
/// The last line may be cut off.
pub(super) fn read(text: &str) -> Result<Imported, ImportError> {
    check_last_line(text)?;
    let mut imported = Imported::default();
    let mut defaults = Defaults::default();
    let mut idle_timeouts: HashMap<String, IdleTimeouts> = HashMap::new();
    let mut frontends = Vec::new();
    let mut verify_default = true; // the default of `ssl-server-verify`
    // `global` holds for all sections, wherever it stands.
    let (globals, sections): (Vec<_>, Vec<_>) =
        sections(text).into_iter().partition(|section| section.kind == "global");
    for section in &globals {
        global(section, &mut verify_default, &mut imported);
    }
    for section in sections {
        match section.kind.as_str() {
            "defaults" => defaults.add(section, &mut imported.remarks),
            "frontend" | "backend" | "listen" => {
                let inherited = defaults.inherited_by(&section, &mut imported.remarks);
                if let Some(mode) = other_mode(inherited, &section) {
                    let why = format!("mode {mode}");
                    imported
                        .remarks
                        .push(Remark::left_out(section.line, &section.title(), &why));
                    continue;
                }
                let (frontend, backend) = proxy(inherited, &section, verify_default);
                if let Some(backend) = backend {
                    idle_timeouts.insert(section.name.clone(), backend.idle_timeouts());
                    imported.pools.push(backend.into_pool());
                }
                frontends.extend(frontend);
            }
            _ => {
                let title = section.title();
                imported.remarks.push(Remark::left_out(section.line, &title, ""));
            }
        }
    }
    for frontend in frontends {
        imported.listeners.push(with_idle_timeout(frontend, &idle_timeouts));
    }
    Ok(imported)
}

/// Reports a last line without a line feed: if the file is cut off, a port of this line may be too short. HAProxy does
/// not accept such a file either.
fn check_last_line(text: &str) -> Result<(), ImportError> {
    let last = text.rsplit('\n').next().unwrap_or_default();
    if last.trim().is_empty() {
        return Ok(());
    }
    Err(ImportError::Syntax {
        line: text.lines().count(),
        problem: "the last line has no line feed: the file may be cut off; if it is whole, add the line feed",
    })
}

/// The timeouts of a backend's sessions.
#[derive(Clone, Copy, Debug, Default)]
struct IdleTimeouts {
    server: Option<Duration>,
    tunnel: Option<Duration>,
}

/// The listener of a frontend, with `idle_timeout`. This is `timeout tunnel` if that is set and not 0, otherwise the
/// longer of `timeout client` and `timeout server`: acequia counts a session as idle only if neither side sends. If the
/// frontend uses several pools, `timeout tunnel` and `timeout server` are those of the first pool whose backend is in
/// the file. The default pool comes before the pools of routes.
fn with_idle_timeout(frontend: Frontend, idle_timeouts: &HashMap<String, IdleTimeouts>) -> ImportedListener {
    let client = frontend.client_timeout;
    let mut listener = frontend.into_listener();
    let routed = listener.routes.iter().filter_map(|route| route.pool.as_ref());
    let pools = listener.pool.iter().chain(routed);
    let mut timeouts = pools.filter_map(|pool| idle_timeouts.get(pool));
    let timeouts = timeouts.next().copied().unwrap_or_default();
    let is_set = |time: &Duration| !time.is_zero();
    let idle = timeouts.tunnel.filter(is_set).or(client.max(timeouts.server));
    if let Some(idle) = idle.filter(is_set) {
        listener.section.set("idle_timeout", duration_value(idle));
    }
    listener
}

/// The `defaults` sections so far.
#[derive(Default)]
struct Defaults {
    /// The lines of the last section, with those that it inherited.
    last: Vec<Line>,
    /// The same for each section with a name.
    named: HashMap<String, Vec<Line>>,
    /// How many lines have been copied from one section to another.
    copied: usize,
}

/// The most lines that all `defaults` sections together may inherit. In a chain of sections, the number of inherited
/// lines grows with the square of the length of the file.
const COPIED_LINES_MAX: usize = 10_000;

impl Defaults {
    /// Adds a section, and the remarks about its own lines. Sections that inherit these lines may add some of the
    /// remarks again, as those about options of `default-server`; each is written once.
    fn add(&mut self, section: HaproxySection, remarks: &mut Vec<Remark>) {
        let named = self.named(&section, "no `defaults` before this line has this name", remarks);
        let mut inherited = named.unwrap_or_default();
        if self.copied + inherited.len() > COPIED_LINES_MAX {
            remarks.push(section.unused_from("too many inherited lines"));
            inherited = &[];
        }
        // Both are dropped: only the remarks are needed. Those in `frontend` come with the sections that inherit.
        let (mut frontend, mut backend) = (Frontend::new(""), Backend::new("", true));
        let read = |line: &Line| frontend.read(line).or(|| backend.read(line));
        remarks.extend(read_lines(inherited, &section.lines, read));
        remarks.append(&mut backend.remarks);
        let kept = not_replaced(inherited, &section.lines).cloned();
        let lines: Vec<Line> = kept.chain(section.lines.iter().cloned()).collect();
        self.copied += inherited.len();
        if !section.name.is_empty() {
            self.named.insert(section.name, lines.clone());
        }
        self.last = lines;
    }

    /// The lines that a proxy section inherits. They are those of the `defaults` section that its `from` names, else
    /// those of the last `defaults` section.
    fn inherited_by(&self, section: &HaproxySection, remarks: &mut Vec<Remark>) -> &[Line] {
        let why = "no `defaults` before this line has this name: the last one is used";
        self.named(section, why, remarks).unwrap_or(&self.last)
    }

    /// The lines of the `defaults` section that `from` of this section names. If there is no section of that name, adds
    /// a remark with `why`.
    fn named(&self, section: &HaproxySection, why: &str, remarks: &mut Vec<Remark>) -> Option<&[Line]> {
        let lines = self.named.get(section.from.as_ref()?);
        if lines.is_none() {
            remarks.push(section.unused_from(why));
        }
        lines.map(Vec::as_slice)
    }
}

/// The mode of a section if it is not `tcp`.
fn other_mode(inherited: &[Line], section: &HaproxySection) -> Option<String> {
    let mut modes = inherited
        .iter()
        .chain(&section.lines)
        .filter(|line| line.words[0] == "mode");
    let mode = modes.next_back()?.words.get(1)?;
    (mode != "tcp").then(|| mode.clone())
}

/// Reads a proxy section: its client side, its server side, or both. `verify_default`: whether the certificates of
/// servers without `verify` are verified.
fn proxy(inherited: &[Line], section: &HaproxySection, verify_default: bool) -> (Option<Frontend>, Option<Backend>) {
    let mut frontend = (section.kind != "backend").then(|| Frontend::new(&section.name));
    let mut backend = (section.kind != "frontend").then(|| Backend::new(&section.name, verify_default));
    if let (Some(frontend), Some(_)) = (&mut frontend, &backend) {
        frontend.pool = Some(section.name.clone());
    }
    let read = |line: &Line| {
        let first = frontend
            .as_mut()
            .map_or(LineOutcome::Foreign, |frontend| frontend.read(line));
        first.or(|| {
            backend
                .as_mut()
                .map_or(LineOutcome::Foreign, |backend| backend.read(line))
        })
    };
    let remarks = read_lines(inherited, &section.lines, read);
    if let Some(frontend) = &mut frontend {
        frontend.remarks.extend(remarks);
    } else if let Some(backend) = &mut backend {
        backend.remarks.extend(remarks);
    }
    (frontend, backend)
}

/// Reads the lines that a section inherits, and its own lines. Returns the remarks about its own. Lines with `option`
/// are read first: in HAProxy, the rules of a check may stand before the option that selects the kind of check.
fn read_lines(inherited: &[Line], own: &[Line], mut read: impl FnMut(&Line) -> LineOutcome) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for reads_options in [true, false] {
        let is_read = |line: &&Line| (line.words[0] == "option") == reads_options && line.words[0] != "mode";
        for line in not_replaced(inherited, own).filter(is_read) {
            read(line);
        }
        for line in own.iter().filter(is_read) {
            remarks.extend(read(line).remark(line));
        }
    }
    remarks.sort_by_key(|remark| remark.line);
    remarks
}

/// The inherited lines without those that a section replaces. A section that has rules for its checks uses none of
/// those that it would inherit (`do_parse_tcpcheck` and `do_parse_httpcheck` of HAProxy).
fn not_replaced<'l>(inherited: &'l [Line], own: &[Line]) -> impl Iterator<Item = &'l Line> {
    let has = |words: &[&str]| own.iter().any(|line| begins_with(line, words));
    let (has_tcp, has_request) = (has(&["tcp-check"]), has(&["option", "httpchk"]));
    let has_http = has_request || has(&["http-check"]);
    inherited.iter().filter(move |line| {
        !(has_tcp && begins_with(line, &["tcp-check"])
            || has_http && begins_with(line, &["http-check"])
            || has_request && begins_with(line, &["option", "httpchk"]))
    })
}

fn begins_with(line: &Line, words: &[&str]) -> bool {
    line.words.get(..words.len()).is_some_and(|first| first == words)
}

/// Reads `global`. Only `maxconn`, `nbthread`, `hard-stop-after` and `ssl-server-verify` have an effect.
fn global(section: &HaproxySection, verify_default: &mut bool, imported: &mut Imported) {
    let runtime = &mut imported.runtime;
    for line in &section.lines {
        let value = line.words.get(1).map_or("", String::as_str);
        let outcome = match line.words[0].as_str() {
            "maxconn" => set_integer(runtime, "max_connections", value, 1..=1 << 30),
            "nbthread" => set_integer(runtime, "workers", value, 1..=1024),
            "hard-stop-after" => set_duration(runtime, "drain_timeout", value),
            "ssl-server-verify" => {
                *verify_default = value != "none";
                LineOutcome::Carried
            }
            "daemon" | "log" | "log-send-hostname" => LineOutcome::Carried,
            _ => LineOutcome::Foreign,
        };
        imported.remarks.extend(outcome.remark(line));
    }
}
