//! Servers that are discovered as endpoints of a Service of Kubernetes. The API server is a fake; kubectl can read it,
//! too.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{discovery, reaches_only, wait_for_error};
use crate::support::api;
use crate::support::authority::replace;
use crate::support::client::Client;
use crate::support::counts::{log_count, log_lines};
use crate::support::eventually;
use crate::support::kubernetes::{ApiServer, TOKEN};
use crate::support::process::{Process, must};
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const KEPT: &str = "cannot take the list of servers, keeping the last one";

/// An EndpointSlice whose only endpoint is a pod. Each pod of a test server gets a slice of its own, because a port is
/// that of a whole slice, and each test server has a port of its own.
fn slice(server: &Server, pod: &str, conditions: &Value) -> Value {
    json!({
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [server.address.ip()],
            "conditions": conditions,
            "nodeName": "node-1",
            "targetRef": { "kind": "Pod", "namespace": "default", "name": pod, "uid": "a" },
            "zone": "zone-a",
        }],
        "ports": [{ "name": "pg", "protocol": "TCP", "port": server.address.port() }],
    })
}

fn ready() -> Value {
    json!({ "ready": true, "serving": true, "terminating": false })
}

fn terminating() -> Value {
    json!({ "ready": false, "serving": true, "terminating": true })
}

/// A fake API server, and a directory for the kubeconfig.
struct Cluster {
    api: ApiServer,
    directory: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        Self {
            api: ApiServer::start(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Creates or changes the slice of a ready pod.
    fn put_ready(&self, server: &Server, pod: &str) {
        self.api.put("orders", pod, slice(server, pod, &ready()));
    }

    fn config(&self) -> String {
        self.config_with_user(&format!("{{token: {TOKEN}}}"))
    }

    /// Writes a kubeconfig with this user (a YAML mapping), and returns a configuration that names the file.
    fn config_with_user(&self, user: &str) -> String {
        let file = self.api.kubeconfig(self.directory.path(), user);
        format!("[providers.kubernetes]\nkubeconfig = {file:?}\n{}", listener_and_pool())
    }
}

fn listener_and_pool() -> &'static str {
    "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nbalance = \"round-robin\"\n\
     discover = { kubernetes = \"default/orders\", port = \"pg\", settle = \"0s\" }\n"
}

#[test]
fn servers_follow_the_endpoints_of_a_service_by_one_list_and_one_watch_and_no_session_is_lost() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let cluster = Cluster::start();
    cluster.put_ready(&first, "orders-1");
    cluster.api.put("other", "other-1", slice(&second, "other-1", &ready()));
    let proxy = Proxy::start(&cluster.config());
    assert_eq!(discovery(&proxy)["source"], "kubernetes default/orders");
    let mut old = Client::connect(proxy.at("l"));
    assert_eq!(old.read(5), b"first");

    cluster
        .api
        .put("orders", "orders-1", slice(&first, "orders-1", &terminating()));
    cluster.put_ready(&second, "orders-2");
    eventually("no new session reaches the old pod", || reaches_only(&proxy, "second"));
    assert_eq!(proxy.server("p", "orders-1")["use"], "draining");

    cluster.api.delete("orders-1");
    eventually("the pod is gone", || {
        let state = proxy.answer(&["servers"]);
        !state.to_string().contains("\"name\":\"orders-1\"")
    });
    assert_eq!(old.finish().try_read_all().unwrap(), b"");

    let selector = "labelSelector=kubernetes.io%2Fservice-name%3Dorders";
    assert_eq!(cluster.api.queries("list"), [format!("limit=20&continue=&{selector}")]);
    let watches = cluster.api.queries("watch");
    let timeout = watches[0].split_once("timeoutSeconds=").unwrap().1;
    let seconds: u32 = timeout.split_once('&').unwrap().0.parse().unwrap();
    // 176 s, and up to a quarter more at random.
    assert!((176..=220).contains(&seconds), "{watches:?}");
    assert!(watches[0].starts_with("watch=true&resourceVersion=2&allowWatchBookmarks=true&"));
    assert_eq!((watches.len(), log_count(&proxy, KEPT)), (1, 0));
}

#[test]
fn many_slices_are_listed_in_pages() {
    let cluster = Cluster::start();
    let server = Server::named("only");
    for number in 0..45 {
        let mut slice = slice(&server, "", &ready());
        let endpoint = slice["endpoints"][0].take();
        let pods = (0..10).map(|index| {
            let mut endpoint = endpoint.clone();
            endpoint["targetRef"]["name"] = format!("pod-{number}-{index}").into();
            endpoint["addresses"][0] = format!("127.0.{number}.{}", index + 1).into();
            endpoint
        });
        slice["endpoints"] = pods.collect::<Vec<_>>().into();
        cluster.api.put("orders", &format!("orders-{number}"), slice);
    }
    let config = cluster.config() + "health = { check = \"off\" }\n";
    let proxy = Proxy::start(&config);
    let (_, state) = api::unix(&proxy, "GET", "/api/v1/state", "");
    assert_eq!(state["pools"][0]["servers"].as_array().unwrap().len(), 450);
    let queries = cluster.api.queries("list");
    assert_eq!(queries.len(), 3, "{queries:?}");
    assert!(queries[2].contains("&continue=eyJ"), "{queries:?}");
}

#[test]
fn an_ended_watch_continues_from_the_last_bookmark() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let cluster = Cluster::start();
    cluster.put_ready(&first, "orders-1");
    let proxy = Proxy::start(&cluster.config());
    cluster.api.wait_for("watch", 1);
    let version = cluster.api.bookmark();
    cluster.api.end_watches();
    cluster.api.wait_for("watch", 2);
    cluster.put_ready(&second, "orders-1");
    eventually("the second watch is followed", || reaches_only(&proxy, "second"));
    let watches = cluster.api.queries("watch");
    assert!(
        watches[1].contains(&format!("resourceVersion={version}&")),
        "{watches:?}"
    );
    assert_eq!((cluster.api.queries("list").len(), log_count(&proxy, KEPT)), (1, 0));
}

#[test]
fn after_an_expired_watch_all_slices_are_listed_again() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let cluster = Cluster::start();
    cluster.put_ready(&first, "orders-1");
    let proxy = Proxy::start(&cluster.config());
    cluster.api.wait_for("watch", 1);
    cluster.api.compact();
    cluster.api.end_watches(); // the next one asks for a version before the compaction
    cluster.api.wait_for("list", 2);
    cluster.put_ready(&second, "orders-1");
    eventually("the new list is watched", || reaches_only(&proxy, "second"));
    assert_eq!((cluster.api.queries("list").len(), log_count(&proxy, KEPT)), (2, 0));
}

#[test]
fn servers_stay_while_the_api_server_is_unreachable_or_lists_none_that_is_ready() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let cluster = Cluster::start();
    cluster.put_ready(&first, "orders-1");
    let proxy = Proxy::start(&cluster.config());
    cluster.api.set_unreachable(true);
    log_lines(&proxy, KEPT, 1);
    assert!(reaches_only(&proxy, "first"));
    cluster.put_ready(&second, "orders-1");
    cluster.api.set_unreachable(false);
    eventually("the endpoints are followed again", || reaches_only(&proxy, "second"));

    cluster.api.put(
        "orders",
        "orders-1",
        slice(&second, "orders-1", &json!({ "ready": false })),
    );
    wait_for_error(&proxy, "none of its 1 endpoints is ready");
    cluster.api.delete("orders-1");
    wait_for_error(&proxy, "it has no EndpointSlice");
    assert!(reaches_only(&proxy, "second"));
}

#[test]
fn lists_that_expire_before_they_are_complete_are_an_error() {
    let first = Server::named("first");
    let cluster = Cluster::start();
    cluster.put_ready(&first, "orders-1");
    cluster.api.expire_lists(true);
    let proxy = Proxy::setup(&cluster.config()).launch();
    wait_for_error(
        &proxy,
        "the API server answers 410 Gone to list: The provided continue parameter is too old",
    );
    cluster.api.expire_lists(false);
    eventually("it is listed again", || reaches_only(&proxy, "first"));
}

#[test]
fn a_refusal_names_the_missing_permission_and_shows_no_token() {
    let first = Server::named("first");
    let cluster = Cluster::start();
    cluster.put_ready(&first, "orders-1");
    let token = cluster.directory.path().join("token");
    replace(&token, "wrong-2\n");
    let config = cluster.config_with_user("{tokenFile: token}");
    let proxy = Proxy::setup(&config).launch(); // not `start`: without a list, acequia is not ready for 30 s
    wait_for_error(
        &proxy,
        &format!("401: it does not accept the token in {}", token.display()),
    );
    replace(&token, &format!("{TOKEN}\n"));
    eventually("the file is read again", || reaches_only(&proxy, "first"));

    for verb in ["list", "watch"] {
        cluster.api.forbid(Some(verb));
        cluster.api.compact();
        cluster.api.end_watches();
        let rule = "a Role in namespace `default` must allow get, list, watch of endpointslices.discovery.k8s.io";
        wait_for_error(
            &proxy,
            &format!("403 to {verb}: {rule}: endpointslices.discovery.k8s.io is forbidden: User"),
        );
        assert!(reaches_only(&proxy, "first"));
        cluster.api.forbid(None);
        eventually("it is allowed again", || discovery(&proxy)["up"] == true);
    }
    let log = proxy.log();
    assert!(log.iter().all(|line| !line.to_string().contains("wrong-2")), "{log:#?}");
}

#[test]
fn a_client_certificate_can_log_in() {
    let first = Server::named("first");
    let cluster = Cluster {
        api: ApiServer::for_certificates(),
        directory: tempfile::tempdir().unwrap(),
    };
    cluster.put_ready(&first, "orders-1");
    cluster
        .api
        .authority()
        .issue(&["acequia"])
        .write(cluster.directory.path(), "own");
    let user = "{client-certificate: own.pem, client-key: own.key}";
    let proxy = Proxy::start(&cluster.config_with_user(user));
    assert!(reaches_only(&proxy, "first"));
}

/// Runs acequia as in a pod whose service account is in this directory.
fn launch_in_pod(api: &ApiServer, directory: &Path) -> Proxy {
    let port = format!("KUBERNETES_SERVICE_PORT={}", api.port());
    let account = "/run/secrets/kubernetes.io/serviceaccount";
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p {account} && mount --bind {} {account} && exec \"$@\"",
        directory.display()
    );
    let words = [
        "unshare",
        "-m",
        "sh",
        "-c",
        &script,
        "sh",
        "env",
        "KUBERNETES_SERVICE_HOST=127.0.0.1",
        &port,
    ];
    Proxy::setup(listener_and_pool()).under(&words).launch()
}

#[test]
fn in_a_pod_the_service_account_is_used_and_its_changed_token_is_read() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let api = ApiServer::start();
    api.put("orders", "orders-1", slice(&first, "orders-1", &ready()));
    let directory = tempfile::tempdir().unwrap();
    replace(&directory.path().join("ca.crt"), &api.authority().certificate());
    replace(&directory.path().join("token"), "expired-0");
    let proxy = launch_in_pod(&api, directory.path());
    wait_for_error(
        &proxy,
        "it does not accept the token in /var/run/secrets/kubernetes.io/serviceaccount/token",
    );
    replace(&directory.path().join("token"), TOKEN);
    eventually("the new token is read", || reaches_only(&proxy, "first"));
    api.put("orders", "orders-1", slice(&second, "orders-1", &ready()));
    eventually("the endpoints are followed", || reaches_only(&proxy, "second"));
}

#[test]
fn outside_of_a_cluster_the_error_asks_for_a_kubeconfig() {
    let proxy = Proxy::setup(listener_and_pool()).launch();
    wait_for_error(
        &proxy,
        "outside of a cluster, name a file by `kubeconfig` in [providers.kubernetes]",
    );
}

/// kubectl proves that the fake API server behaves like a real one.
#[test]
fn kubectl_can_read_the_fake_api_server() {
    let server = Server::named("first");
    let cluster = Cluster::start();
    for pod in ["orders-1", "orders-2", "orders-3"] {
        cluster.put_ready(&server, pod);
    }
    let file = cluster
        .api
        .kubeconfig(cluster.directory.path(), &format!("{{token: {TOKEN}}}"));
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new("kubectl");
        command
            .env("HOME", cluster.directory.path())
            .arg("--kubeconfig")
            .arg(&file);
        command
            .args(["get", "endpointslices", "-l", "kubernetes.io/service-name=orders"])
            .args(arguments);
        command
    };
    let listed = must(&mut kubectl(&["--chunk-size=2", "-o", "json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["metadata"]["name"])
        .collect();
    assert_eq!(names, ["orders-1", "orders-2", "orders-3"]);
    assert!(
        cluster.api.queries("list")[1].contains("continue=eyJ"),
        "{:?}",
        cluster.api.queries("list")
    );

    let mut watching = Process::start(&mut kubectl(&["--watch", "--output-watch-events", "-o", "json"]));
    cluster.api.wait_for("watch", 1);
    cluster.api.delete("orders-2");
    eventually("kubectl sees the event", || {
        let lines = watching.stdout.lines();
        lines.iter().any(|line| line.contains("\"DELETED\""))
    });
    watching.kill();
}
