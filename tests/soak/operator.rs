//! Who operates acequia meanwhile, with more zeal than anybody should.

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

/// How often it is looked what the process costs.
const LOOK: Duration = Duration::from_secs(1);

pub struct Operator<'a> {
    pub proxy: &'a Proxy,
    pub site: &'a Site,
    rng: Rng,
    turn: Turn,
    pub done: Done,
}

/// What it has done.
#[derive(Default)]
pub struct Done {
    pub counts: BTreeMap<&'static str, u64>,
    /// What the process cost meanwhile.
    pub costs: Vec<Cost>,
    /// Reloads that were refused, as they had to be.
    pub refused: u64,
    /// What was not as it has to be.
    pub wrong: Vec<String>,
}

impl<'a> Operator<'a> {
    pub fn new(proxy: &'a Proxy, site: &'a Site, rng: Rng) -> Self {
        Self {
            proxy,
            site,
            rng,
            turn: Turn::First,
            done: Done::default(),
        }
    }

    /// Works until there is an outcome, then puts everything back as it was.
    pub fn work_until(mut self, outcome: &Receiver<Outcome>) -> (Done, Outcome) {
        let mut looked = Instant::now();
        let outcome = loop {
            match outcome.try_recv() {
                Ok(outcome) => break outcome,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => panic!("the load has ended by itself"),
            }
            match self.rng.u32(..20) {
                0..3 => self.reload(),
                3 => self.reload_what_is_wrong(),
                4..7 => self.steer(),
                7..11 => self.enable(),
                11..14 => self.kill(),
                14..18 => self.scrape(),
                _ => self.rotate(),
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.done.costs.push(Cost::of(self.proxy));
            }
            sleep(Duration::from_millis(self.rng.u64(20..300)));
        };
        if self.turn == Turn::Second {
            self.reload();
        }
        for host in self.mortal() {
            self.post(host, &json!({ "use": "enabled", "weight": null }));
        }
        (self.done, outcome)
    }

    fn count(&mut self, what: &'static str) {
        *self.done.counts.entry(what).or_default() += 1;
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.done.wrong.push(what());
        }
    }

    fn mortal(&self) -> Vec<&'a Host> {
        self.site.hosts.iter().filter(|host| host.is_mortal).collect()
    }

    fn any_mortal(&mut self) -> &'a Host {
        let mortal = self.mortal();
        mortal[self.rng.usize(..mortal.len())]
    }

    fn reload(&mut self) {
        let turn = match self.turn {
            Turn::First => Turn::Second,
            Turn::Second => Turn::First,
        };
        let text = self.site.config(turn);
        if self.rng.bool() {
            self.count("reload by SIGHUP");
            let is_done = self.proxy.reload(&text);
            self.must(is_done, || "a reload by SIGHUP was not done".to_owned());
        } else {
            self.count("reload by the API");
            self.proxy.rewrite(&text);
            let (status, answer) = unix(self.proxy, "POST", "/api/v1/reload", "");
            self.must(status == 200, || format!("a reload by the API was not done: {answer}"));
        }
        self.turn = turn;
    }

    fn reload_what_is_wrong(&mut self) {
        let text = self.site.config(self.turn);
        match self.rng.u32(..3) {
            0 => {
                self.count("reload of an empty file");
                fs::write(self.proxy.folder().join("acequia.toml"), "").expect("it can be written before");
            }
            1 => {
                self.count("reload of half a file");
                self.proxy.rewrite(&text[..text.len() / 2]);
            }
            _ => {
                self.count("reload of a wrong file");
                self.proxy.rewrite(&text.replace("balance", "balnace"));
            }
        }
        let (status, answer) = unix(self.proxy, "POST", "/api/v1/reload", "");
        self.done.refused += 1;
        self.must(status == 422, || format!("a wrong file was taken: {status} {answer}"));
    }

    fn steer(&mut self) {
        let bodies = [
            json!({ "use": "draining" }),
            json!({ "use": "draining", "close_over": "300ms" }),
            json!({ "use": "disabled" }),
            json!({ "weight": self.rng.u32(..4) }),
        ];
        let body = &bodies[self.rng.usize(..bodies.len())];
        let host = self.any_mortal();
        self.count("steering away");
        self.post(host, body);
    }

    fn enable(&mut self) {
        let host = self.any_mortal();
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
        let metrics = self.proxy.metrics(); // which panics where the format is not as it has to be
        self.must(!metrics.families.is_empty(), || "an empty scrape".to_owned());
        for path in ["/live", "/ready", "/api/v1/state"] {
            let status = self.proxy.get(path).0;
            self.must(status == 200, || format!("{path} answered {status}"));
        }
    }

    fn rotate(&mut self) {
        self.count("log rotation");
        let number = self.done.counts["log rotation"];
        let folder = self.site.logs.path();
        let now = folder.join("access.log");
        fs::rename(&now, folder.join(format!("access-{number}.log"))).expect("the log is there");
        self.proxy.signal(Signal::USR1);
        eventually("the log goes on in a new file", || now.exists());
    }
}
