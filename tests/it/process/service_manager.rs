//! The notifications to a service manager, and the unit for systemd.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::configs::one_pool;
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;

/// The shortest `WATCHDOG_USEC` that leaves enough time: two checks of the workers' heartbeats, one every 2 s, fit in.
const WATCHDOG_MIN: &str = "WATCHDOG_USEC=4000000";

/// The receiving end of sd_notify(3).
struct ServiceManager {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: TempDir,
}

impl ServiceManager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            path,
            _directory: directory,
        }
    }

    fn start(&self, server: &Server, variables: &[&str]) -> Proxy {
        let socket = format!("NOTIFY_SOCKET={}", self.path.display());
        let words: Vec<_> = ["env", &socket].iter().chain(variables).copied().collect();
        let config = "[runtime]\nworkers = 2\n".to_owned() + &one_pool(&[server.address], "");
        Proxy::setup(&config).under(&words).launch()
    }

    /// The lines of the next message.
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let read = self.socket.recv(&mut bytes).expect("a message is sent");
        let text = std::str::from_utf8(&bytes[..read]).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_service_manager_is_notified_of_start_reload_and_end() {
    let (manager, server) = (ServiceManager::new(), Server::echo());
    let proxy = manager.start(&server, &[]);
    let ready = ["READY=1", "STATUS=1 listener, 1 pool"];
    assert_eq!(manager.next(), ready);
    proxy.signal(Signal::HUP);
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1");
    let since: u64 = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!(since > 0);
    assert_eq!(manager.next(), ready);
    proxy.signal(Signal::TERM);
    assert_eq!(manager.next(), ["STOPPING=1", "STATUS=draining"]);
    assert_eq!(proxy.wait().code, Some(0));
}

/// sd_notify(3): a name that begins with `@`.
#[test]
fn a_service_manager_may_use_an_abstract_socket() {
    let name = format!("acequia-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Server::echo();
    let variable = format!("NOTIFY_SOCKET=@{name}");
    let proxy = Proxy::setup(&one_pool(&[server.address], ""))
        .under(&["env", &variable])
        .launch();
    let mut bytes = [0; 4096];
    let read = socket.recv(&mut bytes).expect("a message is sent");
    assert!(bytes[..read].starts_with(b"READY=1\n"));
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn the_watchdog_is_fed_while_the_workers_run() {
    let (manager, server) = (ServiceManager::new(), Server::echo());
    let proxy = manager.start(&server, &[WATCHDOG_MIN]);
    let mut messages = Vec::new();
    while messages.iter().filter(|message| **message == ["WATCHDOG=1"]).count() < 3 {
        messages.push(manager.next());
    }
    assert_eq!(proxy.stop().code, Some(0));
}

/// One of the two workers has no session and ends at once. It must not look stuck.
#[test]
fn the_watchdog_is_fed_during_a_drain() {
    let (manager, server) = (ServiceManager::new(), Server::echo());
    let proxy = manager.start(&server, &[WATCHDOG_MIN]);
    let mut client = Client::connect(proxy.at("l"));
    assert_eq!(client.send(b"a").read(1), b"a");
    proxy.signal(Signal::TERM);
    while manager.next()[0] != "STOPPING=1" {}
    for _ in 0..3 {
        assert_eq!(manager.next(), ["WATCHDOG=1"]);
    }
    drop(client);
    let stopped = proxy.wait();
    assert_eq!(stopped.code, Some(0));
    assert!(!format!("{:?}", stopped.log).contains("stuck"));
}

#[test]
fn a_watchdog_that_leaves_too_little_time_is_reported() {
    let (manager, server) = (ServiceManager::new(), Server::echo());
    let proxy = manager.start(&server, &["WATCHDOG_USEC=3999999"]);
    let log = format!("{:?}", proxy.stop().log);
    assert!(log.contains("raise WatchdogSec"), "{log}");
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let (manager, server) = (ServiceManager::new(), Server::echo());
    let proxy = manager.start(&server, &["WATCHDOG_USEC=2000", "WATCHDOG_PID=1"]);
    assert_eq!(manager.next()[0], "READY=1");
    proxy.signal(Signal::TERM);
    assert_eq!(manager.next()[0], "STOPPING=1");
    assert_eq!(proxy.wait().code, Some(0));
}

#[test]
fn a_reload_that_fails_ends_with_ready() {
    let (manager, server) = (ServiceManager::new(), Server::echo());
    let proxy = manager.start(&server, &[]);
    let ready = manager.next();
    proxy.rewrite("[listeners");
    proxy.signal(Signal::HUP);
    assert_eq!(manager.next()[0], "RELOADING=1");
    assert_eq!(manager.next(), ready);
    assert_eq!(proxy.stop().code, Some(0));
}

fn shipped_unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/systemd/acequia.service");
    std::fs::read_to_string(path).unwrap()
}

/// Without `XDG_RUNTIME_DIR` the service opens its admin socket at `/run/acequia/admin.sock`. Commands for which no
/// socket is set always try this path, after the one in their own `XDG_RUNTIME_DIR`, if that is set.
#[test]
fn commands_of_root_find_the_admin_socket_of_the_unit_for_systemd() {
    let unit = shipped_unit();
    assert!(unit.lines().any(|line| line == "RuntimeDirectory=acequia"));
    assert!(!unit.contains("XDG_RUNTIME_DIR"));
}

#[test]
fn the_unit_for_systemd_uses_arguments_that_the_program_accepts() {
    let unit = shipped_unit();
    let commands = |key: &str| -> Vec<_> { unit.lines().filter_map(|line| line.strip_prefix(key)).collect() };
    let run = |command: &str, file: &str| {
        let command = command
            .trim_start_matches('-')
            .replace("/etc/acequia/acequia.toml", file);
        let (program, arguments) = command.split_once(' ').unwrap();
        assert_eq!(program, "/usr/bin/acequia");
        let arguments: Vec<_> = arguments.split(' ').collect();
        acequia(&arguments).output().unwrap()
    };
    let [start] = commands("ExecStart=")[..] else {
        panic!("expected one command in ExecStart")
    };
    let [check, reload] = commands("ExecReload=")[..] else {
        panic!("expected two commands in ExecReload: check and reload")
    };
    assert!(
        !reload.starts_with('-'),
        "`systemctl reload` must fail if this command fails"
    );
    // There is no configuration file: the commands fail when they read it, after their arguments were accepted.
    for command in [start, check, reload] {
        let done = run(command, "/dev/null/acequia.toml");
        let complaint = String::from_utf8_lossy(&done.stderr);
        assert!(
            !done.status.success() && complaint.contains("cannot read the configuration"),
            "{command}: {done:?}"
        );
    }
    let checked = run(check, concat!(env!("CARGO_MANIFEST_DIR"), "/conf/minimal.toml"));
    assert!(checked.status.success(), "{checked:?}");
}

/// Checks that a unit, with its drop-ins, is valid.
#[track_caller]
fn verify(unit: &Path) {
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg(unit)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && complaints.is_empty(), "{complaints}");
}

#[test]
fn the_unit_for_systemd_is_valid_and_exposes_little() {
    let directory = tempfile::tempdir().unwrap();
    let text = shipped_unit();
    // `ProcSubset=pid` would hide /proc/stat, and without that there is no `process_start_time_seconds`.
    assert!(!text.lines().any(|line| line == "ProcSubset=pid"));
    // The paths of the package, and its manual page, do not exist here.
    let text = text
        .replace("/usr/bin/acequia", "/bin/true")
        .replace("Documentation=man:acequia(1)\n", "");
    let unit = directory.path().join("acequia.service");
    std::fs::write(&unit, text).unwrap();
    verify(&unit);
    let analysed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=15"])
        .arg(&unit)
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&analysed.stdout);
    assert!(analysed.status.success(), "exposure is above 1.5:\n{table}");
    let drop_ins = directory.path().join("acequia.service.d");
    std::fs::create_dir(&drop_ins).unwrap();
    for name in ["transparent.conf", "programs.conf"] {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/systemd").join(name);
        std::fs::copy(shipped, drop_ins.join(name)).unwrap();
    }
    verify(&unit);
}
