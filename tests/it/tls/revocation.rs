//! Which of several lists of revoked certificates (CRLs) counts, and what is reported about lists that cannot be used.

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

    /// Why a client with the certificate `own` is refused; `None`: it is served.
    fn refusal(&self, own: &Issued) -> Option<String> {
        let before = self.proxy.access().len();
        let setup = TlsSetup::new(&self.site.authority, &[&TLS13], Some(own));
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
    for lists in [lists.concat(), lists[1].clone() + &lists[0]] {
        assert_eq!(guarded.reload(&authorities, &lists).code, Some(0));
        for (valid, revoked) in valid.iter().zip(&revoked) {
            assert_eq!(guarded.refusal(valid), None);
            assert_eq!(guarded.refusal(revoked).as_deref(), Some("certificate_revoked"));
        }
    }
    // Now each list has the certificate that the other key has signed. These certificates are refused all the same.
    let crossed = [old.revocations(&[&revoked[1]]), new.revocations(&[&revoked[0]])];
    assert_eq!(guarded.reload(&authorities, &crossed.concat()).code, Some(0));
    for (valid, revoked) in valid.iter().zip(&revoked) {
        assert_eq!(guarded.refusal(valid), None);
        assert_eq!(guarded.refusal(revoked).as_deref(), Some("certificate_revoked"));
    }
    // Without a list of the new key, clients whose certificates the new key has signed are refused.
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
fn a_list_that_another_key_has_signed_does_not_lock_out_the_clients() {
    let (own, other) = (Authority::new("clients"), Authority::new("clients"));
    let (valid, revoked) = (own.issue(&["a.example"]), own.issue(&["b.example"]));
    let (list, wrong) = (own.revocations(&[&revoked]), other.revocations(&[]));
    let guarded = Guarded::new(&own.certificate(), &list);
    let reloaded = guarded.reload(&own.certificate(), &wrong);
    assert_eq!(reloaded.code, Some(1), "{reloaded:#?}");
    let checked = guarded.check();
    assert_eq!(checked.code, Some(1), "{checked:#?}");
    let what = "the list of `CN=clients` of 2024-01-01T00:00:00Z is not signed with the key that this authority has in";
    let is_reported = |finished: &Finished| format!("{}{}", finished.stdout, finished.stderr).contains(what);
    assert!(
        is_reported(&reloaded) && is_reported(&checked),
        "{reloaded:#?} {checked:#?}"
    );
    // Beside a valid list, the list of the other key is only reported.
    let refusals = || [&valid, &revoked].map(|client| guarded.refusal(client));
    let expected = [None, Some("certificate_revoked".to_owned())];
    assert_eq!(refusals(), expected);
    for lists in [wrong.clone() + &list, list + &wrong] {
        assert_eq!(guarded.reload(&own.certificate(), &lists).code, Some(0));
        assert_eq!(refusals(), expected);
        let checked = guarded.check();
        assert!(checked.code == Some(0) && is_reported(&checked), "{checked:#?}");
    }
}

#[test]
fn an_authority_in_ca_file_is_refused_if_another_authority_in_ca_file_has_revoked_it() {
    let root = Authority::new("root");
    let (revoked, its_certificate) = root.subordinate("revoked");
    let (below, _) = revoked.subordinate("below");
    let (sibling, _) = root.subordinate("sibling");
    let all = [&root, &revoked, &below, &sibling];
    let authorities: String = all.map(Authority::certificate).concat();
    let lists = |revoked_by_root: &[&Issued]| {
        root.revocations(revoked_by_root) + &[&revoked, &below, &sibling].map(|one| one.revocations(&[])).concat()
    };
    let clients = all.map(|authority| authority.issue(&["a.example"]));
    let guarded = Guarded::new(&authorities, &lists(&[]));
    let refusals = || clients.each_ref().map(|client| guarded.refusal(client));
    assert_eq!(refusals(), [None, None, None, None]);
    assert_eq!(guarded.reload(&authorities, &lists(&[&its_certificate])).code, Some(0));
    let as_revoked = || Some("certificate_revoked".to_owned());
    assert_eq!(refusals(), [None, as_revoked(), as_revoked(), None]);
    let chained = revoked.issue(&["b.example"]).followed_by(&its_certificate);
    assert_eq!(guarded.refusal(&chained), as_revoked());
    let checked = guarded.check();
    for subject in ["CN=revoked", "CN=below"] {
        let warning = format!("`{subject}`, or the authority that has issued it, is revoked by");
        assert!(checked.stderr.contains(&warning), "{checked:#?}");
    }
    assert!(!checked.stderr.contains("`CN=sibling`"), "{checked:#?}");
}

#[test]
fn an_intermediate_authority_is_refused_while_the_key_that_signed_its_issuers_list_is_unknown() {
    let root = Authority::new("root");
    let ((old, old_certificate), (new, new_certificate)) = (root.subordinate("issuer"), root.subordinate("issuer"));
    let (between, its_certificate) = old.subordinate("between");
    let client = between.issue(&["a.example"]).followed_by(&its_certificate);
    let client = client.followed_by(&old_certificate);
    let lists = root.revocations(&[]) + &between.revocations(&[]);
    let guarded = Guarded::new(&root.certificate(), &lists);
    assert_eq!(guarded.refusal(&client), None);
    // The key that signed the new list is not known yet. It may be the old key, so even an empty list leads to a
    // refusal.
    for (revoked, refusal) in [(&[&its_certificate][..], "certificate_revoked"), (&[], "unknown_ca")] {
        let lists = lists.clone() + &new.revocations(revoked);
        assert_eq!(guarded.reload(&root.certificate(), &lists).code, Some(0));
        assert_eq!(guarded.refusal(&client).as_deref(), Some(refusal));
    }
    // This client sends the certificate of the new key, which proves that the new key has signed the list. So there is
    // no list of the old key, and the certificate of `between` is accepted unchecked.
    let of_new = new.issue(&["b.example"]).followed_by(&new_certificate);
    assert_eq!(guarded.refusal(&of_new), None);
    assert_eq!(guarded.refusal(&client), None);
}

#[test]
fn an_intermediate_authority_is_refused_if_the_list_of_another_key_of_the_root_has_it() {
    let (old, new) = (Authority::new("root"), Authority::new("root"));
    let (between, its_certificate) = old.subordinate("between");
    let client = between.issue(&["a.example"]).followed_by(&its_certificate);
    let authorities = old.certificate() + &new.certificate();
    let lists = |revoked: &[&Issued]| between.revocations(&[]) + &new.revocations(revoked);
    let guarded = Guarded::new(&authorities, &lists(&[]));
    assert_eq!(guarded.refusal(&client), None);
    let without_chain = between.issue(&["b.example"]);
    // The result is the same with `between` in `ca_file`, and with an empty list of the old key.
    for authorities in [authorities.clone(), authorities + &between.certificate()] {
        for of_old in [String::new(), old.revocations(&[])] {
            let reload = |revoked: &[&Issued]| guarded.reload(&authorities, &(lists(revoked) + &of_old));
            assert_eq!(reload(&[&its_certificate]).code, Some(0));
            assert_eq!(guarded.refusal(&client).as_deref(), Some("certificate_revoked"));
            assert!(guarded.refusal(&without_chain).is_some());
            assert_eq!(reload(&[]).code, Some(0));
            assert_eq!(guarded.refusal(&client), None);
        }
    }
}

#[test]
fn the_list_of_an_authority_that_may_not_sign_lists_does_not_count() {
    let root = Authority::new("root");
    let (issuer, with_lists) = root.subordinate("issuer");
    let without_lists = root.subordinate_without_lists("issuer", &with_lists);
    let (below, below_certificate) = issuer.subordinate("below");
    let lists = [&root, &issuer, &below].map(|authority| authority.revocations(&[]));
    let guarded = Guarded::new(&root.certificate(), &lists.concat());
    // In the second round, the key of the list is known: the chain with `with_lists` has shown it.
    for (certificate, refusal) in [(&without_lists, Some("unknown_ca")), (&with_lists, None)].repeat(2) {
        let own = issuer.issue(&["a.example"]).followed_by(certificate);
        let of_below = below.issue(&["b.example"]).followed_by(&below_certificate);
        for client in [own, of_below.followed_by(certificate)] {
            assert_eq!(guarded.refusal(&client).as_deref(), refusal);
        }
    }
}

/// `ca_file` does not have the certificate of the intermediate authority. Which lists its key has signed is not known
/// until a client sends this certificate.
#[test]
fn the_newest_list_signed_with_the_key_of_an_intermediate_authority_counts() {
    let root = Authority::new("root");
    let ((issuer, its_certificate), namesake) = (root.subordinate("issuer"), Authority::new("issuer"));
    let revoked = issuer.issue(&["a.example"]).followed_by(&its_certificate);
    let valid = issuer.issue(&["b.example"]).followed_by(&its_certificate);
    let in_days = |days: u64| SystemTime::now() + Duration::from_secs(days * 86_400);
    let lists = [
        root.revocations(&[]),
        issuer.revocations(&[&valid]),
        namesake.revocations_between(&[], in_days(0), in_days(1)),
        issuer.revocations_between(&[&revoked], in_days(0), in_days(1)),
    ];
    let guarded = Guarded::new(&root.certificate(), &lists.concat());
    // Of the lists that the key of `issuer` has signed, the newest counts.
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
        let published = metrics.sum("acequia_crl_next_update_timestamp_seconds", &[("listener", "tls")]);
        assert_eq!(
            published as u64,
            next_update.duration_since(UNIX_EPOCH).unwrap().as_secs()
        );
    }
}

/// Makes an authority `clients`, and its list `clients.crl`, with openssl. `extensions` are further lines of openssl's
/// configuration.
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
    let name_and_century = "the list of `CN=clients` of 20";
    for (extensions, error) in [
        ("crlnumber = number\n", None),
        (
            "",
            Some("version 2 with a number is needed (openssl ca: `crlnumber` in its configuration)"),
        ),
        (
            &format!("{extended}2.5.29.27 = critical, DER:020101\n"),
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
