//! `map $ssl_preread_server_name $variable { … }` and `map $ssl_preread_alpn_protocols …` (ngx_stream_map_module).

use super::super::imported::{Remark, is_protocol};
use super::block::Directive;
use crate::name::NamePattern;

/// The targets of server names, or of ALPN protocols.
#[derive(Debug, Default)]
pub(super) struct TargetMap {
    /// For each entry: its line, the name patterns or the protocol of its key, and the target that `proxy_pass` gets.
    pub(super) entries: Vec<(usize, Vec<String>, String)>,
    pub(super) default: Option<String>,
    /// Whether the keys are protocols of ALPN, and not server names.
    pub(super) is_of_protocols: bool,
}

impl TargetMap {
    /// Reads a map; returns the variable that it sets. `None`: it maps something else.
    pub(super) fn read(map: &Directive, block: &[Directive], remarks: &mut Vec<Remark>) -> Option<(String, Self)> {
        let (source, variable) = (map.word(1)?, map.word(2)?);
        let mut targets = Self {
            is_of_protocols: source == "$ssl_preread_alpn_protocols",
            ..Self::default()
        };
        if source != "$ssl_preread_server_name" && !targets.is_of_protocols {
            return None;
        }
        let advice = match targets.is_of_protocols {
            true => r"write the name of one protocol, as in `~\bh2\b`",
            false => "write a name, or `*` as its first label",
        };
        let has_host_names = block.iter().any(|entry| entry.name() == "hostnames");
        for entry in block {
            let (key, target) = (entry.name(), entry.word(1));
            match (key, target) {
                ("hostnames" | "volatile", None) => {}
                ("include", Some(_)) => remarks.push(entry.left_out("an included file is not read")),
                ("default", Some(target)) => targets.default = Some(target.to_owned()),
                (_, Some(target)) => match targets.patterns(key, has_host_names) {
                    Some(patterns) => {
                        if targets.is_of_protocols && !key.starts_with('~') {
                            let note = format!("nginx takes {key} only for clients that offer no other protocol");
                            remarks.push(Remark::note(entry.line, note));
                        }
                        targets.entries.push((entry.line, patterns, target.to_owned()));
                    }
                    None => remarks.push(entry.left_out(advice)),
                },
                _ => remarks.push(entry.left_out("")),
            }
        }
        Some((variable.to_owned(), targets))
    }

    /// The patterns for a key; `None`: it is not carried over. Without `hostnames`, nginx takes a wildcard in a key
    /// literally, and such a key matches no name.
    fn patterns(&self, key: &str, has_host_names: bool) -> Option<Vec<String>> {
        if self.is_of_protocols {
            let key = match key.strip_prefix('~') {
                Some(regex) => &protocol_of(regex)?,
                None => key,
            };
            return (is_protocol(key) && !key.contains(',')).then(|| vec![key.to_owned()]);
        }
        let patterns = match key.strip_prefix('.') {
            Some(suffix) if has_host_names => vec![suffix.to_owned(), format!("*.{suffix}")],
            _ if key.starts_with('*') && !has_host_names => return None,
            _ => vec![key.to_owned()],
        };
        patterns
            .iter()
            .all(|text| NamePattern::from_config(text).is_ok())
            .then_some(patterns)
    }
}

/// The protocol in a regular expression such as `\bh2\b`, which nginx applies to the client's list of protocols.
/// `None`: the expression has another form.
fn protocol_of(regex: &str) -> Option<String> {
    let regex = regex.strip_prefix('*').unwrap_or(regex);
    let inside = regex.strip_prefix(r"\b")?.strip_suffix(r"\b")?;
    let protocol = inside.replace(r"\.", ".").replace(r"\/", "/").replace(r"\-", "-");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "./-_".contains(c);
    protocol.chars().all(is_plain).then_some(protocol)
}
