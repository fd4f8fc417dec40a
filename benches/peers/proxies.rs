//! The proxies: their configurations, as alike as can be, and their processes.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::load::Servers;

/// A configuration's text, and the command that runs it, less the name of its file.
type Configuration = fn(&Ports, &Servers) -> (String, Vec<String>);

/// Threads each of them uses.
const THREADS: usize = 2;

/// A running proxy. Dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    /// Balances over the echo servers.
    pub(crate) echo: SocketAddr,
    /// Balances over the servers that send without end.
    pub(crate) source: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Those that are installed, HAProxy first: ratios are to the first.
    pub(crate) fn start_all(servers: &Servers) -> Vec<Self> {
        let all: [(&str, Configuration); 4] = [
            ("haproxy", haproxy),
            ("nginx", nginx),
            ("acequia", |ports, servers| acequia(ports, servers, "off")),
            ("acequia, access log", |ports, servers| {
                acequia(ports, servers, "/dev/null")
            }),
        ];
        let part = std::env::var("PROXY").unwrap_or_default();
        all.into_iter()
            .filter(|(name, _)| name.contains(&part))
            .filter_map(|(name, configuration)| Self::start(name, configuration, servers))
            .collect()
    }

    fn start(name: &'static str, configuration: Configuration, servers: &Servers) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a place for the configuration");
        let ports = Ports {
            echo: free_port(),
            source: free_port(),
            folder: folder.path().display().to_string(),
        };
        let (text, command) = configuration(&ports, servers);
        let path = folder.path().join("proxy.toml");
        fs::write(&path, text).expect("the configuration is written");
        let spawned = Command::new(&command[0])
            .args(&command[1..])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn();
        let Ok(mut child) = spawned else {
            eprintln!("{name} is not installed: left out");
            return None;
        };
        while TcpStream::connect(ports.source).is_err() || TcpStream::connect(ports.echo).is_err() {
            let ended = child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "{name} does not start: {ended:?}");
            sleep(Duration::from_millis(20));
        }
        sleep(Duration::from_millis(500)); // first health checks
        Some(Self {
            name,
            echo: ports.echo,
            source: ports.source,
            child,
            _folder: folder,
        })
    }

    /// Its processes: nginx has workers.
    fn pids(&self) -> Vec<u32> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        std::iter::once(parent)
            .chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()))
            .collect()
    }

    /// User and system time of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let of = |pid: &u32| {
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
        Duration::from_nanos(self.pids().iter().map(of).sum())
    }

    /// Resident memory of all its processes, shared pages left out.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let field = |name: &str| {
                let line = text.lines().find(|line| line.starts_with(name))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            };
            (field("Private_Clean:").unwrap_or(0) + field("Private_Dirty:").unwrap_or(0)) * 1024
        };
        self.pids().iter().map(of).sum()
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

struct Ports {
    echo: SocketAddr,
    source: SocketAddr,
    folder: String,
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("loopback has a free port")
}

fn haproxy(ports: &Ports, servers: &Servers) -> (String, Vec<String>) {
    let mut text = format!(
        "global\n  nbthread {THREADS}\n  maxconn 6000\n\
         defaults\n  mode tcp\n  option splice-auto\n  balance leastconn\n  maxconn 6000\n\
         \x20 timeout connect 3s\n  timeout client 1h\n  timeout server 1h\n"
    );
    for (name, bind, servers) in [
        ("echo", ports.echo, &servers.echo),
        ("source", ports.source, &servers.source),
    ] {
        text += &format!("frontend {name}\n  bind {bind}\n  default_backend {name}\nbackend {name}\n");
        for (number, server) in servers.iter().enumerate() {
            text += &format!("  server s{number} {server} check inter 2s\n");
        }
    }
    (text, ["haproxy", "-db", "-f"].map(str::to_owned).to_vec())
}

fn nginx(ports: &Ports, servers: &Servers) -> (String, Vec<String>) {
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nworker_processes {THREADS};\n\
         pid {folder}/pid;\nerror_log /dev/null;\nevents {{ worker_connections 16000; }}\n\
         stream {{\n  access_log off;\n  tcp_nodelay on;\n",
        folder = ports.folder
    );
    for (name, bind, servers) in [
        ("echo", ports.echo, &servers.echo),
        ("source", ports.source, &servers.source),
    ] {
        text += &format!("  upstream {name} {{\n    least_conn;\n");
        for server in servers {
            text += &format!("    server {server};\n");
        }
        text += &format!("  }}\n  server {{ listen {bind} reuseport; proxy_pass {name}; }}\n");
    }
    (text + "}\n", ["nginx", "-c"].map(str::to_owned).to_vec())
}

fn acequia(ports: &Ports, servers: &Servers, access: &str) -> (String, Vec<String>) {
    let mut text = format!("[runtime]\nworkers = {THREADS}\n[admin]\nsocket = \"off\"\n[log]\naccess = \"{access}\"\n");
    for (name, bind, servers) in [
        ("echo", ports.echo, &servers.echo),
        ("source", ports.source, &servers.source),
    ] {
        let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
        text += &format!(
            "[listeners.{name}]\nbind = \"{bind}\"\npool = \"{name}\"\n[pools.{name}]\nservers = [{}]\n",
            servers.join(", ")
        );
    }
    (
        text,
        [env!("CARGO_BIN_EXE_acequia"), "run", "-c"].map(str::to_owned).to_vec(),
    )
}
