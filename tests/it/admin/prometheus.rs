//! The alerts and the dashboard that are shipped work with Prometheus.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::mixed_load::{Setting, mixed_load};
use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::database::Redis;
use crate::support::process::Process;
use crate::support::proxy::{Proxy, http_get};
use crate::support::{eventually, wait_for};

fn conf(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(path)
}

/// A Prometheus that scrapes a proxy five times a second, and evaluates the shipped alerts as often, without waiting
/// for their `for`.
struct Prometheus {
    _process: Process,
    _directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Prometheus {
    fn scraping(proxy: &Proxy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rules = fs::read_to_string(conf("prometheus/rules.yml")).unwrap();
        let is_kept = |line: &&str| !line.trim_start().starts_with("for: ");
        let rules: Vec<&str> = rules.lines().filter(is_kept).collect();
        fs::write(directory.path().join("rules.yml"), rules.join("\n")).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
             rule_files: [rules.yml]\n\
             scrape_configs: [{{ job_name: acequia, static_configs: [{{ targets: [\"{}\"] }}] }}]\n",
            proxy.admin()
        );
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let process = Process::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    directory.path().join("data").display()
                ))
                .arg("--web.listen-address=127.0.0.1:0"),
        );
        let address = wait_for("Prometheus listens", || {
            let lines = process.stderr.lines();
            let line = lines.iter().find(|line| line.contains("msg=\"Listening on\""))?;
            line.rsplit_once("address=")?.1.parse().ok()
        });
        Self {
            _process: process,
            _directory: directory,
            address,
        }
    }

    /// The `data` of an answer of its API; `None`: it does not answer yet, or the query is wrong.
    fn get(&self, path: &str) -> Option<Value> {
        let (_, body) = http_get(self.address, path).ok()?;
        // The body may be chunked: then a line with a size stands before the JSON and another after it.
        let json = body.find('{').and_then(|begin| Some(&body[begin..=body.rfind('}')?]))?;
        let answer: Value = serde_json::from_str(json).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// The names of the firing alerts whose label `label` has this value; `None`: it does not answer.
    fn firing(&self, label: &str, value: &str) -> Option<Vec<String>> {
        let alerts = self.get("/api/v1/alerts")?["alerts"].as_array()?.clone();
        let is_meant = |alert: &&Value| alert["state"] == "firing" && alert["labels"][label] == value;
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap().to_owned();
        Some(alerts.iter().filter(is_meant).map(name).collect())
    }

    /// Whether a query finds a sample.
    fn finds(&self, query: &str) -> bool {
        let encoded: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .finish();
        let found = self.get(&format!("/api/v1/query?{encoded}"));
        found.is_some_and(|data| data["result"].as_array().is_some_and(|samples| !samples.is_empty()))
    }
}

#[test]
fn the_alerts_are_valid_and_pass_their_unit_tests() {
    for arguments in [
        ["check", "config", "scrape.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ] {
        // No time limit: promtool computes for seconds, longer on a busy machine, but it never waits for anything.
        let checked = Command::new("promtool")
            .args(arguments)
            .current_dir(conf("prometheus"))
            .output()
            .unwrap();
        assert!(checked.status.success(), "{arguments:?}: {checked:?}");
    }
}

#[test]
fn every_alert_has_a_unit_test() {
    let rules = fs::read_to_string(conf("prometheus/rules.yml")).unwrap();
    let tests = fs::read_to_string(conf("prometheus/rules_test.yml")).unwrap();
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        assert!(tests.contains(&fires), "no test lets {alert} fire");
    }
}

fn no_alerts() -> Option<Vec<String>> {
    Some(Vec::new())
}

/// This alert alone.
fn only(alert: &str) -> Option<Vec<String>> {
    Some(vec![alert.to_owned()])
}

#[test]
fn a_killed_server_fires_its_alerts_and_a_restarted_one_clears_them() {
    let mut server = Redis::start();
    let proxy = Proxy::start(&one_pool(
        &[server.address()],
        "health = { interval = \"100ms\", rise = 1, fall = 1 }",
    ));
    let prometheus = Prometheus::scraping(&proxy);
    let label = server.address().to_string();
    let server_alerts = || prometheus.firing("server", &label);
    let pool_alerts = || prometheus.firing("pool", "p");
    eventually("the server is scraped", || {
        prometheus.finds("acequia_server_healthy == 1")
    });
    assert_eq!((server_alerts(), pool_alerts()), (no_alerts(), no_alerts()));
    server.kill();
    eventually("the alerts fire", || {
        server_alerts() == only("AcequiaServerDown")
            && pool_alerts().is_some_and(|alerts| alerts.iter().any(|alert| alert == "AcequiaPoolUnusable"))
    });
    server.restart();
    eventually("the alerts are over", || {
        server_alerts() == no_alerts() && pool_alerts() == no_alerts()
    });
}

#[test]
fn a_server_that_awaits_failback_fires_an_alert_until_it_is_enabled() {
    let mut server = Redis::start();
    let proxy = Proxy::start(&one_pool(
        &[server.address()],
        "failback = \"manual\"\nhealth = { interval = \"100ms\", rise = 1, fall = 1 }",
    ));
    let prometheus = Prometheus::scraping(&proxy);
    let label = server.address().to_string();
    let server_alerts = || prometheus.firing("server", &label);
    eventually("the server is scraped", || {
        prometheus.finds("acequia_server_healthy == 1")
    });
    server.kill();
    eventually("the alert for a dead server fires", || {
        server_alerts() == only("AcequiaServerDown")
    });
    server.restart();
    eventually("the alert for an awaited failback fires", || {
        server_alerts() == only("AcequiaServerAwaitsFailback")
            && prometheus.finds("acequia_pool_servers{state=\"awaiting_failback\"} == 1")
    });
    proxy.answer(&["server", "enable", &format!("p/{label}")]);
    eventually("the alerts are over", || {
        server_alerts() == no_alerts() && prometheus.finds("acequia_server_usable == 1")
    });
}

#[test]
fn every_expression_of_the_dashboard_finds_data() {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(conf("grafana/acequia.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let mut missing: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect();
    assert!(missing.len() > 20, "{missing:?}");
    let setting = Setting::start();
    let prometheus = Prometheus::scraping(&setting.proxy);
    eventually("the proxy is scraped", || prometheus.finds("acequia_build_info"));
    mixed_load(&setting.proxy);
    let narrow = setting.proxy.at("narrow");
    let first = Client::connect(narrow);
    let second = Client::connect(narrow); // the listener's `max_connections` is reached: accepting pauses
    let query = |expression: &str| {
        let variables = ["$instance", "$listener", "$pool"];
        let all = variables
            .iter()
            .fold(expression.to_owned(), |text, variable| text.replace(variable, ".*"));
        all.replace("$__rate_interval", "1m")
    };
    eventually(&format!("all of these find data: {missing:#?}"), || {
        missing.retain(|expression| !prometheus.finds(&query(expression)));
        missing.is_empty()
    });
    drop((first, second));
}
