//! The check `exec`: what its command gets, what a failure shows, and that none of the command's processes is left
//! behind. A program that is missing, or a shortage of the machine, takes no server down.

use std::fs::read_to_string;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::support::configs::one_pool;
use crate::support::counts::{log_count, log_lines};
use crate::support::limits::{descriptor_limits, leave_free_descriptors, limit_descriptors};
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, is_root_for};

fn config(server: SocketAddr, script: &str, keys: &str) -> String {
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}]");
    one_pool(
        &[server],
        &format!("[pools.p.health]\ncheck = \"exec\"\ninterval = \"20ms\"\nfall = 1\n{command}\n{keys}"),
    )
}

fn health(proxy: &Proxy, server: SocketAddr) -> (String, String) {
    let body = proxy.server("p", &server.to_string());
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (text("health"), text("reason"))
}

/// The PIDs in a file that are of running processes.
fn processes(file: &Path) -> Vec<String> {
    let pids = read_to_string(file).unwrap_or_default();
    let runs = |pid: &&str| {
        let stat = read_to_string(Path::new("/proc").join(pid).join("stat"));
        stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
    };
    pids.lines().filter(runs).map(str::to_owned).collect()
}

/// The states of the children of a process, as in proc_pid_stat(5).
fn child_states(proxy: &Proxy) -> Vec<char> {
    let mut states = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let (state, parent) = (fields.next().unwrap(), fields.next().unwrap());
        if parent == proxy.pid().to_string() {
            states.extend(state.chars());
        }
    }
    states
}

#[test]
fn a_command_gets_the_server_but_no_variables_sockets_or_ambient_capabilities_of_the_process() {
    let (server, directory) = (Server::silent(), tempfile::tempdir().unwrap());
    let file = |name: &str| directory.path().join(name).display().to_string();
    // Only the first check writes, so that no file is empty when it is read.
    let script = format!(
        "[ -e {0} ] && exit 0; cat /proc/$$/environ | tr '\\0' '\\n' > {0}; ls -l /proc/$$/fd > {1}; \
         grep CapAmb /proc/$$/status > {2}; echo; exit 0",
        file("environment"),
        file("descriptors"),
        file("capabilities")
    );
    let proxy = Proxy::start(&config(server.address, &script, ""));
    assert_eq!(health(&proxy, server.address).0, "up");
    let environment = read_to_string(file("environment")).unwrap();
    let mut variables: Vec<_> = environment.lines().collect();
    variables.sort_unstable();
    let (ip, port) = (server.address.ip(), server.address.port());
    let expected = [
        format!("ACEQUIA_ADDRESS={ip}"),
        "ACEQUIA_POOL=p".to_owned(),
        format!("ACEQUIA_PORT={port}"),
        format!("ACEQUIA_SERVER={}", server.address),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    ];
    assert_eq!(variables, expected);
    let descriptors = read_to_string(file("descriptors")).unwrap();
    let is_of_process = |line: &str| line.contains("socket:") || line.contains("anon_inode:");
    assert!(!descriptors.lines().any(is_of_process), "{descriptors}");
    let ambient = read_to_string(file("capabilities")).unwrap();
    assert_eq!(ambient.trim_start_matches("CapAmb:").trim().trim_matches('0'), "");
}

#[test]
fn a_failure_shows_the_first_line_of_the_standard_output() {
    let server = Server::silent();
    let script = "printf '\\033[2Jdisk full\\nmore'; exit 2";
    let proxy = Proxy::start(&config(server.address, script, ""));
    let expected = ("down".to_owned(), "exit status: 2: \\u{1b}[2Jdisk full".to_owned());
    assert_eq!(health(&proxy, server.address), expected);
    assert!(proxy.reload(&config(server.address, "exit 0", "")));
    eventually("the server is up", || health(&proxy, server.address).0 == "up");
}

#[test]
fn a_program_that_is_missing_takes_no_server_down() {
    let (server, directory) = (Server::silent(), tempfile::tempdir().unwrap());
    let program = directory.path().join("check");
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    let keys = format!("[pools.p.health]\ncheck = \"exec\"\ninterval = \"20ms\"\nfall = 1\ncommand = [{program:?}]");
    let proxy = Proxy::start(&one_pool(&[server.address], &keys));
    eventually("the server is up", || health(&proxy, server.address).0 == "up");
    std::fs::remove_file(&program).unwrap();
    eventually("the check is refused", || {
        let (state, reason) = health(&proxy, server.address);
        state == "check refused" && reason.starts_with("cannot run ")
    });
    let refused_checks = || {
        let labels = [("result", "refused")];
        proxy.metrics().sum("acequia_health_checks_total", &labels)
    };
    let before = refused_checks();
    eventually("more checks are refused", || refused_checks() >= before + 3.0);
    assert_eq!(log_count(&proxy, "server is down"), 0);
    std::os::unix::fs::symlink("/bin/true", &program).unwrap();
    eventually("the server is up", || health(&proxy, server.address).0 == "up");
}

#[test]
fn a_failure_shows_the_last_line_of_the_standard_error() {
    let server = Server::silent();
    let script = "echo trying >&2; printf '\\033[2Jno such file\\n' >&2; exit 2";
    let proxy = Proxy::start(&config(server.address, script, ""));
    let reason = "exit status: 2: \\u{1b}[2Jno such file";
    assert_eq!(health(&proxy, server.address), ("down".to_owned(), reason.to_owned()));
    let lines = log_lines(&proxy, "server is down", 1);
    assert_eq!(lines[0]["reason"], reason);
    // A command that does not exit, and prints without end.
    let endless = "echo connecting; yes 'waiting for a lock' >&2";
    assert!(proxy.reload(&config(server.address, endless, "timeout = \"200ms\"")));
    let reason = "no exit within 200ms: connecting; standard error: waiting for a lock";
    eventually("it runs into the timeout", || {
        health(&proxy, server.address).1 == reason
    });
}

#[test]
fn commands_that_ignore_signals_are_killed_with_their_children() {
    let (server, directory) = (Server::silent(), tempfile::tempdir().unwrap());
    let pids = directory.path().join("pids");
    let script = format!(
        "trap '' TERM INT HUP PIPE; for i in 1 2 3; do sleep 1000 & echo $! >> {0}; done; echo $$ >> {0}; wait",
        pids.display()
    );
    let proxy = Proxy::start(&config(server.address, &script, "timeout = \"200ms\""));
    let timeouts = || {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "timeout")])
    };
    eventually("some commands ran into the timeout", || timeouts() >= 5.0);
    // A run has four processes. At most two runs are left: one under way, and one that is being killed.
    eventually("earlier commands are killed and reaped", || {
        processes(&pids).len() <= 8 && !child_states(&proxy).contains(&'Z')
    });
    assert_eq!(health(&proxy, server.address).0, "down");
    // A child that outlives its parent is killed too.
    let leaving = format!("sleep 1000 & echo $! >> {}; exit 0", pids.display());
    assert!(proxy.reload(&config(server.address, &leaving, "")));
    eventually("the server is up", || health(&proxy, server.address).0 == "up");
    drop(proxy.stop());
    eventually("nothing is left", || processes(&pids).is_empty());
}

#[test]
fn a_command_under_way_is_killed_when_the_process_stops() {
    let (server, directory) = (Server::silent(), tempfile::tempdir().unwrap());
    let pids = directory.path().join("pids");
    let script = format!("sleep 1000 & echo $! >> {0}; echo $$ >> {0}; wait", pids.display());
    let proxy = Proxy::start(&config(server.address, "exit 0", ""));
    assert!(proxy.reload(&config(server.address, &script, "timeout = \"1h\"")));
    eventually("the command runs", || processes(&pids).len() == 2);
    drop(proxy.stop());
    eventually("nothing is left", || processes(&pids).is_empty());
}

/// Waits for the log line of a shortage, ends the shortage, and expects that it was no failure of the server.
fn expect_shortage(proxy: &Proxy, end: impl FnOnce()) {
    let checks = |result| {
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", result)])
    };
    let lines = log_lines(
        proxy,
        "cannot check servers: out of local ports, file descriptors, processes or memory",
        1,
    );
    let error = lines[0]["error"].as_str().unwrap();
    assert!(error.starts_with("cannot run /bin/sh: "), "{error}");
    end();
    let before = checks("pass");
    eventually("the server is checked again", || checks("pass") > before);
    assert_eq!(checks("fail") + checks("timeout"), 0.0);
    assert_eq!(proxy.metrics().sum("acequia_server_healthy", &[]), 1.0);
}

#[test]
fn a_shortage_of_descriptors_takes_no_server_down() {
    let server = Server::silent();
    let proxy = Proxy::start(&config(server.address, "exit 0", ""));
    let (before, _) = descriptor_limits(proxy.pid());
    leave_free_descriptors(&proxy, 1);
    expect_shortage(&proxy, || limit_descriptors(&proxy, before));
}

/// A Python program with many threads, which count as processes. It runs until it is killed.
const HOG: &str = "
import threading
end = threading.Event()
for _ in range(300):
    threading.Thread(target=end.wait, daemon=True).start()
print('full', flush=True)
end.wait()
";

#[test]
fn a_shortage_of_processes_takes_no_server_down() {
    if !is_root_for("another user") {
        return;
    }
    // A user of its own, because the kernel counts processes per user.
    let user = 30_000 + std::process::id() % 10_000;
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let as_user = ["setpriv", &*uid, &*gid, "--clear-groups"];
    let server = Server::silent();
    let proxy = Proxy::setup(&config(server.address, "exit 0", ""))
        .under(&[&as_user[..], &["prlimit", "--nproc=300"]].concat())
        .start();
    let mut hog = Command::new(as_user[0]);
    let hog = Process::start(hog.args(&as_user[1..]).args(["/usr/bin/python3", "-c", HOG]));
    eventually("no further process may be started", || hog.stdout.lines() == ["full"]);
    expect_shortage(&proxy, || drop(hog));
}
