//! Servers that a URL lists.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex};

use super::{discovery, wait_for_error};
use crate::support::authority::{Authority, Issued, replace};
use crate::support::client::server_reached;
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::tls_server::ManualTlsServer;

const KEPT: &str = "cannot take the list of servers, keeping the last one";

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// An HTTP server: its answer to each request, and the requests that it got.
struct Registry {
    server: Server,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn start() -> Self {
        Self::with(None)
    }

    /// A registry that speaks TLS, with this certificate.
    fn over_tls(certificate: &Issued) -> Self {
        Self::with(Some(Mutex::new(ManualTlsServer::new(certificate))))
    }

    fn with(tls: Option<Mutex<ManualTlsServer>>) -> Self {
        let answer = Arc::<Mutex<Vec<u8>>>::default();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (current, seen) = (Arc::clone(&answer), Arc::clone(&requests));
        let respond = move |stream: &mut dyn ReadWrite| {
            let lines = BufReader::new(&mut *stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            seen.lock().unwrap().push(head.join("\n").to_lowercase());
            let answer = current.lock().unwrap().clone();
            let _ = stream.write_all(&answer).and_then(|()| stream.flush()); // the client may not want all of it
        };
        let server = Server::run(move |mut stream| match &tls {
            None => respond(&mut stream),
            Some(tls) => {
                let session = tls.lock().unwrap().over(stream);
                if let Ok(mut session) = session {
                    respond(&mut session.0);
                }
            }
        });
        Self {
            server,
            answer,
            requests,
        }
    }

    fn answer(&self, status: &str, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nETag: \"v1\"\r\nContent-Length: {length}\r\n\r\n");
        *self.answer.lock().unwrap() = (head + body).into_bytes();
    }

    fn list(&self, server: &Server) {
        self.answer("200 OK", &format!("[\"{}\"]", server.address));
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn config(&self) -> String {
        self.config_with("http", "")
    }

    fn config_with(&self, scheme: &str, keys: &str) -> String {
        let url = format!("{scheme}://{}/servers?key=secret", self.server.address);
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\n\
             discover = {{ http = \"{url}\", interval = \"1s\", settle = \"0s\" {keys} }}"
        )
    }
}

#[test]
fn servers_follow_the_list_of_the_url() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let registry = Registry::start();
    registry.list(&first);
    let proxy = Proxy::setup(&registry.config()).without_authorities().start(); // plain HTTP needs none
    eventually("the first list is used", || discovery(&proxy)["up"] == true);
    assert_eq!(server_reached(proxy.at("l")), "first");
    assert_eq!(
        discovery(&proxy)["source"],
        format!("http://{}/servers", registry.server.address)
    );
    assert!(registry.requests()[0].starts_with("get /servers?key=secret http/1.1"));

    registry.answer("304 Not Modified", "");
    let before = registry.requests().len();
    eventually("the registry is asked three more times", || {
        registry.requests().len() > before + 2
    });
    let after_a_304 = &registry.requests()[before + 1];
    assert!(after_a_304.contains("if-none-match: \"v1\""));
    assert!(discovery(&proxy)["error"].is_null());

    registry.list(&second);
    eventually("the new list is used", || server_reached(proxy.at("l")) == "second");
}

#[test]
fn an_answer_that_is_not_usable_changes_nothing() {
    let first = Server::named("first");
    let registry = Registry::start();
    registry.list(&first);
    let proxy = Proxy::start(&registry.config());
    eventually("the list is used", || discovery(&proxy)["up"] == true);
    for (status, body, error) in [
        ("503 Service Unavailable", "[\"127.0.0.1:9\"]", "503"),
        ("301 Moved Permanently", "", "301"),
        ("200 OK", "[\"127.0.0.1:9\"", "EOF"),
        ("200 OK", "[]", "it lists no server"),
        ("200 OK", &" ".repeat((4 << 20) + 1), "length limit exceeded"),
    ] {
        registry.answer(status, body);
        wait_for_error(&proxy, error);
        assert_eq!(server_reached(proxy.at("l")), "first");
        registry.list(&first);
        eventually("the source of servers is up again", || discovery(&proxy)["up"] == true);
    }
    log_lines(&proxy, KEPT, 5);
    assert!(proxy.log().iter().all(|line| !line.to_string().contains("secret")));
}

#[test]
fn the_certificate_of_the_url_is_verified_with_the_current_ca_file() {
    let first = Server::named("first");
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let registry = Registry::over_tls(&ours.issue(&["127.0.0.1"]));
    registry.list(&first);
    let directory = tempfile::tempdir().unwrap();
    let authorities = directory.path().join("ca.pem");
    replace(&authorities, &other.certificate());
    let config = registry.config_with("https", &format!(", ca_file = {authorities:?}"));
    let proxy = Proxy::setup(&config).launch(); // it is not ready without a list
    wait_for_error(&proxy, "no TLS with");
    assert!(registry.requests().is_empty());
    replace(&authorities, &ours.certificate());
    eventually("the file is read again", || discovery(&proxy)["up"] == true);
    assert_eq!(server_reached(proxy.at("l")), "first");
}
