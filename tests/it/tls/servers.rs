//! TLS with servers: the bytes that they get, refusals of certificates, and the results of failures.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::{scope, spawn};

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::client::Client;
use crate::support::configs::{listener, pool};
use crate::support::counts::{log_count, log_lines, wait_for_ended_sessions};
use crate::support::eventually;
use crate::support::proxy::{Proxy, checked};
use crate::support::server::{ManualServer, Server};
use crate::support::stream::{read_to_end, reset};
use crate::support::tls_server::ManualTlsServer;
use rustls::version::{TLS12, TLS13};

const RESET: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

/// A listener `l` for clients without TLS, whose servers get TLS. `tls` are further lines of `[pools.p.tls]`, and
/// `keys` of `[pools.p]`.
fn config(site: &Site, servers: &[SocketAddr], tls: &str, keys: &str) -> String {
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    let keys = format!("{keys}\n[pools.p.tls]\nca_file = {}\n{tls}\n", site.file("ca.pem"));
    listener("l", "p", "") + &pool("p", servers, &keys)
}

const UNCHECKED: &str = "health = { check = \"off\" }";

fn start(site: &Site, server: &ManualTlsServer, tls: &str) -> Proxy {
    Proxy::start(&config(site, &[address(server)], tls, UNCHECKED))
}

fn address(server: &ManualTlsServer) -> SocketAddr {
    server.manual.server.address
}

/// A server whose certificate is for its IP address.
fn local(site: &Site) -> ManualTlsServer {
    ManualTlsServer::new(&site.authority.issue(&["127.0.0.1"]))
}

#[test]
fn cleartext_of_a_client_reaches_the_server_in_tls() {
    let site = Site::new();
    let certificate = site.authority.issue(&["127.0.0.1"]);
    for (versions, version) in [([&TLS13], "1.3"), ([&TLS12], "1.2")] {
        let server = ManualTlsServer::with(&certificate, &versions, None);
        let proxy = start(&site, &server, "");
        let mut client = Client::connect(proxy.at("l"));
        client.send(b"a request").finish();
        let mut session = server.session();
        assert_eq!(session.0.conn.server_name(), None, "an address is not sent as a name");
        assert_eq!(session.read_to_end(), (b"a request".to_vec(), Ok(())));
        session.send(b"an answer").finish();
        assert_eq!(client.read_all(), b"an answer");
        let line = proxy.access_line();
        assert_eq!(
            (&line["ending"], &line["server_tls"]),
            (&"client_closed".into(), &version.into())
        );
        assert_eq!((&line["bytes_up"], &line["bytes_down"]), (&9.into(), &9.into()));
        assert!(line["tls"].is_null(), "{line:#}");
    }
}

#[test]
fn megabytes_pass_both_ways_at_once_and_a_half_close_follows_them() {
    const BYTES: usize = 6_000_000;
    let site = Site::new();
    let server = local(&site);
    let proxy = start(&site, &server, "");
    let mut client = Client::connect(proxy.at("l"));
    let echo = spawn(move || {
        let mut session = server.session();
        let mut received = Vec::new();
        let mut buffer = vec![0; 50_000];
        loop {
            let read = session.0.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..read]);
            session.send(&buffer[..read]);
        }
        session.finish();
        received
    });
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let mut back = vec![0; BYTES];
    scope(|all| {
        all.spawn(|| (&client.0).write_all(&sent).unwrap());
        (&client.0).read_exact(&mut back).unwrap();
    });
    client.finish();
    assert_eq!(client.read_all(), b"");
    assert!(back == sent && echo.join().unwrap() == sent);
}

#[test]
fn sni_and_alpn_of_the_client_can_be_used_for_the_server() {
    let site = Site::new();
    let server = ManualTlsServer::new(&site.authority.issue(&["shop.example", "*.shop.example"]));
    let server = server.selecting(&["h2", "http/1.1"]);
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    let tls = format!(
        "{}\n[pools.p.tls]\nca_file = {}\nsni = \"client\"\nalpn = \"client\"",
        UNCHECKED,
        site.file("ca.pem")
    );
    let config = site
        .config(address(&server), "alpn = [\"http/1.1\"]", "")
        .replace(UNCHECKED, &tls);
    let proxy = Proxy::start(&config);
    let setup = site.client().offering(&["h2", "http/1.1"]);
    let client = spawn({
        let at = proxy.at("tls");
        move || {
            let mut client = setup.connect(at, "a.shop.example").unwrap();
            client.send(b"?").finish();
            client.read_to_end()
        }
    });
    let mut session = server.session();
    assert_eq!(session.0.conn.server_name(), Some("a.shop.example"));
    assert_eq!(session.protocol().as_deref(), Some("http/1.1"));
    assert_eq!(session.read_to_end(), (b"?".to_vec(), Ok(())));
    session.send(b"!").finish();
    assert_eq!(client.join().unwrap(), (b"!".to_vec(), Ok(())));
    let line = proxy.access_line();
    assert_eq!((&line["tls"], &line["server_tls"]), (&"1.3".into(), &"1.3".into()));
}

#[test]
fn after_a_failed_handshake_another_server_is_tried_and_the_failure_is_counted() {
    let site = Site::new();
    let stranger = ManualTlsServer::new(&Authority::new("stranger").issue(&["127.0.0.1"]));
    let (right, plain) = (local(&site), Server::named("220 no TLS here"));
    let servers = [address(&stranger), plain.address, address(&right)];
    let keys = "balance = \"round-robin\"\nhealth = { check = \"off\", eject_after = 2, eject_max_percent = 100 }";
    let proxy = Proxy::start(&config(&site, &servers, "", keys));
    let _refusing = spawn(move || {
        while let Some(socket) = stranger.manual.try_session() {
            assert!(stranger.over(socket).is_err());
        }
    });
    for _ in 0..6 {
        let mut client = Client::connect(proxy.at("l"));
        let mut session = right.session();
        session.send(b"served").finish();
        assert_eq!(client.read_all(), b"served");
    }
    let metrics = proxy.metrics();
    for server in &servers[..2] {
        let labels = [("reason", "tls"), ("server", &*server.to_string())];
        let failures = metrics.sum("acequia_connect_failures_total", &labels);
        assert!(failures >= 2.0, "{server}: {failures}");
    }
    let reasons = log_lines(&proxy, "server is ejected", 2);
    assert!(
        reasons.iter().all(|line| line["reason"] == "tls")
            && reasons
                .iter()
                .any(|line| line["error"].as_str().unwrap().contains("UnknownIssuer")),
        "{reasons:#?}"
    );
    let lines = proxy.access_lines(6);
    let retried = |line: &&serde_json::Value| line["attempts"].as_u64() > Some(1);
    assert!(lines.iter().filter(retried).count() >= 2, "{lines:#?}");
    assert!(
        lines
            .iter()
            .all(|line| line["tls_error"].is_null() && line["tls_refusal"].is_null()),
        "each session has succeeded at last: {lines:#?}"
    );
}

#[test]
fn the_access_log_shows_why_the_server_certificate_is_refused() {
    let site = Site::new();
    for (issued, error, refusal) in [
        (
            Authority::new("stranger").issue(&["127.0.0.1"]),
            "unknown_ca",
            "no trusted authority has issued it",
        ),
        (
            site.authority.issue_expired(&["127.0.0.1"]),
            "certificate_expired",
            "expired",
        ),
        (
            site.authority.issue(&["other.example"]),
            "bad_certificate",
            "other.example",
        ),
    ] {
        let server = ManualTlsServer::new(&issued);
        let proxy = start(&site, &server, "");
        let _refusing = spawn(move || {
            while let Some(socket) = server.manual.try_session() {
                assert!(server.over(socket).is_err());
            }
        });
        let _ = Client::connect(proxy.at("l")).try_read_all();
        let line = proxy.access_line();
        assert_eq!(
            (line["ending"].as_str(), line["tls_error"].as_str()),
            (Some("connect_failed"), Some(error))
        );
        assert!(line["tls_refusal"].as_str().unwrap().contains(refusal), "{line:#?}");
    }
}

#[test]
fn a_server_that_requests_a_certificate_gets_the_configured_one() {
    let (site, clients) = (Site::new(), Authority::new("clients"));
    let client_certificate = clients.issue(&["balancer.example"]);
    client_certificate.write(site.directory(), "client");
    let server_certificate = site.authority.issue(&["127.0.0.1"]);
    let server = ManualTlsServer::with(&server_certificate, &[&TLS13], Some(&clients));
    let identity = format!("cert = {}\nkey = {}", site.file("client.pem"), site.file("client.key"));
    let proxy = start(&site, &server, &identity);
    let listed = &proxy.answer(&["cert", "list"])["certificates"][0];
    assert_eq!(
        (&listed["pool"], &listed["names"][0]),
        (&"p".into(), &"balancer.example".into())
    );
    let table = proxy.command(&["cert", "list"]).stdout;
    assert!(table.contains("pool p") && table.contains("client.pem"), "{table}");
    let labels = [("pool", "p"), ("name", "balancer.example")];
    let metrics = proxy.metrics();
    assert!(metrics.sum("acequia_certificate_expiry_timestamp_seconds", &labels) > 1e9);
    let status = proxy.command(&["status"]).stdout;
    assert!(
        status.contains("pool p: its certificate for servers expires "),
        "{status}"
    );
    let mut client = Client::connect(proxy.at("l"));
    let mut session = server.session();
    assert_eq!(session.certificate(), client_certificate.chain_and_key().0[0]);
    session.send(b"served").finish();
    assert_eq!(client.read_all(), b"served");
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let site = Site::new();
    let server = local(&site);
    let keys = format!("proxy_protocol = \"v1\"\n{UNCHECKED}");
    let proxy = Proxy::start(&config(&site, &[address(&server)], "", &keys));
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"?").finish();
    let mut socket = server.manual.session();
    let (from, to) = (client.0.local_addr().unwrap(), client.0.peer_addr().unwrap());
    let header = format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
    let mut received = vec![0; header.len()];
    socket.read_exact(&mut received).unwrap();
    assert_eq!(String::from_utf8_lossy(&received), header);
    let mut session = server.over(socket).unwrap();
    assert_eq!(session.read_to_end(), (b"?".to_vec(), Ok(())));
}

#[test]
fn a_truncated_server_stream_resets_the_client() {
    let site = Site::new();
    let server = local(&site);
    let proxy = start(&site, &server, "");
    for (ended_sessions, client_has_finished) in [(1, false), (2, true)] {
        let mut client = Client::connect(proxy.at("l"));
        let mut session = server.session();
        if client_has_finished {
            client.finish();
            assert_eq!(session.read_to_end(), (Vec::new(), Ok(())));
        }
        session.send(b"half an answer");
        assert_eq!(client.read(14), b"half an answer");
        session.truncate();
        client.must_be_reset();
        wait_for_ended_sessions(&proxy, "server_truncated", ended_sessions);
    }
}

#[test]
fn resets_are_passed_on_both_ways() {
    let site = Site::new();
    let server = local(&site);
    let proxy = start(&site, &server, "");
    let mut client = Client::connect(proxy.at("l"));
    let mut first = server.session();
    first.send(&[9; 50_000]);
    assert_eq!(client.read(50_000), [9; 50_000]);
    reset(first.0.sock);
    client.must_be_reset();
    wait_for_ended_sessions(&proxy, "server_reset", 1);
    let client = Client::connect(proxy.at("l"));
    let mut second = server.session();
    client.reset();
    assert_eq!(second.read_to_end(), (Vec::new(), RESET));
    wait_for_ended_sessions(&proxy, "client_reset", 1);
}

#[test]
fn tls_sessions_are_resumed_with_each_server() {
    let site = Site::new();
    let certificate = site.authority.issue(&["127.0.0.1"]);
    for versions in [[&TLS13], [&TLS12]] {
        let servers = [(); 2].map(|()| ManualTlsServer::with(&certificate, &versions, None));
        let addresses = [address(&servers[0]), address(&servers[1])];
        let keys = format!("balance = \"round-robin\"\n{UNCHECKED}");
        let proxy = Proxy::start(&config(&site, &addresses, "", &keys));
        let resumed = (0..4).map(|n| {
            let mut client = Client::connect(proxy.at("l"));
            let mut session = servers[n % 2].session();
            let is_resumed = session.is_resumed();
            session.send(b"served").finish(); // the tickets come before these bytes
            assert_eq!(client.read_all(), b"served");
            is_resumed
        });
        assert_eq!(resumed.collect::<Vec<_>>(), [false, false, true, true]);
    }
}

#[test]
fn a_stalled_server_handshake_ends_after_connect_timeout() {
    let (site, silent) = (Site::new(), ManualServer::new());
    let keys = format!("connect_timeout = \"300ms\"\nretries = 0\n{UNCHECKED}");
    let proxy = Proxy::start(&config(&site, &[silent.server.address], "", &keys));
    let mut client = Client::connect(proxy.at("l"));
    let mut held = silent.session();
    assert_eq!(client.read_all(), b"");
    assert_eq!(
        read_to_end(&mut held).1,
        Ok(()),
        "expected the end of the stream after the ClientHello"
    );
    let line = proxy.access_line();
    assert_eq!(line["ending"], "connect_failed");
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_connect_failures_total", &[("reason", "timeout")]),
        1.0
    );
}

#[test]
fn a_changed_tls_file_is_used_unless_it_is_broken() {
    let site = Site::new();
    let server = local(&site);
    let proxy = start(&site, &server, "");
    let is_served = || {
        let mut client = Client::connect(proxy.at("l"));
        let handshake = server.over(server.manual.session()).map(|mut session| {
            session.send(b"served").finish();
        });
        handshake.is_ok() && client.read_all() == b"served"
    };
    assert!(is_served());
    let file = site.directory().join("ca.pem");
    replace(&file, "no certificate");
    eventually("the broken file is reported", || {
        log_count(&proxy, "a TLS file is broken: the files read before stay in force") == 1
    });
    assert!(is_served());
    let error = "ca.pem: there is no certificate in it";
    let status = proxy.command(&["status"]).stdout;
    assert!(
        status.contains("pool p: a TLS file is broken, the files read before stay in force") && status.contains(error),
        "{status}"
    );
    let reloaded = proxy.command(&["reload"]);
    assert!(
        reloaded.code == Some(1) && reloaded.stderr.contains(error),
        "{reloaded:#?}"
    );
    let failed = proxy.command(&["cert", "reload"]);
    assert!(
        failed.code == Some(1) && failed.stderr.contains("pool p: ") && failed.stderr.contains(error),
        "{failed:?}"
    );
    replace(&file, &Authority::new("another").certificate());
    eventually("the new authorities are in force", || {
        log_count(&proxy, "TLS files read again") == 1
    });
    let refused = spawn({
        let address = proxy.at("l");
        move || Client::connect(address).read_all()
    });
    // The proxy refuses the certificate with an alert, and there is no other server to try.
    assert!(server.over(server.manual.session()).is_err());
    assert_eq!(refused.join().unwrap(), b"");
}

#[test]
fn checks_use_the_tls_of_the_pool() {
    let site = Site::new();
    let certificate = site.authority.issue(&["127.0.0.1"]);
    let (right, wrong) = (
        ManualTlsServer::new(&certificate),
        ManualTlsServer::new(&Authority::new("x").issue(&["127.0.0.1"])),
    );
    let keys = "health = { check = \"tls\", interval = \"50ms\" }";
    let servers = [address(&right), address(&wrong)];
    let _serving = [right, wrong].map(|server| {
        spawn(move || {
            while let Some(socket) = server.manual.try_session() {
                let _ = server.over(socket).map(|mut session| session.read_to_end());
            }
        })
    });
    let proxy = Proxy::start(&config(&site, &servers, "", keys));
    eventually("the wrong server is down", || !is_up(&proxy, servers[1]));
    assert!(is_up(&proxy, servers[0]));
    let reason = proxy.server("p", &servers[1].to_string())["reason"].to_string();
    assert!(reason.contains("invalid peer certificate"), "{reason}");
}

fn is_up(proxy: &Proxy, server: SocketAddr) -> bool {
    proxy.server("p", &server.to_string())["up"] == true
}

#[test]
fn the_check_command_reads_the_tls_files_of_pools() {
    let site = Site::new();
    let config = config(&site, &["127.0.0.1:1".parse().unwrap()], "", UNCHECKED);
    assert_eq!(checked(&config), (Some(0), String::new()));
    let with_identity = config.replace(
        "ca_file",
        &format!("cert = {}\nkey = {}\nca_file", site.file("o.pem"), site.file("o.key")),
    );
    for (days, warning) in [
        (1..90, "not valid before"),
        (-90..1, "expires soon"),
        (-90..-1, "has expired on"),
    ] {
        site.authority
            .issue_between(&["o.example"], days)
            .write(site.directory(), "o");
        let (code, said) = checked(&with_identity);
        assert!(
            code == Some(0) && said.contains("pools.p.tls: ") && said.contains(warning),
            "{said}"
        );
    }
    replace(&site.directory().join("ca.pem"), "no certificate");
    let (code, said) = checked(&config);
    assert!(
        code == Some(1) && said.contains("pools.p.tls") && said.contains("no certificate"),
        "{code:?} {said}"
    );
}
