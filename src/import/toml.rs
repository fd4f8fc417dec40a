//! Writes the imported configuration.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::Import;
use super::imported::{
    Imported, ImportedListener, ImportedPool, ImportedSection, ImportedServer, Remark, quoted, quoted_list,
};
use crate::text::{escape_bounded, toml_key};

/// The longest text of a remark, in characters.
const REMARK_CHARS_MAX: usize = 200;

/// Writes remarks as comments, one a line.
pub(super) fn comments(remarks: &[Remark]) -> String {
    let mut writer = Writer::default();
    writer.remarks(remarks);
    writer.text
}

/// Writes a configuration that [`complete`](super::complete) has made consistent.
pub(super) fn write(imported: &Imported) -> Import {
    let mut writer = Writer::default();
    if !imported.remarks.is_empty() {
        writer.text.push('\n');
        writer.remarks(&imported.remarks);
    }
    if !imported.runtime.keys.is_empty() || !imported.runtime.remarks.is_empty() {
        writer.section("[runtime]", &imported.runtime);
    }
    for listener in &imported.listeners {
        writer.guard(listener);
        writer.listener(listener);
    }
    for pool in &imported.pools {
        writer.pool(pool);
    }
    Import {
        text: writer.text,
        left_out: writer.left_out,
    }
}

#[derive(Default)]
struct Writer {
    text: String,
    /// The number of comments that say "not carried over".
    left_out: usize,
    /// The line number and the text of each written remark about a line.
    seen: HashSet<(usize, String)>,
}

impl Writer {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn key(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.text, "{key} = {value}");
    }

    /// A section with its remarks and keys.
    fn section(&mut self, title: &str, section: &ImportedSection) {
        let _ = writeln!(self.text, "\n{title}");
        self.remarks(&section.remarks);
        for (key, value) in &section.keys {
            self.key(key, value);
        }
    }

    /// Remarks as comments, one a line. Remarks about the same line with the same text are written once, even if
    /// several sections have them.
    fn remarks(&mut self, remarks: &[Remark]) {
        for remark in remarks {
            let text = escape_bounded(&remark.text, REMARK_CHARS_MAX);
            // Line 0: the remark is about the section, and other sections may have the same remark.
            if remark.line != 0 && !self.seen.insert((remark.line, text.clone())) {
                continue;
            }
            let kind = if remark.is_left_out { "not carried over" } else { "note" };
            self.left_out += usize::from(remark.is_left_out);
            let _ = match remark.line {
                0 => writeln!(self.text, "# {kind}: {text}"),
                line => writeln!(self.text, "# {kind}, line {line}: {text}"),
            };
        }
    }

    /// The guard of a listener. It has the name of the listener.
    fn guard(&mut self, listener: &ImportedListener) {
        if !has_guard(listener) {
            return;
        }
        let _ = writeln!(self.text, "\n[guards.{}]", toml_key(&listener.name));
        for (key, networks) in [("allow", &listener.allow), ("deny", &listener.deny)] {
            if !networks.is_empty() {
                self.key(key, &quoted_list(networks));
            }
        }
        for (key, value) in &listener.limits.keys {
            self.key(key, value);
        }
    }

    fn listener(&mut self, listener: &ImportedListener) {
        let name = toml_key(&listener.name);
        let _ = writeln!(self.text, "\n[listeners.{name}]");
        self.remarks(&listener.section.remarks);
        self.key("bind", &quoted_list(&listener.bind));
        if let Some(pool) = &listener.pool {
            self.key("pool", &quoted(pool));
        }
        if has_guard(listener) {
            self.key("guards", &quoted(&listener.name));
        }
        for (key, value) in &listener.section.keys {
            self.key(key, value);
        }
        if !listener.proxy_peers.is_empty() {
            self.key(
                "accept_proxy",
                &format!("{{ from = {} }}", quoted_list(&listener.proxy_peers)),
            );
        }
        let tls = &listener.tls;
        if !tls.certificates.is_empty() {
            let _ = writeln!(self.text, "\n[listeners.{name}.tls]");
            self.key("certificates", &format!("[{}]", tls.certificates.join(", ")));
            for (key, value) in &tls.keys {
                self.key(key, value);
            }
        }
        for route in &listener.routes {
            let _ = writeln!(self.text, "\n[[listeners.{name}.routes]]");
            for (key, entries) in [("sni", &route.sni), ("alpn", &route.alpn), ("from", &route.from)] {
                if !entries.is_empty() {
                    self.key(key, &quoted_list(entries));
                }
            }
            match &route.pool {
                Some(pool) => self.key("pool", &quoted(pool)),
                None => self.line("refuse = true"),
            }
        }
    }

    fn pool(&mut self, pool: &ImportedPool) {
        let name = toml_key(&pool.name);
        self.section(&format!("[pools.{name}]"), &pool.section);
        if let Some(source) = &pool.source {
            self.key("bind_source", &quoted(source));
        }
        self.line("servers = [");
        for server in &pool.servers {
            let _ = writeln!(self.text, "  {},", entry(server));
        }
        self.line("]");
        if let Some(tls) = &pool.tls {
            self.section(&format!("[pools.{name}.tls]"), tls);
        }
        if !pool.health.keys.is_empty() || !pool.health.remarks.is_empty() {
            self.section(&format!("[pools.{name}.health]"), &pool.health);
        }
    }
}

fn has_guard(listener: &ImportedListener) -> bool {
    !(listener.allow.is_empty() && listener.deny.is_empty() && listener.limits.keys.is_empty())
}

fn entry(server: &ImportedServer) -> String {
    let address = quoted(&server.address);
    let mut keys = vec![format!("address = {address}")];
    keys.extend(server.name.as_deref().map(|name| format!("name = {}", quoted(name))));
    keys.extend(server.weight.map(|weight| format!("weight = {weight}")));
    keys.extend((server.priority > 0).then(|| format!("priority = {}", server.priority)));
    keys.extend(server.sessions_max.map(|limit| format!("max_sessions = {limit}")));
    match keys.as_slice() {
        [_] => address,
        keys => format!("{{ {} }}", keys.join(", ")),
    }
}
