//! Clones that hooks start and stop: which failures there are, and how they are reported.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::scale::clones;
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// A directory for the scripts of hooks, and for the files that they write.
struct Hooks(tempfile::TempDir);

impl Hooks {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the scripts that start and stop a clone. Returns the configuration of a pool with this many clones.
    fn config(&self, clones: u32, start: &str, stop: &str) -> String {
        let script = |name: &str, text: &str| {
            let file = self.file(name);
            fs::write(&file, text).unwrap();
            format!("[\"/bin/sh\", {file:?}, \"{{name}}\", \"{{address}}\"]")
        };
        let (start, stop) = (script("start", start), script("stop", stop));
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n[pools.app.scale]\nmin = {clones}\nmax = {clones}\n\
             sessions_per_server = 10\nhook = {{ start = {start}, stop = {stop} }}\n"
        )
    }

    /// A shell command for the script `stop`. It appends the script's arguments, as a line, to what [`Self::stopped`]
    /// returns.
    fn record_stop(&self) -> String {
        format!("echo \"$1 $2\" >> {}", self.file("stopped").display())
    }

    /// The arguments of all calls of `stop`, a line for each call: the name and the address of the clone.
    fn stopped(&self) -> String {
        fs::read_to_string(self.file("stopped")).unwrap_or_default()
    }
}

fn first_clone(proxy: &Proxy) -> Value {
    clones(proxy)[0].clone()
}

#[test]
fn a_failed_start_is_reported_before_the_clone_is_stopped() {
    let hooks = Hooks::new();
    let stop_may_end = hooks.file("stop_may_end");
    let stop = format!(
        "{}; while [ ! -e {} ]; do sleep 0.05; done",
        hooks.record_stop(),
        stop_may_end.display()
    );
    let config = hooks.config(
        1,
        "echo 10.0.7.3:8080; echo booting >&2; echo no disk >&2; exit 3",
        &stop,
    );
    let proxy = Proxy::setup(&config).launch();
    let failed = &log_lines(&proxy, "a clone cannot be started", 1)[0];
    let reason = "the hook `start` has failed: exit status: 3: no disk";
    assert_eq!(failed["reason"], reason);
    let printed = log_lines(&proxy, "printed by a clone", 2);
    assert_eq!(
        (&printed[0]["line"], &printed[1]["line"]),
        (&"booting".into(), &"no disk".into())
    );
    eventually("the clone is being stopped", || {
        first_clone(&proxy)["state"] == "stopping"
    });
    assert_eq!(first_clone(&proxy)["reason"], reason);
    eventually("`stop` gets the address", || hooks.stopped() == "app-1 10.0.7.3:8080\n");
    fs::write(stop_may_end, "").unwrap();
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn the_reason_of_a_failed_hook_ends_with_the_last_line_of_its_standard_error() {
    let hooks = Hooks::new();
    let config = hooks.config(1, "echo connecting >&2; echo quota exceeded >&2; exit 1", "exit 0");
    let proxy = Proxy::setup(&config).launch();
    let failed = &log_lines(&proxy, "a clone cannot be started", 1)[0];
    let reason = "the hook `start` has failed: exit status: 1: quota exceeded";
    assert_eq!(failed["reason"], reason);
}

#[test]
fn a_start_that_the_shutdown_ends_is_no_failure() {
    let hooks = Hooks::new();
    let begun = hooks.file("begun");
    let start = format!("touch {}; exec sleep 600", begun.display());
    let proxy = Proxy::setup(&hooks.config(1, &start, &hooks.record_stop())).launch();
    eventually("the clone is being started", || begun.exists());
    let finished = proxy.stop();
    assert_eq!((finished.code, hooks.stopped()), (Some(0), "app-1 \n".into()));
    let is_failure = |line: &Value| line["message"] == "a clone cannot be started";
    assert!(!finished.log.iter().any(is_failure), "{:#?}", finished.log);
}

#[test]
fn stop_gets_the_address_that_a_start_printed_before_it_was_killed() {
    let hooks = Hooks::new();
    let config = hooks.config(1, "echo 127.0.0.1:9; exec sleep 600", &hooks.record_stop());
    let _proxy = Proxy::setup(&format!("{config}start_timeout = \"1s\"\n")).launch();
    eventually("`stop` gets the address", || hooks.stopped().contains(" 127.0.0.1:9\n"));
}

#[test]
fn two_clones_cannot_have_the_same_address() {
    let server = Server::echo();
    let hooks = Hooks::new();
    let start = format!("echo {}", server.address);
    let proxy = Proxy::setup(&hooks.config(2, &start, &hooks.record_stop())).launch();
    let failed = &log_lines(&proxy, "a clone cannot be started", 1)[0];
    let refused = failed["clone"].as_str().unwrap();
    let accepted = if refused == "app-1" { "app-2" } else { "app-1" };
    let reason = format!(
        "the hook `start` printed `{}`, which is the address of clone `{accepted}`",
        server.address
    );
    assert_eq!(failed["reason"], *reason);
    eventually("`stop` gets the name of the refused clone, but not the address", || {
        hooks.stopped().starts_with(&format!("{refused} \n"))
    });
    let servers = proxy.answer(&["status"])["pools"][0]["servers"].clone();
    assert_eq!(servers.as_array().unwrap().len(), 1, "{servers}");
}

#[test]
fn a_clone_cannot_have_the_address_of_a_listener_of_its_pool() {
    let hooks = Hooks::new();
    let address = hooks.file("address");
    let address = address.display();
    let start = format!("while [ ! -s {address} ]; do sleep 0.05; done; cat {address}");
    let proxy = Proxy::setup(&hooks.config(1, &start, &hooks.record_stop())).launch();
    let own = proxy.at("l").to_string();
    fs::write(hooks.file("address"), &own).unwrap();
    let failed = &log_lines(&proxy, "a clone cannot be started", 1)[0];
    let reason = format!("its address {own} is listener `l`, which leads back to the pool");
    assert_eq!(failed["reason"], *reason);
    eventually("`stop` gets the address", || {
        hooks.stopped().starts_with(&format!("app-1 {own}\n"))
    });
    eventually("the status shows the reason", || {
        first_clone(&proxy)["reason"] == *reason
    });
    let server = Server::echo();
    fs::write(hooks.file("address"), server.address.to_string()).unwrap();
    eventually("the clone runs", || first_clone(&proxy)["state"] == "running");
}
