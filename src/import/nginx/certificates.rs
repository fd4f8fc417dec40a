//! The TLS of clients: `ssl_certificate`, `ssl_alpn`, `ssl_protocols` (ngx_stream_ssl_module).

use super::super::imported::{ImportedListener, Remark, is_protocol, keep_first, quoted, quoted_list};
use super::block::{Directive, NOT_A_FILE};

/// Sets the certificates of a listener, and the ALPN protocols and versions of its TLS.
pub(super) fn read(directives: &[&Directive], listener: &mut ImportedListener) {
    let mut remarks = Vec::new();
    let mut file = |directive: &Directive| {
        let path = directive.file().map(quoted);
        if path.is_none() {
            remarks.push(directive.left_out(NOT_A_FILE));
        }
        path
    };
    let named = |name: &'static str| directives.iter().filter(move |directive| directive.name() == name);
    let keys: Vec<Option<String>> = named("ssl_certificate_key").map(|directive| file(directive)).collect();
    for (index, directive) in named("ssl_certificate").enumerate() {
        if let Some(cert) = file(directive) {
            let key = keys.get(index).and_then(Option::as_ref);
            let key = key.map_or_else(String::new, |key| format!(", key = {key}"));
            listener.tls.certificates.push(format!("{{ cert = {cert}{key} }}"));
        }
    }
    // Without an address with TLS, these directives have no effect, and need no remark.
    let tls_directives: &[&Directive] = match listener.has_tls_address() {
        true => directives,
        false => &[],
    };
    for directive in tls_directives {
        match directive.name() {
            "ssl_alpn" => {
                let protocols = directive.arguments().iter().cloned();
                let (mut valid, invalid): (Vec<String>, Vec<String>) =
                    protocols.partition(|protocol| is_protocol(protocol));
                keep_first(&mut valid, |protocol| Some(protocol.to_owned()));
                if !valid.is_empty() {
                    listener.tls.keys.insert("alpn", quoted_list(&valid));
                }
                if !invalid.is_empty() {
                    remarks.push(directive.left_out("a protocol has 1 to 255 bytes"));
                }
            }
            "ssl_protocols" => versions(directive, listener, &mut remarks),
            _ => {}
        }
    }
    listener.section.remarks.append(&mut remarks);
}

/// `ssl_protocols`: the versions of TLS.
fn versions(directive: &Directive, listener: &mut ImportedListener, remarks: &mut Vec<Remark>) {
    let is_served = |version: &&str| matches!(*version, "TLSv1.2" | "TLSv1.3");
    let words = directive.arguments().iter().map(String::as_str);
    let (served, others): (Vec<&str>, Vec<&str>) = words.partition(is_served);
    if served == ["TLSv1.3"] {
        listener.tls.keys.insert("min_version", quoted("1.3"));
    }
    if !others.is_empty() {
        let what = format!("of ssl_protocols: {}", others.join(" "));
        remarks.push(Remark::left_out(
            directive.line,
            &what,
            "acequia has only TLS 1.2 and 1.3",
        ));
    }
    if !served.contains(&"TLSv1.3") {
        remarks.push(Remark::note(directive.line, "TLS 1.3 is accepted, too"));
    }
}
