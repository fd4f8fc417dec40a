//! The proxies: their processes, and their configurations from the templates in `benches/proxies`.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::Target;
use crate::hello;
use crate::namespace::NetworkNamespace;
use crate::servers::Servers;
use crate::workload::NAME_COUNTS;

/// A kind of proxy that can be measured.
pub(crate) struct ProxyKind {
    pub(crate) name: &'static str,
    template: &'static str,
    /// Values of placeholders that only its own template has.
    placeholders: &'static [(&'static str, &'static str)],
    program: String,
    /// Arguments before the path of its configuration.
    arguments: &'static [&'static str],
    /// Arguments after the path of its configuration.
    arguments_after: &'static [&'static str],
    /// Makes the program print its version.
    version_flag: &'static str,
}

impl ProxyKind {
    /// A proxy whose last argument is the path of its configuration.
    fn new(
        name: &'static str,
        template: &'static str,
        program: &str,
        arguments: &'static [&'static str],
        placeholders: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            name,
            template,
            placeholders,
            program: program.into(),
            arguments,
            arguments_after: &[],
            version_flag: "--version",
        }
    }
}

/// All kinds, in the order in which they are reported. `other_build` is the program of another build of acequia.
pub(crate) fn all(other_build: Option<&str>) -> Vec<ProxyKind> {
    const HAPROXY: &[&str] = &["-db", "-f"];
    const ENVOY: &[&str] = &[
        "--concurrency",
        "2",
        "--log-level",
        "error",
        "--disable-hot-restart",
        "-c",
    ];
    const RUN: &[&str] = &["run", "-c"];
    // The other proxies are configured the same way: without an access log, and without keepalive.
    const BARE: &[(&str, &str)] = &[("ACCESS", "off"), ("KEEPALIVE", "\"off\"")];
    const AS_SHIPPED: &[(&str, &str)] = &[
        ("ACCESS", "/dev/null"),
        ("KEEPALIVE", "{ idle = \"60s\", interval = \"10s\", probes = 6 }"),
    ];
    let haproxy = |name, placeholders| ProxyKind {
        version_flag: "-v",
        ..ProxyKind::new(name, "haproxy.cfg", "haproxy", HAPROXY, placeholders)
    };
    let acequia = |name, program, placeholders| ProxyKind::new(name, "acequia.toml", program, RUN, placeholders);
    let mut all = vec![
        haproxy("HAProxy, splice", &[("SPLICE", "option splice-auto")]),
        haproxy("HAProxy, copy", &[("SPLICE", "no option splice-auto")]),
        ProxyKind {
            version_flag: "-v",
            ..ProxyKind::new("nginx", "nginx.conf", "nginx", &["-c"], &[])
        },
        ProxyKind::new("Envoy", "envoy.yaml", "envoy", ENVOY, &[]),
        ProxyKind {
            arguments_after: &["start"],
            ..ProxyKind::new("Sozu", "sozu.toml", "sozu", &["-c"], &[])
        },
        acequia("acequia", "acequia", BARE),
        acequia("acequia, log, keepalive", "acequia", AS_SHIPPED),
    ];
    all.extend(other_build.map(|program| acequia("another acequia", program, BARE)));
    all
}

/// What is the same for all proxies: where they run, and where their programs and templates are.
pub(crate) struct Site<'a> {
    /// Directories to search for programs before those of the system.
    pub(crate) programs: &'a [PathBuf],
    /// The directory of the templates.
    pub(crate) templates: &'a Path,
    pub(crate) namespace: &'a NetworkNamespace,
    /// The address that the proxies listen on.
    pub(crate) ip: IpAddr,
    pub(crate) servers: &'a Servers,
}

impl Site<'_> {
    fn program(&self, name: &str) -> String {
        let mut paths = self.programs.iter().map(|directory| directory.join(name));
        let found = paths.find(|path| path.is_file());
        found.map_or_else(|| name.into(), |path| path.display().to_string())
    }
}

/// A running proxy. Dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) target: Target,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Proxy {
    /// Starts it and waits until it serves; `None`, with a note on standard error, when it cannot be started or fails.
    pub(crate) fn start(kind: &ProxyKind, site: &Site<'_>) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let [echo, source, sink, by_name @ ..] = free_addresses::<{ 3 + NAME_COUNTS.len() }>(site);
        let target = Target {
            echo,
            source,
            sink,
            by_name,
        };
        let template = fs::read_to_string(site.templates.join(kind.template)).expect("the template exists");
        let path = directory.path().join(kind.template);
        let text = filled(&template, &placeholders(kind, &target, site, directory.path()));
        fs::write(&path, text).expect("the configuration can be written");
        for names in NAME_COUNTS {
            let line = |number| format!("{} {}\n", hello::name(number), pool(number));
            let map: String = (0..names).map(line).collect();
            fs::write(directory.path().join(format!("names{names}.map")), map).expect("the map can be written");
        }
        let stderr = directory.path().join("stderr");
        let spawned = site
            .namespace
            .command(&site.program(&kind.program))
            .args(kind.arguments)
            .arg(&path)
            .args(kind.arguments_after)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).expect("the file can be created"))
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                eprintln!("{} cannot be started, and is left out: {error}", kind.name);
                return None;
            }
        };
        let mut proxy = Self {
            target,
            child,
            _directory: directory,
        };
        if !proxy.wait_until_serving() {
            let stderr = fs::read_to_string(stderr).unwrap_or_default();
            eprintln!("{} does not serve, and is left out\n{stderr}", kind.name);
            return None;
        }
        Some(proxy)
    }

    /// Waits until each listener accepts, for at most 20 s, and then for the first health checks. Returns whether it
    /// serves.
    fn wait_until_serving(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        let Target {
            echo,
            source,
            sink,
            by_name,
        } = self.target;
        for address in [echo, source, sink].into_iter().chain(by_name) {
            while TcpStream::connect(address).is_err() {
                if Instant::now() > deadline || !matches!(self.child.try_wait(), Ok(None)) {
                    return false;
                }
                sleep(Duration::from_millis(20));
            }
        }
        sleep(Duration::from_millis(500));
        true
    }

    /// The children of its process, which some proxies use as workers.
    fn workers(&self) -> Vec<u32> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Its process and its workers.
    fn pids(&self) -> Vec<u32> {
        [vec![self.child.id()], self.workers()].concat()
    }

    /// User and system time of all its processes. It falls only if one of them ends.
    pub(crate) fn cpu(&self) -> Duration {
        self.pids().into_iter().filter_map(cpu_of).sum()
    }

    /// Waits until it is idle, for at most 5 s, so that its leftover work does not disturb the next measurement.
    pub(crate) fn settle(&self) {
        const INTERVAL: Duration = Duration::from_millis(50);
        const IDLE_CPU_MAX: Duration = Duration::from_millis(1);
        let mut before = self.cpu();
        for _ in 0..100 {
            sleep(INTERVAL);
            let now = self.cpu();
            if now.saturating_sub(before) < IDLE_CPU_MAX {
                return;
            }
            before = now;
        }
    }

    /// Private memory of all its processes: resident pages that no other process shares.
    pub(crate) fn private_bytes(&self) -> u64 {
        let private_of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            kilobytes(&text, "Private_Clean:") + kilobytes(&text, "Private_Dirty:")
        };
        self.pids().iter().map(private_of).sum::<u64>() * 1024
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // If the process has ended, `try_wait` has reaped it, and its ID may be that of another process by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let workers = self.workers();
        // First the parent, which would replace its workers.
        let _ = self.child.kill();
        for pid in workers {
            let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
        }
        let _ = self.child.wait();
    }
}

/// User and system time of a process, with that of its threads that have ended; `None`: there is no such process.
#[expect(unsafe_code, reason = "rustix does not read the clocks of other processes")]
fn cpu_of(pid: u32) -> Option<Duration> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: both calls only write to the variable whose address they get.
    let is_read = unsafe {
        libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    is_read.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// The kernel's unreclaimable slab memory, which holds the sockets of all processes.
pub(crate) fn kernel_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&text, "SUnreclaim:") * 1024
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// The first line of a program's version output.
pub(crate) fn version(kind: &ProxyKind, site: &Site<'_>) -> String {
    let program = site.program(&kind.program);
    let output = Command::new(&program).arg(kind.version_flag).output();
    let output = output
        .map(|output| [output.stdout, output.stderr].concat())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
    line.trim().replace(&program, &kind.program) // some print their own path
}

/// Addresses with the proxies' IP address and free ports. All are bound at the same time, so that no two are the same.
fn free_addresses<const COUNT: usize>(site: &Site<'_>) -> [SocketAddr; COUNT] {
    let (ip, namespace) = (site.ip, site.namespace.clone());
    let bind_all = move || {
        namespace.enter();
        let sockets = [(); COUNT].map(|()| TcpListener::bind((ip, 0)).expect("the proxies' address has a free port"));
        sockets.map(|socket| socket.local_addr().expect("the socket is bound"))
    };
    let bound = std::thread::spawn(bind_all).join();
    bound.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn pool(number: usize) -> &'static str {
    if number.is_multiple_of(2) { "even" } else { "odd" }
}

/// The placeholders of a template and their values.
fn placeholders(kind: &ProxyKind, target: &Target, site: &Site<'_>, directory: &Path) -> Vec<(String, String)> {
    let mut values = vec![
        ("DIRECTORY".into(), directory.display().to_string()),
        ("IP".into(), site.ip.to_string()),
        ("SERVER_IP".into(), site.servers.echo[0].ip().to_string()),
    ];
    let mut address = |name: String, address: SocketAddr| {
        values.push((format!("{name}_PORT"), address.port().to_string()));
        values.push((name, address.to_string()));
    };
    address("ECHO".into(), target.echo);
    address("SOURCE".into(), target.source);
    address("SINK".into(), target.sink);
    for (names, at) in NAME_COUNTS.iter().zip(target.by_name) {
        address(format!("NAMES{names}"), at);
    }
    let servers = site.servers;
    for (name, servers) in [
        ("ECHO", servers.echo),
        ("SOURCE", servers.source),
        ("SINK", servers.sink),
    ] {
        for (number, server) in servers.iter().enumerate() {
            address(format!("{name}_SERVER_{}", number + 1), *server);
        }
    }
    let own = kind.placeholders.iter();
    values.extend(own.map(|(name, text)| ((*name).into(), (*text).into())));
    values
}

/// A template with its placeholders replaced. A line `#each 100 odd: text` becomes the text once for each odd number
/// below 100; without `odd` or `even`, once for each number from 0. In the text, `@NAME@` is the server name with that
/// number, and `@POOL@` is its pool.
fn filled(template: &str, values: &[(String, String)]) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let Some((which, line)) = line.strip_prefix("#each ").and_then(|line| line.split_once(':')) else {
            text += line;
            text.push('\n');
            continue;
        };
        let (count, only) = which.split_once(' ').unwrap_or((which, ""));
        let count: usize = count.parse().expect("a number of names");
        for number in (0..count).filter(|number| only.is_empty() || only == pool(*number)) {
            text += &line
                .replace("@NAME@", &hello::name(number))
                .replace("@POOL@", pool(number));
            text.push('\n');
        }
    }
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_names_are_replaced() {
        let values = [("ECHO".into(), "127.0.0.1:1".into())];
        let text = filled("bind @ECHO@\n#each 3 even:  @NAME@ @POOL@,\n", &values);
        assert_eq!(
            text,
            "bind 127.0.0.1:1\n  service-0.shop.example.com even,\n  service-2.shop.example.com even,\n"
        );
    }
}
