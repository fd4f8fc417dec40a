//! Servers that are keys of a real etcd.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::support::api;
use crate::support::client::{Client, server_reached};
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::process::{Port, Process};
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const KEPT: &str = "cannot take the list of servers, keeping the last one";

/// An etcd with a folder and ports of its own.
struct Etcd {
    folder: TempDir,
    client: Port,
    peer: Port,
    process: Option<Process>,
}

impl Etcd {
    fn start() -> Self {
        let mut etcd = Self {
            folder: tempfile::tempdir().unwrap(),
            client: Port::keep(),
            peer: Port::keep(),
            process: None,
        };
        etcd.begin();
        etcd
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client.number())
    }

    fn begin(&mut self) {
        let peer = format!("http://127.0.0.1:{}", self.peer.number());
        let url = self.url();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.folder.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--enable-v2=false"]);
        self.process = Some(Process::start(
            command.env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH),
        ));
        eventually("etcd answers", || {
            self.ask("/v3/kv/range", "{\"key\": \"YQ==\"}").is_some()
        });
    }

    fn stop(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Asks its JSON gateway; `None`: it does not answer, or with an error.
    fn ask(&self, path: &str, body: &str) -> Option<serde_json::Value> {
        self.ask_as(None, path, body)
    }

    fn ask_as(&self, token: Option<&str>, path: &str, body: &str) -> Option<serde_json::Value> {
        let login = token.map(|token| format!("Authorization: {token}"));
        let mut headers = vec!["Content-Type: application/json", "Connection: close"];
        headers.extend(login.as_deref());
        let request = api::request("POST", path, &headers, body);
        let stream = std::net::TcpStream::connect(("127.0.0.1", self.client.number())).ok()?;
        let (status, body) = api::exchange(stream, &request);
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    }

    fn put(&self, key: &str, value: &str) -> i64 {
        self.put_as(None, key, value)
    }

    fn put_as(&self, token: Option<&str>, key: &str, value: &str) -> i64 {
        let (key, value) = (base64(key), base64(value));
        let put = format!("{{\"key\": \"{key}\", \"value\": \"{value}\"}}");
        let answer = self.ask_as(token, "/v3/kv/put", &put).expect("etcd takes the key");
        answer["header"]["revision"].as_str().unwrap().parse().unwrap()
    }

    fn delete(&self, key: &str) {
        let delete = format!("{{\"key\": \"{}\"}}", base64(key));
        self.ask("/v3/kv/deleterange", &delete).expect("etcd deletes the key");
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn config(etcd: &Etcd) -> String {
    format!(
        "[providers.etcd]\nendpoints = [\"{}\"]\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nbalance = \"round-robin\"\ndiscover = {{ etcd = \"/orders/\", settle = \"0s\" }}",
        etcd.url()
    )
}

fn reaches_only(proxy: &Proxy, server: &str) -> bool {
    (0..4).all(|_| server_reached(proxy.at("l")) == server)
}

#[test]
fn servers_follow_the_keys_of_etcd_and_no_session_is_lost() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let etcd = Etcd::start();
    etcd.put("/orders/1", &first.address.to_string());
    etcd.put("/other/1", "127.0.0.1:9");
    let proxy = Proxy::start(&config(&etcd));
    let mut old = Client::connect(proxy.at("l"));
    assert_eq!(old.read(5), b"first");
    etcd.put(
        "/orders/2",
        &format!(r#"{{"address": "{}", "name": "two"}}"#, second.address),
    );
    etcd.delete("/orders/1");
    eventually("the deleted key's server gets no session", || {
        reaches_only(&proxy, "second")
    });
    assert_eq!(old.finish().try_read_all().unwrap(), b"");
    let wrong = "the value of a key is not a server";
    etcd.put("/orders/2", "nonsense");
    let line = &log_lines(&proxy, wrong, 1)[0];
    assert_eq!((&line["key"], &line["kept"]), (&"/orders/2".into(), &true.into()));
    assert!(reaches_only(&proxy, "second"));
    eventually("the invalid value is shown", || {
        let status = proxy.command(&["status"]);
        status
            .stdout
            .contains("p: etcd /orders/: the value of key `/orders/2` is not a server")
    });
    let (_, state) = api::unix(&proxy, "GET", "/api/v1/state", "");
    assert_eq!(state["pools"][0]["servers"][0]["name"], "two");
    assert_eq!(state["pools"][0]["discovery"]["up"], true);
    etcd.put("/orders/2", &second.address.to_string());
    eventually("a valid value ends it", || {
        let (_, state) = api::unix(&proxy, "GET", "/api/v1/state", "");
        state["pools"][0]["discovery"]["warning"].is_null()
    });
}

#[test]
fn an_etcd_that_stops_changes_nothing_and_is_followed_again_even_after_a_compaction() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let mut etcd = Etcd::start();
    etcd.put("/orders/1", &first.address.to_string());
    let proxy = Proxy::start(&config(&etcd));
    etcd.stop();
    log_lines(&proxy, KEPT, 1);
    assert!(reaches_only(&proxy, "first"));
    etcd.begin();
    let revision = etcd.put("/orders/1", &second.address.to_string());
    let compacted = etcd.ask("/v3/kv/compaction", &format!("{{\"revision\": \"{revision}\"}}"));
    assert!(compacted.is_some());
    eventually("its keys are followed again", || reaches_only(&proxy, "second"));
}

#[test]
fn a_login_is_used_and_a_wrong_password_is_told_without_showing_it() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let etcd = Etcd::start();
    etcd.put("/orders/1", &first.address.to_string());
    for (path, body) in [
        ("user/add", r#"{"name": "root", "password": "correct-1"}"#),
        ("role/add", r#"{"name": "root"}"#),
        ("user/grant", r#"{"user": "root", "role": "root"}"#),
        ("enable", "{}"),
    ] {
        assert!(etcd.ask(&format!("/v3/auth/{path}"), body).is_some(), "{path}");
    }
    let password = etcd.folder.path().join("password");
    fs::write(&password, "wrong-2\n").unwrap();
    let login = format!("[providers.etcd]\nuser = \"root\"\npassword_file = {password:?}\n");
    let proxy = Proxy::setup(&config(&etcd).replace("[providers.etcd]\n", &login)).launch();
    let line = log_lines(&proxy, KEPT, 1)[0].to_string();
    assert!(
        line.contains("authentication failed") && !line.contains("wrong-2"),
        "{line}"
    );
    fs::write(&password, "correct-1\n").unwrap();
    eventually("the file is read again", || {
        proxy.metrics().sum("acequia_discovery_up", &[("pool", "p")]) == 1.0
    });
    assert!(reaches_only(&proxy, "first"));
    let login = etcd.ask("/v3/auth/authenticate", r#"{"name": "root", "password": "correct-1"}"#);
    let token = login.unwrap()["token"].as_str().unwrap().to_owned();
    etcd.put_as(Some(&token), "/orders/1", &second.address.to_string());
    eventually("the watch has a login too", || reaches_only(&proxy, "second"));
}
