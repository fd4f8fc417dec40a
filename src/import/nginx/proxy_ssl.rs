//! `proxy_ssl` (ngx_stream_proxy_module): TLS with the servers.

use super::super::imported::{ImportedListener, ImportedSection, is_file, quoted};
use super::Targets;
use super::block::Directive;
use crate::name::ServerName;

/// Sets the TLS of the pools that a `server` block of nginx uses.
pub(super) fn read(all: &[&Directive], targets: &mut Targets, listener: &ImportedListener) {
    let value = |name: &str| {
        let mut of_name = all.iter().filter(|directive| directive.name() == name);
        of_name.next_back().and_then(|directive| directive.word(1))
    };
    let is_on = |name: &str| value(name) == Some("on");
    if !is_on("proxy_ssl") {
        return;
    }
    let verifies = is_on("proxy_ssl_verify");
    let uses_name = verifies || is_on("proxy_ssl_server_name");
    for pool in targets.used_by(listener) {
        let mut tls = ImportedSection::default();
        // The default of proxy_ssl_name is what proxy_pass names: an upstream, or the host of the server. The host is
        // also what acequia sends without `sni`.
        let name = value("proxy_ssl_name").or(pool.upstream.as_deref());
        match name.filter(|_| uses_name) {
            Some("$ssl_preread_server_name" | "$ssl_server_name") => tls.set("sni", quoted("client")),
            Some(name) if ServerName::from_config(name).is_ok() => tls.set("sni", quoted(name)),
            _ => {}
        }
        if !verifies {
            tls.set("verify", "false");
        }
        let files = [
            ("ca_file", value("proxy_ssl_trusted_certificate").filter(|_| verifies)),
            ("cert", value("proxy_ssl_certificate")),
            (
                "key",
                value("proxy_ssl_certificate_key").filter(|_| value("proxy_ssl_certificate").is_some()),
            ),
        ];
        for (key, path) in files {
            if let Some(path) = path.filter(|path| is_file(path)) {
                tls.set(key, quoted(path));
            }
        }
        pool.tls = Some(tls);
    }
}
