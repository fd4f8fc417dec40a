use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;

use super::*;
use crate::tls::CertificateFiles;

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

/// The admin port answers on the thread that checks servers and handles signals: a file system that hangs must not
/// stop these.
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
fn new_and_removed_certificates_are_counted_one_by_one() {
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
