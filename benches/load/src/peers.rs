//! The proxies: their processes, and their configurations from the templates in `benches/peers`.

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
use crate::workload::NAMES;

/// A kind of proxy that can be measured.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    template: &'static str,
    /// Values of placeholders that only its own template has.
    own: &'static [(&'static str, &'static str)],
    program: String,
    /// Arguments before the path of its configuration.
    arguments: &'static [&'static str],
    after: &'static [&'static str],
    version: &'static str,
}

impl Kind {
    /// A proxy whose last argument is the path of its configuration.
    fn new(
        name: &'static str,
        template: &'static str,
        program: &str,
        arguments: &'static [&'static str],
        own: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            name,
            template,
            own,
            program: program.into(),
            arguments,
            after: &[],
            version: "--version",
        }
    }
}

/// All kinds, in the order in which they are reported; `beside` is another build of acequia.
pub(crate) fn all(beside: Option<&str>) -> Vec<Kind> {
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
    // As the others are configured here: without an access log and keepalive.
    const BARE: &[(&str, &str)] = &[("ACCESS", "off"), ("KEEPALIVE", "\"off\"")];
    const AS_SHIPPED: &[(&str, &str)] = &[
        ("ACCESS", "/dev/null"),
        ("KEEPALIVE", "{ idle = \"60s\", interval = \"10s\", probes = 6 }"),
    ];
    let haproxy = |name, splice| Kind {
        version: "-v",
        ..Kind::new(name, "haproxy.cfg", "haproxy", HAPROXY, splice)
    };
    let acequia = |name, program, access| Kind::new(name, "acequia.toml", program, RUN, access);
    let mut all = vec![
        haproxy("HAProxy, splice", &[("SPLICE", "option splice-auto")]),
        haproxy("HAProxy, copy", &[("SPLICE", "no option splice-auto")]),
        Kind {
            version: "-v",
            ..Kind::new("nginx", "nginx.conf", "nginx", &["-c"], &[])
        },
        Kind::new("Envoy", "envoy.yaml", "envoy", ENVOY, &[]),
        Kind {
            after: &["start"],
            ..Kind::new("Sozu", "sozu.toml", "sozu", &["-c"], &[])
        },
        acequia("acequia", "acequia", BARE),
        acequia("acequia, log, keepalive", "acequia", AS_SHIPPED),
    ];
    all.extend(beside.map(|program| acequia("another acequia", program, BARE)));
    all
}

/// Programs, templates and addresses that all proxies share.
pub(crate) struct Site<'a> {
    /// Folders to search before those of the system.
    pub(crate) programs: &'a [PathBuf],
    pub(crate) templates: &'a Path,
    pub(crate) namespace: &'a NetworkNamespace,
    /// The address that the proxies listen on.
    pub(crate) ip: IpAddr,
    pub(crate) servers: &'a Servers,
}

impl Site<'_> {
    fn program(&self, name: &str) -> String {
        let own = self.programs.iter().map(|folder| folder.join(name));
        let found = own.into_iter().find(|path| path.is_file());
        found.map_or_else(|| name.into(), |path| path.display().to_string())
    }
}

/// A running proxy. Dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) target: Target,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts it and waits until it serves; `None`, with a note on standard error, when it is not installed or fails.
    pub(crate) fn start(kind: &Kind, site: &Site<'_>) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let ports: Vec<u16> = free_ports(site, 3 + NAMES.len());
        let at = |number: usize| SocketAddr::new(site.ip, ports[number]);
        let target = Target {
            echo: at(0),
            source: at(1),
            sink: at(2),
            by_name: [at(3), at(4), at(5)],
        };
        let template = fs::read_to_string(site.templates.join(kind.template)).expect("the template exists");
        let path = folder.path().join(kind.template);
        let text = filled(&template, &placeholders(kind, &target, site, folder.path()));
        fs::write(&path, text).expect("the configuration can be written");
        for names in NAMES {
            let line = |number| format!("{} {}\n", hello::name(number), pool(number));
            let map: String = (0..names).map(line).collect();
            fs::write(folder.path().join(format!("names{names}.map")), map).expect("the map can be written");
        }
        let stderr = folder.path().join("stderr");
        let spawned = site
            .namespace
            .command(&site.program(&kind.program))
            .args(kind.arguments)
            .arg(&path)
            .args(kind.after)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).expect("the file can be created"))
            .spawn();
        let Ok(child) = spawned else {
            eprintln!("{} is not installed: left out", kind.name);
            return None;
        };
        let mut proxy = Self {
            target,
            child,
            _folder: folder,
        };
        if !proxy.serves() {
            let stderr = fs::read_to_string(stderr).unwrap_or_default();
            eprintln!("{} does not start: left out\n{stderr}", kind.name);
            return None;
        }
        Some(proxy)
    }

    /// Waits until each listener accepts, and then for the first health checks.
    fn serves(&mut self) -> bool {
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

    /// Its process and its children, which some proxies use as workers.
    fn pids(&self) -> Vec<u32> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        std::iter::once(parent)
            .chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()))
            .collect()
    }

    /// User and system time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let cpu_of = |pid: &u32| {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten();
            let time = |task: fs::DirEntry| {
                let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
                text.split(' ').next()?.parse::<u64>().ok()
            };
            tasks.filter_map(time).sum::<u64>()
        };
        Duration::from_nanos(self.pids().iter().map(cpu_of).sum())
    }

    /// Waits until it is idle, for at most 5 s, so that a round does not pay for work left over from the previous one.
    pub(crate) fn settle(&self) {
        const INTERVAL: Duration = Duration::from_millis(50);
        const IDLE_CPU_MAX: Duration = Duration::from_millis(1);
        let mut before = self.cpu();
        for _ in 0..100 {
            sleep(INTERVAL);
            let now = self.cpu();
            if now - before < IDLE_CPU_MAX {
                return;
            }
            before = now;
        }
    }

    /// Resident memory of all its processes, without shared pages.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let private_of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            kilobytes(&text, "Private_Clean:") + kilobytes(&text, "Private_Dirty:")
        };
        self.pids().iter().map(private_of).sum::<u64>() * 1024
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).status();
        }
        let _ = self.child.wait();
    }
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
pub(crate) fn version(kind: &Kind, site: &Site<'_>) -> String {
    let program = site.program(&kind.program);
    let output = Command::new(&program).arg(kind.version).output();
    let output = output
        .map(|output| [output.stdout, output.stderr].concat())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
    line.trim().replace(&program, &kind.program) // some print their own path
}

/// Free ports of the proxies' address. Bound all at once, so that no two are the same.
fn free_ports(site: &Site<'_>, count: usize) -> Vec<u16> {
    let (ip, namespace) = (site.ip, site.namespace.clone());
    let look = move || {
        namespace.enter();
        let sockets: Vec<_> = (0..count).map(|_| TcpListener::bind((ip, 0))).collect();
        let port = |socket: std::io::Result<TcpListener>| Some(socket.ok()?.local_addr().ok()?.port());
        sockets.into_iter().filter_map(port).collect()
    };
    std::thread::spawn(look).join().expect("the address has free ports")
}

fn pool(number: usize) -> &'static str {
    if number.is_multiple_of(2) { "even" } else { "odd" }
}

/// The placeholders of a template and their values.
fn placeholders(kind: &Kind, target: &Target, site: &Site<'_>, folder: &Path) -> Vec<(String, String)> {
    let mut values = vec![
        ("FOLDER".into(), folder.display().to_string()),
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
    for (names, at) in NAMES.iter().zip(target.by_name) {
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
    values.extend(kind.own.iter().map(|(name, text)| ((*name).into(), (*text).into())));
    values
}

/// A template with its placeholders replaced. A line `#each 100 odd: text` becomes the text once for every odd one of a
/// hundred names; without `odd` or `even`, once for each name.
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
