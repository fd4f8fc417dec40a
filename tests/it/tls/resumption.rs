//! Until when clients can resume their sessions.

use std::fs;

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::tls_client::TlsSetup;
use rustls::version::TLS13;

fn is_resumed(setup: &TlsSetup, proxy: &Proxy) -> bool {
    let mut client = setup.connect(proxy.at("tls"), "shop.example").unwrap();
    assert_eq!(client.read(5), b"hello"); // the tickets came before these bytes
    client.is_resumed()
}

/// Reads the files again after a change.
fn reload(proxy: &Proxy) {
    assert_eq!(proxy.command(&["cert", "reload"]).code, Some(0));
}

#[test]
fn a_client_can_resume_until_the_secret_of_its_ticket_is_removed() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let [first, second] = ["first", "second"].map(|name| format!("{name:x<32}\n"));
    let write_secrets = |text: &str| fs::write(site.directory().join("tickets"), text).unwrap();
    write_secrets(&first);
    let proxy = Proxy::start(&site.config(server.address, &format!("tickets = {}", site.file("tickets")), ""));
    let (frequent, rare) = (site.client(), site.client());
    assert!(!is_resumed(&frequent, &proxy) && !is_resumed(&rare, &proxy));
    write_secrets(&(second.clone() + &first));
    reload(&proxy);
    assert!(is_resumed(&frequent, &proxy), "its ticket is of the first secret");
    write_secrets(&second);
    reload(&proxy);
    assert!(is_resumed(&frequent, &proxy), "its ticket is of the second secret");
    assert!(!is_resumed(&rare, &proxy), "its ticket is of the first secret");
}

#[test]
fn a_change_of_client_authorities_prevents_resumption() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let file = site.directory().join("clients.pem");
    replace(&file, &clients.certificate());
    fs::write(site.directory().join("tickets"), "0123456789abcdef0123456789abcdef\n").unwrap();
    for tickets in [String::new(), format!("tickets = {}", site.file("tickets"))] {
        let keys = format!("client_auth = {{ ca_file = {} }}\n{tickets}", site.file("clients.pem"));
        let proxy = Proxy::start(&site.config(server.address, &keys, ""));
        let setup = TlsSetup::new(&site.authority, &[&TLS13], Some(&clients.issue(&["a.example"])));
        assert_eq!([(); 2].map(|()| is_resumed(&setup, &proxy)), [false, true]);
        replace(&file, &(clients.certificate() + &others.certificate()));
        reload(&proxy);
        assert_eq!([(); 2].map(|()| is_resumed(&setup, &proxy)), [false, true]);
        replace(&file, &clients.certificate());
    }
}
