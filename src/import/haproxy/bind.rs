//! `bind` (configuration manual, section 5.1).

use super::super::imported::{BOUND_ALREADY, ImportedListener, ImportedTls, Remark, is_file, quoted, quoted_list};
use super::address::binds;
use super::line::{Line, LineOutcome, carried_if, joined, set_integer};
use super::server::protocols;
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
    let mut valid_addresses = Vec::new();
    let mut has_invalid_address = false;
    for address in binds(addresses) {
        match address {
            Some(address) if listener.bind.contains(&address) => {
                let remark = Remark::left_out(line.number, &format!("address {address}"), BOUND_ALREADY);
                listener.section.remarks.push(remark);
            }
            Some(address) => {
                listener.bind.push(address.clone());
                valid_addresses.push(address);
            }
            None => has_invalid_address = true,
        }
    }
    let dual_stack = valid_addresses.iter().filter(|address| is_dual_stack(address));
    listener.dual_stack.extend(dual_stack.cloned());
    let tls = read_options(options, line, listener);
    if is_tls {
        let address_tls = valid_addresses.iter().map(|address| (address.clone(), tls.clone()));
        listener.address_tls.extend(address_tls);
    } else {
        listener.plain_addresses.extend_from_slice(&valid_addresses);
    }
    if options.iter().any(|word| word == "accept-proxy") && !valid_addresses.is_empty() {
        accept_proxy(line, &valid_addresses, listener);
    }
    if has_invalid_address {
        return LineOutcome::LeftOut("write IP addresses with one port each, or \"unix:/PATH\"");
    }
    LineOutcome::Carried
}

/// Options without a value that need no key here, or that [`read`] looks at.
const WITHOUT_VALUE: [&str; 8] = [
    "ssl",
    "accept-proxy",
    "v4v6",
    "v6only",
    "no-sslv3",
    "no-tlsv10",
    "no-tlsv11",
    "prefer-client-ciphers",
];

/// Carries the options of a line over to the listener. Returns the settings of TLS for the addresses of the line.
fn read_options(options: &[String], line: &Line, listener: &mut ImportedListener) -> ImportedTls {
    let mut tls = ImportedTls::default();
    let mut client_ca = None;
    let mut verify = None;
    let mut rest = options;
    while let Some(word) = rest.first() {
        let value = rest.get(1).map_or("", String::as_str);
        let (outcome, count) = match word.as_str() {
            word if WITHOUT_VALUE.contains(&word) => (LineOutcome::Carried, 1),
            "ca-file" => {
                client_ca = Some(value).filter(|path| is_file(path));
                (carried_if(client_ca.is_some()), 2)
            }
            "verify" => {
                verify = ["none", "optional", "required"].into_iter().find(|mode| *mode == value);
                (carried_if(verify.is_some()), 2)
            }
            _ => match read_option(word, value, listener, &mut tls) {
                LineOutcome::Foreign => (LineOutcome::Foreign, 1), // what follows may be another option
                outcome => (outcome, 2),
            },
        };
        let (option, after) = rest.split_at(count.min(rest.len()));
        let remark = outcome.remark_about(line.number, &format!("of bind: {}", joined(option)));
        listener.section.remarks.extend(remark);
        rest = after;
    }
    if let Some((ca, verify)) = client_ca.zip(verify.filter(|verify| *verify != "none")) {
        let mode = if verify == "required" { "require" } else { "request" };
        let client_auth = format!("{{ ca_file = {}, mode = \"{mode}\" }}", quoted(ca));
        tls.keys.insert("client_auth", client_auth);
    }
    tls
}

/// Reads an option with a value. `Foreign`: `word` is not one of these options.
fn read_option(word: &str, value: &str, listener: &mut ImportedListener, tls: &mut ImportedTls) -> LineOutcome {
    match word {
        "name" | "process" | "shards" | "thread" => LineOutcome::Carried,
        "crt" => {
            let entry = certificate(value);
            let is_valid = entry.is_some();
            tls.certificates
                .extend(entry.filter(|entry| !tls.certificates.contains(entry)));
            carried_if(is_valid)
        }
        "crt-list" => LineOutcome::LeftOut("write an entry of `certificates` for each line of the file"),
        "alpn" => {
            let protocols = protocols(value);
            let is_valid = protocols.is_some();
            tls.keys
                .extend(protocols.map(|protocols| ("alpn", quoted_list(&protocols))));
            carried_if(is_valid)
        }
        "ssl-min-ver" => {
            if value == "TLSv1.3" {
                tls.keys.insert("min_version", quoted("1.3"));
            }
            // acequia supports no version below 1.2, which is the default.
            carried_if(["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"].contains(&value))
        }
        "mode" => {
            let is_valid = parse_file_mode(value).is_some();
            if is_valid && listener.bind.iter().any(|address| address.starts_with("unix:")) {
                listener.section.set("unix_mode", quoted(value));
            }
            carried_if(is_valid)
        }
        "backlog" => set_integer(&mut listener.section, "backlog", value, 1..=i32::MAX as u32),
        "maxconn" => match set_integer(&mut listener.section, "max_connections", value, 1..=1 << 30) {
            LineOutcome::Carried => LineOutcome::Noted(String::from(
                "max_connections is a limit for all addresses of a listener together",
            )),
            other => other,
        },
        _ => LineOutcome::Foreign,
    }
}

/// An entry of `certificates`: a file, or a directory if the path ends like one. `None`: the path is not valid.
fn certificate(path: &str) -> Option<String> {
    let key = if path.ends_with('/') { "directory" } else { "cert" };
    let path = path.trim_end_matches('/');
    is_file(path).then(|| format!("{{ {key} = {} }}", quoted(path)))
}

/// The note if a listener has both `accept-proxy` and `expect-proxy`.
pub(super) const ONLY_EXPECTED: &str =
    "only the peers of expect-proxy are believed, also at addresses with accept-proxy";

/// Carries over `accept-proxy` for these addresses. HAProxy believes every peer there.
fn accept_proxy(line: &Line, addresses: &[String], listener: &mut ImportedListener) {
    // `expect-proxy` holds at all addresses of the listener, so it leaves `proxy_addresses` empty.
    let has_expect_proxy = !listener.proxy_peers.is_empty() && listener.proxy_addresses.is_empty();
    let note = if has_expect_proxy {
        ONLY_EXPECTED
    } else {
        listener.accept_proxy_at(addresses);
        "accept-proxy trusts every peer: list the balancers in front in `from`"
    };
    listener.section.remarks.push(Remark::note(line.number, note));
}
