//! `[pools.NAME.tls]`.

use super::address::InvalidValue;
use super::list::{alpn_protocol, entries};
use super::{Problems, Section, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::name::ServerName;
use crate::tls::{CertificateFiles, OfferedProtocols, PoolTlsPlan, SentSni};

/// The TLS with the servers of a pool; `None`: acequia starts no TLS with them.
pub(super) fn pool_tls(pool: &Section<'_>, problems: &mut Problems<'_>) -> Option<PoolTlsPlan> {
    let (position, node) = pool.entry("tls")?;
    let section = Section::open(node, position, &keys::POOL_TLS, problems)?;
    let verify = section.boolean("verify", problems);
    if verify == Some(false)
        && let Some((position, _)) = section.entry("verify")
    {
        problems.warning(
            position,
            "certificates of servers are not verified: whoever answers at their addresses can read all sessions",
            r#"remove `verify`; add ca_file = "ca.pem" if the system does not trust the authority of their certificates"#,
        );
    }
    let verify = verify.unwrap_or(true);
    let ca_file = section.path("ca_file", problems);
    if !verify && let Some((position, _)) = section.entry("ca_file") {
        problems.warning(
            position,
            "`ca_file` is never used",
            "certificates are not verified with verify = false",
        );
    }
    Some(PoolTlsPlan {
        sni: section.get("sni").map_or(SentSni::Host, |node| sni(node, problems)),
        alpn: if section.get("alpn").is_some_and(is_client) {
            OfferedProtocols::Client
        } else {
            OfferedProtocols::List(entries(&section, "alpn", problems, alpn_protocol))
        },
        verify,
        ca_file,
        identity: identity(&section, ["cert", "key"], "client.pem", problems),
    })
}

/// Whether the value is `client`: what the client sends in its own TLS.
fn is_client(node: &Node) -> bool {
    value::is_text(node, "client")
}

fn sni(node: &Node, problems: &mut Problems<'_>) -> SentSni {
    if is_client(node) {
        return SentSni::Client;
    }
    server_name(node, problems).map_or(SentSni::Host, SentSni::Name)
}

/// A host name.
pub(super) fn server_name(node: &Node, problems: &mut Problems<'_>) -> Option<ServerName> {
    value::parsed(node, host_name, problems)
}

/// Converts a host name.
pub(super) fn host_name(text: &str) -> Result<ServerName, InvalidValue> {
    ServerName::from_config(text).map_err(|error| {
        let hint = String::from("write a host name, as in \"shop.example.com\"");
        (format!("`{text}` is not a host name: {error}"), hint)
    })
}

/// The files of a certificate and its private key. The first configuration key names the file of the certificate, the
/// second that of the private key. Without the second, one file has both.
pub(super) fn certificate_files(
    section: &Section<'_>,
    [cert_setting, key_setting]: [&str; 2],
    problems: &mut Problems<'_>,
) -> Option<CertificateFiles> {
    let cert = section.path(cert_setting, problems);
    let key = section.path(key_setting, problems);
    let cert = cert?;
    Some(CertificateFiles {
        key: key.unwrap_or_else(|| cert.clone()),
        cert,
    })
}

/// The certificate of acequia as a client. `settings` are the two configuration keys of [`certificate_files`];
/// `example` is a value of the first one.
pub(super) fn identity(
    section: &Section<'_>,
    settings: [&str; 2],
    example: &str,
    problems: &mut Problems<'_>,
) -> Option<CertificateFiles> {
    let [cert_setting, key_setting] = settings;
    if let Some((position, _)) = section.entry(key_setting)
        && section.is_missing(cert_setting)
    {
        let message = format!("`{key_setting}` belongs to `{cert_setting}`");
        problems.error(position, message, format!("add {cert_setting} = \"{example}\""));
    }
    certificate_files(section, settings, problems)
}
