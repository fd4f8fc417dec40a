//! Processes that clones start.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::scale::{SCRIPT, clones, config, exists, running};
use crate::support::counts::log_lines;
use crate::support::process::has_ended;
use crate::support::proxy::Proxy;
use crate::support::{eventually, wait_for};

/// A daemon has left the process group and the session of its clone, and its parent has ended.
#[test]
fn processes_started_by_a_clone_end_with_it() {
    let keys = format!(
        "min = 1\nmax = 2\nsessions_per_server = 10\ncommand = [\"/bin/sh\", \"-c\", \
         \"setsid sh -c 'sleep 10000 & echo daemon $!' & wait $!; exec python3 {SCRIPT} {{port}}\"]"
    );
    let proxy = Proxy::start(&config(&keys));
    let scale = |clones| assert_eq!(proxy.command(&["pool", "scale", "app", clones]).code, Some(0));
    scale("2");
    wait_for("two clones run", || {
        Some(running(&proxy)).filter(|pids| pids.len() == 2)
    });
    // Each of the two clones prints two lines: the pid of its daemon, and its environment.
    let printed = log_lines(&proxy, "printed by a clone", 4);
    let daemons: HashMap<_, u32> = printed
        .iter()
        .filter_map(|line| {
            Some((
                line["clone"].as_str()?,
                line["line"].as_str()?.strip_prefix("daemon ")?.parse().ok()?,
            ))
        })
        .collect();
    assert!(exists(daemons["app-1"]) && exists(daemons["app-2"]), "{daemons:?}");
    scale("1");
    eventually("one clone remains", || clones(&proxy).len() == 1);
    assert_eq!((exists(daemons["app-1"]), exists(daemons["app-2"])), (true, false));
}

#[test]
fn a_clone_that_daemonizes_is_an_error_and_leaves_no_daemon() {
    let keys = format!(
        "min = 1\nmax = 1\nsessions_per_server = 10\ncommand = [\"/bin/sh\", \"-c\", \"setsid python3 {SCRIPT} {{port}} & echo \
         daemon $!\"]"
    );
    let proxy = Proxy::setup(&config(&keys)).launch();
    let failed = wait_for("two failures", || {
        let log = proxy.log();
        let failed = log
            .into_iter()
            .filter(|line| line["message"] == "a clone cannot be started");
        Some(failed.collect::<Vec<_>>()).filter(|failed| failed.len() >= 2)
    });
    let reason = "it has ended before its first good check: exit status 0 (a clone must stay in the foreground)";
    assert_eq!(failed[0]["reason"], reason);
    let log = proxy.log();
    let pids = log
        .iter()
        .filter_map(|line| line["line"].as_str()?.strip_prefix("daemon "));
    let pids: Vec<u32> = pids.map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() >= 2 && !exists(pids[0]) && !exists(pids[1]), "{pids:?}");
}

fn parent(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

/// The keeper of a clone is its parent, a process between acequia and the clone.
#[test]
fn processes_of_a_clone_whose_keeper_is_killed_are_killed() {
    let keys = format!(
        "min = 1\nmax = 1\nsessions_per_server = 10\ncommand = [\"/bin/sh\", \"-c\", \
         \"setsid sh -c 'sleep 10000 & echo daemon $!' & wait $!; exec python3 {SCRIPT} {{port}}\"]"
    );
    let proxy = Proxy::start(&config(&keys));
    let daemon: u32 = wait_for("the daemon of the clone runs", || {
        let log = proxy.log();
        log.iter()
            .find_map(|line| line["line"].as_str()?.strip_prefix("daemon ")?.parse().ok())
    });
    let clone = running(&proxy)[0];
    let keeper = parent(clone);
    assert!(exists(daemon) && parent(keeper) == proxy.pid());
    kill_process(Pid::from_raw(keeper.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    eventually("the clone and its daemon have ended", || {
        has_ended(clone) && has_ended(daemon)
    });
    eventually("the clone is started again", || {
        running(&proxy).first().is_some_and(|pid| *pid != clone)
    });
}
