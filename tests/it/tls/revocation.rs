//! Which of several lists of revoked certificates (CRLs) counts, and what is reported about lists that cannot be used.
//!
//! A list names the authority that has issued it, but several keys can belong to this name: old and new keys of the
//! authority, and keys of namesakes. Which key has signed a list is known once acequia has seen a certificate of this
//! key: in `ca_file`, or in the chain of a client.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::site::Site;
use crate::support::authority::{Authority, Issued, replace};
use crate::support::process::{Finished, finished, must};
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;
use crate::support::tls_client::TlsSetup;
use rustls::version::TLS13;
use std::io::Read;

/// A listener that requires certificates of clients.
struct Guarded {
    site: Site,
    proxy: Proxy,
    _server: Server,
}

impl Guarded {
    /// `authorities` and `lists` are the texts of `ca_file` and `crl_file`.
    fn new(authorities: &str, lists: &str) -> Self {
        let (site, server) = (Site::new(), Server::named("hello"));
        write(&site, authorities, lists);
        let proxy = Proxy::start(&config(&site, &server));
        Self {
            site,
            proxy,
            _server: server,
        }
    }

    /// Replaces the files, and reloads.
    fn reload(&self, authorities: &str, lists: &str) -> Finished {
        write(&self.site, authorities, lists);
        self.proxy.command(&["cert", "reload"])
    }

    /// Checks the configuration with the files as they are.
    fn check(&self) -> Finished {
        self.proxy.command(&["check", "-c", "acequia.toml"])
    }

    /// Why a client that sends this chain is refused (`tls_error` of the access log); `None`: it is served.
    fn refusal(&self, chain: &Issued) -> Option<String> {
        let before = self.proxy.access().len();
        let setup = TlsSetup::new(&self.site.authority, &[&TLS13], Some(chain));
        let mut greeting = [0; 5];
        let connected = setup.connect(self.proxy.at("tls"), "shop.example");
        let read = connected.and_then(|mut client| client.0.read_exact(&mut greeting));
        let line = self.proxy.access_lines(before + 1).swap_remove(before);
        let error = line["tls_error"].as_str().map(str::to_owned);
        assert_eq!(read.is_ok(), error.is_none(), "{line:#}");
        error
    }
}

fn write(site: &Site, authorities: &str, lists: &str) {
    replace(&site.directory().join("clients.pem"), authorities);
    replace(&site.directory().join("clients.crl"), lists);
}

fn config(site: &Site, server: &Server) -> String {
    let (ca, crl) = (site.file("clients.pem"), site.file("clients.crl"));
    site.config(
        server.address,
        &format!("client_auth = {{ ca_file = {ca}, crl_file = {crl} }}"),
        "",
    )
}

#[test]
fn an_authority_that_changes_its_key_needs_a_list_for_each_key() {
    let (old, new) = (Authority::new("clients"), Authority::new("clients"));
    let issue_by_each = || [&old, &new].map(|authority| authority.issue(&["a.example"]));
    let (valid, revoked) = (issue_by_each(), issue_by_each());
    let authorities = old.certificate() + &new.certificate();
    let lists = [old.revocations(&[&revoked[0]]), new.revocations(&[&revoked[1]])];
    let guarded = Guarded::new(&authorities, &lists.concat());
    for in_any_order in [lists.concat(), lists[1].clone() + &lists[0]] {
        assert_eq!(guarded.reload(&authorities, &in_any_order).code, Some(0));
        for (valid, revoked) in valid.iter().zip(&revoked) {
            assert_eq!(guarded.refusal(valid), None);
            assert_eq!(guarded.refusal(revoked).as_deref(), Some("certificate_revoked"));
        }
    }
    // Now each list has the revoked certificate that the other key has signed. Such certificates are refused, too: the
    // name of the issuer and the serial number identify a certificate, whichever key has signed the list.
    let crossed = [old.revocations(&[&revoked[1]]), new.revocations(&[&revoked[0]])];
    assert_eq!(guarded.reload(&authorities, &crossed.concat()).code, Some(0));
    for (valid, revoked) in valid.iter().zip(&revoked) {
        assert_eq!(guarded.refusal(valid), None);
        assert_eq!(guarded.refusal(revoked).as_deref(), Some("certificate_revoked"));
    }
    // Only the list of the old key: clients whose certificates the new key has signed are refused, valid or not.
    assert_eq!(guarded.reload(&authorities, &lists[0]).code, Some(0));
    assert_eq!(guarded.refusal(&valid[0]), None);
    assert!(guarded.refusal(&valid[1]).is_some());
    let checked = guarded.check();
    assert!(
        checked
            .stderr
            .contains("there is no list of `CN=clients` (serial number "),
        "{checked:#?}"
    );
}

#[test]
fn a_list_of_a_namesake_of_the_authority_does_not_lock_out_the_clients() {
    let (authority, namesake) = (Authority::new("clients"), Authority::new("clients"));
    let (valid, revoked) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
    let (list, of_namesake) = (authority.revocations(&[&revoked]), namesake.revocations(&[]));
    let guarded = Guarded::new(&authority.certificate(), &list);
    // Without a list of the authority, all its clients would be refused, so this file is not accepted.
    let reloaded = guarded.reload(&authority.certificate(), &of_namesake);
    assert_eq!(reloaded.code, Some(1), "{reloaded:#?}");
    let checked = guarded.check();
    assert_eq!(checked.code, Some(1), "{checked:#?}");
    let report =
        "the list of `CN=clients` of 2024-01-01T00:00:00Z is not signed with the key that this authority has in";
    let is_reported = |finished: &Finished| format!("{}{}", finished.stdout, finished.stderr).contains(report);
    assert!(
        is_reported(&reloaded) && is_reported(&checked),
        "{reloaded:#?} {checked:#?}"
    );
    // The list that was read at the start is still in force.
    let refusals = || [&valid, &revoked].map(|client| guarded.refusal(client));
    let expected = [None, Some("certificate_revoked".to_owned())];
    assert_eq!(refusals(), expected);
    // A file that also has the list of the authority is accepted, with a warning about the list of the namesake.
    for lists in [of_namesake.clone() + &list, list + &of_namesake] {
        assert_eq!(guarded.reload(&authority.certificate(), &lists).code, Some(0));
        assert_eq!(refusals(), expected);
        let checked = guarded.check();
        assert!(checked.code == Some(0) && is_reported(&checked), "{checked:#?}");
    }
}

#[test]
fn an_authority_in_ca_file_is_not_trusted_if_another_authority_in_ca_file_has_revoked_it() {
    let root = Authority::new("root");
    let (revoked, revoked_certificate) = root.subordinate("revoked");
    let (below, _) = revoked.subordinate("below");
    let (sibling, _) = root.subordinate("sibling");
    let all = [&root, &revoked, &below, &sibling];
    let authorities: String = all.map(Authority::certificate).concat();
    let lists = |revoked_by_root: &[&Issued]| {
        root.revocations(revoked_by_root)
            + &[&revoked, &below, &sibling]
                .map(|authority| authority.revocations(&[]))
                .concat()
    };
    let clients = all.map(|authority| authority.issue(&["a.example"]));
    let guarded = Guarded::new(&authorities, &lists(&[]));
    let refusals = || clients.each_ref().map(|client| guarded.refusal(client));
    assert_eq!(refusals(), [None, None, None, None]);
    assert_eq!(
        guarded.reload(&authorities, &lists(&[&revoked_certificate])).code,
        Some(0)
    );
    let as_revoked = || Some("certificate_revoked".to_owned());
    assert_eq!(refusals(), [None, as_revoked(), as_revoked(), None]);
    // It does not help the client to send the certificate of the revoked authority, which the root has issued.
    let chained = revoked.issue(&["b.example"]).followed_by(&revoked_certificate);
    assert_eq!(guarded.refusal(&chained), as_revoked());
    let checked = guarded.check();
    for subject in ["CN=revoked", "CN=below"] {
        let warning = format!("`{subject}`, or the authority that has issued it, is revoked by");
        assert!(checked.stderr.contains(&warning), "{checked:#?}");
    }
    assert!(!checked.stderr.contains("`CN=sibling`"), "{checked:#?}");
}

#[test]
fn an_intermediate_authority_is_refused_while_it_is_unknown_which_key_has_signed_its_issuers_list() {
    let root = Authority::new("root");
    // Two keys of one authority. The old key has signed the certificate of `between`.
    let ((old, old_certificate), (new, new_certificate)) = (root.subordinate("issuer"), root.subordinate("issuer"));
    let (between, between_certificate) = old.subordinate("between");
    let client = between.issue(&["a.example"]).followed_by(&between_certificate);
    let client = client.followed_by(&old_certificate);
    let lists = root.revocations(&[]) + &between.revocations(&[]);
    let guarded = Guarded::new(&root.certificate(), &lists);
    // It is rare that all authorities have lists. So an intermediate authority, unlike a client, needs no list of its
    // issuer.
    assert_eq!(guarded.refusal(&client), None);
    // Now there is a list with the name of the issuer. Which key has signed the list is unknown, because no client has
    // sent `new_certificate` yet: the list may be from the issuer of `between` or from a namesake. So even if the list
    // is empty, `between` is refused.
    for (revoked, refusal) in [
        (&[&between_certificate][..], "certificate_revoked"),
        (&[], "unknown_ca"),
    ] {
        let lists = lists.clone() + &new.revocations(revoked);
        assert_eq!(guarded.reload(&root.certificate(), &lists).code, Some(0));
        assert_eq!(guarded.refusal(&client).as_deref(), Some(refusal));
    }
    // The client `of_new` sends `new_certificate`, so that acequia finds out that the new key has signed the list. Then
    // no list of an unknown key remains, and `client` is served again.
    let of_new = new.issue(&["b.example"]).followed_by(&new_certificate);
    assert_eq!(guarded.refusal(&of_new), None);
    assert_eq!(guarded.refusal(&client), None);
}

#[test]
fn an_intermediate_authority_is_refused_if_it_is_in_a_list_that_another_key_of_the_root_has_signed() {
    let (old, new) = (Authority::new("root"), Authority::new("root"));
    let (between, between_certificate) = old.subordinate("between");
    let client = between.issue(&["a.example"]).followed_by(&between_certificate);
    let authorities = old.certificate() + &new.certificate();
    let lists = |revoked: &[&Issued]| between.revocations(&[]) + &new.revocations(revoked);
    let guarded = Guarded::new(&authorities, &lists(&[]));
    assert_eq!(guarded.refusal(&client), None);
    let without_chain = between.issue(&["b.example"]);
    // The result is the same whether or not `between` is in `ca_file`, and whether or not there is an empty list of the
    // old key.
    for authorities in [authorities.clone(), authorities + &between.certificate()] {
        for of_old in [String::new(), old.revocations(&[])] {
            let reload = |revoked: &[&Issued]| guarded.reload(&authorities, &(lists(revoked) + &of_old));
            assert_eq!(reload(&[&between_certificate]).code, Some(0));
            assert_eq!(guarded.refusal(&client).as_deref(), Some("certificate_revoked"));
            assert!(guarded.refusal(&without_chain).is_some());
            assert_eq!(reload(&[]).code, Some(0));
            assert_eq!(guarded.refusal(&client), None);
        }
    }
}

#[test]
fn a_list_does_not_count_if_the_certificate_of_its_authority_does_not_allow_signing_lists() {
    let root = Authority::new("root");
    // Two certificates for one name and one key. Only the first allows signing lists (`cRLSign`).
    let (issuer, with_lists) = root.subordinate("issuer");
    let without_lists = root.subordinate_without_lists("issuer", &with_lists);
    let (below, below_certificate) = issuer.subordinate("below");
    let lists = [&root, &issuer, &below].map(|authority| authority.revocations(&[]));
    let guarded = Guarded::new(&root.certificate(), &lists.concat());
    // The same again after a client has sent `with_lists`: since then it is known which key has signed the list.
    for (certificate, refusal) in [(&without_lists, Some("unknown_ca")), (&with_lists, None)].repeat(2) {
        let of_issuer = issuer.issue(&["a.example"]).followed_by(certificate);
        let of_below = below.issue(&["b.example"]).followed_by(&below_certificate);
        for client in [of_issuer, of_below.followed_by(certificate)] {
            assert_eq!(guarded.refusal(&client).as_deref(), refusal);
        }
    }
}

/// The certificate of the intermediate authority is not in `ca_file`. So which lists its key has signed is not known
/// until a client sends this certificate.
#[test]
fn the_newest_list_signed_with_the_key_of_an_intermediate_authority_counts() {
    let root = Authority::new("root");
    let ((issuer, issuer_certificate), namesake) = (root.subordinate("issuer"), Authority::new("issuer"));
    let revoked = issuer.issue(&["a.example"]).followed_by(&issuer_certificate);
    let valid = issuer.issue(&["b.example"]).followed_by(&issuer_certificate);
    let in_days = |days: u64| SystemTime::now() + Duration::from_secs(days * 86_400);
    let lists = [
        root.revocations(&[]),
        issuer.revocations(&[&valid]),
        namesake.revocations_between(&[], in_days(0), in_days(1)),
        issuer.revocations_between(&[&revoked], in_days(0), in_days(1)),
    ];
    let guarded = Guarded::new(&root.certificate(), &lists.concat());
    // Of the two lists that the key of `issuer` has signed, the newer one counts: `valid` is only in the older one.
    assert_eq!(guarded.refusal(&revoked).as_deref(), Some("certificate_revoked"));
    assert_eq!(guarded.refusal(&valid), None);
}

#[test]
fn the_newest_of_several_lists_of_an_authority_counts() {
    let clients = Authority::new("clients");
    let (valid, revoked) = (clients.issue(&["a.example"]), clients.issue(&["b.example"]));
    let hours_ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
    let next_update = SystemTime::now() + Duration::from_secs(86_400);
    let older = clients.revocations_between(&[&valid], hours_ago(9), hours_ago(5));
    let newer = clients.revocations_between(&[&revoked], hours_ago(6), next_update);
    let guarded = Guarded::new(&clients.certificate(), &(older.clone() + &newer));
    for lists in [older.clone() + &newer, newer + &older] {
        assert_eq!(guarded.reload(&clients.certificate(), &lists).code, Some(0));
        assert_eq!(guarded.refusal(&valid), None);
        assert_eq!(guarded.refusal(&revoked).as_deref(), Some("certificate_revoked"));
        let metrics = guarded.proxy.metrics();
        let shown = metrics.sum("acequia_crl_next_update_timestamp_seconds", &[("listener", "tls")]);
        assert_eq!(shown as u64, next_update.duration_since(UNIX_EPOCH).unwrap().as_secs());
    }
}

/// Makes an authority `clients`, and its list `clients.crl`, with openssl. `extensions` are lines of openssl's
/// configuration that set the extensions of the list.
fn list_of_openssl(directory: &Path, extensions: &str) {
    let openssl = |arguments: &str| {
        must(
            Command::new("openssl")
                .current_dir(directory)
                .args(arguments.split(' ')),
        )
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout clients.key -out clients.pem -days 30 \
         -subj /CN=clients",
    );
    fs::write(directory.join("index.txt"), "").unwrap();
    fs::write(directory.join("number"), "01\n").unwrap();
    let text = format!("[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ndefault_md = sha256\n{extensions}");
    fs::write(directory.join("ca.conf"), text).unwrap();
    openssl("ca -config ca.conf -gencrl -keyfile clients.key -cert clients.pem -crldays 30 -out clients.crl");
}

#[test]
fn an_unusable_list_is_reported_with_its_authority_and_fault() {
    let (site, server) = (Site::new(), Server::named("hello"));
    fs::write(site.directory().join("acequia.toml"), config(&site, &server)).unwrap();
    let check = || {
        let file = site.directory().join("acequia.toml");
        finished(&mut acequia(&["check", "-c", file.to_str().unwrap()]))
    };
    let extended = "crlnumber = number\ncrl_extensions = more\n[more]\n";
    let name_and_century = "the list of `CN=clients` of 20"; // the rest of the date is not known
    // `None`: the list is usable.
    for (extensions, error) in [
        ("crlnumber = number\n", None),
        (
            "",
            Some("version 2 with a number is needed (openssl ca: `crlnumber` in its configuration)"),
        ),
        (
            &format!("{extended}2.5.29.27 = critical, DER:020101\n"), // deltaCRLIndicator
            Some("(delta CRL): the complete list is needed"),
        ),
        (
            &format!("{extended}issuingDistributionPoint = critical, @point\n[point]\nonlyuser = TRUE\n"),
            Some("its issuingDistributionPoint has no full name"),
        ),
        (
            &format!(
                "{extended}issuingDistributionPoint = critical, @point\n[point]\nfullname = URI:http://a.example/\n"
            ),
            None,
        ),
    ] {
        list_of_openssl(site.directory(), extensions);
        let checked = check();
        assert_eq!(
            checked.code,
            Some(i32::from(error.is_some())),
            "{extensions}: {checked:#?}"
        );
        assert!(
            checked.stderr.contains(error.unwrap_or_default()),
            "{extensions}: {checked:#?}"
        );
        assert_eq!(
            checked.stderr.contains(name_and_century),
            error.is_some(),
            "{checked:#?}"
        );
    }
}
