//! The operator: reloads, overrides servers, kills sessions, scrapes metrics and rotates logs, all the time.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cost::Cost;
use crate::load::Outcome;
use crate::site::{Host, Site, Turn};
use crate::support::api::unix;
use crate::support::eventually;
use crate::support::proxy::Proxy;

/// The least time between two samples of the resources of the process.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

pub struct Operator<'a> {
    pub proxy: &'a Proxy,
    pub site: &'a Site,
    rng: Rng,
    /// The configuration in force.
    turn: Turn,
    pub work: OperatorWork,
}

/// The actions of the operator, and their results.
#[derive(Default)]
pub struct OperatorWork {
    pub counts: BTreeMap<&'static str, u64>,
    /// The resources of the process, sampled.
    pub costs: Vec<Cost>,
    /// The number of invalid reloads, all of which must be rejected.
    pub invalid_reloads: u64,
    /// Unexpected results.
    pub wrong: Vec<String>,
}

impl<'a> Operator<'a> {
    pub fn new(proxy: &'a Proxy, site: &'a Site, rng: Rng) -> Self {
        Self {
            proxy,
            site,
            rng,
            turn: Turn::First,
            work: OperatorWork::default(),
        }
    }

    /// Works until the load has an outcome, then restores the first configuration and reverts the overrides.
    pub fn work_until(mut self, outcomes: &Receiver<Outcome>) -> (OperatorWork, Outcome) {
        let mut sampled = Instant::now();
        let outcome = loop {
            match outcomes.try_recv() {
                Ok(outcome) => break outcome,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => panic!("the load has ended without an outcome"),
            }
            match self.rng.u32(..20) {
                0..3 => self.reload(),
                3 => self.reload_invalid(),
                4..7 => self.override_server(),
                7..11 => self.enable(),
                11..14 => self.kill(),
                14..18 => self.scrape(),
                _ => self.rotate(),
            }
            if sampled.elapsed() > SAMPLE_INTERVAL {
                sampled = Instant::now();
                self.work.costs.push(Cost::measure(self.proxy));
            }
            sleep(Duration::from_millis(self.rng.u64(20..300)));
        };
        if self.turn == Turn::Second {
            self.reload();
        }
        for host in self.killable() {
            self.post(host, &json!({ "use": "enabled", "weight": null }));
        }
        (self.work, outcome)
    }

    fn count(&mut self, what: &'static str) {
        *self.work.counts.entry(what).or_default() += 1;
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.work.wrong.push(what());
        }
    }

    /// The servers that may die. Only these get overrides.
    fn killable(&self) -> Vec<&'a Host> {
        self.site.hosts.iter().filter(|host| host.is_killable).collect()
    }

    fn any_killable(&mut self) -> &'a Host {
        let killable = self.killable();
        killable[self.rng.usize(..killable.len())]
    }

    fn reload(&mut self) {
        let turn = match self.turn {
            Turn::First => Turn::Second,
            Turn::Second => Turn::First,
        };
        let text = self.site.config(turn);
        if self.rng.bool() {
            self.count("reload by SIGHUP");
            let is_accepted = self.proxy.reload(&text);
            self.must(is_accepted, || "a valid reload by SIGHUP was rejected".to_owned());
        } else {
            self.count("reload by the API");
            self.proxy.rewrite(&text);
            let (status, answer) = unix(self.proxy, "POST", "/api/v1/reload", "");
            self.must(status == 200, || {
                format!("a valid reload by the API was rejected: {answer}")
            });
        }
        self.turn = turn;
    }

    fn reload_invalid(&mut self) {
        let text = self.site.config(self.turn);
        match self.rng.u32(..3) {
            0 => {
                self.count("reload of an empty file");
                // `rewrite` would add the section `[admin]`.
                fs::write(self.proxy.directory().join("acequia.toml"), "").expect("the file is writable");
            }
            1 => {
                self.count("reload of half a file");
                self.proxy.rewrite(&text[..text.len() / 2]);
            }
            _ => {
                self.count("reload of an invalid file");
                self.proxy.rewrite(&text.replace("balance", "balnace"));
            }
        }
        let (status, answer) = unix(self.proxy, "POST", "/api/v1/reload", "");
        self.work.invalid_reloads += 1;
        self.must(status == 422, || {
            format!("an invalid file was accepted: {status} {answer}")
        });
    }

    fn override_server(&mut self) {
        let bodies = [
            json!({ "use": "draining" }),
            json!({ "use": "draining", "close_over": "300ms" }),
            json!({ "use": "disabled" }),
            json!({ "weight": self.rng.u32(..4) }),
        ];
        let body = &bodies[self.rng.usize(..bodies.len())];
        let host = self.any_killable();
        self.count("server override");
        self.post(host, body);
    }

    fn enable(&mut self) {
        let host = self.any_killable();
        self.count("enabling");
        self.post(host, &json!({ "use": "enabled", "weight": null }));
    }

    fn post(&mut self, host: &Host, body: &Value) {
        let path = format!("/api/v1/servers/{}/{}", host.pool, host.name);
        let (status, answer) = unix(self.proxy, "POST", &path, &body.to_string());
        self.must(status == 200, || format!("{path} {body}: {status} {answer}"));
    }

    fn kill(&mut self) {
        let (_, answer) = unix(self.proxy, "GET", "/api/v1/sessions?limit=1000", "");
        let sessions = answer["sessions"].as_array().cloned().unwrap_or_default();
        for _ in 0..self.rng.usize(..3).min(sessions.len()) {
            let id = &sessions[self.rng.usize(..sessions.len())]["id"];
            let (status, answer) = unix(self.proxy, "DELETE", &format!("/api/v1/sessions/{id}"), "");
            self.must(status == 200 || status == 404, || {
                format!("killing {id}: {status} {answer}")
            });
            self.count(if status == 200 { "kill" } else { "kill too late" });
        }
    }

    fn scrape(&mut self) {
        self.count("scrape");
        let metrics = self.proxy.metrics(); // panics on a malformed scrape
        self.must(!metrics.families.is_empty(), || "an empty scrape".to_owned());
        for path in ["/live", "/ready", "/api/v1/state"] {
            let status = self.proxy.get(path).0;
            self.must(status == 200, || format!("{path} answered {status}"));
        }
    }

    fn rotate(&mut self) {
        self.count("log rotation");
        let number = self.work.counts["log rotation"];
        let directory = self.site.logs.path();
        let current = directory.join("access.log");
        fs::rename(&current, directory.join(format!("access-{number}.log"))).expect("the log exists");
        self.proxy.signal(Signal::USR1);
        eventually("a new access log is opened", || current.exists());
    }
}
