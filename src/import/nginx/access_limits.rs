//! Who may connect and how much a client may take: `ssl_verify_client` (ngx_stream_ssl_module), `limit_conn`
//! (ngx_stream_limit_conn_module), `proxy_download_rate` and `proxy_upload_rate` (ngx_stream_proxy_module).

use super::super::imported::{ImportedListener, Remark, SESSIONS_MAX, quoted};
use super::super::number::clamped_integer;
use super::Targets;
use super::block::{Directive, NOT_A_FILE, last};

/// The directives that are read here.
pub(super) const KNOWN: [&str; 8] = [
    "limit_conn",
    "limit_conn_dry_run",
    "proxy_download_rate",
    "proxy_upload_rate",
    "ssl_client_certificate",
    "ssl_crl",
    "ssl_trusted_certificate",
    "ssl_verify_client",
];

/// The highest rate that is carried over, in KiB a second.
const RATE_MAX_KIB: u64 = 1 << 30;

/// Whether the value of this variable is different for each client.
fn is_client(variable: &str) -> bool {
    matches!(
        variable.replace(['{', '}'], "").as_str(),
        "$binary_remote_addr" | "$remote_addr"
    )
}

/// The name of the zone if a `limit_conn_zone` counts by client.
pub(super) fn client_zone(directive: &Directive) -> Option<&str> {
    let zone = directive.word(2)?.strip_prefix("zone=")?.split(':').next()?;
    is_client(directive.word(1)?).then_some(zone)
}

/// Sets the limits of a server.
pub(super) fn read(all: &[&Directive], targets: &mut Targets, listener: &mut ImportedListener) {
    limit_sessions(all, targets, listener);
    limit_bandwidth(all, listener);
}

fn limit_sessions(all: &[&Directive], targets: &mut Targets, listener: &mut ImportedListener) {
    let mut least: Option<u32> = None;
    let is_dry = last(all, "limit_conn_dry_run").is_some_and(|directive| directive.word(1) == Some("on"));
    for directive in all.iter().filter(|directive| directive.name() == "limit_conn") {
        let number = |text: &str| clamped_integer(text, 0, SESSIONS_MAX);
        let limit = directive.word(2).and_then(number).filter(|limit| *limit > 0);
        let zone_uses = directive.word(1).and_then(|zone| targets.client_zones.get_mut(zone));
        let counted = zone_uses.zip(limit).filter(|_| !is_dry);
        let Some((zone_uses, limit)) = counted else {
            let why = match is_dry {
                true => "it only reports, as does a guard with `report_only = true`",
                false => "only limits for each client are carried over",
            };
            listener.section.remarks.push(directive.left_out(why));
            continue;
        };
        *zone_uses += 1;
        if *zone_uses > 1 {
            let note =
                "nginx counts a client's sessions on all servers with this zone together: use one guard for them";
            listener.section.remarks.push(Remark::note(directive.line, note));
        }
        // nginx applies all limits, so that the lowest one decides.
        least = Some(least.map_or(limit, |least| least.min(limit)));
    }
    if let Some(limit) = least {
        listener.limits.set("sessions_per_source", limit.to_string());
    }
}

/// A rate such as `100k` in KiB a second, at least 1; `None`: the value is 0 (no limit), a variable, or not a rate.
fn rate(directive: &Directive) -> Option<u64> {
    let text = directive.word(1)?.to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(digits) => (digits, text.as_bytes()[digits.len()]),
        None => (text.as_str(), b'b'),
    };
    let number: u64 = digits.parse().ok().filter(|number| *number > 0)?;
    let kib = match unit {
        b'b' => number.div_ceil(1 << 10),
        b'k' => number,
        b'm' => number.saturating_mul(1 << 10),
        _ => number.saturating_mul(1 << 20),
    };
    Some(kib.min(RATE_MAX_KIB))
}

fn limit_bandwidth(all: &[&Directive], listener: &mut ImportedListener) {
    let directives = ["proxy_download_rate", "proxy_upload_rate"].map(|name| last(all, name));
    let rates = directives.map(|directive| directive.and_then(rate));
    for (directive, rate) in directives.into_iter().zip(rates) {
        if let Some(directive) = directive.filter(|directive| rate.is_none() && directive.word(1) != Some("0")) {
            listener.section.remarks.push(directive.left_out("not a rate"));
        }
    }
    let Some(most) = rates.into_iter().flatten().max() else {
        return;
    };
    listener.limits.set("bandwidth_per_session", format!("\"{most}KiB/s\""));
    let are_equal = rates == [Some(most); 2];
    if !are_equal {
        let text = "bandwidth_per_session limits both directions alike; nginx has a rate for each";
        listener.section.remarks.push(Remark::note(0, text));
    }
}

/// Sets `client_auth`, for the addresses that terminate TLS.
///
/// # Errors
/// Why the server cannot be carried over: it would be open to all clients, which it is not in nginx.
pub(super) fn client_auth(all: &[&Directive], listener: &mut ImportedListener) -> Result<(), &'static str> {
    let Some(directive) = last(all, "ssl_verify_client") else {
        return Ok(());
    };
    if !listener.has_tls_address() {
        return Ok(());
    }
    let mode = match directive.word(1) {
        Some("off") => return Ok(()),
        Some("on") => "require",
        Some("optional") => "request",
        _ => {
            let why = "acequia verifies each client certificate that it requests";
            listener.section.remarks.push(directive.left_out(why));
            return Ok(());
        }
    };
    let file = |name: &str| last(all, name).and_then(Directive::file).map(quoted);
    let invalid_crl = last(all, "ssl_crl").filter(|directive| directive.file().is_none());
    let remark = invalid_crl.map(|directive| directive.left_out(NOT_A_FILE));
    listener.section.remarks.extend(remark);
    let ca_file = file("ssl_client_certificate").or_else(|| file("ssl_trusted_certificate"));
    let mut certificates = all.iter().filter(|directive| directive.name() == "ssl_certificate");
    let has_certificate = certificates.any(|directive| directive.file().is_some());
    match ca_file {
        Some(ca_file) if has_certificate => {
            let crl = file("ssl_crl").map_or(String::new(), |crl| format!(", crl_file = {crl}"));
            let value = format!("{{ ca_file = {ca_file}, mode = \"{mode}\"{crl} }}");
            listener.tls.keys.insert("client_auth", value);
            Ok(())
        }
        // Without `ssl_certificate` (it may be in an included file, which is not read), TLS would be passed on, so that
        // acequia would request no certificates of clients.
        _ if mode == "require" && !has_certificate => {
            Err("it requires certificates of clients, and ssl_certificate is missing")
        }
        None if mode == "require" => Err("it requires certificates of clients, and ssl_client_certificate is missing"),
        _ => {
            let why = if has_certificate {
                "ssl_client_certificate is missing"
            } else {
                "ssl_certificate is missing"
            };
            listener.section.remarks.push(directive.left_out(why));
            Ok(())
        }
    }
}
