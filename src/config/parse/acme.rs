//! `[acme.NAME]`: accounts with ACME servers, and the certificates that listeners order with them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::address::InvalidValue;
use super::list::entries;
use super::named::NamedSections;
use super::pool_tls::host_name;
use super::{Problems, Section, value};
use crate::acme::{AcmePlan, ChallengeKind, ExternalAccount};
use crate::config::file::KeyValue;
use crate::config::keys;
use crate::guard::NetworkSet;
use crate::name::ServerName;
use crate::plan::{GuardPlan, ListenerPlan};
use crate::tls::{AcmeCertificate, CertificateLocation};

/// The maximum number of names that common ACME servers accept for one certificate.
const NAMES_MAX: usize = 100;

/// The accounts of the file, by name.
pub(super) struct AcmeAccounts<'a> {
    /// Each with its index in `in_order`.
    sections: NamedSections<'a, usize>,
    pub(super) in_order: Vec<AcmePlan>,
    /// The names of each certificate, by the file of the certificate.
    names_by_file: HashMap<PathBuf, Arc<[ServerName]>>,
}

impl<'a> AcmeAccounts<'a> {
    /// Reads `[acme]`.
    pub(super) fn read(file: &Section<'a>, runtime_state_dir: Option<&Path>, problems: &mut Problems<'_>) -> Self {
        // The first account with each `state_dir`.
        let mut by_state_dir: HashMap<PathBuf, &str> = HashMap::new();
        let convert = |entry: &'a KeyValue, problems: &mut Problems<'_>| {
            let plan = account(entry, runtime_state_dir, problems)?;
            let first = *by_state_dir.entry(plan.state_dir.clone()).or_insert(&entry.key);
            if first != entry.key {
                let message = format!("`{}` has the same `state_dir` as `{first}`", entry.key);
                problems.error(&entry.position, message, "give each its own");
            }
            Some(plan)
        };
        let (sections, in_order) = NamedSections::convert(file, ["acme", "account"], problems, |index| index, convert);
        Self {
            sections,
            in_order,
            names_by_file: HashMap::new(),
        }
    }

    /// The certificate that an entry with `acme` and `names` asks for.
    pub(super) fn certificate(
        &mut self,
        section: &Section<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<AcmeCertificate> {
        let names_node = section.required("names", r#"names = ["shop.example.com"]"#, problems);
        let names = entries(section, "names", problems, certificate_name);
        let node = section.get("acme")?;
        let wanted = value::string(node, "write the name of an account: [acme.NAME]", problems)?;
        let index = self.sections.find(wanted, &node.position, None, problems)?;
        let first = names.first()?;
        let position = names_node.map_or(&node.position, |node| &node.position);
        if names.len() > NAMES_MAX {
            problems.error(
                position,
                "too many names for one certificate",
                format!("at most {NAMES_MAX}"),
            );
        }
        let account = &self.in_order[index];
        let file = account.state_dir.join(format!("{}.pem", first.as_str()));
        let names: Arc<[ServerName]> = names.into();
        let known_names = self.names_by_file.entry(file.clone());
        let known_names = known_names.or_insert_with(|| Arc::clone(&names));
        if *known_names != names {
            let hint = "write the same names in the same order everywhere, or begin with a different name";
            problems.error(
                position,
                "another certificate has the same first name, but another list of names",
                hint,
            );
        }
        Some(AcmeCertificate {
            acme: Arc::clone(&account.name),
            names,
            file,
        })
    }

    /// Warns of accounts that order nothing, of challenges that no listener answers, and of guards that may keep out an
    /// ACME server.
    pub(super) fn warn(&self, listeners: &[Arc<ListenerPlan>], guards: &[Arc<GuardPlan>], problems: &mut Problems<'_>) {
        let has_redirect = listeners.iter().any(|listener| listener.redirect.is_some());
        for KeyValue { key, position, .. } in self.sections.entries {
            let Some(index) = self.sections.id(key) else { continue };
            let (account, is_used) = (&self.in_order[index], self.sections.is_used(key));
            if !is_used {
                let hint = format!(
                    "add certificates = [{{ acme = \"{}\", names = [\"…\"] }}] to a listener",
                    account.name
                );
                problems.warning(position, format!("`{}` orders no certificate", account.name), hint);
            } else if account.challenge == ChallengeKind::Http01 && !has_redirect {
                let hint = "add a listener with `bind` at port 80 and `redirect`";
                problems.warning(position, "no listener answers the challenge http-01", hint);
            }
            if is_used && let Some((listener, guard)) = excluding_guard(account, listeners, guards) {
                let message = format!(
                    "only clients in `allow` of `{guard}` reach listener `{listener}`, to which the ACME server connects"
                );
                let remedy = match account.challenge {
                    ChallengeKind::TlsAlpn01 => {
                        "guard the routes instead of the listener: guards of routes are asked after the challenge is answered"
                    }
                    ChallengeKind::Http01 => "remove the guard from that listener, which only redirects",
                };
                problems.warning(position, message, format!("unless the server is among them: {remedy}"));
            }
        }
    }
}

/// Finds a listener with a guard that may keep out the ACME server of this account, and returns the names of both. Such
/// a guard allows only some networks. A listener does not count if all challenges that are expected at it are also
/// expected at listeners without such a guard.
fn excluding_guard<'p>(
    account: &AcmePlan,
    listeners: &'p [Arc<ListenerPlan>],
    guards: &'p [Arc<GuardPlan>],
) -> Option<(&'p str, &'p str)> {
    let file_of = |location: &'p CertificateLocation| match location {
        CertificateLocation::Acme(ordered) if ordered.acme == account.name => Some(&*ordered.file),
        _ => None,
    };
    // The files of the certificates whose challenges are expected at a listener, because it has these certificates;
    // `None` stands for all certificates.
    let expected = |listener: &'p Arc<ListenerPlan>| -> Vec<Option<&'p Path>> {
        match account.challenge {
            ChallengeKind::TlsAlpn01 => {
                let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
                certificates.filter_map(file_of).map(Some).collect()
            }
            ChallengeKind::Http01 => listener.redirect.iter().map(|_| None).collect(),
        }
    };
    let server = server_address(account);
    let excludes = |guard: &&'p Arc<GuardPlan>| {
        let may_exclude_server =
            |allow: &NetworkSet| !allow.has_all_of_a_family() && !server.is_some_and(|address| allow.contains(address));
        !guard.rules.report_only && guard.rules.allow.as_ref().is_some_and(may_exclude_server)
    };
    let guard_of = |listener: &'p ListenerPlan| listener.guards.iter().map(|id| &guards[id.0]).find(excludes);
    let open = listeners.iter().filter(|listener| guard_of(listener).is_none());
    let expected_without_guard: HashSet<_> = open.flat_map(expected).collect();
    listeners.iter().find_map(|listener| {
        let guard = guard_of(listener)?;
        let is_excluding = expected(listener)
            .iter()
            .any(|challenge| !expected_without_guard.contains(challenge));
        is_excluding.then_some((&*listener.name, &*guard.name))
    })
}

/// The address of the ACME server, if the URL `directory` has an IP address instead of a host name.
fn server_address(account: &AcmePlan) -> Option<IpAddr> {
    let directory: hyper::Uri = account.directory.parse().ok()?;
    directory.host()?.trim_matches(['[', ']']).parse().ok()
}

fn account(entry: &KeyValue, runtime_state_dir: Option<&Path>, problems: &mut Problems<'_>) -> Option<AcmePlan> {
    let KeyValue {
        key: name,
        position,
        node,
    } = entry;
    let section = Section::open(node, position, &keys::ACME, problems)?;
    let directory = section.required("directory", r#"directory = "https://acme.example/directory""#, problems);
    let directory = directory.and_then(|node| value::parsed(node, https_url, problems));
    let challenges = [ChallengeKind::TlsAlpn01, ChallengeKind::Http01].map(|kind| (kind.as_str(), kind));
    if name.contains('/') || name.starts_with('.') {
        let hint = "write it without `/`, and without `.` at its beginning: it is the name of a directory";
        problems.error(position, "invalid name of an account", hint);
    }
    let configured = section.directory("state_dir", problems);
    let state_dir = configured.or_else(|| Some(runtime_state_dir?.join("acme").join(name)));
    if state_dir.is_none() && section.is_missing("state_dir") {
        let hint = format!("add state_dir = \"/var/lib/acequia/acme/{name}\", or `state_dir` to [runtime]");
        problems.error(position, "`state_dir` is missing", hint);
    }
    Some(AcmePlan {
        name: name.as_str().into(),
        directory: directory.unwrap_or_default(),
        contact: entries(&section, "contact", problems, contact),
        ca_file: section.path("ca_file", problems),
        eab: external_account(&section, problems),
        challenge: section.one_of("challenge", &challenges, problems).unwrap_or_default(),
        state_dir: state_dir?,
    })
}

fn external_account(account: &Section<'_>, problems: &mut Problems<'_>) -> Option<ExternalAccount> {
    let (position, node) = account.entry("eab")?;
    let section = Section::open(node, position, &keys::EAB, problems)?;
    let key_id = section.required("key_id", r#"key_id = "kid-1""#, problems);
    let key_file = section.required("key_file", r#"key_file = "/etc/acequia/eab""#, problems);
    Some(ExternalAccount {
        key_id: value::string(key_id?, "write \"kid-1\"", problems)?.into(),
        key_file: value::path(key_file?, problems)?,
    })
}

fn https_url(text: &str) -> Result<Box<str>, InvalidValue> {
    let is_https = text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    if is_https && text.parse::<hyper::Uri>().is_ok() {
        return Ok(text.into());
    }
    let hint = String::from("write \"https://HOST/PATH\"");
    Err((format!("`{text}` is not a URL of https"), hint))
}

fn contact(text: &str) -> Result<Box<str>, InvalidValue> {
    if text.starts_with("mailto:") && text.contains('@') {
        return Ok(text.into());
    }
    let hint = String::from("write \"mailto:ops@example.com\"");
    Err((format!("`{text}` is not a URL of a mail address"), hint))
}

fn certificate_name(text: &str) -> Result<ServerName, InvalidValue> {
    if text.starts_with("*.") {
        let hint = String::from(
            "its challenge is dns-01, which acequia does not have: order it elsewhere, and name its file in `cert`",
        );
        return Err((format!("`{text}`: no wildcard can be ordered"), hint));
    }
    host_name(text)
}
