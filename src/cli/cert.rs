//! `acequia cert`: shows the certificates of a running process, orders one by ACME, or has their files read again.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Subcommand;

use super::reload::broken_files_error;
use super::remote::{ApiRequest, Remote, RemoteError};
use super::server::encode;
use super::table::table;
use crate::admin::certificates::{
    CertificateBody, CertificateReloadBody, CertificateReloadsBody, CertificatesBody, PoolTlsReloadBody, RenewBody,
};
use crate::text::{counted, first_and_more};

/// Commands on certificates.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// List the certificates of the admin port, all listeners and all pools, the first to expire first
    List,
    /// Order the certificate for this name by ACME now, even if it is not due or an order has failed
    Renew {
        /// One of the names in the certificate
        name: String,
    },
    /// Read the files of certificates and keys again now; changed files are otherwise found within seconds
    Reload,
}

/// How many names of a certificate are shown.
const NAMES_SHOWN: usize = 4;

/// Runs the command.
#[must_use]
pub fn run(remote: &Remote, command: &CertCommand) -> ExitCode {
    match command {
        CertCommand::List => remote.request(ApiRequest::get("/api/v1/certificates"), |body: CertificatesBody| {
            Ok(certificate_table(body.certificates))
        }),
        CertCommand::Renew { name } => {
            let request = ApiRequest::post(format!("/api/v1/certificates/{}/renew", encode(name)), String::new());
            remote.request(request, |RenewBody { renewing }| {
                Ok(format!(
                    "{renewing} is being ordered: `acequia cert list` and the log show the result\n"
                ))
            })
        }
        CertCommand::Reload => {
            let request = ApiRequest::post("/api/v1/certificates/reload", String::new());
            remote.request_with_partial_failure(request, broken_files, |body| Ok(reloaded(&body)))
        }
    }
}

fn certificate_table(mut certificates: Vec<CertificateBody>) -> String {
    certificates.sort_by(|a, b| a.expires.cmp(&b.expires)); // all are in UTC, and of one length
    let row = |certificate: &CertificateBody| {
        [
            first_and_more(certificate.names.iter(), NAMES_SHOWN).join(" "),
            used_by(certificate),
            certificate.issuer.clone(),
            days_left(&certificate.expires),
            source(certificate),
        ]
    };
    let rows: Vec<_> = certificates.iter().map(row).collect();
    let header = ["NAMES", "USED BY", "ISSUER", "DAYS LEFT", "FROM"];
    let notes = certificates
        .iter()
        .flat_map(|certificate| [renewal(certificate), failure(certificate)]);
    let notes: String = notes.flatten().collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{}{gap}{notes}", table(header, &rows, &["ISSUER", "USED BY"]))
}

/// The listener (or `[admin]`), or the pool, that uses a certificate.
fn used_by(certificate: &CertificateBody) -> String {
    let pool = certificate.pool.as_ref().map(|pool| format!("pool {pool}"));
    pool.or_else(|| certificate.listener.clone()).unwrap_or_default()
}

/// The file or the ACME server that a certificate comes from.
fn source(certificate: &CertificateBody) -> String {
    match &certificate.acme {
        None => certificate.file.clone(),
        Some(acme) if certificate.self_signed => format!("self-signed, until acme {acme} has issued one"),
        Some(acme) => format!("acme {acme}"),
    }
}

/// A line that says that an order of a certificate is under way, or when the next order is and why. After a failed
/// order, [`failure`] shows this.
fn renewal(certificate: &CertificateBody) -> Option<String> {
    let renewal = certificate.renewal.as_ref().filter(|renewal| renewal.failures == 0)?;
    let name = certificate.names.first().map_or("", String::as_str);
    if renewal.under_way {
        return Some(format!("{name}: an order is under way\n"));
    }
    let why = match &*renewal.reason {
        "lifetime" => String::from("two thirds of its lifetime are over then"),
        "suggested" => match &renewal.explanation_url {
            Some(url) => format!("as the ACME server suggests: {url}"),
            None => String::from("as the ACME server suggests"),
        },
        _ => return None,
    };
    Some(format!("{name}: the next order is at {}, {why}\n", renewal.at))
}

/// A line about the failed orders of a certificate, if there are any.
fn failure(certificate: &CertificateBody) -> Option<String> {
    let renewal = certificate.renewal.as_ref()?;
    let error = renewal.error.as_ref()?;
    let name = certificate.names.first().map_or("", String::as_str);
    let failures = counted(usize::try_from(renewal.failures).unwrap_or(usize::MAX), "failed order");
    let next = if renewal.under_way {
        String::from("an order is under way")
    } else {
        format!("the next is at {}", renewal.at)
    };
    Some(format!("{name}: {failures}, {next}: {error}\n"))
}

/// The whole days until an RFC 3339 time.
fn days_left(expires: &str) -> String {
    let expires = humantime::parse_rfc3339(expires).unwrap_or(SystemTime::UNIX_EPOCH);
    match expires.duration_since(SystemTime::now()) {
        Ok(left) => (left.as_secs() / 86_400).to_string(),
        Err(_) => String::from("expired"),
    }
}

/// The error about the files that cannot be used, if there are any.
fn broken_files(body: &CertificateReloadsBody) -> Option<RemoteError> {
    let errors_of_listener = |listener: &CertificateReloadBody| -> Vec<String> {
        let broken = listener.broken.iter();
        broken.map(|what| format!("{}: {what}", listener.listener)).collect()
    };
    let errors_of_pool = |pool: &PoolTlsReloadBody| -> Vec<String> {
        let broken = pool.broken.iter();
        broken.map(|what| format!("pool {}: {what}", pool.pool)).collect()
    };
    let pool_errors = body.pools.iter().flat_map(errors_of_pool);
    let listener_errors = body.listeners.iter().flat_map(errors_of_listener);
    let broken: Vec<_> = listener_errors.chain(pool_errors).collect();
    broken_files_error(&broken)
}

fn reloaded(body: &CertificateReloadsBody) -> String {
    let line = |listener: &CertificateReloadBody| {
        let policy = if listener.policy_changed {
            ", client certificates or tickets changed"
        } else {
            ""
        };
        let changed = counted(listener.changed, "certificate");
        format!("{}: {changed} changed{policy}\n", listener.listener)
    };
    let line_of_pool = |pool: &PoolTlsReloadBody| {
        let what = if pool.changed { "changed" } else { "unchanged" };
        format!("pool {}: {what}\n", pool.pool)
    };
    if body.listeners.is_empty() && body.pools.is_empty() {
        return String::from("no listener or pool has TLS files\n");
    }
    let pools = body.pools.iter().map(line_of_pool);
    body.listeners.iter().map(line).chain(pools).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_days_are_left() {
        let in_hours = |hours: u64| {
            let at = SystemTime::now() + std::time::Duration::from_secs(hours * 3600 + 60);
            days_left(&humantime::format_rfc3339_millis(at).to_string())
        };
        assert_eq!(
            [in_hours(0), in_hours(23), in_hours(24), in_hours(49)],
            ["0", "0", "1", "2"]
        );
        assert_eq!(days_left("2020-01-01T00:00:00.000Z"), "expired");
    }

    #[test]
    fn an_order_under_way_is_shown_whatever_its_reason() {
        for reason in ["not_issued", "lifetime", "suggested", "requested"] {
            let certificate = serde_json::from_value(serde_json::json!({
                "names": ["a.example"], "issuer": "", "valid_from": "", "expires": "", "file": "", "self_signed": false,
                "renewal": { "at": "", "reason": reason, "under_way": true, "failures": 0 },
            }));
            let line = renewal(&certificate.unwrap());
            assert_eq!(line.as_deref(), Some("a.example: an order is under way\n"), "{reason}");
        }
    }
}
