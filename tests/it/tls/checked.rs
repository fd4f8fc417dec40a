//! What `acequia check` reports about the files of certificates and keys.

use std::fs;
use std::process::Command;

use super::site::Site;
use crate::support::authority::replace;
use crate::support::process::{finished, must};
use crate::support::proxy::{acequia, checked, config_directory};

/// Runs openssl(1) in the directory of the site.
fn openssl(site: &Site, arguments: &str) {
    let mut command = Command::new("openssl");
    must(command.current_dir(site.directory()).args(arguments.split(' ')));
}

/// The exit code and the standard error.
fn check(site: &Site) -> (Option<i32>, String) {
    checked(&site.config("127.0.0.1:9".parse().unwrap(), "", ""))
}

#[test]
fn a_certificate_of_version_1_is_accepted_with_one_warning() {
    let site = Site::new();
    openssl(
        &site,
        "req -new -newkey rsa:2048 -nodes -keyout other.key -subj /CN=v1.example -out request",
    );
    openssl(
        &site,
        "x509 -req -in request -signkey other.key -days 90 -out other.pem",
    );
    let (code, said) = check(&site);
    assert!(
        code == Some(0) && said.contains("other.pem: the certificate is for no host name"),
        "{said}"
    );
    let routes = "[[listeners.tls.routes]]\nsni = \"shop.example\"\npool = \"p\"\n";
    let config = site.config("127.0.0.1:9".parse().unwrap(), "", routes);
    let without_default_pool = config.replacen("pool = \"p\"\n", "", 1);
    let (_, said) = checked(&without_default_pool);
    assert_eq!(
        said.matches("other.pem: ").count(),
        1,
        "no second warning about the missing route: {said}"
    );
}

#[test]
fn a_certificate_only_for_clients_causes_a_warning() {
    let site = Site::new();
    openssl(
        &site,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -days 90 \
         -subj /CN=other.example -addext subjectAltName=DNS:other.example -addext extendedKeyUsage=clientAuth",
    );
    let (code, said) = check(&site);
    let expected = "other.pem: the certificate is not for servers (extendedKeyUsage): clients refuse it";
    assert!(code == Some(0) && said.contains(expected), "{said}");
}

#[test]
fn a_wrong_file_is_reported_for_each_section_that_names_it() {
    let site = Site::new();
    replace(&site.directory().join("ca.pem"), "");
    let ca = site.file("ca.pem");
    let auth = format!("client_auth = {{ ca_file = {ca} }}");
    let pool = format!("[pools.q]\nservers = [\"127.0.0.1:9\"]\ntls = {{ ca_file = {ca} }}\n");
    let text = site.config("127.0.0.1:9".parse().unwrap(), &auth, &pool);
    let (code, said) = checked(&text);
    assert_eq!(code, Some(1), "{said}");
    let directory = config_directory("acequia.toml", &text);
    let run = finished(acequia(&["run", "-c"]).arg(directory.path().join("acequia.toml")));
    assert_eq!(run.code, Some(1), "{run:#?}");
    for section in ["listeners.tls.tls", "pools.q.tls"] {
        assert!(said.contains(&format!("error: {section}: ")), "{section}: {said}");
        let lines = run.stderr.lines().filter(|line| line.contains(&format!("{section}: ")));
        assert_eq!(lines.count(), 1, "{section}: {run:#?}");
    }
}

#[test]
fn a_truncated_file_is_reported_as_truncated() {
    let site = Site::new();
    for file in ["other.pem", "other.key"] {
        let whole = fs::read_to_string(site.directory().join(file)).unwrap();
        replace(&site.directory().join(file), &whole[..whole.len() / 2]);
        let (code, said) = check(&site);
        let expected = format!("{file}: not whole: a section has a `-----BEGIN` line, and no `-----END` line");
        assert!(code == Some(1) && said.contains(&expected), "{said}");
        replace(&site.directory().join(file), &whole);
    }
}
