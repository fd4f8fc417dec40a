//! A Docker engine in a directory and a network of its own, with an image that is made of busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use super::namespaces::Namespaces;
use super::process::{Finished, Process, finished, must};
use super::{PATIENCE, eventually};

/// Statically linked, so that an image needs no libraries.
const BUSYBOX: &str = "/bin/busybox";

/// The programs of the image.
const PROGRAMS: [&str; 7] = ["cat", "echo", "nc", "rm", "sh", "test", "touch"];

const IMAGE: &str = "acequia-test";

/// The port of the servers in containers.
pub const PORT: u16 = 8080;

/// An engine. Dropping this value stops the engine and removes its containers.
pub struct Docker {
    directory: TempDir,
    process: Option<Process>,
    /// The network namespace of the engine and of the calling thread.
    _network: Namespaces,
}

impl Docker {
    /// Moves the calling thread, and so its children, to a new network namespace, and starts an engine there. Returns
    /// `None`, with a note on standard error, where the system lacks namespaces, bridges or control groups.
    pub fn start() -> Option<Self> {
        let network = Namespaces::enter(0)?;
        if let Some(missing) = missing_feature() {
            eprintln!("NOT TESTED: no containers here: {missing}");
            return None;
        }
        let mut docker = Self {
            directory: tempfile::tempdir().unwrap(),
            process: None,
            _network: network,
        };
        docker.start_engine();
        docker.import_image();
        Some(docker)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// Starts the engine, for the first time or after [`Self::stop_engine`], and waits until it answers.
    pub fn start_engine(&mut self) {
        let directory = self.directory.path();
        let path = |name: &str| directory.join(name).display().to_string();
        let mut command = Command::new("unshare");
        // In a mount namespace of its own, so that no mounts are left behind.
        command.args(["--mount", "dockerd", "--live-restore", "--shutdown-timeout", "2"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec")]);
        command.args([
            "--pidfile",
            &path("docker.pid"),
            "-H",
            &format!("unix://{}", path("docker.sock")),
        ]);
        command.args(["--config-file", &path("daemon.json"), "--storage-driver", "vfs"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.args([
            "--bridge",
            "none",
            "--iptables=false",
            "--ip6tables=false",
            "--userland-proxy=false",
        ]);
        fs::write(directory.join("daemon.json"), "{}").unwrap();
        let mut process = Process::start(&mut command);
        eventually("the Docker engine answers", || {
            let is_running = process.is_running();
            assert!(is_running, "the Docker engine has ended: {:#?}", process.stderr.lines());
            self.try_run(&["version"]).code == Some(0)
        });
        self.process = Some(process);
    }

    /// Stops the engine. The containers continue to run.
    pub fn stop_engine(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait();
        }
    }

    /// Makes an archive from busybox, and [`IMAGE`] from the archive. [`Self::make_image`] uses the archive again.
    fn import_image(&self) {
        let root = self.directory.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for program in PROGRAMS {
            symlink("busybox", root.join("bin").join(program)).unwrap();
        }
        let archive = self.directory.path().join("image.tar");
        must(
            Command::new("tar")
                .arg("-cf")
                .arg(&archive)
                .arg("-C")
                .arg(&root)
                .arg("."),
        );
        self.run(&["import", archive.to_str().unwrap(), IMAGE]);
    }

    /// Makes an image whose containers run this shell script.
    pub fn make_image(&self, name: &str, script: &str) {
        let archive = self.directory.path().join("image.tar").display().to_string();
        let command = format!("CMD {}", serde_json::json!(["sh", "-c", script]));
        self.run(&["import", "--change", &command, &archive, name]);
    }

    /// The names of all containers with a label, sorted, whether they run or not.
    pub fn names_of(&self, label: &str) -> Vec<String> {
        let listed = self.run(&[
            "ps",
            "-a",
            "--filter",
            &format!("label={label}"),
            "--format",
            "{{.Names}}",
        ]);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Runs the command `docker`, which must succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let done = self.try_run(arguments);
        assert_eq!(done.code, Some(0), "docker {arguments:?}: {done:#?}");
        done.stdout
    }

    fn try_run(&self, arguments: &[&str]) -> Finished {
        finished(&mut self.command(arguments))
    }

    /// Starts the command `docker` in the background.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::start(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_CONFIG", self.directory.path().join("client"))
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments);
        command
    }

    /// Starts a container with a server that sends the name of the container, and reads until the client has finished.
    /// The server ignores SIGTERM: it is the first process of its container and has no handler for this signal.
    pub fn start_server(&self, name: &str, options: &[&str]) {
        let script = format!("nc -ll -p {PORT} -e sh -c 'echo -n {name}; cat > /dev/null'");
        let arguments = [
            &["run", "-d", "--name", name][..],
            options,
            &[IMAGE, "sh", "-c", &script],
        ];
        self.run(&arguments.concat());
    }
}

/// What the system lacks to run containers; `None`: nothing.
fn missing_feature() -> Option<String> {
    let bridge = finished(Command::new("ip").args(["link", "add", "probe", "type", "bridge"]));
    if bridge.code != Some(0) {
        return Some(format!("no bridges: {}", bridge.stderr));
    }
    must(Command::new("ip").args(["link", "delete", "probe"]));
    let groups = Path::new("/sys/fs/cgroup");
    // In version 1 of control groups each controller has a hierarchy of its own.
    let devices = groups.join("devices");
    let hierarchy = if devices.exists() { devices.as_path() } else { groups };
    let probe = hierarchy.join(format!("acequia-probe-{}", std::process::id()));
    let made = fs::create_dir(&probe);
    let _ = fs::remove_dir(&probe);
    made.err().map(|error| format!("no control groups: {error}"))
}

impl Drop for Docker {
    fn drop(&mut self) {
        let containers = self.try_run(&["ps", "-aq"]).stdout;
        let containers: Vec<&str> = containers.split_whitespace().collect();
        if !containers.is_empty() {
            self.try_run(&[&["rm", "-f"], containers.as_slice()].concat());
        }
        if let Some(process) = &mut self.process {
            process.signal(Signal::TERM);
            let deadline = Instant::now() + PATIENCE;
            while process.is_running() && Instant::now() < deadline {
                sleep(Duration::from_millis(10));
            }
        }
        // A failed test may leave containerd and the shims of containers. They have the directory in their arguments.
        let directory = self.directory.path().display().to_string();
        for pid in processes_of(&directory) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The processes with this text in their arguments.
fn processes_of(text: &str) -> Vec<Pid> {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let with_text = all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&arguments).contains(text).then_some(pid)
    });
    with_text.filter_map(Pid::from_raw).collect()
}
