//! `bind` (configuration manual, section 5.1).

use super::super::imported::{
    ImportedListener, Remark, TlsKeys, is_file, is_protocol, keep_first, quoted, quoted_list,
};
use super::super::number::clamped_integer;
use super::address::binds;
use super::line::{Line, LineOutcome};
use crate::units::parse_file_mode;

/// Reads a `bind` line into the listener.
pub(super) fn read(line: &Line, listener: &mut ImportedListener) -> LineOutcome {
    let Some(addresses) = line.words.get(1) else {
        return LineOutcome::LeftOut("it has no address");
    };
    let options = line.words.get(2..).unwrap_or_default();
    // Linux also accepts IPv4 at `[::]`, unless `net.ipv6.bindv6only` is set. `v4v6` only repeats this default.
    let is_dual_stack = |address: &str| address.starts_with("[::]:") && !options.iter().any(|word| word == "v6only");
    let is_tls = options.iter().any(|word| word == "ssl");
    let requires_certificate = options.windows(2).any(|pair| pair == ["verify", "required"]);
    let has = |option: &str, is_valid: fn(&str) -> bool| {
        let mut pairs = options.windows(2);
        pairs.any(|pair| pair[0] == option && is_valid(&pair[1]))
    };
    if is_tls && requires_certificate {
        // If `crt` or `ca-file` is missing, `client_auth` would be lost, and the address would be open to all.
        if !has("crt", |path| certificate(path).is_some()) {
            return LineOutcome::LeftOut("it requires certificates of clients, and crt is missing");
        }
        if !has("ca-file", is_file) {
            return LineOutcome::LeftOut("it requires certificates of clients, and ca-file is missing");
        }
    }
    let (mut valid_addresses, mut is_partial) = (Vec::new(), false);
    for address in binds(addresses) {
        match address {
            Some(address) => valid_addresses.push(address),
            None => is_partial = true,
        }
    }
    listener.bind.extend_from_slice(&valid_addresses);
    let dual_stack = valid_addresses.iter().filter(|address| is_dual_stack(address));
    listener.dual_stack.extend(dual_stack.cloned());
    let tls = read_options(options, line, listener);
    if is_tls {
        let keys = valid_addresses.iter().map(|address| (address.clone(), tls.clone()));
        listener.address_tls.extend(keys);
    } else {
        listener.plain.extend_from_slice(&valid_addresses);
    }
    if options.iter().any(|word| word == "accept-proxy") && !valid_addresses.is_empty() {
        accept_proxy(line, &valid_addresses, listener);
    }
    if is_partial {
        return LineOutcome::LeftOut("write IP addresses with one port each, or \"unix:/PATH\"");
    }
    LineOutcome::Carried
}

/// Carries the options of a line over to the listener. Returns the keys of `[listeners.NAME.tls]` for the addresses of
/// the line.
fn read_options(options: &[String], line: &Line, listener: &mut ImportedListener) -> TlsKeys {
    let mut tls = TlsKeys::new();
    let mut rest = options.iter();
    let mut client_ca = None;
    let mut verify = None;
    while let Some(word) = rest.next() {
        let mut value = || rest.next().cloned().unwrap_or_default();
        match word.as_str() {
            "ssl"
            | "accept-proxy"
            | "v4v6"
            | "v6only"
            | "shards"
            | "no-sslv3"
            | "no-tlsv10"
            | "no-tlsv11"
            | "prefer-client-ciphers" => {}
            "name" | "process" | "thread" => drop(value()),
            "crt" => add_certificate(&value(), line, listener),
            "alpn" => {
                let mut protocols: Vec<String> = value().split(',').map(String::from).collect();
                keep_first(&mut protocols, |protocol| Some(protocol.to_owned()));
                if protocols.iter().all(|protocol| is_protocol(protocol)) {
                    tls.insert("alpn", quoted_list(&protocols));
                }
            }
            "ssl-min-ver" => {
                if value() == "TLSv1.3" {
                    tls.insert("min_version", quoted("1.3"));
                }
            }
            "ca-file" => client_ca = Some(value()).filter(|path| is_file(path)),
            "verify" => verify = Some(value()),
            "mode" => {
                let digits = value();
                if parse_file_mode(&digits).is_some()
                    && listener.bind.iter().any(|address| address.starts_with("unix:"))
                {
                    listener.section.set("unix_mode", quoted(&digits));
                }
            }
            "backlog" => {
                if let Some(backlog) = clamped_integer(&value(), 0, i32::MAX as u32).filter(|backlog| *backlog > 0) {
                    listener.section.set("backlog", backlog.to_string());
                }
            }
            "maxconn" => {
                if let Some(limit) = clamped_integer(&value(), 0, 1 << 30).filter(|limit| *limit > 0) {
                    listener.section.set("max_connections", limit.to_string());
                }
            }
            other => {
                let remark = Remark::left_out(line.number, &format!("of bind: {other}"), "");
                listener.section.remarks.push(remark);
            }
        }
    }
    if let Some((ca, verify)) = client_ca.zip(verify.filter(|verify| verify != "none")) {
        let mode = if verify == "required" { "require" } else { "request" };
        tls.insert(
            "client_auth",
            format!("{{ ca_file = {}, mode = \"{mode}\" }}", quoted(&ca)),
        );
    }
    tls
}

fn add_certificate(path: &str, line: &Line, listener: &mut ImportedListener) {
    match certificate(path) {
        Some(entry) if listener.certificates.contains(&entry) => {}
        Some(entry) => listener.certificates.push(entry),
        None => {
            let remark = Remark::left_out(line.number, &format!("of bind: crt {path}"), "");
            listener.section.remarks.push(remark);
        }
    }
}

/// An entry of `certificates`: a file, or a directory if the path ends like one. `None`: the path is not valid.
fn certificate(path: &str) -> Option<String> {
    let key = if path.ends_with('/') { "directory" } else { "cert" };
    let path = path.trim_end_matches('/');
    is_file(path).then(|| format!("{{ {key} = {} }}", quoted(path)))
}

/// `expect-proxy` names the peers, and holds for all addresses.
pub(super) const ONLY_EXPECTED: &str =
    "only the peers of expect-proxy are believed, also at addresses with accept-proxy";

/// Carries over `accept-proxy` for these addresses. HAProxy believes every peer there.
fn accept_proxy(line: &Line, addresses: &[String], listener: &mut ImportedListener) {
    // Only `expect-proxy` sets peers without addresses: they then apply to all addresses.
    let has_expect_proxy = !listener.proxy_peers.is_empty() && listener.proxy_addresses.is_empty();
    let note = if has_expect_proxy {
        ONLY_EXPECTED
    } else {
        listener.accept_proxy_at(addresses);
        "accept-proxy trusts every peer: list the balancers in front in `from`"
    };
    listener.section.remarks.push(Remark::note(line.number, note));
}
