use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;

use super::*;
use crate::tls::CertificateFiles;
use crate::user::run_as;

/// Writes a certificate for this name and its key into a file.
fn write_certificate(file: &Path, name: &str) {
    let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(file, own.cert.pem() + &own.signing_key.serialize_pem()).unwrap();
}

fn loaded(location: CertificateLocation) -> ListenerTls {
    let plan = ListenerTlsPlan {
        certificates: vec![location],
        alpn: Vec::new(),
        min_version: MinVersion::Tls12,
        client_auth: None,
        tickets: None,
        route_alpn: Vec::new(),
    };
    ListenerTls::load(plan, &CertificateStore::default()).unwrap()
}

/// The admin port lists broken files on the thread that also checks servers and handles signals. A reload that waits
/// for a file system must not block this thread.
#[test]
fn broken_files_can_be_listed_during_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("own.pem");
    write_certificate(&file, "own.example");
    let files = CertificateFiles {
        cert: file.clone(),
        key: file,
    };
    let tls = Arc::new(loaded(CertificateLocation::Files(files)));
    let _reading = tls.reload.lock();
    let (answers, answer) = channel();
    spawn({
        let tls = Arc::clone(&tls);
        move || answers.send(tls.broken())
    });
    assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(Vec::new()));
}

#[test]
fn a_reload_counts_new_and_removed_certificates_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(format!("{name}.pem"));
    for name in ["a", "b"] {
        write_certificate(&file(name), &format!("{name}.example"));
    }
    let tls = loaded(CertificateLocation::Directory(directory.path().to_owned()));
    assert_eq!(tls.reload().certificates, 0);
    std::fs::remove_file(file("b")).unwrap();
    write_certificate(&file("c"), "c.example");
    assert_eq!(tls.reload().certificates, 2, "one is new, and one is gone");
    std::fs::remove_file(file("c")).unwrap();
    assert_eq!(tls.reload().certificates, 1);
}

#[test]
fn a_subdirectory_that_cannot_be_read_keeps_its_certificates_and_does_not_affect_others() {
    let set_mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    let (inner, file) = (directory.path().join("inner"), |name| directory.path().join(name));
    std::fs::create_dir(&inner).unwrap();
    write_certificate(&inner.join("a.pem"), "a.example");
    write_certificate(&file("b.pem"), "b.example");
    let tls = loaded(CertificateLocation::Directory(directory.path().to_owned()));
    set_mode(&inner, 0);
    write_certificate(&file("c.pem"), "c.example");
    let reload = || tls.reload();
    let reloaded = match rustix::process::geteuid().is_root() {
        true => run_as("nobody", reload).unwrap(), // root can read any directory
        false => reload(),
    };
    set_mode(&inner, 0o755);
    assert_eq!(reloaded.certificates, 1);
    let broken = &reloaded.broken;
    assert!(broken[0].contains("/inner: Permission denied"), "{broken:?}");
    let names: Vec<_> = tls
        .certificates()
        .all()
        .iter()
        .map(|certificate| certificate.names[0].to_string())
        .collect();
    assert_eq!(names, ["b.example", "c.example", "a.example"]);
}
