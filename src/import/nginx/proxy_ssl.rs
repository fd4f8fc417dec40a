//! `proxy_ssl` (ngx_stream_proxy_module): TLS with the servers.

use super::super::imported::{ImportedListener, ImportedSection, quoted};
use super::Targets;
use super::block::{Directive, NOT_A_FILE, last};
use crate::name::ServerName;

/// The directives of this module.
pub(super) const KNOWN: [&str; 8] = [
    "proxy_ssl",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_name",
    "proxy_ssl_server_name",
    "proxy_ssl_session_reuse", // known, but ignored
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_verify",
];

/// What these directives say about a connection to a server.
struct ProxySsl<'d> {
    verifies: bool,
    name: Option<&'d Directive>,
    /// The directives that name files and have an effect, each after the key of `[pools.NAME.tls]` that it becomes.
    files: Vec<(&'static str, &'d Directive)>,
    /// Whether nginx sends the server a name (SNI), or verifies that the server's certificate has it.
    uses_name: bool,
}

impl<'d> ProxySsl<'d> {
    /// `None`: there is no TLS with the servers.
    fn read(all: &[&'d Directive]) -> Option<Self> {
        let is_on = |name: &str| last(all, name).is_some_and(|directive| directive.word(1) == Some("on"));
        if !is_on("proxy_ssl") {
            return None;
        }
        let verifies = is_on("proxy_ssl_verify");
        let uses_name = verifies || is_on("proxy_ssl_server_name");
        let cert = last(all, "proxy_ssl_certificate");
        let files = [
            (
                "ca_file",
                last(all, "proxy_ssl_trusted_certificate").filter(|_| verifies),
            ),
            ("cert", cert),
            ("key", last(all, "proxy_ssl_certificate_key").filter(|_| cert.is_some())),
        ];
        Some(Self {
            verifies,
            name: last(all, "proxy_ssl_name").filter(|_| uses_name),
            files: files.into_iter().filter_map(|(key, file)| Some((key, file?))).collect(),
            uses_name,
        })
    }
}

/// What the directives set, as a text that can be compared: directives without an effect do not change it. `None`:
/// there is no TLS with the servers.
pub(super) fn settings(all: &[&Directive]) -> Option<String> {
    let tls = ProxySsl::read(all)?;
    let files = tls.files.iter().map(|(_, directive)| *directive);
    let words: Vec<String> = tls
        .name
        .into_iter()
        .chain(files)
        .map(|directive| directive.words.join(" "))
        .collect();
    Some(format!(
        "proxy_ssl {} {} {}",
        tls.verifies,
        tls.uses_name,
        words.join(" ")
    ))
}

/// Sets the TLS of the pools of a listener. `all`: the directives that apply to its `server` block.
pub(super) fn read(all: &[&Directive], targets: &mut Targets, listener: &mut ImportedListener) {
    let Some(ProxySsl {
        verifies,
        name,
        files,
        uses_name,
    }) = ProxySsl::read(all)
    else {
        return;
    };
    let mut tls = ImportedSection::default();
    let name_value = name.and_then(|directive| directive.word(1));
    match name_value {
        Some("$ssl_preread_server_name" | "$ssl_server_name") => tls.set("sni", quoted("client")),
        Some(name) if ServerName::from_config(name).is_ok() => tls.set("sni", quoted(name)),
        _ => {
            // Without proxy_ssl_name, there is no remark.
            let remark = name.map(|directive| directive.left_out("write a host name"));
            listener.section.remarks.extend(remark);
        }
    }
    if !verifies {
        tls.set("verify", "false");
    }
    for (key, directive) in files {
        match directive.file() {
            // The certificate was left out, with a remark, because it is not in a file: `key` alone would be an error.
            Some(_) if key == "key" && tls.get("cert").is_none() => {}
            Some(path) => tls.set(key, quoted(path)),
            None => listener.section.remarks.push(directive.left_out(NOT_A_FILE)),
        }
    }
    for pool in targets.used_by(listener) {
        let mut tls = tls.clone();
        // Without proxy_ssl_name, nginx uses what proxy_pass names: an `upstream` block, or the host of a server. Only
        // the name of the block needs `sni`: without `sni`, acequia uses the host.
        if let Some(upstream) = pool.upstream.as_deref().filter(|_| uses_name && name.is_none())
            && ServerName::from_config(upstream).is_ok()
        {
            tls.set("sni", quoted(upstream));
        }
        pool.tls = Some(tls);
    }
}
